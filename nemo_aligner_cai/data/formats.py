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
"""The registry of formats, and what can be done with a file in any of them: detect, validate, read, write, convert."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from nemo_aligner_cai.components import components
from nemo_aligner_cai.conversation import NEMO_CHAT, Conversation, NemoChatTemplate, TokenPolicy, guard
from nemo_aligner_cai.data import formats_cai as cai
from nemo_aligner_cai.data import formats_nemo as nemo
from nemo_aligner_cai.data import formats_other as other
from nemo_aligner_cai.data.format import Format
from nemo_aligner_cai.data.records import Chat, Comparison, Judged, PromptOnly, Rated, Record, Scored, to_kind
from nemo_aligner_cai.data.rows import RowError
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import Balance, PathLike, Row, read_jsonl, require_file, write_jsonl

# In the order in which detection tries them: the more telling keys first.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        nemo.SftChat(),
        nemo.Dpo(),
        nemo.Kto(),
        nemo.RegressionRm(),
        nemo.PpoPrompts(),
        nemo.RmComparisons(),
        cai.CaiRevisions(),
        cai.CaiComparisons(),
        other.Messages(),
        other.InputOutput(),
        other.NemoRlPreference(),
        other.NemoRlBinary(),
        other.OpenRlhf(),
        other.TrlPreference(),
        other.TrlImplicit(),
        other.TrlUnpaired(),
        other.TrlPrompts(),
        other.AnthropicHh(),
        other.RedTeam(),
        other.PlainPrompts(),
    )
}

_NEMO_FORMATS = tuple(name for name, format in FORMATS.items() if type(format).__module__ == nemo.__name__)


def sft_row(conversation: Conversation, *, dataset: str | None = None) -> Row:
    """The SFT row of a conversation that ends with the assistant."""
    return FORMATS["sft-chat"].write(Chat(conversation, dataset), NEMO_CHAT)[0]


def comparison_rows(
    prompt: Conversation,
    *,
    chosen: str,
    rejected: str,
    dataset: str | None = None,
    template: NemoChatTemplate = NEMO_CHAT,
) -> tuple[Row, Row]:
    """The two lines of a comparison: the chosen reply's, then the rejected one's."""
    rows = FORMATS["rm-comparisons"].write(Comparison(prompt, chosen, rejected, dataset), template)
    return rows[0], rows[1]


def prompt_row(
    conversation: Conversation, *, dataset: str | None = None, template: NemoChatTemplate = NEMO_CHAT
) -> Row:
    """The PPO row of a conversation that ends with a user turn."""
    return FORMATS["ppo-prompts"].write(PromptOnly(conversation, dataset), template)[0]


def format_named(name: str) -> Format:
    """The format of that name, ours or another package's; raises UsageError with the names there are."""
    if name in FORMATS:
        return FORMATS[name]
    others = components("formats")
    if name not in others:
        raise UsageError(f"unknown format {name!r}; the formats are {', '.join(others)}")
    return others[name].load()()


def detect_format(path: PathLike) -> str:
    """The name of a file's format, told by the keys of its first row.

    Raises:
        UsageError: the file has no rows, or a first row like no format's.
    """
    for line, row in read_jsonl(path):
        for name, format in FORMATS.items():
            if format.matches(row):
                return name
        keys = ", ".join(map(repr, row)) or "no keys"
        raise FormatError.at(path, line, f"a row with {keys} is of no known format; known: {', '.join(FORMATS)}")
    raise UsageError(f"{path}: has no rows")


def read_records(
    path: PathLike,
    format_name: str | None = None,
    *,
    balance: Balance,
    template: NemoChatTemplate = NEMO_CHAT,
    strict: bool = False,
) -> Iterator[Record]:
    """The records of a file, one at a time.

    Args:
        path: .jsonl, .jsonl.gz or .json.
        format_name: its format; None to detect it.
        balance: receives the rows read, those yielded as written (two for a pair of lines), and those left out.
        template: of the formats that hold rendered text.
        strict: refuse blank lines, and rows that a lenient format would leave out.

    Raises:
        UsageError: the file cannot be read or has no rows.
        FormatError: a row is wrong, with line, key and mend.
    """
    format = format_named(format_name or detect_format(path))
    return _read_records(Path(path), format, balance=balance, template=template, strict=strict)


def _read_records(
    path: Path, format: Format, *, balance: Balance, template: NemoChatTemplate, strict: bool
) -> Iterator[Record]:
    group: list[tuple[int, Row]] = []
    line = 0
    for line, row in read_jsonl(path, allow_blank=not strict):
        group.append((line, row))
        balance.rows_in += 1
        if len(group) < format.group:
            continue
        try:
            record = format.read([row for _, row in group], template)
        except UsageError as error:
            if not format.lenient or strict:
                position = error.position if isinstance(error, RowError) else 0
                raise FormatError.at(path, group[position][0], str(error)) from error
            balance.leave_out(str(error), format.group)
        else:
            balance.written += format.group
            yield record
        group = []
    if group:
        raise FormatError.at(
            path, line, f"the file has an odd number of rows; {format.name} takes {format.group} rows a record"
        )
    if not balance.rows_in:
        raise UsageError(f"{path}: has no rows")


