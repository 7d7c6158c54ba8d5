# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The formats that NeMo-Aligner 0.7.0's dataset classes read (nemo_aligner/data/nlp/datasets.py).

    sft-chat        {"system": "", "conversations": [{"from": "User", "value": "Q", "label": null}, ...], ...}
    rm-comparisons  {"text": "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\nA\n<extra_id_1>"} x 2
    ppo-prompts     {"text": "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"}

Texts are rendered with the chat template, so that the reward model and PPO see exactly what SFT taught.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation, LabelType, Message, NemoChatTemplate, Role
from nemo_aligner_cai.chat.messages import refuse_message_keys
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.base import Format, add_metadata, read_metadata
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import ATTRIBUTES, MASKED_SCORE, Chat, Comparison, PromptOnly, Rated, Scored
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row

_SPEAKERS = {role.speaker: role for role in (Role.USER, Role.ASSISTANT)}


def sft_text(record: Chat, template: NemoChatTemplate) -> str:
    """The text that `GPTSFTChatDataset` makes of a row, with the row's own mask and label type."""
    if record.label_type is not template.label_type:
        template = replace(template, label_type=record.label_type)
    turns, start = record.conversation.turns, template.tokens.turn_start
    text = template.render(record.conversation).removesuffix(start)
    # If the last turn is learned, the start of a next turn is learned as its end.
    return text + start if turns and turns[-1].role.speaker not in record.mask else text


def _parse(template: NemoChatTemplate, text: str, key: str, *, position: int = 0) -> Conversation:
    try:
        return template.parse(text)
    except UsageError as error:
        message = (
            f"{error}; SFT teaches another text: write it with `cai convert`, or with data_processor=auto of "
            "`cai train`, which has the model's own tokens"
        )
        raise RowError(key, message, position=position) from error


def _parse_prompt(template: NemoChatTemplate, row: Row, key: str) -> Conversation:
    text = row_values.text(row, key)
    if not text.endswith(template.assistant_header):
        raise RowError(key, f"must end with {template.assistant_header!r}, which starts the assistant's turn")
    return _parse(template, text, key)


def _parse_reply(template: NemoChatTemplate, row: Row, key: str) -> str:
    text, end = row_values.text(row, key), template.reply_end
    if not text.endswith(end):
        raise RowError(key, f"must end with {end!r} as SFT teaches, it ends with {text[-20:]!r}")
    reply = text.removesuffix(end)
    if template.contains_template_token(reply):
        raise RowError(key, "contains the template's tokens before its end; escape them")
    return reply


class SftChat(Format):
    """Conversations for SFT and SPIN. `GPTSFTChatDataset` renders them itself."""

    name = "sft-chat"
    description = "NeMo-Aligner SFT and SPIN, chat (GPTSFTChatDataset)"
    kind = Chat
    required_keys = frozenset({"conversations"})
    keys = frozenset({"system", "conversations", "mask", "type"})

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        return _conversation({**row, "system": row_values.optional_text(row, "system") or ""}, has_labels=False)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Chat:
        row = rows[0]
        mask = row_values.text(row, "mask") if "mask" in row else "User"
        label_type = _label_type(row)
        conversation = _conversation(row, has_labels=label_type is not None)
        _require_learned_turn(conversation.turns, mask, label_type)
        for turn in conversation.turns:
            if template.contains_template_token(turn.content):
                raise RowError("conversations", "a text contains the template's tokens and forges a turn; escape it")
        return Chat(conversation, mask=mask, label_type=label_type, **read_metadata(row, Chat))

    def write(self, record: Chat, template: NemoChatTemplate) -> tuple[Row, ...]:
        _require_learned_turn(record.conversation.turns, record.mask, record.label_type)
        row: Row = {
            "system": record.conversation.system,
            "conversations": [
                {"from": turn.role.speaker, "value": turn.content, "label": turn.label}
                for turn in record.conversation.turns
            ],
            "mask": record.mask,
        }
        # NeMo ignores labels without a type.
        if record.label_type is not None:
            row["type"] = record.label_type.value
        return (add_metadata(row, record),)


