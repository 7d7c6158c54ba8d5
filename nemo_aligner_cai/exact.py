# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Exact arithmetic on the decimal numbers that people write.

Input:  0.2, as a flag or a file has it
Output: Fraction(1, 5)

In binary floating point ``2 * 0.6 - 1 < 0.2``, so a limit that is met exactly would count as missed.
"""

from fractions import Fraction


def exact(number: float | Fraction) -> Fraction:
    """The decimal number that a float was written as, by its shortest spelling; a fraction is returned unchanged."""
    return number if isinstance(number, Fraction) else Fraction(repr(float(number)))
