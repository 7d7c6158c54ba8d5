# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Readers of rows from files of many kinds, folders in the layout of the Hugging Face hub, and the hub.

    prompts.jsonl, .jsonl.gz, .json                one JSON object per line, or one JSON list (a string is a prompt)
    prompts.txt, prompts.csv                       one prompt per line; a table whose first line names the columns
    train-00000-of-00001.parquet                   rows of a table; needs the extra [hf]
    helpful-base/{train,test}.jsonl.gz             a folder: the files of one split
    hf://datasets/Anthropic/hh-rlhf/helpful-base   a data set on the hub, or one of its folders; needs the extra [hf]

One row is in memory at a time, or a few of parquet. A row may have up to 16 MiB after decompression.
"""

import csv
import importlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, cast

from nemo_aligner_cai.errors import FormatError, NotUtf8Error, UsageError, one_line
from nemo_aligner_cai.extras import not_installed
from nemo_aligner_cai.files import PathLike, Row, read_items, read_jsonl, read_lines, require_file
from nemo_aligner_cai.files.parquet import parquet_rows
from nemo_aligner_cai.files.reading import (
    GZIP_ERRORS,
    MAX_ROW_BYTES,
    damaged_gzip,
    decoded,
    is_json_list,
    open_binary,
    open_stored,
    require_no_nul,
)

HUB = "hf://datasets/"
"""The prefix of data sets on the hub."""
_KIND = re.compile(r"\.(jsonl|json|csv|txt|parquet)(\.gz)?$", re.IGNORECASE)
_NO_DATA = re.compile(r"(dataset_(infos?|dict)|state|config)\.json|(readme|license|notice)\.txt", re.IGNORECASE)
"""Names of files that describe a folder of data: those of the hub and of the library datasets, and a license."""
_DIGITS = re.compile(r"\d+")
_SPLITS = ("train", "test", "validation")
_DEFAULT_SPLIT = "train"
_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True)
class HubData:
    """A split of a data set on the hub, or of one of its folders."""

    name: str
    folder: str | None
    split: str

    def __str__(self) -> str:
        return "/".join(filter(None, (f"{HUB}{self.name}", self.folder)))


DataFile = Path | HubData


def data_files(source: PathLike, split: str | None = None) -> list[DataFile]:
    """List the files of a source in reading order: the file itself, a folder's files, or a data set on the hub.

    Args:
        source: one of the forms in the module's docstring.
        split: the split to read; None for a file, for all files of a folder without splits, and else for "train" or
            the only split.

    Raises:
        UsageError: the file cannot be read or is not of the split, or the folder has no data of the split, data of
            several ones, the same data twice, or a file that may be data or not.
    """
    if str(source).startswith(HUB):
        owner, name, *folders = f"{source}/".removeprefix(HUB).split("/")
        if not (owner and name):
            raise UsageError(f"{source}: must look like {HUB}Anthropic/hh-rlhf or {HUB}Anthropic/hh-rlhf/helpful-base")
        return [HubData(f"{owner}/{name}", "/".join(filter(None, folders)) or None, split or _DEFAULT_SPLIT)]
    path = Path(source)
    if os.path.isdir(path):
        return [*_folder_files(path, split)]
    if split is not None and split not in (_split_of(path), _split_kind(path)):
        raise _without_splits(require_file(path), split)
    return [require_file(path)]


def _folder_files(folder: Path, split: str | None) -> list[Path]:
    files, wanted = _data_files_in(folder), split or _DEFAULT_SPLIT
    if not files:
        raise UsageError(f"{folder}: no .jsonl, .jsonl.gz, .csv or .parquet file in it")
    # The names of splits, and what they begin with: "train" of train_sft and train_prefs.
    splits = {_split_of(file): kind for file in files if (kind := _split_kind(file)) is not None}
    if split is None and splits:
        require_splits(folder)
    if own := split_files(folder, wanted):
        return own
    if not splits and split is not None:
        raise _without_splits(folder, split)
    if not splits:
        return files
    found = {name for name, kind in splits.items() if kind == wanted}
    if not found and split is None:
        found = set(splits)
    # Names that differ only in numbers are parts of one split; others may have rows of different kinds.
    if len({_DIGITS.sub("", name) for name in found}) == 1:
        return [file for file in files if _split_of(file) in found]
    names = ", ".join(sorted(splits))
    if split is None:
        raise UsageError(
            f"{folder}: has files of several splits, {names}; give one of the files itself or, where there is "
            "--split, one of these names"
        )
    raise UsageError(
        f"{folder}: no file of the split {split!r} in it, but of {names}; give one of these names as --split, or "
        f"rename the file of this split to {split}"
    )


def _without_splits(source: Path, split: str) -> UsageError:
    return UsageError(
        f"{source}: has no split {split!r}; give a folder with files whose names begin with their splits, such as "
        "train.jsonl and test.jsonl"
    )


def _split_of(file: Path) -> str:
    return file.name.split(".")[0].split("-")[0].lower()


def _split_kind(file: Path) -> str | None:
    """The split that a file's name begins with, "train" of train_sft; None without one."""
    kind = _split_of(file).split("_")[0]
    return kind if kind in _SPLITS else None


