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
"""The renderer, the loss mask and the token limits against the dataset classes that train.

What nemo_aligner and NeMo make of our files is compared id for id, with a SentencePiece and a Hugging Face tokenizer.
"""

import io
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from nemo_aligner_cai.conversation import (
    NEMO_CHAT,
    ChatTokens,
    Conversation,
    LabelType,
    Message,
    NemoChatTemplate,
    Role,
)
from nemo_aligner_cai.data.formats import FORMATS, write_records
from nemo_aligner_cai.data.length import predict_use, texts_of
from nemo_aligner_cai.data.mask import loss_mask
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly, Rated, Record, Scored
from nemo_aligner_cai.data.tokenizer import load_tokenizer

# For each of three tokenizers, three kinds of label and two sets of tokens: 10,800 in all.
CONVERSATIONS = 600
SENTENCES = (
    "how do i open the door please thanks no yes . , ! ? a b I'm sorry can't 12 2.5 User Assistant System",
    "é Système 中文 🎈 ﬁ ﷺ <extra_id_ <extra_id_1> <extra_id_0> > < _1 id ]] ) '",
)
SPACES = ("\n", "\n\n", " ", "  \t", '"', "\u2028", "\u00a0", "\x00", "\x11", "<extra_id_1>Assistant\n")
WORDS = (*(word for sentence in SENTENCES for word in sentence.split()), *SPACES)


def text(random_: random.Random, *, clean: bool = False) -> str:
    words = [random_.choice(WORDS) for _ in range(random_.randrange(12))]
    joined = random_.choice(["", " "]).join(words)
    return NEMO_CHAT.escape(joined) if clean else joined


def conversation(random_: random.Random, *, labels: bool = False, clean: bool = False) -> Conversation:
    def message(role: Role) -> Message:
        label = f"quality:{random_.randrange(5)}" if labels and random_.random() < 0.6 else None
        return Message(role, text(random_, clean=clean or labels), label)

    system = text(random_, clean=clean or labels) if random_.random() < 0.5 else ""
    start = (Message(Role.SYSTEM, system),) if system else ()
    turns = [message(role) for _ in range(random_.randint(1, 4)) for role in (Role.USER, Role.ASSISTANT)]
    if random_.random() < 0.1:
        turns.append(message(Role.USER))
    return Conversation((*start, *turns))


@pytest.fixture(scope="module")
def nemo() -> None:
    from nemo_aligner_cai.training import cpu

    cpu.install()


def corpus() -> Iterator[str]:
    random_ = random.Random(0)
    for _ in range(2000):
        yield text(random_).replace("\x00", "")


@pytest.fixture(scope="module", params=["sentencepiece", "sentencepiece-atomic", "huggingface"])
def tokenizers(
    request: pytest.FixtureRequest, nemo: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """(NeMo's tokenizer, ours) from one file."""
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "huggingface":
        _train_huggingface(folder)
        return get_nmt_tokenizer(library="huggingface", model_name=str(folder), use_fast=True), load_tokenizer(folder)
    path = folder / "tokenizer.model"
    # In Mistral's vocabulary <extra_id_1> is seven pieces; models made for NeMo have it as one.
    atomic = ["<extra_id_0>", "<extra_id_1>", "<extra_id_2>"] if request.param.endswith("atomic") else []
    _train_sentencepiece(path, atomic)
    return get_nmt_tokenizer(library="sentencepiece", tokenizer_model=str(path)), load_tokenizer(path)


def _train_sentencepiece(path: Path, atomic: list[str]) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for document in corpus() for line in document.split("\n") if line),
        model_writer=model,
        vocab_size=500,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.99,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=atomic,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def _train_huggingface(folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # Llama 3's way of cutting words; GPT-2's merges the two line ends of an empty system message, but not before
    # "<", and NeMo stops at that.
    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=600, special_tokens=["</s>"], initial_alphabet=alphabet)
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(str(folder))


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


