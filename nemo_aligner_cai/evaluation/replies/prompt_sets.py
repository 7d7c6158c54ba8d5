# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Prompt sets with a side, recognized by their columns.

Input:  id,prompt,type,label                        XSTest: the label is the side
        id,type,prompt,completion                   XSTest's completions: types "contrast_..." are harmful
        Behavior,...,ContextString,BehaviorID       HarmBench: harmful; the context precedes the behavior
        category,source,forbidden_prompt            StrongREJECT: harmful
        release_prompt_id,prompt_text,hazard        AILuminate: harmful
        {"transcript": ..., "min_harmlessness_score_transcript": ...}   Anthropic's red-team attempts: harmful
        Goal,Behavior,Category                      JailbreakBench: one file of each side, so the user names the side
        prompt,category                             OR-Bench: the same; "80k" and "hard" (benign), and "toxic"
        {"messages": ..., "harmful": true}, {"prompt": ..., "side": "benign"}   rows with a side of their own
        every other format of `data.prompt_files`   the user names the side
Output: EvalPrompt(id="9f86...", set="xstest", side="benign", conversation=..., key="1", category="homonyms")

Conversations in messages are used up to their last user turn, transcripts up to the first one, as in RL-CAI. The side
is never guessed: a set whose columns do not determine it needs ``--side NAME=harmful`` or ``=benign``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation
from nemo_aligner_cai.data.formats.all_formats import all_formats
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.formats.unread_columns import ColumnChoice, plain_name
from nemo_aligner_cai.data.prompt_files import PromptReader
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.evaluation.results import SetFacts, Side
from nemo_aligner_cai.files import PathLike, Row, RowCounts, content_hash, sha256_file
from nemo_aligner_cai.files.sources import DataFile, data_files, read_rows
from nemo_aligner_cai.prompts.transcript import TranscriptError

_CONTRAST = "contrast"
"""XSTest's types of harmful prompts begin with it."""


@dataclass(frozen=True)
class EvalPrompt:
    """A prompt of a set.

    Attributes:
        id: a hash of its content: equal prompts have equal ids, in every set.
        set: the set's name.
        side: harmful or benign.
        conversation: ends with a user turn.
        key: the set's own id of the row, such as HarmBench's BehaviorID; "" without one.
        category: the set's own category; "" without one.
    """

    id: str
    set: str
    side: Side
    conversation: Conversation
    key: str = ""
    category: str = ""

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.conversation.messages[-1].content


@dataclass(frozen=True)
class PromptSet:
    """A set that was read completely."""

    facts: SetFacts
    prompts: tuple[EvalPrompt, ...]


@dataclass(frozen=True)
class _SetFormat:
    """A published set.

    Attributes:
        name: its name.
        columns: plain names of the columns by which it is recognized; no other column is needed.
        side: returns a row's side; None for a set with one file per side. Raises UsageError for an unknown value.
        prompt: the prompt's column; None lets the reader detect it.
        key: the column with the row's id.
        category: the column with its category.
    """

    name: str
    columns: frozenset[str]
    side: Callable[[Row], Side | None]
    prompt: str | None = None
    key: str = "id"
    category: str = "category"

    def matches(self, row: Row) -> bool:
        return self.columns <= {plain_name(key) for key in row}


def _harmful(row: Row) -> Side | None:
    return "harmful"


def _unknown(row: Row) -> Side | None:
    return None


def _side_by(column: str, sides: Mapping[object, Side]) -> Callable[[Row], Side | None]:
    """Return the reader of a column that names the side: each of its values -> the side."""

    def side(row: Row) -> Side | None:
        value = row[column]
        for known, meant in sides.items():
            if value == known and type(value) is type(known):
                return meant
        raise RowError(column, f"is {str(value)[:40]!r}; it must be {' or '.join(map(repr, sides))}")

    return side


def _xstest_type_side(row: Row) -> Side | None:
    return "harmful" if str(row["type"]).startswith(_CONTRAST) else "benign"


_XSTEST_LABEL = _side_by("label", {"safe": "benign", "unsafe": "harmful"})
_OWN_SIDE = _side_by("side", {"harmful": "harmful", "benign": "benign"})
_HARMFUL_FLAG = _side_by("harmful", {True: "harmful", False: "benign"})
_FORMATS = (
    _SetFormat("xstest", frozenset({"prompt", "type", "label"}), _XSTEST_LABEL, "prompt", "id", "type"),
    _SetFormat(
        "xstest-completions", frozenset({"type", "prompt", "completion"}), _xstest_type_side, "prompt", "id", "type"
    ),
    _SetFormat(
        "harmbench",
        frozenset({"behavior", "behaviorid", "contextstring"}),
        _harmful,
        None,
        "BehaviorID",
        "SemanticCategory",
    ),
    _SetFormat("strongreject", frozenset({"forbiddenprompt", "category"}), _harmful),
    _SetFormat("jailbreakbench", frozenset({"goal", "behavior", "category"}), _unknown, "Goal", "Index", "Category"),
    _SetFormat(
        "ailuminate",
        frozenset({"releasepromptid", "prompttext", "hazard"}),
        _harmful,
        "prompt_text",
        "release_prompt_id",
        "hazard",
    ),
    _SetFormat("red-team", frozenset({"transcript", "minharmlessnessscoretranscript"}), _harmful),
    _SetFormat("side", frozenset({"side"}), _OWN_SIDE),
    _SetFormat("harmful", frozenset({"messages", "harmful"}), _HARMFUL_FLAG, None, "id", "kind"),
    _SetFormat("or-bench", frozenset({"prompt", "category"}), _unknown, "prompt"),
)
_PLAIN = _SetFormat("prompts", frozenset(), _unknown)
_SIDE_COLUMNS = {"side": frozenset({"side", "category", "id"}), "harmful": frozenset({"harmful"})}
"""Columns that `_SetFormat.side` has read, and that the general reader does not know."""


