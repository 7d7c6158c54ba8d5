# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The formats that NeMo-Aligner 0.7.0's dataset classes read (nemo_aligner/data/nlp/datasets.py).

Text rows are rendered by the chat template, so that the reward model and PPO meet exactly what SFT has taught:
    sft-chat        {"system": "", "conversations": [{"from": "User", "value": "Q", "label": null}, ...], ...}
    rm-comparisons  {"text": "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\nA\n<extra_id_1>"} x 2
    ppo-prompts     {"text": "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"}
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation, LabelType, Message, NemoChatTemplate, Role
from nemo_aligner_cai.chat.messages import refuse_message_keys
from nemo_aligner_cai.data.formats import row_values as take
from nemo_aligner_cai.data.formats.base import Format, beside, with_beside
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import (
    ATTRIBUTES,
    MASKED_SCORE,
    Chat,
    Comparison,
    PromptOnly,
    Rated,
    Record,
    Scored,
)
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row


def sft_text(record: Chat, template: NemoChatTemplate) -> str:
    """The text that `GPTSFTChatDataset` makes of a row, with the row's own mask and kind of label."""
    template = replace(template, label_type=record.label_type)
    text = template.render(record.conversation)
    turns, start = record.conversation.turns, template.tokens.turn_start
    if turns and turns[-1].role is Role.ASSISTANT:
        text = text.removesuffix(start)
    # The start of a next turn is learnt as the end of the last one, where the last one is learnt.
    return text + start if turns and turns[-1].role.speaker not in record.mask else text


def _parse(template: NemoChatTemplate, text: str, key: str, *, position: int = 0) -> Conversation:
    try:
        return template.parse(text)
    except UsageError as error:
        raise RowError(
            key, f"{error}; SFT teaches another text, write it with `cai convert`", position=position
        ) from error


def _parse_prompt(template: NemoChatTemplate, text: str, key: str) -> Conversation:
    if not text.endswith(template.assistant_header):
        raise RowError(key, f"must end with {template.assistant_header!r}, where the assistant is to speak")
    conversation = _parse(template, text, key)
    if not conversation.turns or conversation.turns[-1].role is not Role.USER:
        raise RowError(key, "must have a user turn before the assistant is to speak")
    return conversation


class SftChat(Format):
    """Conversations for SFT and SPIN (`GPTSFTChatDataset`), which renders them itself."""

    name = "sft-chat"
    description = "NeMo-Aligner SFT and SPIN, chat (GPTSFTChatDataset)"
    kind = Chat
    keys = frozenset({"system", "conversations", "mask", "type"})

    def matches(self, row: Row) -> bool:
        """By the key ``conversations``."""
        return "conversations" in row

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The turns, whether or not there is something to learn from them, and a system message if there is one."""
        return _conversation({**row, "system": take.optional_text(row, "system") or ""}, labelled=False)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Chat:
        """One row; a speaker other than User and Assistant, or one that leaves nothing to learn, is an error."""
        row = rows[0]
        mask = take.text(row, "mask") if "mask" in row else "User"
        label_type = _label_type(row)
        conversation = _conversation(row, labelled=label_type is not None)
        _require_learnt(conversation.turns, mask, label_type)
        for turn in conversation.turns:
            if template.contains_template_token(turn.content):
                raise RowError("conversations", "a text contains the template's tokens and forges a turn; escape it")
        return Chat(conversation, mask=mask, label_type=label_type, **beside(row, Chat))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row; ``type`` only where labels are used, as NeMo ignores labels without it."""
        record = cast(Chat, record)
        _require_learnt(record.conversation.turns, record.mask, record.label_type)
        row: Row = {
            "system": record.conversation.system,
            "conversations": [
                {"from": turn.role.speaker, "value": turn.content, "label": turn.label}
                for turn in record.conversation.turns
            ],
            "mask": record.mask,
        }
        if record.label_type is not None:
            row["type"] = record.label_type.value
        return (with_beside(row, record),)


def _require_learnt(turns: Sequence[Message], mask: str, label_type: LabelType | None) -> None:
    speakers = {turn.role.speaker for turn in turns}
    for masked in mask.split(","):
        if masked not in speakers:
            raise RowError("mask", f"{masked!r} speaks nowhere in 'conversations'; NeMo stops at such a row")
    # NeMo never trains the first turn, except for labels.
    if not any(turn.role.speaker not in mask for turn in turns[0 if label_type is LabelType.TEXT_TO_VALUE else 1 :]):
        raise RowError("conversations", "no turn to learn from after the first; NeMo stops at an empty loss mask")


