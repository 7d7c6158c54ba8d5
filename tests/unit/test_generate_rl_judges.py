# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""generate_rl_cai_dataset.py with each strategy, and what becomes of the judge's probabilities."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.commands.generate import clients
from nemo_aligner_cai.commands.generate.rl_cai import build_parser, main
from nemo_aligner_cai.data.formats.files import validate_file
from nemo_aligner_cai.models import RetryPolicy
from tests.unit.fake_servers import FakeNemo, FakeOpenAI
from tests.unit.rl_run import judge, numbers_in, policy, questions_to, red_team_flags, rows, run, scoring_judge


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    return red_team_flags(tmp_path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NGC_API_KEY", raising=False)
    monkeypatch.delenv("NVIDIA_API_KEY", raising=False)


def judged(flags: list[str], server: Any, *more: str, code: int = 0) -> FakeOpenAI:
    with FakeNemo(policy) as policy_server, FakeOpenAI(server) as judge_server:
        assert run(flags, policy_server, judge_server, *more) == code
        return judge_server


def test_our_own_flags_are_these() -> None:
    """Frozen as upstream's are: whoever adds a flag adds it here and to the documentation."""
    options = {option for action in build_parser().flags for option in action.option_strings}
    ours = {
        *("--api-key-env", "--both-orders", "--no-both-orders", "--chat-template", "--concurrency", "--dry-run"),
        *(
            "--ensemble",
            "--ensemble-of",
            "--formats",
            "--judge",
            "--judge-api-key-env",
            "--judge-clamp",
            "--judge-concurrency",
            "--judge-endpoints-dir",
            "--endpoints-dir",
            "--upload",
        ),
        *("--judge-few-shot-path", "--judge-host", "--judge-logprobs", "--no-judge-logprobs", "--judge-max-tokens"),
        *("--judge-model", "--judge-port", "--judge-prompt", "--judge-requests-per-minute", "--judge-structured"),
        *("--judge-tokens-per-minute", "--judge-url", "--judge-votes", "--label-copies", "--legacy-eot", "--margin"),
        *("--max-dropped", "--model", "--model-url", "--num-examples", "--num-responses", "--overwrite", "--pairs"),
        *("--plan", "--preview", "--price-read", "--price-written", "--request-timeout", "--requests-per-minute"),
        *("--extra-body", "--omit", "--judge-extra-body", "--judge-omit", "--judge-chat-template"),
        *("--resume", "--soft-labels", "--temperatures", "--tokens-per-minute", "--turns"),
        *("--constitution", "--prompt-column", "--system-message", "--shard", "--journal-from", "--no-calls"),
        *("--ray", "--shards"),
        *("--ppo-prompts", "--ppo-response-length", "--ppo-seq-length", "--rm-seq-length", "--tokenizer-model"),
    }
    upstream = {
        *("--add_bos", "--all_probs", "--assistant_format", "--batch-size", "--blend-with", "--bos_token"),
        *("--end_strings", "--eos_token", "--greedy", "--host", "--min_tokens_to_generate", "--ngc-api-key"),
        *("--ngc-model", "--ngc-url", "--output-dir", "--output-filename-prefix", "--port", "--red-teaming-file-path"),
        *("--repetition_penalty", "--response_extract_pattern", "--seed", "--shuffle", "--splits"),
        *("--sys-prompt-constitution-file-path", "--system_default_message", "--system_format", "--temperature"),
        *("--tokens_to_generate", "--top_k", "--top_p", "--user_format"),
    }
    assert options - upstream - {"-h", "--help"} == ours


@pytest.mark.parametrize(
    ("more", "calls", "probability", "pairs"),
    [
        (["--judge", "multiple-choice"], 6 * 2, 0.9, 1),
        (["--judge", "multiple-choice", "--pairs", "all", "--judge-prompt", "paper"], 6 * 2, 0.9, 6),
        (["--judge", "multiple-choice", "--pairs", "tournament", "--no-both-orders"], 3, 0.9, 3),
        (["--judge", "chain-of-thought", "--pairs", "one"], 2 * 2, 0.6, 1),
        (["--judge", "chain-of-thought", "--pairs", "one", "--judge-clamp", "0.2", "0.8"], 2 * 2, 0.8, 1),
        (["--judge", "ensemble", "--pairs", "one", "--ensemble", "3"], 3 * 2, 0.9, 1),
        (["--judge", "ensemble", "--pairs", "one", "--ensemble-of", "chain-of-thought"], 4 * 2 * 2, 0.6, 1),
    ],
)
def test_every_strategy_runs_with_log_probabilities(
    flags: list[str], out: Path, more: list[str], calls: int, probability: float, pairs: int
) -> None:
    server = judged(flags, scoring_judge(), *more)
    assert len(questions_to(server)) - 1 == 20 * calls, "and one probe"
    for row in rows(out / "cai_comparisons.jsonl"):
        assert len(row["pairs"]) == pairs
        for pair in row["pairs"]:
            assert pair["probability"] == pytest.approx(probability)
            assert numbers_in(pair["chosen"]) > numbers_in(pair["rejected"])


def test_a_server_without_log_probabilities_is_asked_for_votes(flags: list[str], out: Path) -> None:
    more = ["--judge", "multiple-choice", "--pairs", "one", "--judge-votes", "3"]
    server = judged(flags, scoring_judge(logprobs=False), *more)
    assert len(questions_to(server)) - 1 == 20 * 2 * (1 + 3)
    votes = [body for body in questions_to(server)[1:] if "logprobs" not in body]
    assert {body["temperature"] for body in votes} == {1.0} and len({body["seed"] for body in votes}) == len(votes)
    assert {row["pairs"][0]["probability"] for row in rows(out / "cai_comparisons.jsonl")} == {1.0}
    server = judged(flags, scoring_judge(logprobs=False), *more, "--no-judge-logprobs", "--overwrite")
    assert len(server.bodies) - 1 == 20 * 2 * 3 and not any("logprobs" in body for body in server.bodies)


def test_d8_a_server_that_refuses_log_probabilities_is_asked_for_votes(flags: list[str], out: Path) -> None:
    more = ["--judge", "multiple-choice", "--pairs", "one", "--judge-votes", "3"]
    with FakeNemo(policy) as server, FakeOpenAI(scoring_judge()) as judge_server:
        judge_server.fault_of = lambda body: 400 if "logprobs" in body else None
        assert run(flags, server, judge_server, *more) == 0
    votes = [body for body in questions_to(judge_server) if body.get("temperature") == 1.0]
    assert len(votes) == 20 * 2 * 3, "nothing that is refused is asked for again"
    assert all(row["pairs"] for row in rows(out / "cai_comparisons.jsonl"))


def test_structured_answers_are_held_to_a_schema(
    flags: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = judged(flags, judge, "--judge-structured")
    form = server.bodies[1]["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["properties"]["chosen"]["enum"] == [1, 2, 3, 4]
    journal = (out / "cai_comparisons.journal.jsonl").read_text()
    assert '"schema":{"additionalProperties":false' in journal
    with FakeNemo(policy) as policy_server, FakeOpenAI(judge) as judge_server:
        judge_server.fault_of = lambda body: 422 if "response_format" in body else None
        assert run(flags, policy_server, judge_server, "--judge-structured", "--overwrite") == 1
        assert "remove --judge-structured" in capsys.readouterr().err and policy_server.bodies == []
        assert run(flags, policy_server, None, "--judge-structured", "--judge-port", "1", "--overwrite") == 2


@pytest.mark.parametrize(
    ("more", "start"), [([], "<extra_id_0>"), (["--judge-chat-template", "chatml"], "<|im_start|>")]
)
def test_a_judge_on_nemos_server_is_asked_in_its_own_template(flags: list[str], more: list[str], start: str) -> None:
    with FakeNemo(policy) as policy_server, FakeNemo(lambda prompt, rng: "(A)") as judge_server:
        run(flags, policy_server, None, "--judge-port", str(judge_server.port), "--judge", "multiple-choice", *more)
        asked = [text for body in judge_server.bodies for text in body["sentences"]]
    assert asked and all(text.startswith(start) for text in asked)


def test_a_judge_that_always_says_a_keeps_nothing_and_is_told_to_be_biased(
    flags: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def first(body: dict[str, Any]) -> Any:
        top = [{"token": "(A)", "logprob": -0.01}, {"token": "(B)", "logprob": -5.0}]
        token = {"token": "(A)", "logprob": -0.01, "top_logprobs": top}
        return {"message": {"content": "(A)"}, "finish_reason": "stop", "logprobs": {"content": [token]}}

    judged(flags, first, "--judge", "multiple-choice", code=1)
    shown = capsys.readouterr()
    assert "position bias: flips 100.0%; first position 100.0%" in shown.out
    assert "20 a tie" in shown.err
    assert json.loads((out / "cai_preference_dataset.json").read_text()) == []
    candidates = json.loads((out / "cai_candidate_dataset.json").read_text())
    assert len(candidates) == 20 and all(len(row) == 5 for row in candidates), "what was sampled is kept"
    manifest = json.loads((out / "cai_manifest.json").read_text())
    assert manifest["summary"]["facts"]["position flips"] == 120


def test_prompts_without_a_pair_are_in_no_training_file(flags: list[str], out: Path) -> None:
    sure, unsure = scoring_judge(), scoring_judge(0.6)

    def reply(body: dict[str, Any]) -> Any:
        return (unsure if "thing 1" in body["messages"][-1]["content"] else sure)(body)

    judged(flags, reply, "--judge", "multiple-choice", "--margin", "0.5")
    raw = rows(out / "cai_comparisons.jsonl")
    assert len(raw) == 20 and [bool(row["pairs"]) for row in raw].count(False) == 11
    train, test = (rows(out / f"cai_rlaif_{split}_prompts_with_chat_prompt.jsonl") for split in ("train", "test"))
    assert len(train) == 7 and len(test) == 2
    assert not any("thing 1" in row["text"] for row in (*train, *test))
    assert len(rows(out / "cai_comparisons.left_out.jsonl")) == 11


def test_soft_labels_become_hard_pairs_by_repetition(flags: list[str], out: Path) -> None:
    more = ["--judge", "multiple-choice", "--pairs", "one", "--soft-labels", "repeat", "--label-copies", "4"]
    judged(flags, scoring_judge(0.7), *more)
    path = out / "cai_rlaif_train_comparisons_with_chat_prompt.jsonl"
    assert validate_file(path, "rm-comparisons").written == 16 * 4 * 2
    lines = [row["text"] for row in rows(path)]
    per_prompt: dict[str, Counter[bool]] = {}
    for better, worse in zip(lines[::2], lines[1::2], strict=True):
        prompt = better.split("<extra_id_1>Assistant")[0]
        per_prompt.setdefault(prompt, Counter())[numbers_in(better) > numbers_in(worse)] += 1
    assert set(map(str, per_prompt.values())) == {str(Counter({True: 3, False: 1}))}


def test_probabilities_travel_into_formats_with_rewards(flags: list[str], out: Path) -> None:
    more = ["--judge", "multiple-choice", "--pairs", "one", "--formats", "dpo", "openrlhf", "nemo-rl-preference"]
    judged(flags, scoring_judge(0.8), *more)
    dpo = out / "cai_rlaif_train_comparisons_with_chat_prompt.dpo.jsonl"
    assert validate_file(dpo, "dpo").written == 16
    for row in rows(dpo):
        assert 1 / (1 + math.exp(row["rejected_reward"] - row["chosen_reward"])) == pytest.approx(0.8)
        assert row["dataset"] == "rl_cai_samples"
    assert rows(out / "cai_rlaif_test_comparisons_with_chat_prompt.openrlhf.jsonl")[0]["margin"] > 1
    assert len(rows(out / "cai_rlaif_test_comparisons_with_chat_prompt.nemo-rl-preference.jsonl")) == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--judge", "best-of-all"], "'best-of-all'; known: best-worst, multiple-choice, chain-of-"),
        (["--judge-prompt", "other"], "'other'; known: plain, paper"),
        (["--judge", "ensemble", "--ensemble", "99"], "99 principles"),
        (["--judge", "chain-of-thought", "--margin", "0.5"], "margin 0.5"),
        (["--margin", "0.5"], "margin"),
        (["--judge-few-shot-path", "nowhere"], "nowhere: cannot be read"),
        (["--judge-votes", "0"], "--judge-votes: must be a whole number, 1 or more"),
        (["--label-copies", "1"], "--label-copies: must be a whole number, 2 or more"),
        (["--formats", "ppo-prompts"], "'ppo-prompts' does not hold comparisons"),
        (["--formats", "dpo", "--legacy-eot"], "--formats: "),
        (["--formats", "shp"], "the format shp is only read"),
        (["--judge-requests-per-minute", "0"], "--judge-requests-per-minute: must be a number above 0"),
        (["--splits", repr({f"s{n}": "0.04" for n in range(25)})], "20 prompts cannot be split"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_asked(
    flags: list[str], out: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(flags, judge, *more, code=2).bodies == []
    assert message in capsys.readouterr().err and not out.exists()


def test_too_few_pairs_for_the_splits_end_after_everything_is_saved(
    flags: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def once(body: dict[str, Any]) -> str:
        return judge(body) if "thing 3 " in body["messages"][-1]["content"] else '{"chosen": 1, "rejected": 2}'

    judged(flags, once, code=1)
    assert "1 prompts with a pair cannot be split into train, test" in capsys.readouterr().err
    assert len(json.loads((out / "cai_preference_dataset.json").read_text())) == 1
    assert (out / "cai_manifest.json").exists()


def test_few_shots_stand_before_the_question(flags: list[str], tmp_path: Path) -> None:
    shots = tmp_path / "shots.json"
    example = {"prompt": "\n\nHuman: shot?\n\nAssistant:", "corrects": ["yes"], "incorrects": ["no"]}
    shots.write_text(json.dumps([example]))
    more = ["--judge", "multiple-choice", "--pairs", "one", "--judge-few-shot-path", str(shots)]
    messages = questions_to(judged(flags, scoring_judge(), *more))[1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert "User: shot?" in messages[0]["content"] and messages[1]["content"] == "(A)"
    assert "bad thing" in messages[2]["content"]


@pytest.mark.parametrize("strategy", ["best-worst", "multiple-choice", "chain-of-thought", "ensemble"])
def test_dry_runs_of_every_strategy(flags: list[str], out: Path, strategy: str) -> None:
    assert main([*flags, "--dry-run", "--judge", strategy]) == 0
    assert not out.exists()


def test_a_plan_counts_the_judges_rounds_and_asks_nobody(
    flags: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--judge", "chain-of-thought", "--pairs", "one"]
    assert judged(flags, judge, *more, "--plan").bodies == []
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["sample", "80", "0"] in lines and ["judge", "40", "0"] in lines and ["judge", "2", "40", "0"] in lines
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "requests"),
    [
        ([], 40.0),
        (["--judge-requests-per-minute", "500"], 500.0),
        (["--judge-url", "http://127.0.0.1:9/v1"], None),
        (["--judge-url", "http://api.nvidia.com.evil.example/v1"], None),
    ],
)
def test_the_hosted_api_is_asked_within_its_quota(
    flags: list[str], more: list[str], requests: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(clients, "OpenAIClient", lambda url, model, **settings: given.update(settings))
    clients.judge_client(build_parser().parse_args([*flags, *more]), "key", RetryPolicy())
    assert given["requests_per_minute"] == requests and given["tokens_per_minute"] is None


def test_a_secret_in_a_flag_of_the_judge_is_refused_and_not_shown(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server = judged(flags, scoring_judge(), "--judge-extra-body", '{"metadata": {"token": "hunter22"}}', code=2)
    assert not questions_to(server)
    shown = "".join(capsys.readouterr())
    assert "--judge-extra-body" in shown
    assert "hunter22" not in shown
