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
"""Leaving out what is there already."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from nemo_aligner_cai.compact import CompactSet
from nemo_aligner_cai.files import Balance, content_hash

Item = TypeVar("Item")


def drop_duplicates(
    items: Iterable[Item], *, key: Callable[[Item], object], balance: Balance, reason: str = "duplicate"
) -> Iterator[Item]:
    """The items whose key comes for the first time, in order; the others are counted in `balance` under `reason`.

    A key is anything that JSON can hold; 64 bits of its hash are remembered, 11 bytes an item.
    """
    seen = CompactSet()
    for item in items:
        balance.rows_in += 1
        if seen.add(int(content_hash(key(item)), 16)):
            balance.written += 1
            yield item
        else:
            balance.leave_out(reason)