def _label_type(row: Row) -> LabelType | None:
    name = take.optional_text(row, "type")
    if name is None:
        return None
    try:
        return LabelType(name)
    except ValueError:
        raise RowError("type", f"must be null, 'VALUE_TO_TEXT' or 'TEXT_TO_VALUE', it is {name!r}") from None


def _conversation(row: Row, *, labelled: bool) -> Conversation:
    items = enumerate(take.objects(row, "conversations"))
    turns = tuple(_turn(position, item, labelled=labelled) for position, item in items)
    system = take.text(row, "system")
    return Conversation((*((Message(Role.SYSTEM, system),) if system else ()), *turns))


def _turn(position: int, item: Row, *, labelled: bool) -> Message:
    speaker = take.text(item, "from")
    if speaker not in ("User", "Assistant"):
        raise RowError("from", f"must be 'User' or 'Assistant', it is {speaker[:40]!r}")
    refuse_message_keys(position, item)
    label: Any = item.get("label")
    if labelled and not (label is None or isinstance(label, str)):
        raise RowError("label", f"must be null or a text such as 'quality:4', it is {type(label).__name__}")
    return Message(Role.of(speaker), take.text(item, "value"), label if isinstance(label, str) else None)


class RmComparisons(Format):
    """Pairs of lines for the Bradley-Terry reward model: the even line is chosen, the odd one rejected."""

    name = "rm-comparisons"
    description = "NeMo-Aligner reward model, Bradley-Terry (RewardModelDataset): chosen and rejected on two lines"
    kind = Comparison
    keys = frozenset({"text"})
    group = 2

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The conversation of one of the two rows."""
        return _parse(template, take.text(row, "text"), "text")

    def matches(self, row: Row) -> bool:
        """By the key ``text``, whatever it ends with: prompts and scored rows are tried before."""
        return isinstance(row.get("text"), str)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Comparison:
        """Two rows with one prompt. The class pairs lines by parity: one stray line swaps all labels after it."""
        prompts: list[Conversation] = []
        replies: list[str] = []
        for position, row in enumerate(rows):
            text = take.text(row, "text", position=position)
            conversation = _parse(template, text, "text", position=position)
            prompt, reply = take.split_reply(conversation, "text", position=position)
            prompts.append(prompt)
            replies.append(reply)
        if prompts[0] != prompts[1]:
            raise RowError(
                "text",
                "has another prompt than the line before, though these two should be a chosen and a rejected answer to"
                " one prompt; look for a line too many or too few before it",
                position=1,
            )
        take.different(replies[0], replies[1], "text", position=1)
        told, other = (beside(row, Comparison) for row in rows)
        if told != other:
            key = next(key for key in told if told[key] != other[key])
            raise RowError(key, "differs between the two lines of one pair", position=1)
        return Comparison(prompts[0], replies[0], replies[1], **told)

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """The chosen row, then the rejected one."""
        record = cast(Comparison, record)
        return tuple(
            with_beside({"text": template.render(record.prompt.with_turn(Role.ASSISTANT, reply))}, record)
            for reply in (record.chosen, record.rejected)
        )


class RegressionRm(Format):
    """Rows of the regression reward model, whose text ends with the token that starts a label."""

    name = "rm-regression"
    description = "NeMo-Aligner reward model, regression (RegressionRewardModelDataset): nine scores"
    kind = Scored
    keys = frozenset({"text", "label"})

    def matches(self, row: Row) -> bool:
        """By the keys ``text`` and ``label``."""
        return isinstance(row.get("text"), str) and isinstance(row.get("label"), list)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Scored:
        """One row; another number of scores, or none that counts, is an error."""
        text, end = take.text(rows[0], "text"), template.tokens.label_start
        if not text.endswith(end):
            raise RowError("text", f"must end with {end!r}, where the scores stand; it ends with {text[-20:]!r}")
        conversation = _parse(template, text.removesuffix(end) + template.tokens.turn_start, "text")
        take.split_reply(conversation, "text")
        label: object = rows[0].get("label")
        if not isinstance(label, list) or len(cast(list[object], label)) != len(ATTRIBUTES):
            raise RowError(
                "label", f"must be a list of {len(ATTRIBUTES)} numbers, {MASKED_SCORE:.0f} for an unknown one"
            )
        for score in cast(list[object], label):
            if isinstance(score, bool) or not isinstance(score, (int, float)):
                raise RowError("label", f"must hold numbers, it holds {take.type_of(score)}")
        scores = tuple(float(score) for score in cast(list[float], label))
        if all(score == MASKED_SCORE for score in scores):
            raise RowError("label", "all scores are masked; remove the row")
        return Scored(conversation, scores, **beside(rows[0], Scored))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        record = cast(Scored, record)
        text = template.render(record.conversation).removesuffix(template.tokens.turn_start)
        row: Row = {"text": text + template.tokens.label_start, "label": list(record.scores)}
        return (with_beside(row, record),)


class PpoPrompts(Format):
    """Prompts for PPO, REINFORCE and rejection sampling."""

    name = "ppo-prompts"
    description = "NeMo-Aligner PPO, REINFORCE and rejection sampling (RLHFDataset): prompts"
    kind = PromptOnly
    keys = frozenset({"text"})

    def matches(self, row: Row) -> bool:
        """By a ``text`` that ends where the assistant is to speak."""
        text = row.get("text")
        return isinstance(text, str) and text.rstrip("\n").endswith("Assistant")

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> PromptOnly:
        """One row."""
        prompt = _parse_prompt(template, take.text(rows[0], "text"), "text")
        return PromptOnly(prompt, **beside(rows[0], PromptOnly))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        record = cast(PromptOnly, record)
        return (with_beside({"text": template.generation_prompt(record.prompt)}, record),)


class Dpo(Format):
    """Pairs for DPO, IPO and RPO, in the form of strings.

    The class also takes messages, but then trains the policy on the assistant's header too; the strings do not.
    """

    name = "dpo"
    description = "NeMo-Aligner DPO, IPO and RPO (DPOModelDataset): a prompt and two responses"
    kind = Comparison
    keys = frozenset({"prompt", "chosen_response", "rejected_response"})

    def matches(self, row: Row) -> bool:
        """By the keys ``prompt`` and ``chosen_response``."""
        return "prompt" in row and "chosen_response" in row

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Comparison:
        """One row, of strings or of messages."""
        row = rows[0]
        if isinstance(row.get("prompt"), str):
            prompt = _parse_prompt(template, take.text(row, "prompt"), "prompt")
            replies = [_response(template, row, key) for key in ("chosen_response", "rejected_response")]
        else:
            prompt = take.prompt(row, "prompt")
            replies = [
                take.single_reply({key: [row.get(key)]}, key) for key in ("chosen_response", "rejected_response")
            ]
        take.different(replies[0], replies[1], "rejected_response")
        return Comparison(prompt, replies[0], replies[1], **beside(row, Comparison))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row of strings; rewards only where they are known."""
        record = cast(Comparison, record)
        row: Row = {
            "prompt": template.generation_prompt(record.prompt),
            "chosen_response": record.chosen + template.reply_end,
            "rejected_response": record.rejected + template.reply_end,
        }
        return (with_beside(row, record),)


