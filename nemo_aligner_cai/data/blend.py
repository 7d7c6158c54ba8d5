# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Blending data files into one, shuffled: pairs stay pairs, every row says where it comes from, no row is lost.

Input:  cai_train_comparisons.jsonl, anthropic_helpful_train_comparisons.jsonl
Output: one file with the rows of both, each with a key "dataset", in an order that depends on the seed alone
"""

import math
import os
import random
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

import orjson

from nemo_aligner_cai.chat import NEMO_CHAT, NemoChatTemplate
from nemo_aligner_cai.data.formats.files import detect_format, format_named, require_plain_lines, validate_file
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, Row, write_jsonl
from nemo_aligner_cai.files.output_paths import check_output

_OFFSET_BITS = 48
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1
"""A record's place is its file's number in the upper 16 bits and its offset in the lower 48 (256 TiB)."""


@dataclass
class Blend:
    """What went into a blended file: its format, and the rows of each origin; `left_out` are those beyond a weight."""

    format: str
    rows: dict[str, int] = field(default_factory=dict[str, int])
    left_out: int = 0

    def __str__(self) -> str:
        parts = ", ".join(f"{count} from {name}" for name, count in self.rows.items())
        rest = f", {self.left_out} left out by their weights" if self.left_out else ""
        return f"{sum(self.rows.values())} rows of {self.format} ({parts}){rest}"


def blend_files(
    sources: Sequence[PathLike],
    target: PathLike,
    *,
    seed: int,
    weights: Sequence[float] | None = None,
    format_name: str | None = None,
    template: NemoChatTemplate = NEMO_CHAT,
    overwrite: bool = False,
) -> Blend:
    """Write the rows of all sources, or of each a share, in one random order.

    Rows are copied as they are, and get the key ``dataset`` where they have none: the source's name without its
    ending, and its folder's too where two sources have one name. Only their places are held in memory, 8 bytes a
    record.

    Args:
        sources: plain .jsonl files of one format; each is validated before anything is written.
        target: the file to write; may not be one of the sources.
        seed: of the order, and of what is drawn by weights.
        weights: of each source its share of the records that are written; they need not add up to 1. The blend is the
            largest in which no record stands twice, where Megatron's would repeat the small files'. None: all rows.
        format_name: the format; None to detect it.
        template: of the formats that hold rendered text.
        overwrite: whether an existing target may be replaced.

    Raises:
        UsageError: no sources, sources of different formats, packed ones, an existing target, or weights that are not
            one for each source, positive and large enough for one record.
        FormatError: a row of a source is wrong.
    """
    if not sources:
        raise UsageError("nothing to blend: no files are given")
    paths = [Path(source) for source in sources]
    if weights is not None and (len(weights) != len(paths) or not all(0 < weight < math.inf for weight in weights)):
        raise UsageError(f"a positive weight is needed for each of {len(paths)} files, not {list(weights)}")
    if os.path.realpath(target) in map(os.path.realpath, paths):
        raise UsageError(f"{target}: is one of the files to blend; choose another name")
    check_output(target, overwrite=overwrite)
    name = _one_format(paths, format_name)
    for path in paths:
        require_plain_lines(path)
        validate_file(path, name, template=template)
    blend = Blend(name)
    group = format_named(name).group
    with ExitStack() as stack:
        handles = [stack.enter_context(path.open("rb")) for path in paths]
        places = array("Q")
        bounds = [0]
        for index, handle in enumerate(handles):
            places.extend(index << _OFFSET_BITS | offset for offset in _offsets(handle, group))
            bounds.append(len(places))
        order = random.Random(seed)
        if weights is not None:
            everything = len(places)
            places = _drawn(places, bounds, _shares(paths, bounds, weights), order)
            blend.left_out = group * (everything - len(places))
        order.shuffle(places)
        write_jsonl(target, _copy(handles, _origins(paths), places, group, blend), overwrite=overwrite)
    return blend


def _shares(paths: Sequence[Path], bounds: Sequence[int], weights: Sequence[float]) -> list[int]:
    """How many records of each file make the largest blend with these weights."""
    counts = [end - start for start, end in pairwise(bounds)]
    total = min(count / weight for count, weight in zip(counts, weights, strict=True))
    shares = [min(count, round(total * weight)) for count, weight in zip(counts, weights, strict=True)]
    for path, share in zip(paths, shares, strict=True):
        if not share:
            raise UsageError(
                f"{path}: not one record of it would be in the blend; give it a larger weight, or leave it"
            )
    return shares


def _drawn(places: "array[int]", bounds: Sequence[int], shares: Sequence[int], order: random.Random) -> "array[int]":
    """Of each file's places as many as its share, at random."""
    drawn = array("Q")
    for (start, end), share in zip(pairwise(bounds), shares, strict=True):
        drawn.extend(places[start + index] for index in order.sample(range(end - start), share))
    return drawn


def _one_format(paths: Sequence[Path], format_name: str | None) -> str:
    names = {path: format_name or detect_format(path) for path in paths}
    if len(set(names.values())) > 1:
        listed = ", ".join(f"{path} is {name}" for path, name in names.items())
        raise UsageError(f"files of different formats cannot be blended: {listed}")
    return next(iter(names.values()))


def _origins(paths: Sequence[Path]) -> list[str]:
    names = Counter(path.stem for path in paths)
    return [path.stem if names[path.stem] == 1 else f"{path.resolve().parent.name}/{path.stem}" for path in paths]


def _offsets(handle: BinaryIO, group: int) -> Iterator[int]:
    """The places of the first line of each record."""
    offset = 0
    for number, line in enumerate(handle):
        if number % group == 0:
            yield offset
        offset += len(line)


def _copy(
    handles: Sequence[BinaryIO], origins: Sequence[str], places: "array[int]", group: int, blend: Blend
) -> Iterator[Row]:
    for place in places:
        index, offset = place >> _OFFSET_BITS, place & _OFFSET_MASK
        handles[index].seek(offset)
        for _ in range(group):
            row = cast(Row, orjson.loads(handles[index].readline()))
            if row.get("dataset") is None:
                row["dataset"] = origins[index]
            blend.rows[row["dataset"]] = blend.rows.get(row["dataset"], 0) + 1
            yield row
