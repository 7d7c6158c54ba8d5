# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The rehearsal without a model, before the first call of any stage, finds what cannot work."""

import asyncio
import contextlib
import logging
import re
from pathlib import Path

import pytest

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.data.formats.files import sft_row
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import write_jsonl
from nemo_aligner_cai.judges.settings import JudgeConfig
from nemo_aligner_cai.models import Sampling, ScriptedClient
from nemo_aligner_cai.stages import (
    PreferenceFiles,
    PromptSource,
    RlCaiConfig,
    RlOutputs,
    SftFiles,
    SlCaiConfig,
    SlOutputs,
    StageIncomplete,
    run_rl_cai,
    run_sl_cai,
)
from tests.unit.fake_servers import FakeNemo, answer_by_hash
from tests.unit.sl_run import run

SHORT = Sampling(max_tokens=8)
PROMPTS = [f"How do I steal {number} things?" for number in range(20)]


class Served(ScriptedClient):
    """A scripted model whose server reports its context."""

    def __init__(self, context: int | None) -> None:
        super().__init__()
        self._context = context

    async def context_length(self) -> int | None:
        return self._context

    async def served_model(self) -> None:
        return None


class Characters:
    """A tokenizer whose tokens are characters."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [list(map(ord, text)) for text in texts]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_jsonl("prompts.jsonl", ({"prompt": prompt} for prompt in PROMPTS))
    write_jsonl("helpful.jsonl", [sft_row(Conversation.of_user("Hi").with_turn(Role.ASSISTANT, "Hello"))])
    for module in ("sft_files", "rl_outputs"):
        monkeypatch.setattr(f"nemo_aligner_cai.stages.{module}.load_tokenizer", lambda path: Characters())
    monkeypatch.setattr("nemo_aligner_cai.stages.sl_cai.tokenizer_path", lambda path: Path("prompts.jsonl"))
    monkeypatch.setattr("nemo_aligner_cai.stages.rl_cai.tokenizer_path", lambda path: Path("prompts.jsonl"))
    return tmp_path


def sl_cai(model: ScriptedClient, sampling: Sampling = SHORT, length: int | None = None) -> None:
    files = SftFiles(helpful="helpful.jsonl", seq_length=length, tokenizer=Path("a.model") if length else None)
    config = SlCaiConfig(
        prompts=PromptSource(path="prompts.jsonl"),
        sampling=sampling,
        files=files,
        few_shots=None,
        outputs=SlOutputs.named("sl.jsonl"),
    )
    asyncio.run(run_sl_cai(config, model))


def rl_cai(
    model: ScriptedClient, judge: ScriptedClient, sampling: Sampling = SHORT, length: int | None = None
) -> None:
    config = RlCaiConfig(
        prompts=PromptSource(path="prompts.jsonl"),
        sampling=sampling,
        temperatures=(0.5, 1.0),
        judge=JudgeConfig(strategy="multiple-choice"),
        files=PreferenceFiles(ppo_seq_length=length, tokenizer=Path("a.model") if length else None),
        outputs=RlOutputs.named("rl"),
    )
    asyncio.run(run_rl_cai(config, model, judge))


def refused(message: str, *clients: ScriptedClient) -> None:
    """No model was called, and nothing is left behind that the corrected run would have to overwrite."""
    assert [len(client.requests) for client in clients] == [0] * len(clients)
    left = {path.name for path in Path().rglob("*") if path.is_file()}
    assert left == {"prompts.jsonl", "helpful.jsonl"}, message


def test_prompts_that_the_context_does_not_hold_are_refused_before_the_first_call() -> None:
    model = Served(3)
    with pytest.raises(
        UsageError, match=r"all of the first 20 prompts can give no row: step answer: .* 3 tokens"
    ) as e:
        sl_cai(model)
    refused(str(e.value), model)


def test_a_dialogue_that_the_context_does_not_hold_is_found_at_its_step() -> None:
    model = Served(30)
    with pytest.raises(UsageError, match=r"step critique: .* 30 tokens"):
        sl_cai(model)
    assert not model.requests


def test_the_judges_context_counts_too() -> None:
    model, judge = Served(None), Served(20)
    with pytest.raises(UsageError, match=r"step judge: .* 20 tokens") as e:
        rl_cai(model, judge)
    refused(str(e.value), model, judge)


def test_the_run_sees_nothing_of_the_rehearsal() -> None:
    policy = ScriptedClient(lambda request: f"Real answer {request.sampling.seed}: call a locksmith.")
    judge = ScriptedClient()
    with contextlib.suppress(StageIncomplete):
        rl_cai(policy, judge)
    assert len(policy.requests) == 40
    assert all("Real answer" in str(request.messages) for request in judge.requests) and judge.requests
    assert not any("scripted reply" in str(request.messages) for request in judge.requests)


def test_some_long_prompts_and_a_reply_without_room_are_warnings(caplog: pytest.LogCaptureFixture) -> None:
    long = "How do I steal all of this? " * 200
    write_jsonl("prompts.jsonl", ({"prompt": prompt} for prompt in [*PROMPTS, long]), overwrite=True)
    with caplog.at_level(logging.WARNING):
        sl_cai(Served(500), Sampling(max_tokens=495))
    text = caplog.text
    assert re.search(r"1 of the first 21 prompts can give no row: step answer: .* 500 tokens", text)
    assert re.search(r"20 of the first 21 prompts: step critique: .*max_tokens=495", text)


@pytest.mark.parametrize("sampling", [Sampling(max_tokens=1), Sampling(max_tokens=9, min_tokens=9)])
def test_a_length_at_which_every_reply_is_cut_is_refused(sampling: Sampling) -> None:
    models = ScriptedClient(), ScriptedClient()
    with pytest.raises(UsageError, match=f"every reply is cut .max_tokens={sampling.max_tokens}") as e:
        sl_cai(models[0], sampling)
    refused(str(e.value), *models)
    with pytest.raises(UsageError, match="step sample: every reply is cut"):
        rl_cai(*models, sampling)
    assert not models[0].requests


def test_a_sequence_length_that_leaves_no_row_is_refused() -> None:
    models = ScriptedClient(), ScriptedClient()
    with pytest.raises(UsageError, match=r"--max-seq-length \(sft\.seq_length\)=4: longer than 5 tokens") as e:
        sl_cai(models[0], length=4)
    refused(str(e.value), *models)
    with pytest.raises(UsageError, match=r"--ppo-seq-length .*=4: longer than 2 tokens"):
        rl_cai(*models, length=4)
    assert not models[0].requests
    sl_cai(ScriptedClient(), length=400)


def test_the_context_is_the_one_that_the_server_reports(
    inputs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeNemo(answer_by_hash, ending="</s>") as server:
        server.model = {"id": "nemo", "root": "/models/a.nemo", "max_model_len": 3}
        assert run(inputs, port=server.port) == 2
        assert not server.bodies
        server.model["max_model_len"] = 100_000
        assert run(inputs, port=server.port) == 0
    assert "the context of nemo, 3 tokens" in capsys.readouterr().err
