# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What needs a GPU: one script that measures, and the tests that hold its figures against what must be true."""
