# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What nemo_aligner's data sets read of our files: the ids that SFT teaches, and the rows that are predicted."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.formats.files import write_records
from nemo_aligner_cai.data.length import predict_use, texts_of
from nemo_aligner_cai.data.records import Comparison, PromptOnly, Rated, Record, Scored, require_texts
from nemo_aligner_cai.errors import UsageError
from tests.conversations import conversation, text
from tests.functional.tokenizer_pairs import NAMES, Tokenizers, make_tokenizers

READ = {"sentencepiece": 2_500, "sentencepiece-atomic": 200, "huggingface": 2_500}
"""How many random conversations each of the four data sets reads, for each tokenizer."""
LONG = 1 << 20


@pytest.fixture(scope="module", params=NAMES)
def tokenizers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    return make_tokenizers(request.param, tmp_path_factory.mktemp("tokenizer"))


def _records(kind: type, count: int) -> list[Any]:
    random_ = random.Random(kind.__name__)
    made: list[Record] = []

    def add(record: Record) -> None:
        with suppress(UsageError):
            require_texts(record)
            made.append(record)

    while len(made) < count:
        whole = conversation(random_, template=NEMO_CHAT)
        if whole.turns[-1].role is Role.USER:
            whole = whole.without_last()
        prompt, reply, other = whole.without_last(), whole.turns[-1].content, NEMO_CHAT.escape(text(random_))
        if kind is Comparison and reply != other:
            add(Comparison(prompt, reply, other))
        elif kind is PromptOnly:
            add(PromptOnly(prompt))
        elif kind is Rated:
            add(Rated(prompt, reply, random_.random() < 0.5))
        elif kind is Scored:
            add(Scored(whole, (1.0, *[-100.0] * 8)))
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


def _taught(prompt: Conversation, reply: str) -> str:
    return NEMO_CHAT.render(prompt.with_turn(Role.ASSISTANT, reply))