def validate_file(
    path: PathLike, format_name: str | None = None, *, template: NemoChatTemplate = NEMO_CHAT
) -> Balance:
    """Check that a trainer can read every row as it is meant.

    Raises:
        UsageError: the file cannot be read, or has no rows.
        FormatError: the first row that is wrong, with line, key and mend.
    """
    name = format_name or detect_format(path)
    if name in _NEMO_FORMATS:
        require_plain_lines(path)
    balance = Balance()
    for _ in read_records(path, name, balance=balance, template=template, strict=True):
        pass
    balance.check()
    return balance


def require_plain_lines(path: PathLike) -> None:
    """Raises UsageError unless the file is one JSON object per line in plain UTF-8, which is all that NeMo reads."""
    with require_file(path).open("rb") as handle:
        start = handle.readline()
    if start.startswith(b"\x1f\x8b"):
        raise UsageError(f"{path}: is packed with gzip, which NeMo does not read; unpack it with gunzip")
    if start.startswith(b"\xef\xbb\xbf"):
        raise FormatError.at(path, 1, "starts with a byte order mark, at which NeMo stops; save it as UTF-8 without")
    if start.lstrip().startswith(b"["):
        raise FormatError.at(path, 1, "is one JSON list; NeMo needs one object per line, use `cai convert`")


def write_records(
    path: PathLike,
    records: Iterable[Record],
    format_name: str,
    *,
    template: NemoChatTemplate = NEMO_CHAT,
    overwrite: bool = False,
) -> int:
    """Write records, all of the format's kind; returns the rows written."""
    format = format_named(format_name)
    rows = (row for record in records for row in format.write(record, template))
    return write_jsonl(path, rows, overwrite=overwrite)


def convert_file(
    source: PathLike,
    target: PathLike,
    *,
    to: str,
    source_format: str | None = None,
    template: NemoChatTemplate = NEMO_CHAT,
    policy: TokenPolicy = TokenPolicy.ESCAPE,
    overwrite: bool = False,
) -> Balance:
    """Write a file's records in another format; says less where the other format holds less.

    Args:
        source: the file to read.
        target: the file to write, packed where its name ends in .gz.
        to: the format to write.
        source_format: the format to read; None to detect it.
        template: of the formats that hold rendered text.
        policy: what to do with texts that contain the template's tokens.
        overwrite: whether an existing target may be replaced.

    Returns:
        Where the source's rows went; "written" counts the rows whose records are in the target.

    Raises:
        UsageError: a file or format is wrong, or the target's kind of record cannot be made from the source's.
        FormatError: a source row is wrong, or says what the target format cannot hold.
    """
    reader, writer = format_named(source_format or detect_format(source)), format_named(to)
    balance, read = Balance(), Balance()

    def rows() -> Iterator[Row]:
        for record in _read_records(Path(source), reader, balance=read, template=template, strict=False):
            try:
                safe = guard_record(record, template, policy=policy, balance=balance, rows=reader.group)
                if safe is None:
                    continue
                made = [row for part in to_kind(safe, writer.kind) for row in writer.write(part, template)]
            except UsageError as error:
                raise FormatError.at(source, read.rows_in, str(error)) from error
            if not made:
                balance.leave_out("the judge preferred none of the candidate responses", reader.group)
                continue
            balance.written += reader.group
            yield from made

    write_jsonl(target, rows(), overwrite=overwrite)
    balance.rows_in = read.rows_in
    balance.left_out.update(read.left_out)
    balance.check()
    return balance


def guard_record(
    record: Record, template: NemoChatTemplate, *, policy: TokenPolicy, balance: Balance, rows: int = 1
) -> Record | None:
    """Keep a record's texts from forging turns, as `guard` does for a conversation; `rows` is what it counts for."""
    counted = Balance()

    def safe(conversation: Conversation) -> Conversation | None:
        return guard(conversation, template, policy=policy, balance=counted)

    def safe_text(text: str) -> str | None:
        guarded = safe(Conversation.of_user(text))
        return guarded.messages[0].content if guarded else None

    def safe_pair(pair: Comparison) -> Comparison | None:
        prompt, chosen, rejected = safe(pair.prompt), safe_text(pair.chosen), safe_text(pair.rejected)
        if prompt is None or chosen is None or rejected is None:
            return None
        return replace(pair, prompt=prompt, chosen=chosen, rejected=rejected)

    match record:
        case Chat() | Scored():
            conversation = safe(record.conversation)
            result = replace(record, conversation=conversation) if conversation else None
        case PromptOnly():
            prompt = safe(record.prompt)
            result = replace(record, prompt=prompt) if prompt else None
        case Rated():
            prompt, reply = safe(record.prompt), safe_text(record.reply)
            result = None if prompt is None or reply is None else replace(record, prompt=prompt, reply=reply)
        case Comparison():
            result = safe_pair(record)
        case Judged():
            prompt = safe(record.prompt)
            kept = tuple(pair for pair in map(safe_pair, record.comparisons) if pair is not None)
            whole = len(kept) == len(record.comparisons)
            result = replace(record, prompt=prompt, comparisons=kept) if prompt and whole else None
    for reason in counted.left_out:
        balance.leave_out(reason, rows)
    for what in counted.noted:
        balance.note(what, rows)
    return result
