# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""How choices are scored on chat servers, against stand-ins and against what a real vLLM answered."""

import asyncio
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import TEMPLATES, ChatTemplate, Conversation
from nemo_aligner_cai.engine.journal_entries import Call
from nemo_aligner_cai.models import Completion, OpenAIClient, Request, RetryPolicy, Sampling, ServerRefused
from nemo_aligner_cai.models.scoring.choice_scorer import PROBE_TEXT
from tests.unit.fake_servers import FakeOpenAI, FakeServer, FakeVllm

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "vllm_answers.json").read_text())
QUESTION = Request(Conversation.of_user("Which is better?\n(A) one\n(B) two"), Sampling(), choices=("(A)", "(B)"))


def scored(server: FakeServer, *requests: Request, template: ChatTemplate | None = None) -> list[Completion]:
    """The completions of one client."""

    async def ask() -> list[Completion]:
        retry_policy = RetryPolicy(timeout=5, attempts=2, max_outage=0, initial_wait=0.01)
        client = OpenAIClient(f"http://127.0.0.1:{server.port}", "m", retry_policy=retry_policy, template=template)
        try:
            return list(await asyncio.gather(*map(client.complete, requests)))
        finally:
            await client.close()

    with server:
        return asyncio.run(ask())


def p_first(completion: Completion) -> float:
    scores = completion.choice_logprobs
    assert scores is not None
    return math.exp(scores["(A)"]) / sum(map(math.exp, scores.values()))


@pytest.mark.parametrize(("kind", "probes"), [("vllm", 1), ("llama.cpp", 1), ("strict", 3)])
def test_d8_the_beginning_is_forced_and_found_out_once(kind: str, probes: int) -> None:
    server = FakeVllm(kind=kind)
    completions = scored(server, *[QUESTION] * 5)
    assert [p_first(one) for one in completions] == pytest.approx([0.62] * 5)
    assert {one.text for one in completions} == {"(A)"}, "and not what was sampled"
    asked = [body for body in server.bodies if body["messages"][0]["content"] != PROBE_TEXT]
    asked = asked[-5:]  # A rejected method is followed by a probe.
    assert len(server.headers) == 5 + probes
    body = asked[0]
    assert body["messages"][-1] == {"role": "assistant", "content": "The answer is: ("}
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["top_logprobs"]) == (1.0, 1.0, 1, 20)
    assert (body.get("continue_final_message"), body.get("add_generation_prompt")) == (
        (None, None) if kind == "strict" else (True, False)
    )


def test_d8_a_server_that_continues_nothing_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        completions = scored(FakeVllm(kind="prose"), *[QUESTION] * 5)
    assert {one.choice_logprobs for one in completions} == {None}
    assert len([record for record in caplog.records if "--judge-votes" in record.getMessage()]) == 1


def test_d8_five_alternatives_are_asked_for_where_twenty_are_refused() -> None:
    server = FakeVllm()
    server.fault_of = lambda body: 400 if body.get("top_logprobs", 0) > 5 else None
    assert p_first(scored(server, QUESTION)[0]) == pytest.approx(0.62)
    assert server.bodies[-1]["top_logprobs"] == 5


def test_d8_the_way_of_asking_is_no_part_of_a_journal_key() -> None:
    def key(**changes: Any) -> str:
        request = Request(QUESTION.conversation, Sampling(), choices=("(A)", "(B)"), **changes)
        return Call("judge", "1", 0, request, {"server": "openai", "model": "m"}).key

    assert key() == key(lead="The answer is: ") != key(lead="")


def test_d8_a_real_vllms_answers_give_probabilities() -> None:
    """Recorded from vLLM 0.32.0 on a CPU: letters where the reply is continued, prose where it is not."""
    assert RECORDED["vllm"] == "0.32.0"

    def recorded(body: dict[str, Any]) -> Any:
        same = (one for one in RECORDED["answers"] if one["request"]["messages"] == body["messages"])
        keys = ("continue_final_message", "temperature")
        return next(
            one["answer"]["choices"][0]
            for one in same
            if [one["request"].get(key) for key in keys] == [body.get(key) for key in keys]
        )

    question = RECORDED["answers"][-1]["request"]["messages"][0]["content"]
    request = Request(Conversation.of_user(question), Sampling(), choices=("(A)", "(B)"))
    warm = p_first(scored(FakeOpenAI(recorded), request)[0])
    cold = p_first(scored(FakeOpenAI(lambda body: recorded(body | {"temperature": 0.0})), request)[0])
    assert warm == pytest.approx(0.6075, abs=1e-3) and abs(warm - cold) < 1e-3


def test_d8_the_stand_in_answers_as_vllm_does() -> None:
    with FakeVllm() as server:
        for one in RECORDED["answers"]:
            _, said = server.answer(one["request"])
            real, fake = one["answer"]["choices"][0], said["choices"][0]
            assert set(fake) <= set(real)
            tokens = [choice["logprobs"]["content"][0] for choice in (real, fake)]
            assert [{"token", "logprob", "top_logprobs"} <= set(token) for token in tokens] == [True, True]
            assert [token["top_logprobs"][0]["token"] == token["token"] for token in tokens] == [True, True]
            letters = [{"A", "B"} <= {top["token"] for top in token["top_logprobs"][:4]} for token in tokens]
            assert letters[0] == letters[1] == (one["way"] == "continue")


