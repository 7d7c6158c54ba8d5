# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Length filter: exact token counts against each trainer's own limit.

A text that is too long is never an error at training time: SFT cuts it (and the end of the reply, so that the model
never learns to stop), the reward model skips it (and can run past the end of its data), PPO replaces it by another
prompt with its loss masked, DPO and KTO cut it to a stub. The filter drops and counts such rows before training.

It also drops rows that end the run: SFT, DPO and KTO stop at a row where the tokenizer merges the last letters of the
header or prompt with the first letters after it, as some Hugging Face tokenizers do with line ends. SFT also stops if
such merges leave no token of a short reply to learn.

To filter, only those records are tokenized that `data.token_facts` does not show to be usable; a `LengthReport` counts
the tokens of all.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar, cast

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats.all_formats import format_named
from nemo_aligner_cai.data.formats.files import Group, read_groups
from nemo_aligner_cai.data.formats.nemo import sft_text
from nemo_aligner_cai.data.length_report import LengthReport, Measurement, UseReport
from nemo_aligner_cai.data.mask import COUNT_PREFIX, loss_mask
from nemo_aligner_cai.data.records import Chat, Comparison, Rated, Record
from nemo_aligner_cai.data.token_facts import TokenFacts
from nemo_aligner_cai.data.tokenizer import Tokenizer, token_facts
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, RowCounts, write_jsonl
from nemo_aligner_cai.files.output_paths import check_output

Item = TypeVar("Item")
Report = TypeVar("Report", bound=UseReport)

_PPO = "ppo-prompts"
LIMITS: dict[str, Callable[[int], int]] = {
    # Inputs and labels are the ids without the last and without the first one.
    "sft-chat": lambda seq_length: seq_length + 1,
    "dpo": lambda seq_length: seq_length + 1,
    "rm-comparisons": lambda seq_length: seq_length,
    "rm-regression": lambda seq_length: seq_length,
    "kto": lambda seq_length: seq_length,
    # RLHFDataset reserves `model.length_params.max_length` for the reply, and half of the sequence without that key.
    # Upstream's own configuration has it elsewhere; this package's has it there, with the length of the replies.
    _PPO: lambda seq_length: seq_length // 2,
}
"""Format -> the maximum number of token ids of a text for a sequence length (NeMo-Aligner 0.7.0)."""

_BATCH = 512
_LONG_ENOUGH = 32
"""Characters of a learned last turn, per turn of the conversation, from which on some token is always learned.

SFT's count per turn was seen to be up to 1.5 tokens too high. The exact check is slow, and most rows are longer.
"""
_MERGED = "the tokenizer merges letters over the end of the prompt or of a turn"
EMPTY_SYSTEM_MERGED = (
    "the tokenizer merges the line ends of an empty system turn, at which SFT stops; give a system message "
    "(--system-message)"
)
_SYSTEM_MERGED = "the tokenizer merges the end of the system message with what follows"
_NOTHING_LEARNED = "the tokenizer's merges leave no token to learn of the short reply"


def texts_of(record: Record, format_name: str, template: NemoChatTemplate = NEMO_CHAT) -> tuple[str, ...]:
    """The texts that the trainer tokenizes for one record of the format's kind."""
    if isinstance(record, Chat):
        return (sft_text(record, template),)
    rows = format_named(format_name).write(record, template)
    if format_name == "dpo":
        return tuple(rows[0]["prompt"] + rows[0][key] for key in ("chosen_response", "rejected_response"))
    if format_name == "kto":
        return (rows[0]["prompt"] + rows[0]["response"],)
    return tuple(row["text"] for row in rows)


def limit_of(format_name: str, seq_length: int, response_length: int | None = None) -> int:
    """The maximum number of token ids of a text.

    Args:
        format_name: One of `LIMITS`.
        seq_length: The model's sequence length.
        response_length: The part of PPO's sequence that is reserved for the reply; None for half of it.

    Raises:
        UsageError: The limit is unknown or less than 1, or another format has a response length.
    """
    if format_name not in LIMITS:
        raise UsageError(f"token limits are known for {', '.join(LIMITS)}, not for {format_name}")
    if response_length is not None and format_name != _PPO:
        raise UsageError(f"--response-length is only for {_PPO}: {format_name} contains the replies")
    limit = LIMITS[format_name](seq_length) if response_length is None else seq_length - response_length
    if limit < 1:
        reply = "half of it" if response_length is None else f"{response_length} tokens"
        reserved = f" with {reply} for the reply" if format_name == _PPO else ""
        raise UsageError(f"a sequence length of {seq_length}{reserved} leaves no token for a text; give a longer one")
    return limit