@pytest.mark.parametrize("label_type", [None, *LabelType])
@pytest.mark.parametrize("tokens", [ChatTokens(), ChatTokens("\x00", "\x11", "\x12")], ids=["tutorial", "gpt_sft"])
def test_ids_and_loss_masks_are_those_of_nemos_sft_dataset(
    tokenizers: tuple[Any, Any], label_type: LabelType | None, tokens: ChatTokens, tmp_path: Path
):
    theirs, ours = tokenizers
    random_ = random.Random(f"{label_type} {tokens}")
    template = NemoChatTemplate(tokens, label_type)
    labels = label_type is not None
    records = []
    for _ in range(CONVERSATIONS):
        made = conversation(random_, labels=labels)
        if labels:
            # The class looks for a label where a text has its token, and stops when it finds another thing there.
            made = Conversation(tuple(replace(m, content=template.escape(m.content)) for m in made.messages))
        records.append(Chat(made, "test", label_type=label_type))
    path = tmp_path / "sft.jsonl"
    write_records(path, records, "sft-chat")
    special = None if tokens == ChatTokens() else {name: getattr(tokens, name) for name in ChatTokens.__annotations__}
    dataset = _sft_dataset(path, theirs, special)
    assert len(dataset) == len(records)
    differences, split = [], 0
    for index, record in enumerate(records):
        item = dataset[index]
        trained = loss_mask(record.conversation, template, ours)
        if trained.ids != item["input_ids"].tolist() or trained.mask != item["mask"].tolist():
            differences.append(record)
        # The words of a Hugging Face tokenizer may reach over the end of the prompt where a reply starts with a space.
        last = record.conversation.turns[-1]
        if last.role is Role.ASSISTANT and not labels and last.content[:1].strip():
            (prompt,) = ours.encode([template.generation_prompt(record.conversation.without_last())])
            assert trained.ids[: len(prompt)] == prompt
            split += 1
    assert not differences, differences[0]
    assert labels or split > CONVERSATIONS / 2


def test_the_string_is_nemos_own(nemo: None):
    from nemo.collections.nlp.data.language_modeling.megatron.gpt_sft_chat_dataset import (
        _get_header_conversation_type_mask_role,
    )

    special = {name: getattr(ChatTokens(), name) for name in ChatTokens.__annotations__}
    random_ = random.Random(1)
    for label_type in (None, *LabelType):
        for _ in range(CONVERSATIONS):
            made = conversation(random_, labels=label_type is not None)
            row = FORMATS["sft-chat"].write(Chat(made, label_type=label_type), NEMO_CHAT)[0]
            theirs = _get_header_conversation_type_mask_role(row, special)[1]
            assert NemoChatTemplate(label_type=label_type).render(made) == theirs


def _records(kind: type, count: int) -> list[Any]:
    random_ = random.Random(kind.__name__)
    made: list[Record] = []
    while len(made) < count:
        whole = conversation(random_, clean=True)
        if whole.turns[-1].role is Role.USER:
            whole = whole.without_last()
        prompt, reply, other = whole.without_last(), whole.turns[-1].content, text(random_, clean=True)
        if kind is Comparison and reply != other:
            made.append(Comparison(prompt, reply, other))
        elif kind is PromptOnly:
            made.append(PromptOnly(prompt))
        elif kind is Rated:
            made.append(Rated(prompt, reply, random_.random() < 0.5))
        elif kind is Scored:
            made.append(Scored(whole, (1.0, *[-100.0] * 8)))
    return made


def _build(name: str, path: Path, tokenizer: Any, seq_length: int) -> Any:
    from nemo_aligner.data.nlp import builders
    from omegaconf import OmegaConf

    prefix = OmegaConf.create({split: [str(path)] for split in ("train", "validation", "test")})
    cfg = OmegaConf.create({"data": {"data_impl": "jsonl", "splits_string": None}})
    build = getattr(builders, f"build_train_valid_test_{name}_datasets")
    train, _, _ = build(
        cfg=cfg,
        data_prefix=prefix,
        data_impl="jsonl",
        splits_string=None,
        train_valid_test_num_samples=[-1, -1, -1],
        seq_length=seq_length,
        seed=1,
        tokenizer=tokenizer,
    )
    return train


