# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.constitution import Constitution, Principle
from nemo_aligner_cai.data.judged_row import JudgedVerdict
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges import base as j
from nemo_aligner_cai.judges.base import Answer, Judge, JudgeInput
from nemo_aligner_cai.judges.chain_of_thought import chain_of_thought
from nemo_aligner_cai.judges.multiple_choice import multiple_choice
from nemo_aligner_cai.judges.pairs import Pairs, kept
from nemo_aligner_cai.judges.parse import best_worst_schema, choice_schema
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models import Completion, Request
from tests.unit.judging import CASE, PRINCIPLES, by_worth, decide, scored, settings


def judge_of(**given: Any) -> Judge:
    return multiple_choice(settings(**given))


def test_the_question_shows_conversation_principle_and_both_candidates() -> None:
    conversation = Conversation.of_user("first").with_turn(Role.ASSISTANT, "reply").with_turn(Role.USER, "second")
    question, exchanged = judge_of().questions(JudgeInput("x", conversation, ("one\n(B) two", "three")))
    text = question.request.conversation.messages[0].content
    assert question.request.choices == ("(A)", "(B)")
    assert "User: first\n\nAssistant: reply\n\nUser: second" in text
    assert f"Which is better by rule {question.principle[1:] if question.principle else ''}?" in text
    assert "(A) one\n    (B) two\n(B) three" in text, "a candidate's own option is indented"
    assert exchanged.shown == question.shown[::-1] and exchanged.principle == question.principle
    assert "(A) three\n(B) one" in exchanged.request.conversation.messages[0].content


def test_agreement_of_both_orders_is_a_preference_with_the_mean_probability() -> None:
    case = JudgeInput("id1", Conversation.of_user("q"), ("bad one", "good one"))
    answers = iter([scored(0.2), scored(0.6)])
    judgment = decide(judge_of(), lambda request: next(answers), case)
    (preference,) = judgment.preferences
    assert (preference.chosen, preference.rejected) == (1, 0)
    assert preference.probability == pytest.approx((0.8 + 0.6) / 2)
    assert preference.principle in {"p0", "p1", "p2", "p3"}
    counts = {j.JUDGED: 1, j.KEPT: 1, j.BOTH_ORDERS: 1, j.VERDICTS: 2, j.FIRST: 1, j.FLIPS: 0}
    assert judgment.counts == Counter(counts)


def test_a_judge_that_always_says_a_keeps_no_pair_and_its_bias_is_told() -> None:
    judgment = decide(judge_of(pairs="all"), lambda request: scored(0.99))
    assert judgment.preferences == ()
    assert judgment.counts[j.TIES] == judgment.counts[j.FLIPS] == judgment.counts[j.BOTH_ORDERS] == 3
    assert j.position_rates(judgment.counts) == {"position_flip_rate": 1.0, "first_position_rate": 1.0}
    expected = "position bias: flips 100.0%; first position 100.0%; flips 100%: no better than random guessing"
    assert j.position_line(judgment.counts) == expected


def test_one_order_is_taken_at_its_word() -> None:
    judgment = decide(judge_of(both_orders=False), lambda request: scored(0.99))
    assert len(judgment.preferences) == 1 and judgment.counts[j.BOTH_ORDERS] == 0
    assert j.position_rates(judgment.counts) == {"position_flip_rate": None, "first_position_rate": 1.0}


@pytest.mark.parametrize(("margin", "kept"), [(0.0, 1), (0.79, 1), (0.81, 0)])
def test_margin_is_the_distance_of_the_probabilities(margin: float, kept: int) -> None:
    judgment = decide(judge_of(margin=margin), by_worth)
    assert len(judgment.preferences) == kept and judgment.counts[j.UNSURE] == 1 - kept


def test_which_pairs_are_kept() -> None:
    def chosen(pairs: Pairs) -> list[tuple[int, int]]:
        return [(p.chosen, p.rejected) for p in decide(judge_of(pairs=pairs), by_worth).preferences]

    assert sorted(chosen("all")) == [(0, 1), (0, 2), (2, 1)]
    assert chosen("best-worst") == [(0, 1)]
    assert len(chosen("one")) == 1


def test_one_pair_per_prompt_is_drawn_evenly() -> None:
    judge = judge_of()
    drawn = [judge.questions(JudgeInput(f"id{n}", CASE.conversation, CASE.candidates))[0].shown for n in range(300)]
    assert all(drawn.count(pair) > 60 for pair in ((0, 1), (0, 2), (1, 2)))


def numbered(count: int) -> JudgeInput:
    return JudgeInput("id1", Conversation.of_user("q"), tuple(f"answer {n} of many" for n in range(count)))


