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
"""What a format of training data is: how a record stands in one or more rows, and how rows are told apart."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from nemo_aligner_cai.conversation import NemoChatTemplate
from nemo_aligner_cai.data.records import Kind, Record
from nemo_aligner_cai.files import Row


class Format(ABC):
    """One format. For every record it can hold, ``read(write(record)) == record``.

    Reading is validating: `read` raises RowError for whatever the trainers would stumble over or silently misread.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    """One line for users: who reads it."""
    kind: ClassVar[Kind]
    """What its records are."""
    group: ClassVar[int] = 1
    """Consecutive rows that make one record."""
    lenient: ClassVar[bool] = False
    """Whether rows that cannot be understood are counted and left out, as in published data that has a few of them,
    and not refused."""

    @abstractmethod
    def matches(self, row: Row) -> bool:
        """Whether a row looks like this format, by its keys and their types."""

    @abstractmethod
    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """The record of `group` consecutive rows.

        Raises:
            UsageError: a key is wrong; RowError where the row and key are known.
        """

    @abstractmethod
    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """The `group` rows of a record, which is of this format's `kind`."""


def with_dataset(row: Row, dataset: str | None) -> Row:
    """The row with its origin, where that is known."""
    return row if dataset is None else {**row, "dataset": dataset}
