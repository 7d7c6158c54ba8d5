# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The terminal and the process: printable text, progress, standard streams, secrets on command lines."""
