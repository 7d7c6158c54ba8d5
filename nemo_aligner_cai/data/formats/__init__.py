# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Data formats: one module for each family of trainers or data sets, and the table of all formats."""