def _measure(
    items: Iterable[Item],
    record_of: Callable[[Item], Record],
    format_name: str,
    tokenizer: Tokenizer,
    template: NemoChatTemplate,
    *,
    fits: int,
) -> Iterator[tuple[Item, Measurement]]:
    """Measure each item's record. A record that is certainly used with a limit of `fits` tokens is not tokenized."""
    facts = token_facts(tokenizer)
    # Batches keep the tokenizer's threads busy.
    stream = iter(items)
    while batch := list(islice(stream, _BATCH)):
        rows = [_Rendered.of(record_of(item), format_name, template, facts) for item in batch]
        unknown = [row.start is not None or row.most_tokens > fits for row in rows]
        # Most rows of a file have the same start.
        starts = list(dict.fromkeys(row.start for row in rows if row.start is not None))
        texts = (text for row, is_unknown in zip(rows, unknown, strict=True) if is_unknown for text in row.texts)
        encoded = iter(tokenizer.encode([*starts, *texts]))
        start_ids = dict(zip(starts, encoded, strict=False))
        for item, row, is_unknown in zip(batch, rows, unknown, strict=True):
            if not is_unknown:
                yield item, Measurement(None, None)
                continue
            ids = list(islice(encoded, len(row.texts)))
            merged = None if row.start is None else _merged(row, ids, start_ids[row.start], tokenizer, template)
            yield item, Measurement([len(one) for one in ids], merged)


class _Rendered(NamedTuple):
    """A record with its texts, as its trainer tokenizes them."""

    record: Record
    texts: tuple[str, ...]
    start: str | None
    """The text whose ids must be at the start of those of each text. None if the trainer certainly does not stop."""
    most_tokens: float
    """An upper bound of the token ids of each text, infinity if none is known."""

    @classmethod
    def of(cls, record: Record, format_name: str, template: NemoChatTemplate, facts: TokenFacts | None) -> "_Rendered":
        texts = texts_of(record, format_name, template)
        if facts is None:
            return cls(record, texts, _start_of(record, format_name, template), math.inf)
        most_tokens = max(map(facts.most_tokens, texts))
        if isinstance(record, Chat):
            splits = _splits_turns(record, template, facts)
            return cls(record, texts, None if splits else _start_of(record, format_name, template), most_tokens)
        start = _start_of(record, format_name, template)
        splits = all(facts.splits(start, text[len(start) :]) for text in texts)
        return cls(record, texts, None if splits else start, most_tokens)


def _splits_turns(record: Chat, template: NemoChatTemplate, facts: TokenFacts) -> bool:
    """True if SFT certainly finds the header's tokens, and something to learn.

    If no token covers the start of a turn, the class's counts of the turns, each with a prefix, add up to the tokens
    before the start of a next turn at the text's end, and that is learned.
    """
    tokens = template.tokens
    return (
        _learns_last_turn(record)
        and facts.splits(tokens.end_of_turn, tokens.turn_start)
        and facts.splits(COUNT_PREFIX, tokens.turn_start)
    )


def _learns_last_turn(record: Chat) -> bool:
    return record.label_type is None and record.conversation.turns[-1].role.speaker not in record.mask


def _merged(
    row: _Rendered, ids: list[list[int]], start: list[int], tokenizer: Tokenizer, template: NemoChatTemplate
) -> str | None:
    """The reason why the trainer stops at the record, None if it does not."""
    if any(one[: len(start)] != start for one in ids):
        return _merge_reason(row.record)
    return _NOTHING_LEARNED if _learns_nothing(row.record, tokenizer, template) else None


def _merge_reason(record: Record) -> str:
    if not isinstance(record, Chat):
        return _MERGED
    return _SYSTEM_MERGED if record.conversation.system.strip() else EMPTY_SYSTEM_MERGED


def merges_empty_system(tokenizer: Tokenizer) -> bool:
    """True if SFT stops at every row without a system message.

    In GPT-2's tokenizer two line ends are one token at the end of a text, and two tokens before a "<".
    """
    header, whole = tokenizer.encode([NEMO_CHAT.render(Conversation(())), NEMO_CHAT.render(Conversation.of_user("Q"))])
    return whole[: len(header)] != header