def higher_number(request: Request) -> Completion:
    text = request.conversation.messages[-1].content
    first, second = (int(text.split(f"{letter} answer ")[1].split()[0]) for letter in ("(A)", "(B)"))
    return scored(0.9 if first > second else 0.1)


@pytest.mark.parametrize("pairs", get_args(Pairs))
@given(count=st.integers(2, 9))
def test_every_selection_keeps_right_pairs_and_each_once(pairs: Pairs, count: int) -> None:
    judgment = decide(judge_of(pairs=pairs), higher_number, numbered(count))
    kept = [(preference.chosen, preference.rejected) for preference in judgment.preferences]
    assert kept and len(set(kept)) == len(kept) and all(better > worse for better, worse in kept)
    assert len(kept) <= judgment.counts[j.JUDGED] <= math.comb(count, 2)


@given(st.integers(2, 17))
def test_a_tournament_takes_n_minus_1_comparisons_and_finds_the_best(count: int) -> None:
    judge = judge_of(pairs="tournament")
    judgment = decide(judge, higher_number, numbered(count))
    assert judgment.counts[j.JUDGED] == judgment.counts[j.KEPT] == count - 1
    beaten = {preference.rejected for preference in judgment.preferences}
    assert beaten == set(range(count - 1)), "all but the best lose exactly once"
    assert judge.max_turns(count) == 2 * math.ceil(math.log2(count))


def test_a_tie_in_a_tournament_is_no_label_and_does_not_end_it() -> None:
    def reply(request: Request) -> Completion:
        text = request.conversation.messages[-1].content
        return scored(0.9) if "answer 0" in text and "answer 1" in text else higher_number(request)

    judgment = decide(judge_of(pairs="tournament"), reply, numbered(4))
    assert judgment.counts[j.TIES] == 1 and judgment.counts[j.KEPT] == 2
    assert {(p.chosen, p.rejected) for p in judgment.preferences} == {(3, 2), (3, 0)}


def test_fewer_candidates_than_expected_leave_rounds_without_questions() -> None:
    judge = judge_of(pairs="tournament")
    turns: list[list[Answer]] = []
    for _ in range(judge.max_turns(8)):
        turns.append([Answer(q, higher_number(q.request)) for q in judge.questions(numbered(2), turns)])
    assert [len(turn) for turn in turns] == [2, 0, 0, 0, 0, 0]
    assert judge.decide(numbered(2), turns).counts[j.KEPT] == 1


def no_scores(*texts: str) -> Callable[[Request], Completion]:
    """A server without log-probabilities: the first answer is no vote, whatever it says."""
    said = iter(texts)
    return lambda request: Completion("(A)" if request.choices else next(said), "stop")


def test_votes_stand_in_for_log_probabilities() -> None:
    judge = judge_of(both_orders=False, votes=4)
    judgment = decide(judge, no_scores("(A)", " (A).\n", "(B)", "well, (A)"))
    (verdict,) = judgment.verdicts
    assert verdict.probability == pytest.approx(2 / 3) and (verdict.votes, verdict.unparsed_votes) == (4, 1)
    assert verdict.raw.splitlines() == ["(A)", " (A).", "", "(B)", "well, (A)"]
    assert judgment.preferences[0].probability == pytest.approx(2 / 3)
    assert judgment.counts[j.VOTES] == 4 and judgment.counts[j.UNPARSED_VOTES] == 1


def test_votes_are_sampled_and_asked_for_only_where_the_first_answer_has_no_scores() -> None:
    judge = judge_of(votes=3)
    first, second = judge.questions(CASE)
    told = [[Answer(first, scored(0.7)), Answer(second, Completion("(B)", "stop"))]]
    votes = judge.questions(CASE, told)
    assert [vote.shown for vote in votes] == [second.shown] * 3
    assert all(vote.request.is_random and vote.request.sampling.temperature == 1.0 for vote in votes)
    assert not judge.questions(CASE, [[Answer(first, scored(0.7)), Answer(second, scored(0.2))]])


def test_without_log_probabilities_votes_are_asked_for_at_once() -> None:
    judge = judge_of(logprobs=False, votes=3, both_orders=False)
    assert judge.max_turns(2) == 1
    assert [question.request.choices for question in judge.questions(CASE)] == [(), (), ()]
    assert decide(judge, no_scores("(B)", "(B)", "(A)")).preferences[0].probability == pytest.approx(2 / 3)


