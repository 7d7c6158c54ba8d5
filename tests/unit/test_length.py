# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTokens, Conversation, LabelType, NemoChatTemplate, Role
from nemo_aligner_cai.data.formats.files import convert_file, read_records, write_records
from nemo_aligner_cai.data.formats.nemo import sft_text
from nemo_aligner_cai.data.length import (
    LIMITS,
    drop_long,
    filter_file,
    limit_of,
    merges_empty_system,
    predict_use,
    texts_of,
)
from nemo_aligner_cai.data.length_report import LengthReport, UseReport
from nemo_aligner_cai.data.mask import loss_mask
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts, read_jsonl


class Letters:
    """One token a letter."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]


def chat(reply: str, dataset: str | None = None) -> Chat:
    return Chat(Conversation.of_user("Q").with_turn(Role.ASSISTANT, reply), dataset)


FRAME = len(NEMO_CHAT.render(chat("").conversation))


@pytest.mark.parametrize("name", LIMITS)
def test_each_trainer_has_its_limit(name: str):
    limits = {"sft-chat": 101, "dpo": 101, "rm-comparisons": 100, "rm-regression": 100, "kto": 100, "ppo-prompts": 50}
    assert LIMITS[name](100) == limits[name] == limit_of(name, 100)


def test_ppo_reserves_the_length_of_its_replies(tmp_path: Path):
    path, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts = [PromptOnly(Conversation.of_user("x" * number)) for number in (1, 40)]
    frame = len(NEMO_CHAT.generation_prompt(prompts[0].prompt)) - 1
    write_records(path, prompts, "ppo-prompts")
    for response, used in ((10, 2), (20, 1), (None, 0)):
        lengths = {"seq_length": frame + 50, "response_length": response}
        use = predict_use(path, "ppo-prompts", tokenizer=Letters(), **lengths)
        assert (use.limit, use.used) == (frame + 50 - (response or -(-(frame + 50) // 2)), used)
        filter_file(path, target, "ppo-prompts", kind=UseReport, tokenizer=Letters(), overwrite=True, **lengths)
        assert len(list(read_jsonl(target))) == used
    with pytest.raises(UsageError, match="a sequence length of 50 with 50 tokens for the reply leaves no token"):
        limit_of("ppo-prompts", 50, 50)
    with pytest.raises(UsageError, match="--response-length is only for ppo-prompts: dpo contains the replies"):
        limit_of("dpo", 50, 10)


def test_predicts_what_is_cut_and_leaves_it_out(tmp_path: Path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    fits, cut = chat("x" * (101 - FRAME), "a"), chat("x" * (102 - FRAME), "b")
    write_records(source, [fits, cut, fits, cut], "sft-chat")
    use = filter_file(source, target, "sft-chat", kind=LengthReport, tokenizer=Letters(), seq_length=100)
    assert (use.records, use.used, use.too_long, use.longest) == (4, 2, [2, 4], 102)
    assert use.lengths == {101: 2, 102: 2}
    assert "2 of 4 records are used: 2 are longer than 101 tokens, the first is record 2" in str(use)
    kept = [row for _, row in read_jsonl(target)]
    assert kept == [row for _, row in read_jsonl(source) if row["dataset"] == "a"]
    again = predict_use(target, "sft-chat", tokenizer=Letters(), seq_length=100)
    assert (again.used, again.too_long) == (2, [])


def test_a_comparison_goes_as_one_when_either_reply_is_too_long(tmp_path: Path):
    path, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompt = Conversation.of_user("Q")
    pairs = [Comparison(prompt, "a", "b"), Comparison(prompt, "a", "b" * 100), Comparison(prompt, "a" * 100, "b")]
    write_records(path, pairs, "rm-comparisons")
    counts = RowCounts()
    options: dict[str, Any] = {"tokenizer": Letters(), "seq_length": 100}
    records = read_records(path, "rm-comparisons", counts=RowCounts())
    assert list(drop_long(records, "rm-comparisons", counts=counts, **options)) == pairs[:1]
    assert counts.skipped == {"longer than 100 tokens": 2}
    counts.check()
    assert filter_file(path, target, "rm-comparisons", kind=UseReport, **options).too_long == [2, 3]
    assert [record for record in read_records(target, counts=RowCounts())] == pairs[:1]


def test_the_reward_model_stops_where_no_pair_follows_that_it_could_take_instead(tmp_path: Path):
    path, prompt = tmp_path / "rm.jsonl", Conversation.of_user("Q")
    fits, long = Comparison(prompt, "a", "b"), Comparison(prompt, "a", "b" * 100)
    for pairs, stops in (
        ([long, fits, fits, fits], []),
        ([long, long, long, fits, fits], []),
        ([fits, long, fits], [2]),
        ([fits, fits, long, fits, long], [3, 5]),
        ([long], [1]),
    ):
        write_records(path, pairs, "rm-comparisons", overwrite=True)
        use = predict_use(path, "rm-comparisons", tokenizer=Letters(), seq_length=100)
        assert use.stops == stops
        assert ("the trainer stops at record" in str(use)) == bool(stops)


class Merging(Letters):
    """Line ends in a row are one token, as in GPT-2's vocabulary."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return super().encode([text.replace("\n\n", "¶") for text in texts])