@dataclass
class _SetReader:
    name: str
    path: PathLike
    chosen_side: Side | None
    counts: RowCounts = field(default_factory=RowCounts)
    prompts: dict[str, EvalPrompt] = field(default_factory=dict[str, EvalPrompt])
    format: _SetFormat | None = None

    def add(self, row: Row) -> None:
        """Read one row; raises UsageError if it is invalid."""
        format = self._format_of(row)
        side = self._side_of(row, format)
        dropped = _SIDE_COLUMNS.get(format.name, frozenset[str]())
        read = {key: value for key, value in row.items() if key not in dropped}
        try:
            prompt = self._reader.prompt(read)
        except TranscriptError as reason:
            self.counts.skip(str(reason))
            return
        if prompt.id in self.prompts:
            if self.prompts[prompt.id].side != side:
                raise UsageError("this prompt is harmful in one row and benign in another; remove one of the rows")
            self.counts.skip("duplicate prompt")
            return
        key, category = (str(row.get(name) or "") for name in (format.key, format.category))
        self.prompts[prompt.id] = EvalPrompt(prompt.id, self.name, side, prompt.conversation, key, category)
        self.counts.written += 1

    def _side_of(self, row: Row, format: _SetFormat) -> Side:
        """Return a row's side. The chosen side also serves unknown values, but does not contradict known ones."""
        try:
            own = format.side(row)
        except RowError:
            if self.chosen_side is None:
                raise
            own = None
        side = own or self.chosen_side
        if side is None:
            raise UsageError(
                f"the columns {', '.join(map(repr, row))} do not tell if the prompts are harmful; give "
                f"--side {self.name}=harmful or --side {self.name}=benign"
            )
        if self.chosen_side not in (None, side):
            columns = ", ".join(repr(key) for key in row if plain_name(key) in format.columns)
            raise UsageError(
                f"--side {self.name}={self.chosen_side}: this row is {side} by its columns {columns}; remove the side"
            )
        return side

    def _format_of(self, row: Row) -> _SetFormat:
        if self.format is None:
            self.format = next((one for one in _FORMATS if one.matches(row)), _PLAIN)
            columns = ColumnChoice(prompt=self.format.prompt and _column(row, self.format.prompt))
            self._reader = PromptReader(
                *all_formats(),
                columns,
                "all" if "messages" in row else "first",
                NEMO_CHAT,
                "",
                self.counts,
            )
        elif not self.format.matches(row):
            raise UsageError(f"this row lacks columns of the first one, a row of {self.format.name}")
        return self.format


def _column(row: Row, name: str) -> str:
    return next(key for key in row if plain_name(key) == plain_name(name))


def read_prompt_set(name: str, path: PathLike, *, side: Side | None = None, limit: int | None = None) -> PromptSet:
    """Read a prompt set.

    Args:
        name: its name in the results.
        path: a file, a folder or a data set on the hub.
        side: the side of all its prompts; None reads it from the rows.
        limit: number of prompts of each side to read; later ones are not used.

    Raises:
        UsageError: the path cannot be read, has no prompt, or its columns do not determine the side.
        FormatError: a row is invalid.
    """
    files = data_files(path)
    reader = _SetReader(name, path, side)
    for line, row, file in _rows(files):
        reader.counts.rows_in += 1
        try:
            reader.add(row)
        except UsageError as error:
            raise FormatError.at(file, line, str(error)) from error
    if not reader.prompts:
        raise UsageError(f"{path}: no usable prompt: {reader.counts}")
    prompts = tuple(_first_of_each_side(reader.prompts.values(), limit, reader.counts))
    harmful = sum(prompt.side == "harmful" for prompt in prompts)
    facts = SetFacts(
        name=name,
        file=str(path),
        sha256=_digest(files),
        format=reader.format.name if reader.format else _PLAIN.name,
        rows=reader.counts.rows_in,
        harmful=harmful,
        benign=len(prompts) - harmful,
        skipped=dict(sorted(reader.counts.skipped.items())),
    )
    return PromptSet(facts, prompts)


def _rows(files: list[DataFile]) -> Iterator[tuple[int, Row, DataFile]]:
    for file in files:
        for line, row in read_rows(file):
            yield line, row, file


def _first_of_each_side(prompts: Iterable[EvalPrompt], limit: int | None, counts: RowCounts) -> Iterator[EvalPrompt]:
    seen: Counter[Side] = Counter()
    for prompt in prompts:
        seen[prompt.side] += 1
        if limit is None or seen[prompt.side] <= limit:
            yield prompt
        else:
            counts.skip("after the limit")


def _digest(files: list[DataFile]) -> str:
    """Return the hash of a file, or a hash of the hashes of several; a data set on the hub is known by its name."""
    hashes = [sha256_file(file) if isinstance(file, Path) else str(file) for file in files]
    return hashes[0] if len(hashes) == 1 else content_hash(hashes, length=64)
