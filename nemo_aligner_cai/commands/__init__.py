# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The subcommands of ``cai``: each module has ``add_parser(subparsers)``, whose parser's ``run`` does the work."""
