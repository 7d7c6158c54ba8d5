# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Findings of the Constitutional AI paper and of RLAIF in miniature: each arm changes one thing of the quickstart."""
