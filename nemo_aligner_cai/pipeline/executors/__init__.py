# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Where the steps of a run are executed: on this machine, or as jobs of a Slurm cluster."""
