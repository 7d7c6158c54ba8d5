# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Leaving out what is there already."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

from nemo_aligner_cai.chat import NEMO_CHAT, NemoChatTemplate
from nemo_aligner_cai.data.formats.files import Group, format_named, read_groups
from nemo_aligner_cai.data.formats.writers import write_rows
from nemo_aligner_cai.data.records import Record, conversations_of
from nemo_aligner_cai.data.split import record_prompt_id
from nemo_aligner_cai.files import PathLike, Row, RowCounts, content_hash
from nemo_aligner_cai.files.compact import CompactSet
from nemo_aligner_cai.files.output_paths import check_output

Item = TypeVar("Item")


def record_id(record: Record) -> str:
    """What a record says, as a content hash; whatever its origin and rewards are."""
    whole = [conversation.to_messages() for conversation in conversations_of(record)]
    return content_hash([whole, getattr(record, "good", None), getattr(record, "scores", None)])


def drop_duplicates(
    items: Iterable[Item],
    *,
    key: Callable[[Item], object],
    counts: RowCounts,
    reason: str = "duplicate",
    rows: Callable[[Item], int] = lambda _: 1,
) -> Iterator[Item]:
    """The items whose key comes for the first time, in order; the others are counted in `counts` under `reason`.

    Args:
        items: what is to be looked at.
        key: anything that JSON can hold; 64 bits of its hash are remembered, 11 bytes an item.
        counts: receives the items read, those yielded as written, and those left out.
        reason: to leave one out.
        rows: what an item counts for.
    """
    seen = CompactSet()
    for item in items:
        count = rows(item)
        counts.rows_in += count
        if seen.add(int(content_hash(key(item)), 16)):
            counts.written += count
            yield item
        else:
            counts.skip(reason, count)


def dedup_file(
    source: PathLike,
    target: PathLike,
    *,
    by: Literal["record", "prompt"] = "record",
    format_name: str,
    template: NemoChatTemplate = NEMO_CHAT,
    overwrite: bool = False,
) -> RowCounts:
    """Copy the rows, as they are, of the records that come for the first time; a pair goes or stays as one.

    Args:
        source: what to read, see `nemo_aligner_cai.files.sources`.
        target: the file to write.
        by: what counts as a repetition: all of what a record says, or its prompt.
        format_name: the format of both.
        template: of the formats that hold rendered text.
        overwrite: whether an existing target may be replaced.

    Returns:
        Where the source's rows went.

    Raises:
        UsageError, FormatError: as `read_groups`, or the target exists.
    """
    check_output(target, overwrite=overwrite)
    counts, read = RowCounts(), RowCounts()
    identity = record_id if by == "record" else record_prompt_id
    first = drop_duplicates(
        read_groups(source, format_name, counts=read, template=template),
        key=lambda group: identity(group.record),
        counts=counts,
        reason=f"repeated {by}",
        rows=_rows_of,
    )

    def rows() -> Iterator[Row]:
        for group in first:
            yield from group.rows
        counts.rows_in = read.rows_in
        counts.skipped.update(read.skipped)
        counts.check()
        # Raised before the target is put in place.
        counts.require_written(source)

    write_rows(target, rows(), format_named(format_name), overwrite=overwrite)
    return counts


def _rows_of(group: Group) -> int:
    return len(group.rows)
