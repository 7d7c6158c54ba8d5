# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Exact arithmetic on the decimal numbers that people write.

Input:  0.2, as a flag or a file has it
Output: Fraction(1, 5)

In binary floating point ``2 * 0.6 - 1 < 0.2``, so a limit that is met exactly would count as missed.
"""

from fractions import Fraction


def exact(number: float | Fraction) -> Fraction:
    """The decimal number that a float was written as, by its shortest spelling; a fraction is returned unchanged."""
    return number if isinstance(number, Fraction) else Fraction(repr(float(number)))