def test_rows_at_which_a_trainer_would_stop_are_found_and_left_out(tmp_path: Path):
    path, target = tmp_path / "dpo.jsonl", tmp_path / "out.jsonl"
    prompt = Conversation.of_user("Q")
    pairs = [Comparison(prompt, "a", "b"), Comparison(prompt, "a", "\nb")]
    write_records(path, pairs, "dpo")
    use = filter_file(path, target, "dpo", kind=UseReport, tokenizer=Merging(), seq_length=1000)
    assert (use.used, use.too_long, use.merged) == (1, [], {2: use.merged[2]})
    assert "the trainer stops at record 2" in str(use)
    assert list(read_records(target, counts=RowCounts())) == pairs[:1]
    counts = RowCounts()
    kept = drop_long(pairs, "dpo", tokenizer=Merging(), seq_length=1000, counts=counts)
    assert list(kept) == pairs[:1]
    assert counts.skipped == {"the tokenizer merges letters over the end of the prompt or of a turn": 1}
    # The reward model reads whole texts and does not mind.
    assert list(drop_long(pairs, "rm-comparisons", tokenizer=Merging(), seq_length=1000, counts=RowCounts())) == pairs


def test_the_texts_are_those_that_the_trainers_tokenize():
    prompt = Conversation.of_user("Q")
    whole = NEMO_CHAT.render(prompt.with_turn(Role.ASSISTANT, "A"))
    assert texts_of(Comparison(prompt, "A", "B"), "dpo")[0] == whole
    assert texts_of(Comparison(prompt, "A", "B"), "rm-comparisons")[0] == whole
    assert texts_of(PromptOnly(prompt), "ppo-prompts") == (NEMO_CHAT.generation_prompt(prompt),)
    assert texts_of(chat("A"), "sft-chat") == (whole,)
    masked = Chat(chat("A").conversation, mask="Assistant")
    assert sft_text(masked, NEMO_CHAT) == whole.removesuffix("<extra_id_1>")


def test_limits_that_make_no_sense_are_refused(tmp_path: Path):
    path = tmp_path / "in.jsonl"
    write_records(path, [chat("A")], "sft-chat")
    with pytest.raises(UsageError, match=r"sft-chat.*, not for "):
        predict_use(path, "messages", tokenizer=Letters(), seq_length=10)
    with pytest.raises(UsageError, match="a sequence length of 1 with half of it for the reply leaves no token"):
        predict_use(path, "ppo-prompts", tokenizer=Letters(), seq_length=1)


def test_the_mask_covers_replies_and_the_token_that_ends_them():
    conversation = chat("A1").conversation.with_turn(Role.USER, "Q2").with_turn(Role.ASSISTANT, "A2")
    trained = loss_mask(Chat(conversation), NEMO_CHAT, Letters())
    learnt = "".join(chr(token) if kept else "·" for token, kept in zip(trained.ids, trained.mask, strict=True))
    assert [part for part in learnt.split("·") if part] == ["A1\n<extra_id_1>", "A2\n<extra_id_1>"]