def _learns_nothing(record: Record, tokenizer: Tokenizer, template: NemoChatTemplate) -> bool:
    """True if SFT masks all tokens. It counts the tokens of each turn separately, which may give more of them."""
    if not isinstance(record, Chat):
        return False
    turns = record.conversation.turns
    if _learns_last_turn(record) and len(turns[-1].content) > _LONG_ENOUGH * len(turns):
        return False
    return not any(loss_mask(record, template, tokenizer).mask)


def _start_of(record: Record, format_name: str, template: NemoChatTemplate) -> str:
    """The text whose ids the trainer requires at the start of the complete text; "" if it does not check."""
    match record:
        case Chat():
            messages = record.conversation.messages
            return template.render(Conversation(messages[: len(messages) - len(record.conversation.turns)]))
        case Comparison() | Rated() if format_name in ("dpo", "kto"):
            return template.generation_prompt(record.prompt)
        case _:
            return ""


def drop_long(
    items: Iterable[Item],
    format_name: str,
    *,
    tokenizer: Tokenizer,
    seq_length: int,
    response_length: int | None = None,
    counts: RowCounts,
    template: NemoChatTemplate = NEMO_CHAT,
    record_of: Callable[[Item], Record] = lambda item: cast(Record, item),
) -> Iterator[Item]:
    """Yield the items whose records the format's trainer uses completely.

    Args:
        items: Records, or items from which `record_of` gets records.
        format_name: One of `LIMITS`.
        tokenizer: The model's tokenizer.
        seq_length: The model's sequence length.
        response_length: See `limit_of`.
        counts: Receives the items read, those yielded as written, and those dropped.
        template: The model's chat template.
        record_of: Returns the record of an item, of the format's kind.

    Raises:
        UsageError: The format has no known limit, or the sequence length is too short.
    """
    limit = limit_of(format_name, seq_length, response_length)
    for item, measurement in _measure(items, record_of, format_name, tokenizer, template, fits=limit):
        counts.rows_in += 1
        if measurement.is_too_long(limit):
            counts.skip(f"longer than {limit} tokens")
        elif measurement.merged is not None:
            counts.skip(measurement.merged)
        else:
            counts.written += 1
            yield item


def predict_use(
    path: PathLike,
    format_name: str,
    *,
    tokenizer: Tokenizer,
    seq_length: int,
    response_length: int | None = None,
    template: NemoChatTemplate = NEMO_CHAT,
) -> LengthReport:
    """Predict which records of a file the format's trainer will use.

    Raises:
        UsageError, FormatError: As `read_groups` and `drop_long`.
    """
    report = _empty(LengthReport, format_name, seq_length, response_length)
    for _ in _used_groups(path, format_name, report, tokenizer, template):
        pass
    return report


def filter_file(
    source: PathLike,
    target: PathLike,
    format_name: str,
    *,
    kind: type[Report],
    tokenizer: Tokenizer,
    seq_length: int,
    response_length: int | None = None,
    overwrite: bool = False,
) -> Report:
    """Copy the rows of the records that the format's trainer uses completely, unchanged.

    Returns:
        The report on `source`, of this kind: a `LengthReport` counts the tokens of every record, which takes longer.
        Its `skipped` are the records that `target` lacks.

    Raises:
        UsageError, FormatError: As `predict_use`, or the target exists.
    """
    report = _empty(kind, format_name, seq_length, response_length)
    check_output(target, overwrite=overwrite)
    groups = _used_groups(source, format_name, report, tokenizer, NEMO_CHAT)
    write_jsonl(target, (row for group in groups for row in group.rows), overwrite=overwrite)
    return report


def _empty(kind: type[Report], format_name: str, seq_length: int, response_length: int | None) -> Report:
    return kind(limit_of(format_name, seq_length, response_length), pairs=format_name == "rm-comparisons")


def _used_groups(
    source: PathLike, format_name: str, report: UseReport, tokenizer: Tokenizer, template: NemoChatTemplate
) -> Iterator[Group]:
    """Yield the groups that the trainer uses completely, and report on all."""
    groups = read_groups(source, format_name, counts=RowCounts(), template=template)
    fits = 0 if isinstance(report, LengthReport) else report.limit
    measured = _measure(groups, lambda group: group.record, format_name, tokenizer, template, fits=fits)
    for group, measurement in measured:
        if report.add(measurement):
            yield group
