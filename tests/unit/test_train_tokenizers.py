# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The check of data files by `cai train`, for every kind of tokenizer that a model may have."""

import base64
import json
import logging
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")
pytest.importorskip("tokenizers", reason="the training extra is not installed")

from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.data.formats.files import write_records
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly, Record
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.packaged_files import TOKENIZER
from nemo_aligner_cai.training import data_processors
from nemo_aligner_cai.training.checkpoints.nemo_archive import MODEL_CONFIG
from nemo_aligner_cai.training.checks import data_files, model_tokenizer
from tests.unit.test_train_inputs import MODEL, archive
from tests.unit.test_train_inputs import config as configuration

HUGGING_FACE = b"tokenizer: {library: huggingface, type: %s}\n"
TRAIN, VALIDATION = "model.data.train_ds.file_path", "model.data.validation_ds.file_path"


def bytes_of(folder: Path, *, gpt2: bool = False, max_length: int | None = None) -> Path:
    """A tokenizer of a token for each byte; with `gpt2` line ends in a row are one where GPT-2 does not cut them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*alphabet, "ĊĊ"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")] if gpt2 else []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2)
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding(length=max_length)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def chat(reply: str) -> Chat:
    return Chat(Conversation.of_user("Q").with_turn(Role.ASSISTANT, reply))


def check(
    tmp_path: Path, model: Path, format_name: str, records: list[Record], length: int = 200, **more: object
) -> None:
    path = tmp_path / f"{format_name}.jsonl"
    write_records(path, records, format_name, overwrite=True)
    cfg = configuration({MODEL: str(model), "model.data.file": str(path)})
    spec = data_files.DatasetSpec(format_name, MODEL, length, None, **more)  # pyright: ignore[reportArgumentType]
    data_files.check_file(cfg, path, "model.data.file", spec)


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(logging.getLogger("nemo_aligner_cai"), "propagate", True)
    caplog.set_level(logging.WARNING)


LONG = "x" * 300
PROMPT = Conversation.of_user("Q")


def test_a11_texts_are_counted_with_a_tokenizer_of_hugging_faces_form(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = archive(tmp_path / "m.nemo", HUGGING_FACE % bytes(bytes_of(tmp_path / "hf")))
    check(tmp_path, model, "sft-chat", [chat("A"), chat(LONG), chat(LONG)])
    assert "sft-chat.jsonl:2: model.data.file: 2 of 3 texts are longer than 201 tokens" in caplog.text
    with pytest.raises(UsageError, match=r"rm-comparisons\.jsonl:3: .* 1 of 2 "):
        pairs = [Comparison(PROMPT, "a", "b"), Comparison(PROMPT, "a", LONG)]
        check(tmp_path, model, "rm-comparisons", list(pairs), rows_per_sample=2, too_long_is_error=True)
    for format_name, record in (
        ("dpo", Comparison(PROMPT, LONG, "b")),
        ("ppo-prompts", PromptOnly(Conversation.of_user(LONG))),
    ):
        with pytest.raises(UsageError, match=rf"{format_name}\.jsonl:1: .* 1 of 1 "):
            check(tmp_path, model, format_name, [record])


def test_a11_the_tokenizer_of_the_configuration_is_the_one_that_counts(tmp_path: Path) -> None:
    model = archive(tmp_path / "m.nemo", HUGGING_FACE % b"/nowhere")
    folder = bytes_of(tmp_path / "hf")
    cfg = configuration({MODEL: str(model), "model.tokenizer.type": str(folder)})
    (ids,) = (model_tokenizer.load_model_tokenizer(cfg, MODEL) or pytest.fail()).encode(["abc"])
    assert len(ids) == 3
    stored = archive(tmp_path / "s.nemo", b"tokenizer: {library: sentencepiece, model: 'nemo:t.model'}\n")
    cfg = configuration({MODEL: str(stored), "model.tokenizer": {"library": "huggingface", "type": str(folder)}})
    assert len((model_tokenizer.load_model_tokenizer(cfg, MODEL) or pytest.fail()).encode(["abc"])[0]) == 3


def test_a11_limits_in_a_tokenizers_file_do_not_count(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bytes_of(tmp_path / "hf", max_length=8))
    assert [len(ids) for ids in tokenizer.encode(["abc", "x" * 20])] == [3, 20]


def test_a11_a_model_on_the_hub_that_cannot_be_had_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the training extra is not installed")
    asked: list[str] = []

    def snapshot(name: str, **_: object) -> str:
        asked.append(name)
        raise OSError("offline")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    model = archive(tmp_path / "m.nemo", HUGGING_FACE % b"meta-llama/Meta-Llama-3-8B")
    with pytest.raises(
        UsageError, match=r"^gpt_model_file: .*meta-llama/Meta-Llama-3-8B.*model\.tokenizer\.type=FOLDER"
    ):
        check(tmp_path, model, "sft-chat", [chat("A")])
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(bytes_of(tmp_path / "hub")))  # pyright: ignore
    with pytest.raises(UsageError, match="1 of 1 texts are longer"):
        check(tmp_path, model, "sft-chat", [chat(LONG)])
    assert asked == ["meta-llama/Meta-Llama-3-8B"]


@pytest.mark.parametrize("library", [b"megatron", b"byte-level", b"regex"])
def test_a11_what_cannot_be_counted_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, library: bytes) -> None:
    model = archive(tmp_path / "m.nemo", b"tokenizer: {library: %s, type: x}\n" % library)
    check(tmp_path, model, "sft-chat", [chat(LONG)])
    assert "NOT counted" in caplog.text and library.decode() in caplog.text
    (tmp_path / "bare").mkdir()
    caplog.clear()
    check(tmp_path, archive(model, HUGGING_FACE % bytes(tmp_path / "bare")), "sft-chat", [chat(LONG)])
    assert "NOT counted" in caplog.text and "tokenizer.json" in caplog.text


def test_a11_sentencepiece_in_an_archive_a_folder_or_a_file(tmp_path: Path) -> None:
    named = b"tokenizer: {library: sentencepiece, model: 'nemo:0123_t.model'}\n"
    folder = tmp_path / "extracted"
    folder.mkdir()
    (folder / MODEL_CONFIG).write_bytes(named)
    (folder / "0123_t.model").write_bytes(TOKENIZER.read_bytes())
    elsewhere = b"tokenizer: {library: sentencepiece, model: %s}\n" % bytes(TOKENIZER)
    for model in (folder, archive(tmp_path / "e.nemo", elsewhere)):
        with pytest.raises(UsageError, match="1 of 1 texts are longer than 21 tokens"):
            check(tmp_path, model, "sft-chat", [chat(LONG)], 20)
    with pytest.raises(UsageError, match=r"tokenizer\.model=nemo:0123_t\.model: there is no such file"):
        check(tmp_path, archive(tmp_path / "n.nemo", named), "sft-chat", [chat(LONG)])


def test_a12_training_names_the_empty_system_turn_and_the_key(tmp_path: Path) -> None:
    model = archive(tmp_path / "m.nemo", HUGGING_FACE % bytes(bytes_of(tmp_path / "hf", gpt2=True)))
    with pytest.raises(
        UsageError, match=r"sft-chat\.jsonl:1: .*2 of 2 .*empty system turn.*data_processor\.system_message="
    ):
        check(tmp_path, model, "sft-chat", [chat("A"), chat("B")], 2000)
    path = tmp_path / "sft-chat.jsonl"
    cfg = OmegaConf.create(
        {
            "data_processor": {"format": None, "cache": None, "system_message": "Be brief."},
            "exp_manager": {"explicit_log_dir": str(tmp_path / "log")},
            "model": {"data": {"chat_prompt_tokens": None, "file": str(path)}},
            MODEL: str(model),
        }
    )
    data_processors.process(cfg, ["model.data.file"], to="sft-chat")
    assert cfg.model.data.file != str(path)
    spec = data_files.DatasetSpec("sft-chat", MODEL, 2000, None)
    data_files.check_file(cfg, Path(cfg.model.data.file), "model.data.file", spec)
    first = json.loads(Path(cfg.model.data.file).read_text().splitlines()[0])
    assert first["system"] == "Be brief."
    cfg.data_processor.system_message = "Be brief.\n"
    with pytest.raises(UsageError, match=r"^data_processor\.system_message="):
        data_processors.process(cfg, ["model.data.file"], to="sft-chat")


@pytest.mark.slow
def test_a11_tiktoken_in_an_archive(tmp_path: Path) -> None:
    pytest.importorskip("tiktoken", reason="not installed")
    # NeMo's class asks for 130,072 entries.
    folder = tmp_path / "extracted"
    folder.mkdir()
    texts = [bytes([n]) for n in range(256)] + [bytes([n >> 8, n & 255, 0]) for n in range(65536)]
    texts += [bytes([n >> 8, n & 255, 1]) for n in range(130072 - len(texts))]
    entries = [
        {"rank": rank, "token_bytes": base64.b64encode(text).decode(), "token_str": ""}
        for rank, text in enumerate(texts)
    ]
    (folder / "v.json").write_text(json.dumps(entries))
    (folder / MODEL_CONFIG).write_text("tokenizer: {library: tiktoken, vocab_file: 'nemo:v.json'}\n")
    with pytest.raises(UsageError, match="1 of 1 texts are longer"):
        check(tmp_path, folder, "sft-chat", [chat(LONG)])


@pytest.mark.parametrize("name", ["additional_special_tokens", "special_tokens"])
def test_a11_tokens_that_a_setting_adds_are_said_not_to_be_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    folder = bytes_of(tmp_path / "tokenizer")
    stored = archive(tmp_path / "a.nemo", HUGGING_FACE % str(folder).encode())
    cfg = configuration({MODEL: str(stored), "model.tokenizer": {name: ["<tool>"]}})
    assert model_tokenizer.load_model_tokenizer(cfg, MODEL) is not None
    assert f"model.tokenizer.{name}" in caplog.text


def test_a11_tokens_of_the_configuration_alone_are_counted_as_transformers_counts_them(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the training extra is not installed")
    folder = bytes_of(tmp_path / "hf")
    plain = load_tokenizer(folder).size
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(plain + 1): {"content": "<tool>", "special": False, "normalized": True},
            str(plain): {"content": "<|start|>", "special": True, "lstrip": True},
        },
        "eos_token": "<|end|>",
        "additional_special_tokens": ["<|start|>", "<more>"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    texts = ["a <|start|>b<tool>c<|end|><more>", "<tool", "  <|start|><|start|>"]
    assert ours.encode(texts) == theirs(texts, add_special_tokens=False)["input_ids"]
    assert [len(ids) for ids in ours.encode(["<tool><|start|><|end|><more>"])] == [4]
    assert ours.size == len(theirs) == plain + 4
    assert load_tokenizer(folder / "tokenizer.json").size == plain + 4
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"x": {"content": "<tool>"}}}')
    with pytest.raises(FormatError, match=r"tokenizer_config\.json"):
        load_tokenizer(folder)
