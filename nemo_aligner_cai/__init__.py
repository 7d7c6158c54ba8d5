# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Constitutional AI for NVIDIA NeMo-Aligner."""

__version__ = "0.1.0"