def require_splits(folder: Path) -> None:
    """Raise UsageError for a data file in a folder tree whose name begins with no split: it would not be read."""
    for file in _data_files_in(folder):
        if _split_kind(file) is None:
            raise UsageError(
                f"{folder}: the name of {file.relative_to(folder)} begins with no split, the names of other files do; "
                "rename it (train_0, train_1 and so on), move it, give one of the files itself or, where there is "
                "--split, the split to read"
            )


def split_files(folder: Path, split: str) -> list[Path]:
    """List the data files in a folder tree whose names start with the split; raises UsageError as `data_files`.

    Examples: ``train.jsonl.gz``, ``train-00000-of-00001.parquet``.
    """
    return [file for file in _data_files_in(folder) if _split_of(file) == split]


def _data_files_in(folder: Path) -> list[Path]:
    files = [file for file in sorted(_visible_files(folder)) if _is_data(folder, file)]
    for one, other in pairwise(files):
        if one.parent == other.parent and one.name.split(".")[0] == other.name.split(".")[0]:
            raise UsageError(
                f"{folder}: has both {one.name} and {other.name}, which may be the same data; name one of them"
            )
    return files


def _is_data(folder: Path, file: Path) -> bool:
    kind = file_kind(file)
    if kind in ("json", "txt") and not _NO_DATA.fullmatch(file.name):
        raise UsageError(
            f"{folder}: {file.relative_to(folder)} may be data or a description; give it by itself, or move it out of "
            "the folder"
        )
    return kind in ("jsonl", "csv", "parquet")