def test_the_reward_model_reads_the_texts_that_sft_teaches(tokenizers: tuple[Any, Any], tmp_path: Path):
    theirs, ours = tokenizers
    records, path = _records(Comparison, 100), tmp_path / "rm.jsonl"
    write_records(path, records, "rm-comparisons")
    dataset = _build("rm", path, theirs, 640)
    assert len(dataset) == len(records)
    for index, record in enumerate(records):
        item = dataset[index]
        for side in ("chosen", "rejected"):
            answered = record.prompt.with_turn(Role.ASSISTANT, getattr(record, side))
            (ids,) = ours.encode([NEMO_CHAT.render(answered)])
            assert item[side][: item[f"{side}_length"]].tolist() == ids
    # Over-long pairs are replaced by others; what is predicted to be used is what is read as it stands.
    use = predict_use(path, "rm-comparisons", tokenizer=ours, seq_length=128)
    assert 0 < len(use.too_long) < len(records)
    short = _build("rm", path, theirs, 128)
    for number, record in enumerate(records[: len(records) // 4], start=1):
        own = ours.encode(texts_of(record, "rm-comparisons"))
        item = short[number - 1]
        as_it_stands = [item[side][: item[f"{side}_length"]].tolist() for side in ("chosen", "rejected")] == own
        assert as_it_stands == (number not in use.too_long)


def test_ppo_reads_prefixes_of_what_sft_teaches_up_to_half_the_length(tokenizers: tuple[Any, Any], tmp_path: Path):
    theirs, ours = tokenizers
    records, path = _records(PromptOnly, 300), tmp_path / "ppo.jsonl"
    write_records(path, records, "ppo-prompts")
    use = predict_use(path, "ppo-prompts", tokenizer=ours, seq_length=200)
    assert 0 < len(use.too_long) < len(records)
    dataset = _build("rlhf", path, theirs, 200)
    masked = [number for number in range(1, len(records) + 1) if not dataset[number - 1]["loss_multiplier"]]
    assert masked == use.too_long
    for index, record in enumerate(records):
        if index + 1 not in masked:
            (trained,) = ours.encode([NEMO_CHAT.render(record.prompt.with_turn(Role.ASSISTANT, "Sure."))])
            ids = dataset[index]["text"].tolist()
            assert ids == trained[: len(ids)]


def test_dpo_and_kto_learn_the_reply_and_its_end(tokenizers: tuple[Any, Any], tmp_path: Path):
    theirs, ours = tokenizers
    pairs, path = _records(Comparison, 200), tmp_path / "dpo.jsonl"
    write_records(path, pairs, "dpo")
    use = predict_use(path, "dpo", tokenizer=ours, seq_length=128)
    dataset = _build("dpo", path, theirs, 128)
    assert use.too_long
    for index, record in enumerate(pairs):
        if index + 1 in use.merged:
            with pytest.raises(AssertionError, match="merged tokens"):
                dataset[index]
            continue
        assert dataset[index]["ignore_example"] == (index + 1 in use.too_long)
        if index + 1 in use.too_long:
            continue
        item = dataset[index]
        prompt, chosen = ours.encode(
            [
                NEMO_CHAT.generation_prompt(record.prompt),
                NEMO_CHAT.render(record.prompt.with_turn(Role.ASSISTANT, record.chosen)),
            ]
        )
        labels = item["chosen_labels"][: item["chosen_length"]].tolist()
        assert labels == [-100] * (len(prompt) - 1) + chosen[len(prompt) :]
    rated, path = _records(Rated, 200), tmp_path / "kto.jsonl"
    write_records(path, rated, "kto")
    use = predict_use(path, "kto", tokenizer=ours, seq_length=128)
    dataset = _build("kto", path, theirs, 128)
    # The class shuffles its rows with the seed it is given.
    order = list(range(200))
    numpy.random.default_rng(seed=1).shuffle(order)
    assert use.too_long
    for index, number in enumerate(order):
        if number + 1 in use.merged:
            with pytest.raises(AssertionError, match="merged tokens"):
                dataset[index]
            continue
        assert bool((dataset[index]["sample_labels"] == -100).all()) == (number + 1 in use.too_long)
        assert dataset[index]["preference"] == int(rated[number].good)


def test_the_regression_reward_model_reads_scores_and_masks_what_is_too_long(
    tokenizers: tuple[Any, Any], tmp_path: Path
):
    theirs, ours = tokenizers
    records, path = _records(Scored, 200), tmp_path / "regression.jsonl"
    write_records(path, records, "rm-regression")
    use = predict_use(path, "rm-regression", tokenizer=ours, seq_length=128)
    dataset = _build("regression_rm", path, theirs, 128)
    replaced = [number for number in range(1, 201) if not dataset[number - 1]["loss_mask"].any()]
    assert replaced == use.too_long != []
    assert dataset[0]["labels"].tolist() == list(records[0].scores)
