# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The commands of `cai`: each module has the functions ``add_arguments(parser)`` and ``run(args)``."""