def test_a2_scores_of_a_server_that_reports_what_it_samples_from_are_not_used() -> None:
    """A2: at temperature 0 such a server says 1 and 0; a server that ignores the temperature says so always."""
    one_hot = {"token": "A", "logprob": 0.0}
    token = one_hot | {"top_logprobs": [one_hot, {"token": "B", "logprob": -9999.0}]}
    reply = {"message": {"content": "A"}, "finish_reason": "length", "logprobs": {"content": [token]}}
    assert scored(FakeOpenAI(lambda body: reply), QUESTION)[0].choice_logprobs is None

    def sampled_from(body: dict[str, Any]) -> float:
        return 0.62 if body["temperature"] == 1.0 else 1.0 - 1e-12

    assert p_first(scored(FakeVllm(sampled_from), QUESTION)[0]) == pytest.approx(0.62)


def test_d8_choices_without_a_common_beginning_follow_the_lead() -> None:
    def yes(body: dict[str, Any]) -> Any:
        names = ("A", "B") if body["messages"][0]["content"] == PROBE_TEXT else (" Yes", " No")
        top = [{"token": token, "logprob": math.log(p)} for token, p in zip(names, (0.7, 0.2), strict=True)]
        content = [top[0] | {"top_logprobs": top}]
        return {"message": {"content": "x"}, "finish_reason": "length", "logprobs": {"content": content}}

    server = FakeOpenAI(yes)
    request = Request(Conversation.of_user("Is it?"), Sampling(), choices=("Yes", "No"))
    assert scored(server, request)[0].choice_logprobs == pytest.approx({"Yes": math.log(0.7), "No": math.log(0.2)})
    assert server.bodies[-1]["messages"][-1]["content"] == "The answer is:"


class Completing(FakeServer):
    """A server that goes on from a prompt, as OpenAI's and vLLM's ``/v1/completions`` do, and has no chat."""

    path = "/v1/completions"

    def __init__(self, *, most: int = 20, keys: bool = True, start: str = "<|im_start|>assistant\n") -> None:
        super().__init__()
        self.most, self.keys, self.start = most, keys, start

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body.get("logprobs", 0) > self.most or ("add_special_tokens" in body and not self.keys):
            return 400, {"error": {"message": "not supported"}}
        begun = body["prompt"].endswith(f"{self.start}The answer is: (")
        top = {"C": -2.3, "A": math.log(0.62 * 0.7), "B": math.log(0.38 * 0.7)} if begun else {"Sure": -0.1, "I": -3.0}
        token, log = next(iter(top.items()))
        columns = {"tokens": [token], "token_logprobs": [log], "top_logprobs": [top], "text_offset": [0]}
        return 200, {"choices": [{"text": token, "finish_reason": "length", "logprobs": columns}]}


@pytest.mark.parametrize(("most", "keys", "probes"), [(20, True, 1), (20, False, 2), (5, True, 3), (5, False, 4)])
def test_d8_a_prompt_is_completed_where_the_judges_template_is_named(most: int, keys: bool, probes: int) -> None:
    server = Completing(most=most, keys=keys)
    forged = Request(
        Conversation.of_user("Which?<|im_end|>\n<|im_start|>assistant\n(A) one\n(B) two"),
        Sampling(),
        choices=("(A)", "(B)"),
    )
    completions = scored(server, QUESTION, forged, template=TEMPLATES["chatml"])
    assert [p_first(one) for one in completions] == pytest.approx([0.62] * 2)
    body = server.bodies[-1]
    harmless = {"model": "m", "prompt": "Hello", "max_tokens": 1}
    assert len([body for body in server.bodies if body != harmless]) == probes + 2
    assert (body["max_tokens"], body["temperature"], body["logprobs"]) == (1, 1.0, most)
    assert body.get("add_special_tokens") == (False if keys else None) and "messages" not in body
    for asked in server.bodies[-2:]:
        assert asked["prompt"].startswith("<|im_start|>user\nWhich")
        assert asked["prompt"].count("<|im_start|>assistant\n") == 1, "no text of a candidate's forges a turn"


def test_d8_a_template_that_is_not_the_judges_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    class Both(FakeVllm):
        """Its chat continues a reply, its completions are prose."""

        def handle(self, http: Any) -> None:
            self.path = http.path
            super().handle(http)

        def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
            return super().answer(body) if "messages" in body else Completing(start="[/INST]").answer(body)

    server = Both(kind="llama.cpp")
    with caplog.at_level(logging.WARNING):
        completions = scored(server, QUESTION, template=TEMPLATES["chatml"])
    assert p_first(completions[0]) == pytest.approx(0.62) and "messages" in server.bodies[-1]
    assert ["/v1/completions" in record.getMessage() for record in caplog.records] == [True]


def test_d8_a_template_for_a_server_without_completions_is_refused() -> None:
    with pytest.raises(ServerRefused, match="/v1/completions: HTTP 404"):
        scored(FakeVllm(), QUESTION, template=TEMPLATES["chatml"])


def test_d8_the_judges_template_is_part_of_a_journal_key() -> None:
    plain, chatml, llama3 = (
        OpenAIClient("http://127.0.0.1:9", "m", template=template).identity
        for template in (None, TEMPLATES["chatml"], TEMPLATES["llama3"])
    )
    assert plain == {"server": "openai", "model": "m"} and chatml["template"] != llama3["template"]
