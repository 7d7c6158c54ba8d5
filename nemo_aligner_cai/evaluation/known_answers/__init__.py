# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Judges and reward models on items whose better reply is known: accuracy, rules for two orders, file formats."""
