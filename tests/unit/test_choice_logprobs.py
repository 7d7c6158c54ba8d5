# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import math
from typing import Any

import pytest

from nemo_aligner_cai.models.scoring.choice_scores import ImplausibleError, choice_logprobs


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


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (("A", "B"), ("As", " And", "A1", "B\u00e9", "\u0120But")),
        (("Yes", "No"), ("Not", " None", "Yesterday")),
    ],
)
def test_a_word_that_begins_like_a_choice_is_not_the_choice(choices: tuple[str, str], words: tuple[str, ...]) -> None:
    one, other = choices
    given = tokens((one, {one: 0.3, other: 0.1} | dict.fromkeys(words, 0.6 / len(words))))
    scores = choice_logprobs(given, choices)
    assert scores is not None and math.exp(scores[one] - scores[other]) == pytest.approx(3.0)
    assert math.exp(scores[one]) == pytest.approx(0.3)
    assert choice_logprobs(tokens((words[0], {words[0]: 0.5, words[1]: 0.4})), choices) is None


@pytest.mark.parametrize("after", [")", ".", ",", " ", "\n", ":", "'", ") is"])
@pytest.mark.parametrize("before", ["", " "])
def test_a_choice_may_be_followed_by_what_continues_no_word(before: str, after: str) -> None:
    first = {f"{before}A{after}": 0.45, "A": 0.15, "B": 0.1, f"{before}B{after}": 0.1}
    scores = choice_logprobs(tokens((f"{before}A{after}", first)), ("A", "B"))
    assert scores is not None and math.exp(scores["A"] - scores["B"]) == pytest.approx(3.0)
    bracketed = {f"{before}(A){after}": 0.45, "(A": 0.15, "(B)x": 0.1, f"{before}(B)": 0.1}
    scores = choice_logprobs(tokens((f"{before}(A){after}", bracketed)), ("(A)", "(B)"))
    assert scores is not None and math.exp(scores["(A)"] - scores["(B)"]) == pytest.approx(3.0)


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


def distribution(sampled: str, *top: tuple[str, float], logprob: float | None = None) -> dict[str, Any]:
    """The logprobs field of a reply of one token with these alternatives (logarithms)."""
    listed = [{"token": token, "logprob": log} for token, log in top]
    own = dict(top).get(sampled, 0.0) if logprob is None else logprob
    return {"content": [{"token": sampled, "logprob": own, "top_logprobs": listed}]}


@pytest.mark.parametrize(
    "given",
    [
        distribution("A", ("A", 14.2), ("B", 13.1)),
        distribution("A", ("A", 0.0), ("B", -9999.0)),
        distribution("A", ("A", 0.0), ("B", float("-inf"))),
        distribution("A", ("A", 0.0), ("B", -0.97)),
        distribution("A", ("A", 0.0), ("B", -18.0), ("C", -18.0)),
        distribution("A", ("A", -1e-9), ("B", -60.0)),
        distribution("A", ("A", -0.1), ("B", -0.2), ("C", -0.3)),
        distribution("A", ("B", -0.97), ("C", -3.0)),
        distribution("A", ("A", -9999.0), ("B", -0.5)),
        distribution("A", ("A", -0.2), ("C", -1.7), ("D", float("-inf"))),
        distribution("A", ("A", float("inf")), ("B", -1.0)),
    ],
)
def test_a2_a_distribution_that_cannot_be_the_models_is_not_used(given: dict[str, Any]) -> None:
    with pytest.raises(ImplausibleError):
        choice_logprobs(given, ("(A)", "(B)"), "(")


def test_a2_a_very_sure_model_is_believed() -> None:
    given = distribution("A", ("A", 0.0), ("B", -17.5), ("C", -21.0))
    assert choice_logprobs(given, ("(A)", "(B)"), "(") == pytest.approx({"(A)": 0.0, "(B)": -17.5})
    filtered = distribution("B", ("A", -0.48), ("B", -0.97), ("C", -9999.0))
    assert choice_logprobs(filtered, ("(A)", "(B)"), "(") == pytest.approx({"(A)": -0.48, "(B)": -0.97})


def test_d8_tokens_may_be_spelled_as_the_tokenizer_spells_them() -> None:
    given = distribution("\u0120A", ("\u0120A", -0.48), ("\u0120B", -0.97))
    assert choice_logprobs(given, ("A", "B")) == pytest.approx({"A": -0.48, "B": -0.97})
