# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tiny assistant: a small language, a corpus in it, a model that speaks it, and an exact oracle."""
