# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""With facts about a tokenizer the length filter drops the same records as by tokenizing all, for the same reasons."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.formats.files import write_records
from nemo_aligner_cai.data.length import drop_long, filter_file
from nemo_aligner_cai.data.length_report import LengthReport, UseReport
from nemo_aligner_cai.data.mask import COUNT_PREFIX
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly, Rated, Record
from nemo_aligner_cai.data.token_facts import TokenFacts
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer, token_facts
from nemo_aligner_cai.files import RowCounts

sentencepiece = pytest.importorskip("sentencepiece")
tokenizers = pytest.importorskip("tokenizers")

CORPUS = ["the door is open", "a house with  many doors", "User asks, Assistant answers", "is it?"] * 20
TURNS = ["<extra_id_0>", "<extra_id_1>"]
LLAMA = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True}
MODELS: dict[str, dict[str, Any]] = {
    "bpe": LLAMA | {"model_type": "bpe"},
    "bpe-without-first-space": LLAMA | {"model_type": "bpe", "add_dummy_prefix": False},
    "bpe-with-turns": LLAMA | {"model_type": "bpe", "user_defined_symbols": TURNS},
    # Its pieces reach over the end of a name and of a turn.
    "bpe-over-turns": LLAMA | {"model_type": "bpe", "user_defined_symbols": [*TURNS, "\n<", "User\n", "t\na"]},
    "bpe-without-bytes": LLAMA | {"model_type": "bpe", "byte_fallback": False},
    "bpe-without-double-spaces": LLAMA | {"model_type": "bpe", "remove_extra_whitespaces": True},
    "bpe-space-as-suffix": LLAMA | {"model_type": "bpe", "treat_whitespace_as_suffix": True},
    "bpe-nmt_nfkc": LLAMA | {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc"},
    "unigram": LLAMA | {"model_type": "unigram"},
    "unigram-nmt_nfkc": {"model_type": "unigram", "user_defined_symbols": TURNS},
    "char": LLAMA | {"model_type": "char"},
    "word": {"model_type": "word", "normalization_rule_name": "identity"},
}
KNOWN = {"bpe", "bpe-without-first-space", "bpe-with-turns", "bpe-over-turns"}
"""The models about which facts are known."""


def train(settings: dict[str, Any], path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=320 if settings.get("byte_fallback") else 60,
        hard_vocab_limit=settings["model_type"] == "bpe",
        minloglevel=2,
        **settings,
    )
    path.write_bytes(model.getvalue())


def train_gpt2(path: Path) -> None:
    fast = tokenizers.Tokenizer(tokenizers.models.BPE())
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator([*CORPUS, "a\n\nb\n\nc"], trainer)
    fast.add_special_tokens(TURNS[:1])
    fast.save(str(path))


def train_llama2(path: Path) -> None:
    """A space before the text, and before each text after an added token."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {
        "\u2581": 256,
        "<unk>": 257,
        "a": 258,
        "\u2581a": 259,
    }
    fast = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, [("\u2581", "a")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    replace = tokenizers.normalizers.Replace(" ", "\u2581")
    fast.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Prepend("\u2581"), replace])
    fast.add_special_tokens(["<s>"])
    fast.add_tokens([tokenizers.AddedToken(token, normalized=False, lstrip=True) for token in TURNS])
    fast.save(str(path))


HF: dict[str, Callable[[Path], None]] = {"hf-gpt2": train_gpt2, "hf-llama2": train_llama2}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder, made = tmp_path_factory.mktemp("tokenizers"), dict[str, Tokenizer]()
    for name, settings in MODELS.items():
        train(settings, folder / f"{name}.model")
        made[name] = load_tokenizer(folder / f"{name}.model")
    for name, write in HF.items():
        write(folder / f"{name}.json")
        made[name] = load_tokenizer(folder / f"{name}.json")
    return made


def known_facts(tokenizer: Tokenizer) -> TokenFacts:
    facts = token_facts(tokenizer)
    assert facts is not None
    return facts


class Plain:
    """The same tokens, about which nothing is known."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer.encode(texts)


# NFKC makes eighteen characters of U+FDFA.
PARTS = ("the", " door", "is", "t", "a", "1", "<", " ", "     ", "\n", "\n\n", "User\n", "Assistant")
CONTROL = ("<extra_id_0>", "<extra_id_1>", "<0x0A>", "<s>", "</s>", "<unk>", "\x00", "\x1f", "\u200d")
WIDE = ("\u2581", "\ufdfa", "e\u0301", "\U0001f600")
texts = st.lists(st.one_of(st.sampled_from(PARTS + CONTROL + WIDE), st.text(max_size=3)), max_size=12).map("".join)


def prompt(text: str, system: str) -> Conversation:
    return Conversation.of_user(text, system=system)


prompts = st.builds(prompt, texts, texts)


def chat(prompt: Conversation, replies: list[str], mask: str) -> Chat:
    conversation = prompt
    for position, reply in enumerate(replies):
        conversation = conversation.with_turn(Role.ASSISTANT if position % 2 == 0 else Role.USER, reply)
    return Chat(conversation, mask=mask)


records = st.one_of(
    st.tuples(
        st.just("sft-chat"),
        st.builds(chat, prompts, st.lists(texts, min_size=1, max_size=5), st.sampled_from(["User", "Assistant"])),
    ),
    st.tuples(st.sampled_from(["dpo", "rm-comparisons"]), st.builds(Comparison, prompts, texts, texts)),
    st.tuples(st.just("kto"), st.builds(Rated, prompts, texts, st.booleans())),
    st.tuples(st.just("ppo-prompts"), st.builds(PromptOnly, prompts)),
)


def test_facts_are_known_for_models_that_neither_normalize_nor_guess(loaded: dict[str, Tokenizer]):
    assert {name for name, tokenizer in loaded.items() if token_facts(tokenizer) is not None} == KNOWN
    frames = {name: known_facts(loaded[name]).splits("\n", "<extra_id_1>") for name in KNOWN}
    assert [name for name, splits in frames.items() if not splits] == ["bpe-over-turns"]


@pytest.mark.parametrize("name", sorted(KNOWN))
@given(texts, texts)
@example("\n", "<extra_id_1>User\n")
@example("<extra_id_0>", "<extra_id_0>")
@example("Assistant\n", "answers")
def test_the_facts_hold(loaded: dict[str, Tokenizer], name: str, before: str, after: str):
    tokenizer, facts = loaded[name], known_facts(loaded[name])
    parts = [before, before + after, COUNT_PREFIX, COUNT_PREFIX + after]
    start, whole, prefix, rest = tokenizer.encode(parts)
    for text, ids in zip(parts, (start, whole, prefix, rest), strict=True):
        assert len(ids) <= facts.most_tokens(text)
    if before and facts.splits(before, after):
        assert whole[: len(start)] == start
        if facts.splits(COUNT_PREFIX, after):
            assert whole[len(start) :] == rest[len(prefix) :]


@pytest.mark.parametrize("name", [*MODELS, *HF])
@given(records, st.integers(2, 300))
@example(("dpo", Comparison(Conversation.of_user("Q"), "<extra_id_0><extra_id_0>", "\n")), 40)
def test_the_same_records_are_dropped_for_the_same_reasons(
    loaded: dict[str, Tokenizer], name: str, made: tuple[str, Record], seq_length: int
):
    (format_name, record), outcomes = made, list[tuple[list[Record], RowCounts]]()
    for tokenizer in (loaded[name], Plain(loaded[name])):
        counts = RowCounts()
        kept = drop_long([record], format_name, tokenizer=tokenizer, seq_length=seq_length, counts=counts)
        outcomes.append((list(kept), counts))
    assert outcomes[0] == outcomes[1]


def test_only_texts_that_may_be_too_long_are_tokenized(
    loaded: dict[str, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, target, tokenizer = tmp_path / "sft.jsonl", tmp_path / "kept.jsonl", loaded["bpe"]
    frame = len(NEMO_CHAT.render(chat(Conversation.of_user("Q"), [""], "User").conversation))
    rows = [chat(Conversation.of_user("Q"), ["is it?" * length], "User") for length in (1, 20, 200, 2)]
    write_records(source, rows, "sft-chat")
    counted = filter_file(source, target, "sft-chat", kind=LengthReport, tokenizer=tokenizer, seq_length=frame + 120)
    encoded: list[str] = []

    def encode(given: Sequence[str]) -> list[list[int]]:
        encoded.extend(given)
        return type(tokenizer).encode(tokenizer, given)

    monkeypatch.setattr(tokenizer, "encode", encode)
    report = filter_file(
        source, target, "sft-chat", kind=UseReport, tokenizer=tokenizer, seq_length=frame + 120, overwrite=True
    )
    assert encoded == [NEMO_CHAT.render(rows[2].conversation)]
    assert (report.records, report.too_long, report.merged) == (4, [3], {})
    assert report.counts == counted.counts and report.skipped == counted.skipped
    assert "the longest" in str(counted) and "the longest" not in str(report)
