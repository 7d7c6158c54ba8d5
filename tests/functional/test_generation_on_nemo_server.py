# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Our client and engine on NeMo's real text-generation server, with a model that grants or refuses at random."""

import asyncio
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.constitution import Constitution, Principle
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.judges.multiple_choice import multiple_choice
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models import (
    CallFailed,
    Completion,
    NemoServerClient,
    Request,
    RetryPolicy,
    Sampling,
)
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.stages.comparisons import ComparisonPipeline, generate_comparisons
from nemo_aligner_cai.training.launch import jobs
from tests.functional import world
from tests.functional.conftest import ENV, PACKAGE, Lab, Run

HELP, REFUSE = CHOICES = ("i will help", "i will not")


@pytest.fixture(scope="module")
def port(lab: Lab, sft: Run) -> Iterator[int]:
    number = jobs.free_port()
    overrides = [f"gpt_model_file={sft.nemo('cai_sft')}", f"port={number}", "hardware=cpu"]
    log = lab.folder / "generation_server.log"
    url = f"http://127.0.0.1:{number}/health"
    with jobs.server(f"{PACKAGE}.inference_server", overrides, log, [url], env=ENV):
        yield number


def batch(port: int, requests: Sequence[Request], seed: int | None) -> list[Completion]:
    async def run() -> list[Completion | CallFailed]:
        client = NemoServerClient("127.0.0.1", port)
        try:
            return await client.complete_batch(requests, seed)
        finally:
            await client.close()

    answers = asyncio.run(run())
    return [answer for answer in answers if isinstance(answer, Completion)]


def complete(port: int, request: Request, retry_policy: RetryPolicy) -> Completion:
    async def run() -> Completion:
        client = NemoServerClient("127.0.0.1", port, retry_policy=retry_policy)
        try:
            return await client.complete(request)
        finally:
            await client.close()

    return asyncio.run(run())


def question(verb: str, noun: str) -> Conversation:
    return Conversation.of_user(f"can you {verb} the {noun} for me ?")


def test_a_batch_and_its_seed_give_the_same_replies_again(port: int) -> None:
    requests = [Request(question(verb, "lamp"), Sampling(max_tokens=20)) for verb in world.VERBS]
    first, again, other = (batch(port, requests, seed) for seed in (7, 7, 8))
    assert [one.text for one in first] == [one.text for one in again] != [one.text for one in other]
    assert not any("User" in one.text or "<extra_id" in one.text for one in first)
    greedy = batch(port, [Request(one.conversation, Sampling(greedy=True, max_tokens=20)) for one in requests], None)
    assert all(one.text.startswith("i will ") and not one.text.endswith("\n") for one in greedy)
    assert {one.finish_reason for one in greedy} == {"stop"}


def test_replies_are_found_behind_prompts_that_the_tokenizer_does_not_know(port: int) -> None:
    texts = ("can you fix 中文 the lamp 😀 for me ?", "{~} \u2028 é", "can you fix the lamp for me ?")
    answers = batch(
        port, [Request(Conversation.of_user(text), Sampling(greedy=True, max_tokens=20)) for text in texts], None
    )
    assert len(answers) == 3
    assert not any("User" in one.text or "can you" in one.text or "⁇" in one.text for one in answers)
    assert answers[2].text.startswith("i will ")


def test_a_reply_that_does_not_end_is_known_as_cut(port: int) -> None:
    (cut,) = batch(port, [Request(question("fix", "lamp"), Sampling(greedy=True, max_tokens=3))], None)
    assert cut.finish_reason == "length" and cut.text.startswith("i will")


def refuses(completion: Completion) -> float:
    """How likely a refusal is, given that it is one of the choices."""
    assert completion.choice_logprobs is not None
    p_help, p_refuse = (math.exp(completion.choice_logprobs[choice]) for choice in CHOICES)
    assert 0.0 < p_help + p_refuse <= 1.0 + 1e-6
    return p_refuse / (p_help + p_refuse)


def test_scores_of_choices_are_the_frequencies_of_samples(port: int) -> None:
    conversation = question("fix", "lamp")
    (scored,) = batch(port, [Request(conversation, Sampling(), choices=CHOICES)], None)
    requests = [Request(conversation, Sampling(max_tokens=4))] * 128
    sampled = [one.text for seed in range(8) for one in batch(port, requests, seed)]
    counted = [text.startswith(REFUSE) for text in sampled if text.startswith(CHOICES)]
    share, p = sum(counted) / len(counted), refuses(scored)
    assert len(counted) > 100
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / len(counted)), "four standard deviations"


def test_odds_do_not_depend_on_the_batch(port: int) -> None:
    short, long = (
        Conversation.of_user(f"can you fix the {nouns} for me ?") for nouns in ("lamp", "lamp the door the car")
    )
    requests = [Request(conversation, Sampling(), choices=CHOICES) for conversation in (short, long)]
    together = [refuses(one) for one in batch(port, requests, None)]
    alone = [refuses(batch(port, [request], None)[0]) for request in requests]
    assert together == pytest.approx(alone, abs=1e-4)


def test_c3_a_setting_that_the_server_does_not_take_is_said_in_its_own_words(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemo_aligner_cai.models.nemo_server._MIN_TEMPERATURE", 1000.0)
    with pytest.raises(CaiError, match=r"HTTP 400: .*temperature"):
        complete(port, Request(question("fix", "lamp"), Sampling()), RetryPolicy(attempts=2, initial_wait=0.01))


def test_interrupted_and_resumed_the_run_writes_the_same_bytes(port: int, tmp_path: Path) -> None:
    prompts = [Prompt.of(question(verb, noun)) for verb in world.VERBS for noun in world.NOUNS[:3]]
    constitution = Constitution((Principle("p", "", "", "can you find the table ?"),), "one")
    templates = PromptTemplates(judge_question="{principle} {a} ? {b}", choices=CHOICES)
    judge = multiple_choice(
        JudgeSettings(constitution=constitution, templates=templates, seed=3, pairs="one", both_orders=False)
    )

    def run(folder: Path, *, resume: bool) -> bytes:
        async def generate() -> None:
            client = NemoServerClient("127.0.0.1", port, batch_size=16)
            try:
                await generate_comparisons(
                    prompts,
                    ComparisonPipeline(client, client, judge, Sampling(max_tokens=20), (1.0,) * 4, seed=3),
                    out_path=folder / "raw.jsonl",
                    journal_path=folder / "journal",
                    run=RunSettings(resume=resume, seed=3),
                )
            finally:
                await client.close()

        asyncio.run(generate())
        return (folder / "raw.jsonl").read_bytes()

    whole = run(tmp_path, resume=False)
    journal = (tmp_path / "journal").read_bytes()
    assert whole.count(b"\n") > 10
    for part in (0.2, 0.5, 0.8):
        (tmp_path / "journal").write_bytes(journal[: int(len(journal) * part)])
        assert run(tmp_path, resume=True) == whole