def _require_learned_turn(turns: Sequence[Message], mask: str, label_type: LabelType | None) -> None:
    speakers = {turn.role.speaker for turn in turns}
    for masked in mask.split(","):
        if masked not in speakers:
            raise RowError("mask", f"{masked!r} has no turn in 'conversations'; NeMo stops at such a row")
    # NeMo never trains the first turn, except for labels.
    if not any(turn.role.speaker not in mask for turn in turns[0 if label_type is LabelType.TEXT_TO_VALUE else 1 :]):
        raise RowError("conversations", "no turn to learn from after the first; NeMo stops at an empty loss mask")


def _label_type(row: Row) -> LabelType | None:
    name = row_values.optional_text(row, "type")
    if name is None:
        return None
    try:
        return LabelType(name)
    except ValueError:
        raise RowError("type", f"must be null, 'VALUE_TO_TEXT' or 'TEXT_TO_VALUE', it is {name!r}") from None


def _conversation(row: Row, *, has_labels: bool) -> Conversation:
    items = enumerate(row_values.objects(row, "conversations"))
    turns = tuple(_turn(position, item, has_labels=has_labels) for position, item in items)
    system = row_values.text(row, "system")
    return Conversation((*((Message(Role.SYSTEM, system),) if system else ()), *turns))


def _turn(position: int, item: Row, *, has_labels: bool) -> Message:
    speaker = row_values.text(item, "from")
    role = _SPEAKERS.get(speaker)
    if role is None:
        raise RowError("from", f"must be 'User' or 'Assistant', it is {speaker[:40]!r}")
    refuse_message_keys(position, item)
    label: Any = item.get("label")
    if has_labels and not (label is None or isinstance(label, str)):
        raise RowError("label", f"must be null or a string such as 'quality:4', it is {type(label).__name__}")
    return Message(role, row_values.text(item, "value"), label if isinstance(label, str) else None)


class RmComparisons(Format):
    """Pairs of lines for the Bradley-Terry reward model: the even line is chosen, the odd one rejected.

    The class pairs lines by parity, so one stray line swaps all labels after it.
    """

    name = "rm-comparisons"
    description = "NeMo-Aligner reward model, Bradley-Terry (RewardModelDataset): chosen and rejected on two lines"
    kind = Comparison
    keys = frozenset({"text"})
    group = 2

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        return _parse(template, row_values.text(row, "text"), "text")

    def matches(self, row: Row) -> bool:
        # Prompts and scored rows have a text too. They are tried before.
        return isinstance(row.get("text"), str)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Comparison:
        prompts: list[Conversation] = []
        replies: list[str] = []
        for position, row in enumerate(rows):
            text = row_values.text(row, "text", position=position)
            conversation = _parse(template, text, "text", position=position)
            prompt, reply = row_values.split_reply(conversation, "text", position=position)
            prompts.append(prompt)
            replies.append(reply)
        if prompts[0] != prompts[1]:
            raise RowError(
                "text",
                "has another prompt than the line before, though the two lines should be the chosen and the rejected "
                "reply to one prompt; look for an extra or a missing line before it",
                position=1,
            )
        row_values.require_different(replies[0], replies[1], "text", position=1)
        first, second = (read_metadata(row, Comparison) for row in rows)
        if first != second:
            key = next(key for key in first if first[key] != second[key])
            raise RowError(key, "differs between the two lines of one pair", position=1)
        return Comparison(prompts[0], replies[0], replies[1], **first)

    def write(self, record: Comparison, template: NemoChatTemplate) -> tuple[Row, ...]:
        return tuple(
            add_metadata({"text": template.render(record.prompt.with_turn(Role.ASSISTANT, reply))}, record)
            for reply in (record.chosen, record.rejected)
        )


