# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Blend data files into one shuffled file. Pairs stay together, and every row names its data set.

Input:  cai_train_comparisons.jsonl, anthropic_helpful_train_comparisons.jsonl
Output: one file with the rows of both, each with a key "dataset", in an order that depends only on the seed
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

from nemo_aligner_cai.data.formats.all_formats import detect_format, format_named
from nemo_aligner_cai.data.formats.files import require_plain_lines, validate_file
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, Row, write_jsonl
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.files.reading import open_stored

_OFFSET_BITS = 48
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1
"""A record's location is the index of its file in the upper 16 bits and its offset in the lower 48 (256 TiB)."""


@dataclass
class Blend:
    """The contents of a blended file: its format and the rows of each data set. `skipped` rows exceeded a weight."""

    format: str
    rows: dict[str, int] = field(default_factory=dict[str, int])
    skipped: int = 0

    def __str__(self) -> str:
        parts = ", ".join(f"{count} from {name}" for name, count in self.rows.items())
        skipped = f", {self.skipped} skipped by weight" if self.skipped else ""
        return f"{sum(self.rows.values())} rows of {self.format} ({parts}){skipped}"


def blend_files(
    sources: Sequence[PathLike],
    target: PathLike,
    *,
    seed: int,
    weights: Sequence[float] | None = None,
    format_name: str | None = None,
    overwrite: bool = False,
) -> Blend:
    """Write all rows of the sources, or a sample of them by weight, in one random order.

    Rows are copied unchanged, except that rows without the key ``dataset`` get it: the source's stem, with its folder
    if two sources have the same stem. Memory holds 8 bytes per record.

    Args:
        sources: Plain .jsonl files of one format; a file that is given several times has as many copies of its rows.
            All are validated before anything is written.
        target: The file to write. It may not be one of the sources.
        seed: The seed of the order and of the sample.
        weights: The share of each source in the written records. They need not add up to 1. The blend is the largest
            without duplicate records; Megatron's would repeat the records of small files. None: all rows.
        format_name: The format, None to detect it.
        overwrite: Replace an existing target.

    Raises:
        UsageError: No sources, sources of different formats or compressed ones, an existing target, or weights that
            do not match the sources, are not positive, or are too small for one record.
        FormatError: A row is invalid.
    """
    if not sources:
        raise UsageError("nothing to blend: no files are given")
    paths = [Path(source) for source in sources]
    if weights is not None and (len(weights) != len(paths) or not all(0 < weight < math.inf for weight in weights)):
        raise UsageError(f"a positive weight is needed for each of the {len(paths)} files, got {list(weights)}")
    if os.path.realpath(target) in map(os.path.realpath, paths):
        raise UsageError(f"{target}: is one of the files to blend; choose another name")
    check_output(target, overwrite=overwrite)
    name = _one_format(paths, format_name)
    for path in dict.fromkeys(paths):
        require_plain_lines(path)
        validate_file(path, name)
    blend = Blend(name)
    group = format_named(name).group
    with ExitStack() as stack:
        handles = [stack.enter_context(open_stored(path)) for path in paths]
        locations = array("Q")
        bounds = [0]
        for index, handle in enumerate(handles):
            locations.extend(index << _OFFSET_BITS | offset for offset in _offsets(handle, group))
            bounds.append(len(locations))
        rng = random.Random(seed)
        if weights is not None:
            total = len(locations)
            locations = _sample(locations, bounds, _sample_sizes(paths, bounds, weights), rng)
            blend.skipped = group * (total - len(locations))
        rng.shuffle(locations)
        write_jsonl(target, _rows(handles, _dataset_names(paths), locations, group, blend), overwrite=overwrite)
    return blend


def _sample_sizes(paths: Sequence[Path], bounds: Sequence[int], weights: Sequence[float]) -> list[int]:
    """The number of records of each file in the largest blend with these weights."""
    counts = [end - start for start, end in pairwise(bounds)]
    total = min(count / weight for count, weight in zip(counts, weights, strict=True))
    sizes = [min(count, round(total * weight)) for count, weight in zip(counts, weights, strict=True)]
    for path, size in zip(paths, sizes, strict=True):
        if not size:
            raise UsageError(f"{path}: its weight is too small for one record; give a larger weight, or drop the file")
    return sizes


def _sample(locations: "array[int]", bounds: Sequence[int], sizes: Sequence[int], rng: random.Random) -> "array[int]":
    sampled = array("Q")
    for (start, end), size in zip(pairwise(bounds), sizes, strict=True):
        sampled.extend(locations[start + index] for index in rng.sample(range(end - start), size))
    return sampled


def _one_format(paths: Sequence[Path], format_name: str | None) -> str:
    names = {path: format_name or detect_format(path) for path in paths}
    if len(set(names.values())) > 1:
        listed = ", ".join(f"{path} is {name}" for path, name in names.items())
        raise UsageError(f"files of different formats cannot be blended: {listed}")
    return next(iter(names.values()))


def _dataset_names(paths: Sequence[Path]) -> list[str]:
    names = Counter(path.stem for path in dict.fromkeys(paths))
    return [path.stem if names[path.stem] == 1 else f"{path.resolve().parent.name}/{path.stem}" for path in paths]


def _offsets(handle: BinaryIO, group: int) -> Iterator[int]:
    """The offset of the first line of each record."""
    offset = 0
    for number, line in enumerate(handle):
        if number % group == 0:
            yield offset
        offset += len(line)


def _rows(
    handles: Sequence[BinaryIO], names: Sequence[str], locations: "array[int]", group: int, blend: Blend
) -> Iterator[Row]:
    for location in locations:
        index, offset = location >> _OFFSET_BITS, location & _OFFSET_MASK
        handles[index].seek(offset)
        for _ in range(group):
            row = cast(Row, orjson.loads(handles[index].readline()))
            if row.get("dataset") is None:
                row["dataset"] = names[index]
            blend.rows[row["dataset"]] = blend.rows.get(row["dataset"], 0) + 1
            yield row
