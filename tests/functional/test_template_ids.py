# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The renderer and the loss mask against NeMo's SFT data set, id for id."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemo_aligner_cai.chat import (
    NEMO_CHAT,
    ChatTokens,
    Conversation,
    LabelType,
    Message,
    NemoChatTemplate,
    Role,
)
from nemo_aligner_cai.chat.named import MISTRAL_INSTRUCT
from nemo_aligner_cai.data.formats.all_formats import FORMATS
from nemo_aligner_cai.data.formats.files import write_records
from nemo_aligner_cai.data.length import drop_long
from nemo_aligner_cai.data.mask import loss_mask
from nemo_aligner_cai.data.records import Chat
from nemo_aligner_cai.files import RowCounts
from tests.conversations import conversation
from tests.functional.tokenizer_pairs import NAMES, Tokenizers, make_tokenizers

CONVERSATIONS = {"sentencepiece": 10_000, "sentencepiece-atomic": 2_000, "huggingface": 10_000}
"""How many random conversations are compared, for each tokenizer."""
TUTORIAL, GPT_SFT = ChatTokens(), ChatTokens("\x00", "\x11", "\x12")
KINDS = [(label_type, tokens) for label_type in (None, *LabelType) for tokens in (TUTORIAL, GPT_SFT)]


@pytest.fixture(scope="module", params=NAMES)
def tokenizers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    return make_tokenizers(request.param, tmp_path_factory.mktemp("tokenizer"))


def _sft_dataset(path: Path, tokenizer: Any, special_tokens: dict[str, str] | None = None) -> Any:
    from nemo.collections.nlp.data.language_modeling.megatron.gpt_sft_chat_dataset import GPTSFTChatDataset

    return GPTSFTChatDataset(
        str(path),
        tokenizer,
        max_seq_length=1 << 20,
        special_tokens=special_tokens,
        memmap_workers=1,
        sanity_check_dist_workers=False,
    )


def _escaped(made: Conversation, template: NemoChatTemplate) -> Conversation:
    return Conversation(tuple(replace(turn, content=template.escape(turn.content)) for turn in made.messages))


def _mask(made: Conversation, random_: random.Random, label_type: LabelType | None) -> str:
    """Whose words are not learnt: the user's, or now and then the assistant's, where a turn is left to learn from."""
    learnt = made.turns[0 if label_type is LabelType.TEXT_TO_VALUE else 1 :]
    others = any(turn.role is Role.USER for turn in learnt)
    return "Assistant" if others and random_.random() < 0.1 else "User"


def test_ids_and_loss_masks_are_those_of_nemos_sft_dataset(tokenizers: Tokenizers, tmp_path: Path):
    compared, prompts, empty = 0, 0, 0
    for number, (label_type, tokens) in enumerate(KINDS):
        count = CONVERSATIONS[tokenizers.name] * (number + 1) // len(KINDS) - compared
        template, random_ = NemoChatTemplate(tokens, label_type), random.Random(f"{label_type} {tokens}")
        made = [conversation(random_, labels=label_type is not None) for _ in range(count)]
        if label_type is not None:
            # The class looks for a label where a text has its token, and stops when it finds another thing there.
            made = [_escaped(one, template) for one in made]
        path = tmp_path / f"{number}.jsonl"
        records = [Chat(one, mask=_mask(one, random_, label_type), label_type=label_type) for one in made]
        write_records(path, records, "sft-chat")
        special = None if tokens == TUTORIAL else {name: getattr(tokens, name) for name in ChatTokens.__annotations__}
        dataset = _sft_dataset(path, tokenizers.theirs, special)
        assert len(dataset) == count
        merges = records if tokenizers.name == "huggingface" else []
        used = drop_long(
            merges, "sft-chat", tokenizer=tokenizers.ours, seq_length=1 << 20, counts=RowCounts(), template=template
        )
        kept = {id(record) for record in used}
        for index, (one, record) in enumerate(zip(made, records, strict=True)):
            compared += 1
            if merges and id(record) not in kept:
                # It merges letters over the edges of turns and the ends of labels, by which the class finds text.
                with pytest.raises(AssertionError, match="mask is empty"):
                    dataset[index]
                empty += 1
                continue
            item, ours = dataset[index], loss_mask(record, template, tokenizers.ours)
            assert (ours.ids, ours.mask) == (item["input_ids"].tolist(), item["mask"].tolist()), one
            # The words of a Hugging Face tokenizer reach over the end of a prompt where the reply starts with a space.
            last = one.turns[-1]
            splits = tokenizers.name != "huggingface" or last.content[:1].strip()
            if last.role is Role.ASSISTANT and last.label is None and splits and record.mask == "User":
                (prompt,) = tokenizers.ours.encode([template.generation_prompt(one.without_last())])
                assert ours.ids[: len(prompt)] == prompt, one
                prompts += 1
    assert compared == CONVERSATIONS[tokenizers.name]
    assert prompts > compared / 4
    assert empty < compared / 50
    assert tokenizers.name == "huggingface" or not empty


