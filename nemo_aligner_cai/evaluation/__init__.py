# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Statistics of model outputs: rates with intervals, judge accuracy, bias and agreement."""
