# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Our chat template in NeMo's own registry, id for id as SFT trains on it."""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.mask import loss_mask
from nemo_aligner_cai.data.records import Chat
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.errors import UsageError

DIALOGUE = [("system", "be good"), ("user", "how do i mend a lamp ?"), ("assistant", "you can ask a friend .")]


@pytest.fixture(scope="module")
def formatters() -> Any:
    """NeMo's module of formatters, without lhotse's where that is not installed: its speech formatters need it."""
    from nemo_aligner_cai.training.cpu.install import install_patches

    install_patches()
    package = "nemo.collections.common.prompts"
    if importlib.util.find_spec("lhotse") is None:
        common = importlib.import_module("nemo.collections.common")
        bare = types.ModuleType(package)
        bare.__path__ = [str(Path(common.__path__[0]) / "prompts")]
        sys.modules[package] = bare
    importlib.import_module("nemo_aligner_cai.training.prompt_formatter")
    yield importlib.import_module(f"{package}.formatter")
    if importlib.util.find_spec("lhotse") is None:
        del sys.modules[package]


@pytest.fixture(scope="module")
def formatter(formatters: Any) -> Any:
    from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer

    tokenizer = SentencePieceTokenizer(model_path=str(packaged_files.TOKENIZER))
    return formatters.PromptFormatter.resolve("nemo_aligner_cai")(tokenizer)


def turns(*said: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "slots": {"message": text}} for role, text in said]


def conversation(*said: tuple[str, str]) -> Conversation:
    return Conversation.from_messages([{"role": role, "content": text} for role, text in said])


@pytest.mark.parametrize(
    "said", [DIALOGUE, DIALOGUE[1:], [*DIALOGUE, ("user", "thanks"), ("assistant", "with pleasure .")]]
)
def test_training_dialogues_have_the_ids_and_the_mask_of_sft(formatter: Any, said: list[tuple[str, str]]) -> None:
    encoded = formatter.encode_dialog(turns(*said))
    trained = loss_mask(Chat(conversation(*said)), NEMO_CHAT, load_tokenizer(packaged_files.TOKENIZER))
    assert encoded["input_ids"].tolist() == trained.ids and encoded["mask"].tolist() == trained.mask
    assert encoded["context_ids"].tolist() + encoded["answer_ids"].tolist() == trained.ids
    assert formatter.tokenizer.ids_to_text(encoded["answer_ids"].tolist()).startswith(said[-1][1])


def test_a_prompt_ends_where_the_assistant_is_to_speak(formatter: Any) -> None:
    encoded = formatter.encode_dialog(turns(*DIALOGUE[:2]))
    text = NEMO_CHAT.generation_prompt(conversation(*DIALOGUE[:2]))
    assert encoded["input_ids"].tolist() == formatter.tokenizer.text_to_ids(text)
    assert set(encoded) == {"input_ids", "context_ids"}


def test_the_registry_has_the_turns_of_the_template(formatters: Any, formatter: Any) -> None:
    assert type(formatter) is formatters.PromptFormatter._REGISTERED_FORMATTERS["nemo_aligner_cai"]
    asked = conversation(*DIALOGUE)
    filled = "".join(formatter.get_template(role).replace("|message|", text) for role, text in DIALOGUE)
    assert filled + NEMO_CHAT.tokens.turn_start == NEMO_CHAT.render(asked)
    assert [turn["role"] for turn in formatter.get_default_dialog_slots()] == ["system", "user"]


def test_what_is_no_dialogue_is_refused(formatter: Any) -> None:
    with pytest.raises(UsageError, match="unknown role 'critic'"):
        formatter.encode_dialog(turns(("critic", "no")))
    with pytest.raises(UsageError, match="content"):
        formatter.encode_dialog([{"role": Role.USER.value}])