def test_the_smallest_difference_to_nemos_sft_dataset_would_be_shown(tokenizers: Tokenizers, tmp_path: Path):
    path = tmp_path / "sft.jsonl"
    write_records(path, [Chat(Conversation.of_user("Q").with_turn(Role.ASSISTANT, "A"))], "sft-chat")
    dataset = _sft_dataset(path, tokenizers.theirs)
    known = st.sampled_from([*NEMO_CHAT.template_tokens, "User\n", "\n"])
    texts = st.lists(st.text(max_size=5) | known, max_size=4).map("".join)
    turns = st.lists(texts, min_size=2, max_size=7)
    compared = 0

    @given(system=texts, said=turns)
    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    def compare(system: str, said: list[str]) -> None:
        nonlocal compared
        roles = (Role.USER, Role.ASSISTANT) * len(said)
        messages = [Message(role, one) for role, one in zip(roles, said, strict=False)]
        made = Conversation((Message(Role.SYSTEM, system), *messages))
        dataset.indexed_dataset = list(FORMATS["sft-chat"].write(Chat(made), NEMO_CHAT))
        item, ours = dataset[0], loss_mask(Chat(made), NEMO_CHAT, tokenizers.ours)
        assert (ours.ids, ours.mask) == (item["input_ids"].tolist(), item["mask"].tolist())
        compared += 1

    compare()
    assert compared >= 200


def test_the_string_is_nemos_own(tokenizers: Tokenizers):
    from nemo.collections.nlp.data.language_modeling.megatron.gpt_sft_chat_dataset import (
        _get_header_conversation_type_mask_role,
    )

    compared, random_ = 0, random.Random(1)
    for label_type, tokens in KINDS:
        special = {name: getattr(tokens, name) for name in ChatTokens.__annotations__}
        for _ in range(600):
            made = conversation(random_, labels=label_type is not None)
            row = FORMATS["sft-chat"].write(Chat(made, label_type=label_type), NEMO_CHAT)[0]
            theirs = _get_header_conversation_type_mask_role(row, special)[1]
            assert NemoChatTemplate(tokens, label_type).render(made) == theirs
            compared += 1
    assert compared == 3_600


def test_mistrals_template_is_what_nemos_server_renders(tokenizers: Tokenizers):
    from nemo.collections.common.tokenizers.chat_template_mixin import tokenize_with_chat_template

    class Letters:
        bos, eos = "<s>", "</s>"

        def text_to_ids(self, letters: str) -> list[str]:
            return list(letters)

    # What NeMo's converter writes into a Mistral model's configuration.
    roles = {"User": "[INST] {_content_} [/INST]", "Assistant": "{_content_}{_eos_}"}
    random_ = random.Random(2)
    for _ in range(500):
        turns = conversation(random_).turns
        messages = [{"role": turn.role.speaker, "content": turn.content} for turn in turns]
        theirs = tokenize_with_chat_template(Letters(), messages, {"prefix": "{_bos_}", "roles": roles})
        assert MISTRAL_INSTRUCT.render(Conversation(turns)) == "".join(theirs)


@pytest.mark.parametrize("tokens", [TUTORIAL, GPT_SFT], ids=["tutorial", "gpt_sft"])
@pytest.mark.parametrize("name", NAMES)
def test_a10_transformers_ids_of_a_converted_folder_are_those_of_the_sft_row(
    name: str, tokens: ChatTokens, tmp_path: Path
) -> None:
    """What vLLM would send to a model that NeMo has trained; the reference's own template is another."""
    from transformers import AutoTokenizer

    from nemo_aligner_cai.training.checkpoints import hf_chat

    tokenizers, template = make_tokenizers(name, tmp_path), NemoChatTemplate(tokens)
    if name != "huggingface":
        config = {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "chat_template": "another",
            "legacy": True,
        }
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    hf_chat.write(tmp_path, template)
    theirs, random_, asked = AutoTokenizer.from_pretrained(tmp_path, use_fast=False), random.Random(name), 0
    found = [Chat(_escaped(conversation(random_), template)) for _ in range(300)]
    found = [row for row in found if row.conversation.messages[-1].role is Role.ASSISTANT]
    # NeMo stops at rows whose turns the tokenizer merges.
    limits = {"tokenizer": tokenizers.ours, "seq_length": 1 << 20, "counts": RowCounts(), "template": template}
    made = [row.conversation for row in drop_long(found, "sft-chat", **limits)]
    write_records(tmp_path / "sft.jsonl", [Chat(one) for one in made], "sft-chat")
    special = {key: getattr(tokens, key) for key in ChatTokens.__annotations__}
    dataset = _sft_dataset(tmp_path / "sft.jsonl", tokenizers.theirs, special)
    for index, one in enumerate(made):
        trained = dataset.tokenizer.text_to_ids(template.render(one))
        assert theirs.apply_chat_template(one.to_messages()) == trained
        prompt = theirs.apply_chat_template(one.without_last().to_messages(), add_generation_prompt=True)
        item = dataset[index]["input_ids"].tolist()
        assert item == trained
        if one.turns[-1].content[:1].strip():
            assert item[: len(prompt)] == prompt
            asked += 1
    assert asked > 50
