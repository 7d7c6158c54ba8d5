# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Splitting by prompt, in exact proportions: no prompt is in two splits, and the shares add up to one.

Input:  {"train": 0.8, "test": 0.2} and the ids of the prompts
Output: an assignment, for which assignment["9f86d081884c7d65"] is "train"

Which split a prompt falls into depends on the seed and on the set of prompts, not on their order.
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

from nemo_aligner_cai.chat import NEMO_CHAT, NemoChatTemplate
from nemo_aligner_cai.data.formats.files import format_named, read_groups, read_records
from nemo_aligner_cai.data.records import Record, prompt_of
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, RowCounts, content_hash, jsonl_writer
from nemo_aligner_cai.files.compact import CompactSet
from nemo_aligner_cai.files.output_paths import check_output

Splits = dict[str, Decimal]
NAME = re.compile(r"[\w.-]+")
NAME_FORM = "letters, digits, '_', '.' and '-' alone"


def parse_splits(value: str | Mapping[str, float | str | Decimal]) -> Splits:
    """The share of each split, from a mapping or from a Python literal such as ``{'train': 0.8, 'test': 0.2}``.

    Shares are read as the decimals that they are written as: 0.7 + 0.2 + 0.1 is 1.

    Raises:
        UsageError: not a mapping of names to positive numbers, or the sum is not 1.
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


def parse_mapping(flag: str, text: str, form: str) -> dict[str, Any]:
    """The mapping that a flag's text is, a Python literal with texts as keys; `form` is an example for the error.

    Raises:
        UsageError: it is anything else.
    """
    value: Any = None
    with suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = ast.literal_eval(text.strip())
    entries = cast(dict[Any, Any], value if isinstance(value, dict) else {})
    if not entries or not all(isinstance(key, str) for key in entries):
        raise UsageError(f"{flag} must look like {form}, it is {text!r}")
    return entries


def split_counts(total: int, splits: Splits) -> dict[str, int]:
    """How many of `total` prompts each split gets: its share rounded, all of them together `total`, none empty.

    Raises:
        UsageError: there are fewer prompts than splits.
    """
    if total < len(splits):
        raise UsageError(f"{total} prompts cannot be split into {', '.join(splits)}; every split needs one at least")
    exact = {name: share * total for name, share in splits.items()}
    counts = {name: max(1, int(share)) for name, share in exact.items()}
    # What rounding down leaves over goes to the largest remainders; what `max` took comes from the largest split.
    for name in sorted(splits, key=lambda name: counts[name] - exact[name])[: max(0, total - sum(counts.values()))]:
        counts[name] += 1
    while sum(counts.values()) > total:
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return counts


@dataclass(frozen=True)
class Assignment:
    """Which split each prompt is in: ``assignment[prompt_id]``. Of the prompts it holds nothing but their order."""

    seed: int
    names: tuple[str, ...]
    bounds: tuple[int, ...]
    """The first place in the order of each split but the first."""

    def __getitem__(self, prompt_id: str) -> str:
        return self.names[bisect_right(self.bounds, _place(prompt_id, self.seed))]


def _place(prompt_id: str, seed: int) -> int:
    # A hash for each prompt, and not a shuffle, so that the order of the ids does not matter.
    return int(content_hash([seed, prompt_id]), 16)


def assign_splits(prompt_ids: Iterable[str], splits: Splits, *, seed: int) -> Assignment:
    """Divide prompts among splits; memory grows by 11 bytes a prompt, until it is done.

    Raises:
        UsageError: there are fewer different prompts than splits.
    """
    places = CompactSet()
    for prompt_id in prompt_ids:
        places.add(_place(prompt_id, seed))
    counts = split_counts(len(places), splits)
    firsts = set(list(accumulate(counts.values()))[:-1])
    bounds = (place for number, place in enumerate(places) if number in firsts)
    return Assignment(seed, tuple(splits), tuple(bounds))


def split_file(
    source: PathLike,
    targets: Mapping[str, PathLike],
    splits: Splits,
    *,
    seed: int,
    format_name: str,
    counts: RowCounts,
    template: NemoChatTemplate = NEMO_CHAT,
    overwrite: bool = False,
) -> dict[str, int]:
    """Divide a file's rows, as they are, among files of JSON lines: by prompt, pairs together, in their order.

    The file is read twice; memory grows by 11 bytes a prompt.

    Args:
        source: what to read, see `nemo_aligner_cai.files.sources`.
        targets: the file of each split.
        splits: the share of each.
        seed: of the division.
        format_name: the format of the source and of the targets.
        counts: receives the source's rows.
        template: of the formats that hold rendered text.
        overwrite: whether existing targets may be replaced.

    Returns:
        The rows of each split.

    Raises:
        UsageError, FormatError: as `read_groups` and `assign_splits`, or a target exists or is missing.
    """
    if format_named(format_name).suffix != ".jsonl":
        raise UsageError(f"{format_name} is not JSON lines, and only those are split; convert the file after")
    if set(targets) != set(splits):
        raise UsageError(f"files are given for {', '.join(targets)}, the splits are {', '.join(splits)}")
    for target in targets.values():
        check_output(target, overwrite=overwrite)
    records = read_records(source, format_name, counts=RowCounts(), template=template)
    assigned = assign_splits(map(record_prompt_id, records), splits, seed=seed)
    written = dict.fromkeys(splits, 0)
    with ExitStack() as stack:
        write = {
            name: stack.enter_context(jsonl_writer(target, overwrite=overwrite)) for name, target in targets.items()
        }
        for group in read_groups(source, format_name, counts=counts, template=template):
            name = assigned[record_prompt_id(group.record)]
            for row in group.rows:
                write[name](row)
            written[name] += len(group.rows)
    return written


def record_prompt_id(record: Record) -> str:
    """A record's prompt, as a content hash: the same for a comparison, a prompt and a conversation that share it."""
    return content_hash(prompt_of(record).to_messages())