def test_the_reward_model_reads_the_ids_that_sft_teaches(
    tokenizers: Tokenizers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from nemo_aligner.data.nlp import datasets

    # Made anew for each pair, the same for all, and many times slower than the ids.
    monkeypatch.setattr(datasets, "_create_ltor_masks_and_position_ids", lambda *_: (None, None, None))
    records, path = _records(Comparison, READ[tokenizers.name]), tmp_path / "rm.jsonl"
    write_records(path, records, "rm-comparisons")
    dataset = _build("rm", path, tokenizers.theirs, 4096)
    assert len(dataset) == len(records)
    for index, record in enumerate(records):
        item = dataset[index]
        own = tokenizers.ours.encode([_taught(record.prompt, record.chosen), _taught(record.prompt, record.rejected)])
        assert [item[side][: item[f"{side}_length"]].tolist() for side in ("chosen", "rejected")] == own, record


def test_ppo_reads_prefixes_of_what_sft_teaches(tokenizers: Tokenizers, tmp_path: Path):
    records, path = _records(PromptOnly, READ[tokenizers.name]), tmp_path / "ppo.jsonl"
    write_records(path, records, "ppo-prompts")
    dataset = _build("rlhf", path, tokenizers.theirs, LONG)
    assert len(dataset) == len(records)
    for index, record in enumerate(records):
        (trained,) = tokenizers.ours.encode([_taught(record.prompt, "Sure.")])
        ids = dataset[index]["text"].tolist()
        assert ids, record
        assert ids == trained[: len(ids)], record


def test_dpo_learns_the_reply_and_its_end(tokenizers: Tokenizers, tmp_path: Path):
    pairs, path = _records(Comparison, READ[tokenizers.name]), tmp_path / "dpo.jsonl"
    write_records(path, pairs, "dpo")
    merged = predict_use(path, "dpo", tokenizer=tokenizers.ours, seq_length=LONG).merged
    dataset = _build("dpo", path, tokenizers.theirs, LONG)
    assert len(dataset) == len(pairs)
    for index, record in enumerate(pairs):
        if index + 1 in merged:
            with pytest.raises(AssertionError, match="merged tokens"):
                dataset[index]
            continue
        item = dataset[index]
        prompt, *taught = tokenizers.ours.encode(
            [
                NEMO_CHAT.generation_prompt(record.prompt),
                _taught(record.prompt, record.chosen),
                _taught(record.prompt, record.rejected),
            ]
        )
        for side, ids in zip(("chosen", "rejected"), taught, strict=True):
            length = item[f"{side}_length"]
            assert item[side][:length].tolist() == ids[:-1], record
            learnt = [-100] * (len(prompt) - 1) + ids[len(prompt) :]
            assert item[f"{side}_labels"][:length].tolist() == learnt, record
    assert len(merged) < len(pairs) / 2
    assert tokenizers.name == "huggingface" or not merged


def test_kto_learns_the_reply_and_its_end(tokenizers: Tokenizers, tmp_path: Path):
    rated, path = _records(Rated, READ[tokenizers.name]), tmp_path / "kto.jsonl"
    write_records(path, rated, "kto")
    merged = predict_use(path, "kto", tokenizer=tokenizers.ours, seq_length=LONG).merged
    dataset = _build("kto", path, tokenizers.theirs, LONG)
    for index, number in enumerate(_as_kto_shuffles(len(rated))):
        record = rated[number]
        if number + 1 in merged:
            with pytest.raises(AssertionError, match="merged tokens"):
                dataset[index]
            continue
        item = dataset[index]
        prompt, ids = tokenizers.ours.encode(
            [NEMO_CHAT.generation_prompt(record.prompt), _taught(record.prompt, record.reply)]
        )
        assert item["prompt_tokens"].tolist() == prompt, record
        assert item["response_tokens"].tolist() == ids[len(prompt) :], record
        assert item["sample_labels"].tolist() == [-100] * len(prompt) + ids[len(prompt) :], record
        assert item["preference"] == int(record.good)
    assert tokenizers.name == "huggingface" or not merged


def _as_kto_shuffles(rows: int) -> list[int]:
    # The class shuffles its rows with the seed it is given.
    order = list(range(rows))
    numpy.random.default_rng(seed=1).shuffle(order)
    return order


def test_the_reward_model_replaces_the_pairs_that_are_predicted_to_be_too_long(tokenizers: Tokenizers, tmp_path: Path):
    records, path = _records(Comparison, 100), tmp_path / "rm.jsonl"
    write_records(path, records, "rm-comparisons")
    use = predict_use(path, "rm-comparisons", tokenizer=tokenizers.ours, seq_length=128)
    assert 0 < len(use.too_long) < len(records)
    short = _build("rm", path, tokenizers.theirs, 128)
    for number, record in enumerate(records[: len(records) // 4], start=1):
        own = tokenizers.ours.encode(texts_of(record, "rm-comparisons"))
        item = short[number - 1]
        as_it_stands = [item[side][: item[f"{side}_length"]].tolist() for side in ("chosen", "rejected")] == own
        assert as_it_stands == (number not in use.too_long)


def test_ppo_masks_the_prompts_that_are_longer_than_half_the_length(tokenizers: Tokenizers, tmp_path: Path):
    records, path = _records(PromptOnly, 300), tmp_path / "ppo.jsonl"
    write_records(path, records, "ppo-prompts")
    use = predict_use(path, "ppo-prompts", tokenizer=tokenizers.ours, seq_length=200)
    assert 0 < len(use.too_long) < len(records)
    dataset = _build("rlhf", path, tokenizers.theirs, 200)
    masked = [number for number in range(1, len(records) + 1) if not dataset[number - 1]["loss_multiplier"]]
    assert masked == use.too_long


def test_dpo_and_kto_ignore_what_is_predicted_to_be_too_long(tokenizers: Tokenizers, tmp_path: Path):
    dpo, kto = tmp_path / "dpo.jsonl", tmp_path / "kto.jsonl"
    write_records(dpo, _records(Comparison, 200), "dpo")
    write_records(kto, _records(Rated, 200), "kto")
    for name, path, order in (("dpo", dpo, range(200)), ("kto", kto, _as_kto_shuffles(200))):
        use = predict_use(path, name, tokenizer=tokenizers.ours, seq_length=128)
        dataset = _build(name, path, tokenizers.theirs, 128)
        assert 0 < len(use.too_long) < 200
        for index, number in enumerate(order):
            if number + 1 not in use.merged:
                item = dataset[index]
                ignored = item["ignore_example"] if name == "dpo" else bool((item["sample_labels"] == -100).all())
                assert ignored == (number + 1 in use.too_long)


def test_the_regression_reward_model_reads_scores_and_masks_what_is_too_long(tokenizers: Tokenizers, tmp_path: Path):
    records, path = _records(Scored, 200), tmp_path / "regression.jsonl"
    write_records(path, records, "rm-regression")
    use = predict_use(path, "rm-regression", tokenizer=tokenizers.ours, seq_length=128)
    dataset = _build("regression_rm", path, tokenizers.theirs, 128)
    replaced = [number for number in range(1, 201) if not dataset[number - 1]["loss_mask"].any()]
    assert replaced == use.too_long != []
    assert dataset[0]["labels"].tolist() == list(records[0].scores)