class RegressionRm(Format):
    """Rows of the regression reward model. The text ends with the token that starts a label."""

    name = "rm-regression"
    description = "NeMo-Aligner reward model, regression (RegressionRewardModelDataset): nine scores"
    kind = Scored
    keys = frozenset({"text", "label"})

    def matches(self, row: Row) -> bool:
        return isinstance(row.get("text"), str) and isinstance(row.get("label"), list)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Scored:
        row, end = rows[0], template.tokens.label_start
        text = row_values.text(row, "text")
        if not text.endswith(end):
            raise RowError("text", f"must end with {end!r}, which starts the scores; it ends with {text[-20:]!r}")
        conversation = _parse(template, text.removesuffix(end) + template.tokens.turn_start, "text")
        row_values.split_reply(conversation, "text")
        label: object = row.get("label")
        if not isinstance(label, list) or len(cast(list[object], label)) != len(ATTRIBUTES):
            raise RowError(
                "label", f"must be a list of {len(ATTRIBUTES)} numbers, {MASKED_SCORE:.0f} for an unknown one"
            )
        for score in cast(list[object], label):
            if isinstance(score, bool) or not isinstance(score, (int, float)):
                raise RowError("label", f"must hold numbers, it holds {row_values.type_of(score)}")
        scores = tuple(float(score) for score in cast(list[float], label))
        if all(score == MASKED_SCORE for score in scores):
            raise RowError("label", "all scores are masked; remove the row")
        return Scored(conversation, scores, **read_metadata(row, Scored))

    def write(self, record: Scored, template: NemoChatTemplate) -> tuple[Row, ...]:
        text = template.render(record.conversation).removesuffix(template.tokens.turn_start)
        row: Row = {"text": text + template.tokens.label_start, "label": list(record.scores)}
        return (add_metadata(row, record),)


class PpoPrompts(Format):
    """Prompts for PPO, REINFORCE and rejection sampling. The text ends with the assistant's header."""

    name = "ppo-prompts"
    description = "NeMo-Aligner PPO, REINFORCE and rejection sampling (RLHFDataset): prompts"
    kind = PromptOnly
    keys = frozenset({"text"})

    def matches(self, row: Row) -> bool:
        text = row.get("text")
        return isinstance(text, str) and text.rstrip("\n").endswith("Assistant")

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> PromptOnly:
        return PromptOnly(_parse_prompt(template, rows[0], "text"), **read_metadata(rows[0], PromptOnly))

    def write(self, record: PromptOnly, template: NemoChatTemplate) -> tuple[Row, ...]:
        return (add_metadata({"text": template.generation_prompt(record.prompt)}, record),)


class Dpo(Format):
    """Pairs for DPO, IPO and RPO, read from strings or messages and written as strings.

    With messages the class trains the policy on the assistant's header too; with strings it does not.
    """

    name = "dpo"
    description = "NeMo-Aligner DPO, IPO and RPO (DPOModelDataset): a prompt and two responses"
    kind = Comparison
    required_keys = frozenset({"prompt", "chosen_response"})
    keys = frozenset({"prompt", "chosen_response", "rejected_response"})

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Comparison:
        row, names = rows[0], ("chosen_response", "rejected_response")
        if isinstance(row.get("prompt"), str):
            prompt = _parse_prompt(template, row, "prompt")
            chosen, rejected = (_parse_reply(template, row, name) for name in names)
        else:
            prompt = row_values.prompt(row, "prompt")
            chosen, rejected = (row_values.single_reply({name: [row.get(name)]}, name) for name in names)
        row_values.require_different(chosen, rejected, "rejected_response")
        return Comparison(prompt, chosen, rejected, **read_metadata(row, Comparison))

    def write(self, record: Comparison, template: NemoChatTemplate) -> tuple[Row, ...]:
        row: Row = {
            "prompt": template.generation_prompt(record.prompt),
            "chosen_response": record.chosen + template.reply_end,
            "rejected_response": record.rejected + template.reply_end,
        }
        return (add_metadata(row, record),)


class Kto(Format):
    """Single responses labeled "chosen" or "rejected". The class treats every other label as "rejected"."""

    name = "kto"
    description = "NeMo-Aligner KTO (KTOModelDataset): a prompt, a response and whether it is preferred"
    kind = Rated
    required_keys = frozenset({"response", "preference"})
    keys = frozenset({"prompt", "response", "preference"})

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Rated:
        row = rows[0]
        prompt = _parse_prompt(template, row, "prompt")
        preference = row_values.text(row, "preference")
        if preference not in ("chosen", "rejected"):
            raise RowError("preference", f"must be 'chosen' or 'rejected', it is {preference!r}")
        reply = _parse_reply(template, row, "response")
        return Rated(prompt, reply, preference == "chosen", **read_metadata(row, Rated))

    def write(self, record: Rated, template: NemoChatTemplate) -> tuple[Row, ...]:
        row: Row = {
            "prompt": template.generation_prompt(record.prompt),
            "response": record.reply + template.reply_end,
            "preference": "chosen" if record.good else "rejected",
        }
        return (add_metadata(row, record),)