def _visible_files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> NoReturn:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for path in (Path(parent, name) for name in folders):
            # A link may lead to a folder that has the link.
            if path.is_symlink():
                raise UsageError(f"{path}: is a link to a folder; give that folder itself, or copy it")
        yield from (Path(parent, name) for name in names if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    """True for names that datasets ignores too: .ipynb_checkpoints (Jupyter) and __MACOSX have copies of the data."""
    return name.startswith((".", "__"))


def file_kind(file: Path) -> str:
    """The ending of a file's name in lower case, without .gz: jsonl, json, csv, txt or parquet; empty for others."""
    found = _KIND.search(file.name)
    return found[1].lower() if found else ""


def is_parquet(path: Path) -> bool:
    """True if a file starts with parquet's magic bytes."""
    with open_stored(path) as handle:
        return handle.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC


def is_csv(path: Path) -> bool:
    """True if `read_rows` reads a file as CSV, which cannot distinguish an empty cell from null."""
    return file_kind(path) == "csv" and not is_parquet(path)


def read_rows(file: DataFile, *, strict: bool = False) -> Iterator[tuple[int, Row]]:
    """Yield (1-based number, row) of one of `data_files`; the number is the line if a row is a line, else the row.

    Args:
        file: the file or data set.
        strict: refuse blank lines and repeated keys of JSON, see `read_jsonl`.

    Raises:
        UsageError: it cannot be opened, or the package that reads it is missing.
        FormatError: a row cannot be read.
    """
    if isinstance(file, HubData):
        return _hub_rows(file)
    if is_parquet(file):
        return _parquet_rows(file)
    match file_kind(file):
        case "txt":
            return _text_rows(file)
        case "csv":
            return _csv_rows(file)
        case "json":
            return _json_rows(file, strict=strict)
        case "parquet":
            raise FormatError(f"{file}: is named as parquet but is not parquet; download the file again")
        case _:
            return read_jsonl(file, strict=strict)


def _text_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in read_lines(path):
        text = decoded(path, number, line)
        if "\r" in text:
            raise FormatError.at(path, number, "has a carriage return within the line; save it with Unix line ends")
        if text.strip():
            yield number, {"prompt": text}


def _json_rows(path: Path, *, strict: bool) -> Iterator[tuple[int, Row]]:
    if not is_json_list(path):
        yield from read_jsonl(path, strict=strict)
        return
    for number, item in read_items(path, strict=strict):
        if isinstance(item, str):
            yield number, {"prompt": item}
        elif isinstance(item, dict):
            yield number, cast(Row, item)
        else:
            raise FormatError.at(path, number, f"a JSON object or a string is needed, got {type(item).__name__}")


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    # CSV cannot distinguish an empty cell from null; it is read as null.
    csv.field_size_limit(MAX_ROW_BYTES)
    number = 1
    try:
        with open_binary(path) as handle, io.TextIOWrapper(handle, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(_bounded_lines(path, text), strict=True)
            names = next(reader, list[str]())
            _require_names(path, names)
            if len(set(names)) < len(names):
                raise FormatError.at(path, 1, "the first line names a column twice")
            for cells in reader:
                number = reader.line_num
                if cells and len(cells) != len(names):
                    raise FormatError.at(
                        path,
                        number,
                        f"has {len(cells)} cells, the first line has {len(names)}; quote texts with commas or line "
                        "breaks",
                    )
                if cells:
                    yield number, {name: cell or None for name, cell in zip(names, cells, strict=True)}
    except csv.Error as error:
        raise FormatError.at(path, number, f"not CSV, here or on the next line: {error}") from error
    except UnicodeDecodeError as error:
        raise NotUtf8Error.at(path, number, "is not UTF-8 text, here or on the next line; save it as UTF-8") from error
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, number, error) from error


_SENTENCE = re.compile(r".*[.?!]|(\S+\s+){5,}.*", re.DOTALL)


def _require_names(path: Path, names: list[str]) -> None:
    """Raise FormatError for a table with one column whose name is that of several, or is a text."""
    name, *others = names or [""]
    if others:
        return
    for separator in (";", "\t"):
        if separator in name:
            raise FormatError.at(path, 1, f"is separated by {separator!r}; save it with commas")
    if _SENTENCE.fullmatch(name.strip()):
        raise FormatError.at(
            path, 1, f"has no line with the columns' names, but {name[:40]!r}; add one, such as 'prompt', before it"
        )


def _bounded_lines(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := text.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            raise FormatError.at(path, number, f"a line of more than {MAX_ROW_BYTES >> 20} MiB")
        require_no_nul(path, number, line)
        yield line


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    pyarrow, *_ = (hf_library(name, f"{path}: parquet") for name in ("pyarrow", "pyarrow.parquet", "pyarrow.compute"))
    yield from parquet_rows(path, pyarrow)


def _hub_rows(data: HubData) -> Iterator[tuple[int, Row]]:
    datasets = hf_library("datasets", f"{data}: the hub")
    try:
        rows: Iterable[Row] = datasets.load_dataset(data.name, data_dir=data.folder, split=data.split)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UsageError(f"{data}: the split {data.split!r} cannot be loaded: {one_line(error)}") from error
    return enumerate(rows, start=1)


def hf_library(name: str, what: str) -> Any:
    """Import a package of the extra [hf]; raises UsageError, with `what` needs it, if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise not_installed(what, name, "hf") from error