def _response(template: NemoChatTemplate, row: Row, key: str) -> str:
    text, end = take.text(row, key), template.reply_end
    reply = text.removesuffix(end)
    if reply == text:
        raise RowError(key, f"must end with {end!r} as SFT teaches, it ends with {text[-20:]!r}")
    if template.contains_template_token(reply):
        raise RowError(key, "contains the template's tokens before its end; escape them")
    return reply


class Kto(Format):
    """Single responses with a verdict, for KTO."""

    name = "kto"
    description = "NeMo-Aligner KTO (KTOModelDataset): a prompt, a response and whether it is preferred"
    kind = Rated
    keys = frozenset({"prompt", "response", "preference"})

    def matches(self, row: Row) -> bool:
        """By the keys ``response`` and ``preference``."""
        return "response" in row and "preference" in row

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Rated:
        """One row. The class takes anything but "chosen" for rejected; here only "rejected" is."""
        row = rows[0]
        prompt = _parse_prompt(template, take.text(row, "prompt"), "prompt")
        preference = take.text(row, "preference")
        if preference not in ("chosen", "rejected"):
            raise RowError("preference", f"must be 'chosen' or 'rejected', it is {preference!r}")
        reply = _response(template, row, "response")
        return Rated(prompt, reply, preference == "chosen", **beside(row, Rated))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        record = cast(Rated, record)
        row: Row = {
            "prompt": template.generation_prompt(record.prompt),
            "response": record.reply + template.reply_end,
            "preference": "chosen" if record.good else "rejected",
        }
        return (with_beside(row, record),)
