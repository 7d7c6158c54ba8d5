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
import math
from typing import Any

import pytest

from nemo_aligner_cai.conversation import Conversation
from nemo_aligner_cai.models import Request, Sampling
from nemo_aligner_cai.models.openai import choice_logprobs
from tests.unit.fake_servers import FakeOpenAI
from tests.unit.test_models_openai import complete


def tokens(*steps: tuple[str, dict[str, float]]) -> dict[str, Any]:
    """The logprobs field of a reply whose tokens had these alternatives (probabilities)."""
    return {
        "content": [
            {
                "token": token,
                "logprob": math.log(alternatives[token]),
                "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in alternatives.items()],
            }
            for token, alternatives in steps
        ]
    }


@pytest.mark.parametrize(
    "given",
    [
        tokens(("(", {"(": 0.9, " ": 0.1}), ("A", {"A": 0.6, "B": 0.2, "C": 0.1}), (")", {")": 1.0})),
        tokens(("(A", {"(A": 0.6, "(B": 0.2}), (")", {")": 1.0})),
        tokens(("(", {"(": 1.0}), ("A", {"A": 0.6, "B": 0.2}), (")", {")": 1.0})),
        tokens((" (A", {" (A": 0.5, "(A": 0.1, " (B": 0.2})),
    ],
)
def test_choices_are_scored_where_they_part(given: dict[str, Any]) -> None:
    scores = choice_logprobs(given, ("(A)", "(B)"))
    assert scores is not None
    assert math.exp(scores["(A)"] - scores["(B)"]) == pytest.approx(3.0)


@pytest.mark.parametrize("stray", [0.0, 0.005, 0.2])
def test_an_alternative_that_fits_both_choices_is_no_verdict(stray: float) -> None:
    first = {"(A": 0.44, "(B": 0.33} | ({"(": stray} if stray else {})
    scores = choice_logprobs(tokens(("(A", first), (")", {")": 0.99, " )": 0.01})), ("(A)", "(B)"))
    assert scores is not None and math.exp(scores["(A)"] - scores["(B)"]) == pytest.approx(4 / 3)


def test_a_choice_beyond_the_alternatives_gets_the_most_it_can_have() -> None:
    scores = choice_logprobs(tokens(("(A", {"(A": 0.9, "x": 0.01})), ("(A)", "(B)"))
    assert scores is not None and math.exp(scores["(B)"]) == pytest.approx(0.01)
    scores = choice_logprobs(tokens(("(A", {"(A": 0.9, "x": 0.098})), ("(A)", "(B)"))
    assert scores is not None and math.exp(scores["(B)"]) == pytest.approx(0.002), "no more than is left"


@pytest.mark.parametrize(
    "given",
    [
        *(None, {}, {"content": None}, {"content": [7]}),
        tokens(("I", {"I": 0.9, "We": 0.1}), ("(A", {"(A": 0.9, "(B": 0.1})),
        {"content": [{"token": "(A)", "logprob": -0.01, "top_logprobs": []}]},
        {"content": [{"token": "(A)", "logprob": "nan", "top_logprobs": [{"token": "(B)", "logprob": -1}]}]},
    ],
)
def test_no_scores_are_made_up(given: Any) -> None:
    assert choice_logprobs(given, ("(A)", "(B)")) is None


def test_a_logarithm_above_0_is_taken_for_0() -> None:
    scores = choice_logprobs(
        {"content": [{"token": "(A)", "logprob": 1e3, "top_logprobs": [{"token": "(B)", "logprob": -9}]}]},
        ("(A)", "(B)"),
    )
    assert scores == pytest.approx({"(A)": 0.0, "(B)": -9.0})


def test_scoring_asks_for_alternatives() -> None:
    given = tokens(("(A", {"(A": 0.75, "(B": 0.25}))
    reply = {"message": {"content": "(A)"}, "finish_reason": "length", "logprobs": given}
    with FakeOpenAI(lambda body: reply) as server:
        answer = complete(server, Request(Conversation.of_user("q"), Sampling(), choices=("(A)", "(B)")))
    assert server.bodies[0]["logprobs"] is True and server.bodies[0]["top_logprobs"] == 20
    assert answer.finish_reason == "choices" and answer.choice_logprobs is not None
    assert math.exp(answer.choice_logprobs["(A)"]) == pytest.approx(0.75)
