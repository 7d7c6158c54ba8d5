# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Statistics of rates, differences, pairs, labels and probabilities; they know nothing of models and files."""