def test_the_mask_follows_labels():
    conversation = Conversation.of_user("Q").with_turn(Role.ASSISTANT, "A", label="quality:4")
    for label_type, learnt in ((LabelType.VALUE_TO_TEXT, "A\n<extra_id_1>"), (LabelType.TEXT_TO_VALUE, "quality:4\n")):
        trained = loss_mask(Chat(conversation, label_type=label_type), NEMO_CHAT, Letters())
        text = "".join(chr(token) for token, kept in zip(trained.ids, trained.mask, strict=True) if kept)
        assert text.removesuffix("<extra_id_1>") == learnt.removesuffix("<extra_id_1>")


def test_the_mask_is_the_rows_own():
    conversation = chat("A1").conversation.with_turn(Role.USER, "Q2").with_turn(Role.ASSISTANT, "A2")
    trained = loss_mask(Chat(conversation, mask="Assistant"), NEMO_CHAT, Letters())
    text = "".join(chr(token) if kept else "·" for token, kept in zip(trained.ids, trained.mask, strict=True))
    assert [part for part in text.split("·") if part] == ["Q2\n<extra_id_1>"]


class MergedLines(Letters):
    """Has a token for the end of a question with the beginning of the next turn."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[hash(piece) for piece in re.findall(r"Q\n\x11|.", text, re.DOTALL)] for text in texts]


class Gpt2(Letters):
    """GPT-2's way of cutting words: line ends in a row are one token at the end of a text, and none before letters."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[hash(piece) for piece in re.findall(r"\s+(?!\S)|\s|[^\s]", text)] for text in texts]


def test_a12_an_empty_system_turn_is_named_as_the_cause_and_a_message_is_the_fix(tmp_path: Path):
    path = tmp_path / "sft.jsonl"
    spaced = Chat(Conversation.of_user("Q", system="Be good.\n").with_turn(Role.ASSISTANT, "A"))
    good = Chat(Conversation.of_user("Q", system="Be good.").with_turn(Role.ASSISTANT, "A"))
    write_records(path, [chat("A"), good, spaced], "sft-chat")
    use = predict_use(path, "sft-chat", tokenizer=Gpt2(), seq_length=1000)
    assert (use.used, use.stops) == (1, [1, 3])
    assert "--system-message" in use.merged[1] and "--system-message" in str(use)
    assert "--system-message" not in use.merged[3]
    assert merges_empty_system(Gpt2()) and not merges_empty_system(Letters())
    fixed = tmp_path / "fixed.jsonl"
    convert_file(path, fixed, to="sft-chat", system_message="Be brief.")
    assert predict_use(fixed, "sft-chat", tokenizer=Gpt2(), seq_length=1000).stops == [3]
    kept = [
        record.conversation.system for record in read_records(fixed, counts=RowCounts()) if isinstance(record, Chat)
    ]
    assert kept == ["Be brief.", "Be good.", "Be good.\n"]


def test_sft_stops_where_merged_line_ends_leave_nothing_to_learn():
    template = NemoChatTemplate(ChatTokens("\x00", "\x11", "\x12"))
    records = [chat(""), chat("Yes.")]
    counts = RowCounts()
    used = drop_long(records, "sft-chat", tokenizer=MergedLines(), seq_length=200, counts=counts, template=template)
    assert list(used) == records[1:]
    assert list(counts.skipped.values()) == [1]


def test_loads_sentencepiece_and_hugging_face_tokenizers(tmp_path: Path):
    sentencepiece = pytest.importorskip("sentencepiece")
    tokenizers = pytest.importorskip("tokenizers")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the door is open", "a house"] * 20),
        model_writer=model,
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (ids,) = load_tokenizer(tmp_path / "tokenizer.model").encode(["the door"])
    assert load_tokenizer(tmp_path).encode(["the door", "a"])[0] == ids
    fast = tokenizers.Tokenizer(tokenizers.models.BPE())
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.train_from_iterator(["the door is open"], tokenizers.trainers.BpeTrainer(vocab_size=300))
    (tmp_path / "hf").mkdir()
    fast.save(str(tmp_path / "hf" / "tokenizer.json"))
    assert load_tokenizer(tmp_path / "hf").encode(["the door"]) == [fast.encode("the door").ids]


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, name: str):
    pytest.importorskip("sentencepiece")
    pytest.importorskip("tokenizers")
    (tmp_path / name).write_bytes(json.dumps({"a": 1}).encode())
    with pytest.raises(UsageError, match="is not a"):
        load_tokenizer(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be read"):
        load_tokenizer(tmp_path / "nowhere")
