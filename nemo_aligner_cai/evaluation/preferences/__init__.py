# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Preferences between replies: audits of judges, their agreement, and models compared in pairs."""