@pytest.mark.parametrize("text", ["A", "(A) or (B)", "I would say (A)", "", "(A)(A)", '{"choice": "(A)", "why": 1}'])
def test_only_a_bare_choice_is_a_vote(text: str) -> None:
    judgment = decide(judge_of(both_orders=False, votes=2), no_scores(text, text))
    assert judgment.preferences == () and judgment.counts[j.UNPARSED] == 1
    assert judgment.counts[j.UNPARSED_VOTES] == 2 and judgment.verdicts[0].raw == f"{text}\n{text}"


def test_an_even_vote_is_a_tie() -> None:
    judgment = decide(judge_of(both_orders=False, votes=2), no_scores("(A)", "(B)"))
    assert judgment.preferences == () and judgment.counts[j.TIES] == 1 and judgment.counts[j.UNPARSED] == 0


def test_one_order_without_a_verdict_makes_the_pair_unparsed_and_no_flip() -> None:
    judgment = decide(judge_of(votes=1), no_scores("(A)", "hm"))
    assert judgment.preferences == () and judgment.counts[j.UNPARSED] == judgment.counts[j.SILENT] == 1
    assert judgment.counts[j.FLIPS] == judgment.counts[j.TIES] == judgment.counts[j.BOTH_ORDERS] == 0


def test_structured_votes_carry_the_schema_of_the_choices() -> None:
    judge = judge_of(logprobs=False, structured=True, votes=1, both_orders=False)
    (vote,) = judge.questions(CASE)
    assert vote.request.schema is not None and vote.request.schema["properties"]["choice"]["enum"] == ["(A)", "(B)"]
    assert vote.request.schema["additionalProperties"] is False
    assert decide(judge, no_scores('{"choice": "(B)"}')).preferences[0].probability == 1.0


def test_even_odds_are_a_tie() -> None:
    judgment = decide(judge_of(both_orders=False), lambda request: scored(0.5))
    assert judgment.preferences == () and judgment.counts[j.TIES] == 1 and judgment.counts[j.UNPARSED] == 0


@pytest.mark.parametrize("odds", [(-900.0, 0.0), (0.0, -900.0), (-math.inf, -1.0)])
def test_extreme_log_probabilities_are_still_probabilities(odds: tuple[float, float]) -> None:
    scores: dict[str, float] = dict(zip(("(A)", "(B)"), odds, strict=True))
    judge = judge_of(both_orders=False)
    (verdict,) = decide(judge, lambda request: Completion("", "choices", choice_logprobs=scores)).verdicts
    assert verdict.probability == pytest.approx(0.0 if odds[0] < odds[1] else 1.0, abs=1e-9)


def test_a_new_principle_takes_over_a_share_of_the_pairs_and_leaves_the_others_alone() -> None:
    def drawn(constitution: Constitution) -> list[str | None]:
        judge = multiple_choice(JudgeSettings(constitution=constitution, seed=1))
        return [
            judge.questions(JudgeInput(f"id{n}", CASE.conversation, CASE.candidates))[0].principle for n in range(200)
        ]

    more = Constitution((*PRINCIPLES.principles, Principle("new", "", "", "Which is new?")), "five")
    changed = [after for before, after in zip(drawn(PRINCIPLES), drawn(more), strict=True) if before != after]
    assert set(changed) == {"new"} and 20 < len(changed) < 70


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="'x'"):
        multiple_choice(JudgeSettings(constitution=Constitution((Principle("p", "c", "r"),), "x")))
    with pytest.raises(UsageError, match=r"\.yaml"):
        multiple_choice(JudgeSettings(constitution=None, system="Be kind."))
    with pytest.raises(UsageError, match="margin"):
        judge_of(margin=1.0)
    with pytest.raises(UsageError, match="votes"):
        judge_of(votes=0)
    with pytest.raises(UsageError, match="clamp"):
        judge_of(clamp=(0.6, 0.9))


@pytest.mark.parametrize(("votes_for_a", "margin", "kept"), [(3, 0.2, 1), (3, 0.21, 0), (4, 0.6, 1), (4, 0.61, 0)])
def test_a14_a_pair_at_the_exact_margin_is_kept(votes_for_a: int, margin: float, kept: int) -> None:
    """A14: 3 of 5 votes are |2p - 1| = 0.2 exactly; in binary floating point they are a little less."""
    judge = multiple_choice(
        JudgeSettings(constitution=PRINCIPLES, pairs="one", both_orders=False, margin=margin, votes=5, logprobs=False)
    )
    said = iter(["(A)"] * votes_for_a + ["(B)"] * (5 - votes_for_a))
    judgment = decide(judge, lambda request: Completion(next(said), "stop"))
    assert judgment.counts[j.KEPT] == kept
    assert [type(one.probability) for one in judgment.preferences] == [float] * kept


