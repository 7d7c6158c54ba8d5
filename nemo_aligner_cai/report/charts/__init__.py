# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, made by small functions: no library, no script, readable in print and by a screen reader."""
