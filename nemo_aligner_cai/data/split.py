# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Split data by prompt in exact proportions. No prompt is in two splits.

Input:  {"train": 0.8, "test": 0.2} and the ids of the prompts
Output: an assignment: assignment["9f86d081884c7d65"] == "train"

The split of a prompt depends on the seed and on the set of prompts, not on their order.
"""

import ast
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import accumulate
from typing import Any, cast

from nemo_aligner_cai.data.formats.all_formats import format_named
from nemo_aligner_cai.data.formats.files import read_groups, read_records
from nemo_aligner_cai.data.records import record_prompt_id
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, RowCounts, content_hash, jsonl_writer
from nemo_aligner_cai.files.compact_sets import CompactSet
from nemo_aligner_cai.files.output_paths import check_output

Splits = dict[str, Decimal]
NAME = re.compile(r"[\w.-]+")
NAME_FORM = "letters, digits, '_', '.' and '-' alone"


def parse_splits(value: str | Mapping[str, float | str | Decimal]) -> Splits:
    """Parse the share of each split from a mapping or a Python literal such as ``{'train': 0.8, 'test': 0.2}``.

    Shares are decimals: 0.7 + 0.2 + 0.1 is 1.

    Raises:
        UsageError: The value is not a mapping of names to positive numbers, or the sum is not 1.
    """
    entries = parse_mapping("--splits", value, "{'train': 0.8, 'test': 0.2}") if isinstance(value, str) else value
    splits: Splits = {}
    for name, share in entries.items():
        if not NAME.fullmatch(name):
            raise UsageError(f"--splits: the name {name!r} becomes part of the file names: {NAME_FORM}")
        try:
            splits[name] = Decimal(str(share))
        except InvalidOperation as error:
            raise UsageError(f"--splits: the share of {name!r} must be a number, it is {share!r}") from error
        if not splits[name].is_finite() or splits[name] <= 0:
            raise UsageError(f"--splits: the share of {name!r} must be positive, it is {share}")
    if (total := sum(splits.values())) != 1:
        raise UsageError(f"--splits: the shares must add up to 1, they add up to {total}")
    return splits


def share_and_rest(share: float) -> tuple[Decimal, Decimal]:
    """A share, and what it leaves of 1, for two splits; as decimals: 0.9 leaves 0.1."""
    decimal = Decimal(str(share))
    return decimal, 1 - decimal


def parse_mapping(flag: str, text: str, form: str) -> dict[str, Any]:
    """Parse a flag's value as a Python literal of a mapping with string keys. `form` is an example for the error.

    Raises:
        UsageError: The value is anything else.
    """
    value: Any = None
    with suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = ast.literal_eval(text.strip())
    entries = cast(dict[Any, Any], value if isinstance(value, dict) else {})
    if not entries or not all(isinstance(key, str) for key in entries):
        raise UsageError(f"{flag} must look like {form}, it is {text!r}")
    return entries


def split_counts(total: int, splits: Splits) -> dict[str, int]:
    """The number of prompts of each split: its rounded share, at least 1. The numbers add up to `total`.

    Raises:
        UsageError: There are fewer prompts than splits.
    """
    if total < len(splits):
        raise UsageError(f"{total} prompts cannot be split into {', '.join(splits)}; every split needs at least one")
    exact = {name: share * total for name, share in splits.items()}
    counts = {name: max(1, int(share)) for name, share in exact.items()}
    # The largest remainders get what rounding down left. The largest split gives what `max` added.
    for name in sorted(splits, key=lambda name: counts[name] - exact[name])[: max(0, total - sum(counts.values()))]:
        counts[name] += 1
    while sum(counts.values()) > total:
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return counts


@dataclass(frozen=True)
class Assignment:
    """The split of each prompt: ``assignment[prompt_id]``. It holds only the boundaries between splits."""

    seed: int
    names: tuple[str, ...]
    bounds: tuple[int, ...]
    """The smallest hash of each split except the first."""

    def __getitem__(self, prompt_id: str) -> str:
        return self.names[bisect_right(self.bounds, _hash(prompt_id, self.seed))]


def _hash(prompt_id: str, seed: int) -> int:
    # Unlike a shuffle, a hash does not depend on the order of the ids.
    return int(content_hash([seed, prompt_id]), 16)


def assign_splits(prompt_ids: Iterable[str], splits: Splits, *, seed: int) -> Assignment:
    """Assign prompts to splits. Needs 11 bytes per prompt while it runs.

    Raises:
        UsageError: There are fewer different prompts than splits.
    """
    hashes = CompactSet()
    for prompt_id in prompt_ids:
        hashes.add(_hash(prompt_id, seed))
    counts = split_counts(len(hashes), splits)
    firsts = set(list(accumulate(counts.values()))[:-1])
    bounds = (value for number, value in enumerate(hashes) if number in firsts)
    return Assignment(seed, tuple(splits), tuple(bounds))


def split_file(
    source: PathLike,
    targets: Mapping[str, PathLike],
    splits: Splits,
    *,
    seed: int,
    format_name: str,
    counts: RowCounts,
    overwrite: bool = False,
) -> dict[str, int]:
    """Split a file's rows by prompt into files of JSON lines. Rows are copied unchanged and in order.

    The file is read twice.

    Args:
        source: The data to read, see `nemo_aligner_cai.files.sources`.
        targets: The file of each split.
        splits: The share of each split.
        seed: The seed of the assignment.
        format_name: The format of the source and of the targets.
        counts: Receives the source's rows.
        overwrite: Replace existing targets.

    Returns:
        The number of rows of each split.

    Raises:
        UsageError, FormatError: As `read_groups` and `assign_splits`, or a target exists or is missing.
    """
    if format_named(format_name).suffix != ".jsonl":
        raise UsageError(f"{format_name} is not JSON lines and cannot be split; convert the parts after splitting")
    if set(targets) != set(splits):
        raise UsageError(f"the targets are {', '.join(targets)}, the splits are {', '.join(splits)}")
    for target in targets.values():
        check_output(target, overwrite=overwrite)
    records = read_records(source, format_name, counts=RowCounts())
    assigned = assign_splits(map(record_prompt_id, records), splits, seed=seed)
    written = dict.fromkeys(splits, 0)
    with ExitStack() as stack:
        write = {
            name: stack.enter_context(jsonl_writer(target, overwrite=overwrite)) for name, target in targets.items()
        }
        for group in read_groups(source, format_name, counts=counts):
            name = assigned[record_prompt_id(group.record)]
            for row in group.rows:
                write[name](row)
            written[name] += len(group.rows)
    return written