def test_a14_a_clamp_allows_the_margin_that_it_is_as_wide_as() -> None:
    judge = chain_of_thought(settings(both_orders=False, margin=0.2, clamp=(0.4, 0.6)))
    judgment = decide(judge, lambda q: scored(0.9) if q.choices else Completion("hm", "stop"))
    assert [one.probability for one in judgment.preferences] == [0.6]


@pytest.mark.parametrize(
    ("flips", "pairs", "said"),
    [(63, 100, "flips 63%: no better than random"), (1, 4, "of 4 pairs: not dist"), (10, 100, None)],
)
def test_d7_a_judge_is_compared_with_random_guessing(flips: int, pairs: int, said: str | None) -> None:
    line = j.position_line({j.BOTH_ORDERS: pairs, j.FLIPS: flips})
    assert said in line if said else "random" not in line


def test_d7_an_answer_that_is_no_verdict_is_shown_with_the_flags_that_help() -> None:
    verdicts = [
        JudgedVerdict((0, 1), None, 1, 0, None, "fine"),
        JudgedVerdict((0, 1), None, None, None, None, "I cannot say \x1b[2J"),
    ]
    line = j.unparsed_line({j.UNPARSED: 1, j.JUDGED: 9}, verdicts)
    assert line is not None and "I cannot say" in line and "--judge multiple-choice" in line and "\x1b" not in line
    assert j.unparsed_line({j.JUDGED: 9}, verdicts) is None


@pytest.mark.parametrize(
    ("flips", "pairs", "said"), [(50, 100, "no better"), (49, 100, "not dist"), (40, 100, "not dist"), (39, 100, "")]
)
def test_d7_two_standard_errors_below_a_half_tell_a_judge_from_guessing(flips: int, pairs: int, said: str) -> None:
    line = j.position_line({j.BOTH_ORDERS: pairs, j.FLIPS: flips, j.VERDICTS: 4, j.FIRST: 1})
    assert line.startswith(f"position bias: flips {flips:.1f}%; first position 25.0%")
    assert said in line if said else line.endswith("25.0%")


def test_position_rates_without_data_are_unknown() -> None:
    assert j.position_rates({j.BOTH_ORDERS: 4, j.VERDICTS: 8}) == {
        "position_flip_rate": 0.0,
        "first_position_rate": 0.0,
    }
    assert list(j.position_rates({}).values()) == [None, None]
    assert j.position_line({}) == (
        "position bias: flips unknown, no pair has a verdict in both orders; first position unknown"
    )


def test_the_first_unparsed_answer_is_shown_up_to_200_characters() -> None:
    silent = [JudgedVerdict((0, 1), None, None, None, None, text) for text in ("x" * 201, "other")]
    tie = JudgedVerdict((0, 1), None, None, None, 0.5, "a tie")
    line = j.unparsed_line({j.UNPARSED: 2, j.JUDGED: 9}, [tie, *silent])
    assert line is not None and f"2 of 9 pairs; one answer: '{'x' * 200}'." in line
    assert "''" in (j.unparsed_line({j.UNPARSED: 1, j.JUDGED: 1}, [tie]) or "")


def test_a_preference_without_a_probability_counts_as_one_win() -> None:
    sure, likely, more = j.Preference(0, 1, None, None), j.Preference(2, 1, 0.9, None), j.Preference(2, 3, 0.9, None)
    assert kept("best-worst", [sure, likely], 4) == [sure], "1 is more than 0.9"
    assert kept("best-worst", [sure, likely, more], 4) == [likely], "and less than 1.8"
    assert kept("best-worst", [j.Preference(0, 1, 0.6, None), likely], 4) == [likely], "0.6 is less than 0.9"
    assert kept("all", [sure, likely], 4) == [sure, likely]


def test_the_schemas_are_those_of_old_journals_whose_keys_include_them() -> None:
    """A change of any letter would make the paid calls of an old journal again."""
    assert choice_schema(("(A)", "(B)")) == {
        "additionalProperties": False,
        "description": "What a judge is made to write by a server with structured output: one of the choices.",
        "properties": {"choice": {"title": "Choice", "type": "string", "enum": ["(A)", "(B)"]}},
        "required": ["choice"],
        "title": "ChoiceAnswer",
        "type": "object",
    }
    assert best_worst_schema(2) == {
        "additionalProperties": False,
        "description": "Likewise: the best and the worst of the numbered candidates, and why.",
        "properties": {
            "chosen": {"title": "Chosen", "type": "integer", "enum": [1, 2]},
            "rejected": {"title": "Rejected", "type": "integer", "enum": [1, 2]},
            "explanation": {"title": "Explanation", "type": "string"},
        },
        "required": ["chosen", "rejected", "explanation"],
        "title": "BestWorstAnswer",
        "type": "object",
    }
