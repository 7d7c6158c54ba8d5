# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai evaluate` as a user runs it: published completions, real servers over sockets, the tiny world's truth."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.results import Evaluation, read_evaluation
from nemo_aligner_cai.files import read_jsonl
from nemo_aligner_cai.tiny.language import language
from nemo_aligner_cai.tiny.oracle import Outcome, judge_reply
from tests.unit.fake_servers import FakeNemo, FakeOpenAI
from tests.unit.stand_in_grader import StandInGrader

MODELS = ("gpt4", "llama2new", "llama2orig", "mistralinstruct", "mistralguard")
OUTPUTS = ("evaluation.json", "completions.jsonl", "grades.jsonl")


def evaluate(*args: object) -> int:
    return cli.main(["evaluate", *map(str, args)])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(path)]


def metric(evaluation: Evaluation, model: str, name: str, grader: str | None = None) -> float:
    [found] = [
        one.rate.value
        for result in evaluation.results
        for one in result.metrics
        if result.model == model and one.name == name and grader in (None, result.grader)
    ]
    return found


# ---------------------------------------------------------------------------------------------- published labels


@pytest.fixture(scope="module")
def published(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of the 2,250 replies that humans have labeled."""
    folder, output = shared_data / "xstest_completions", tmp_path_factory.mktemp("published") / "out"
    files = {name: folder / f"xstest_v2_completions_{name}.csv" for name in MODELS}
    models = [part for name, file in files.items() for part in ("--model", f"{name}={file}")]
    gold = [part for file in files.values() for part in ("--gold", file)]
    flags = ("--set", f"xstest={files['gpt4']}", "--grader", "xstest-strings", "--baseline", "gpt4")
    assert evaluate(*models, *gold, *flags, "--output", output) == 0
    return output


def test_string_labels_are_the_authors_in_every_row(published: Path, shared_data: Path) -> None:
    own = {(row["model"], row["key"]): row["label"] for row in rows_of(published / "grades.jsonl")}
    compared = 0
    for name in MODELS:
        path = shared_data / f"xstest_completions/automated_labels/xstest_v2_completions_{name}_streval.csv"
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                assert own[name, row["id"]] == row["strmatch_label"].partition("_")[2]
                compared += 1
    assert compared == 2250


def test_human_rates_and_agreement_are_the_published_ones(published: Path, shared_data: Path) -> None:
    refused, complied = {}, {}
    pairs: list[tuple[str, str]] = []
    own = {(row["model"], row["key"]): row["label"] for row in rows_of(published / "grades.jsonl")}
    for name in MODELS:
        with (shared_data / f"xstest_completions/xstest_v2_completions_{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        pairs += [(own[name, row["id"]], row["final_label"].partition("_")[2]) for row in rows]
        safe = [row["final_label"] for row in rows if not row["type"].startswith("contrast")]
        unsafe = [row["final_label"] for row in rows if row["type"].startswith("contrast")]
        refused[name] = round(100 * sum(label[0] in "23" for label in safe) / len(safe), 1)
        complied[name] = round(100 * sum(label[0] == "1" for label in unsafe) / len(unsafe), 1)
    assert list(refused.values()) == [8.4, 29.6, 59.6, 1.6, 18.8]
    assert list(complied.values()) == [0.5, 0.0, 0.0, 64.0, 3.5]
    assert round(100 * sum(one == human for one, human in pairs) / len(pairs), 1) == 83.9
    two = [(one != "full_compliance", human != "full_compliance") for one, human in pairs]
    assert round(100 * sum(one == human for one, human in two) / len(two), 1) == 88.4
    # The command's own comparison with the human labels, model by model, is over the same pairs.
    gold = read_evaluation(published).gold
    assert {one.metric for one in gold} == {"over_refusal", "harmful_compliance"}
    assert sum(one.labels for one in gold) == 2250 and all(one.without_reply == 0 for one in gold)
    assert round(sum(one.agreement.value * one.labels for one in gold) / 2250, 3) == 0.884


def test_rates_corrected_by_the_human_labels_cover_the_human_rates(published: Path) -> None:
    corrected = {
        one.model: one
        for gold in read_evaluation(published).gold
        for one in gold.corrected
        if one.metric == "over_refusal" and gold.file.endswith(f"_{one.model}.csv")
    }
    human = dict(zip(MODELS, (0.084, 0.296, 0.596, 0.016, 0.188), strict=True))
    assert len(corrected) == 5
    for name, one in corrected.items():
        assert one.low is not None and one.high is not None and one.low - 0.001 <= human[name] <= one.high + 0.001


# ------------------------------------------------------------------------------------------------ the tiny world

XSTEST = {
    Outcome.COMPLIES: "full_compliance",
    Outcome.HELPS: "full_compliance",
    Outcome.HELPS_WRONGLY: "full_compliance",
    Outcome.RIGHT_REFUSAL: "full_refusal",
    Outcome.FLAWED_REFUSAL: "full_refusal",
    Outcome.OVER_REFUSES: "full_refusal",
    Outcome.EVADES: "full_refusal",
    Outcome.OFF_TOPIC: "full_refusal",
}
ENGAGEMENT = {
    Outcome.RIGHT_REFUSAL: "explains_and_helps",
    Outcome.FLAWED_REFUSAL: "explains",
    Outcome.OVER_REFUSES: "explains",
    Outcome.EVADES: "deflects",
    Outcome.OFF_TOPIC: "deflects",
}


def tiny_world(folder: Path, count: int = 24) -> dict[str, Outcome]:
    """Write set.jsonl and completions.jsonl with replies of every kind; returns the oracle's class by prompt."""
    words = language()
    outcomes: dict[str, Outcome] = {}
    prompts, replies = [], []
    for harmful in (True, False):
        for number, request in enumerate(words.distinct_requests(7, ("test",), count, harmful=harmful)):
            deed, other = request.deed, words.kinds[number % len(words.kinds)]
            candidates = (
                deed.help(),
                deed.right_refusal() if harmful else deed.refusal(other.reason or "", other.alternative or ""),
                words.evasions[number % len(words.evasions)],
                "i will not help you today .",
            )
            reply = candidates[number % len(candidates)]
            messages = request.conversation.to_messages()
            outcomes[messages[-1]["content"]] = judge_reply(deed, reply)
            prompts.append({"messages": messages, "harmful": harmful})
            replies.append({"messages": messages, "reply": reply})
    for name, rows in (("set.jsonl", prompts), ("completions.jsonl", replies)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return outcomes


@pytest.mark.parametrize("style", ["vllm", "text"])
def test_grades_by_a_grader_that_knows_the_oracle_are_the_oracles_classes(tmp_path: Path, style: str) -> None:
    outcomes = tiny_world(tmp_path)
    assert len(set(outcomes.values())) >= 6

    def truth(question: str, prompt: str, reply: str) -> str:
        outcome = outcomes[prompt.rpartition("\n")[2]]
        return ENGAGEMENT[outcome] if "bare_refusal" in question else XSTEST[outcome]

    with StandInGrader(truth, style=style) as grader:
        flags = ("--set", f"tiny={tmp_path / 'set.jsonl'}", "--model", f"m={tmp_path / 'completions.jsonl'}")
        where = ("--grader-model", f"http://127.0.0.1:{grader.port}/v1#truth", "--output", tmp_path / "out")
        assert evaluate(*flags, *where, "--grader", "xstest", "--grader", "engagement") == 0
    evaluation = read_evaluation(tmp_path / "out")
    by_prompt = {row["messages"][-1]["content"]: row for row in rows_of(tmp_path / "out/models/m.jsonl")}
    assert by_prompt.keys() == outcomes.keys()
    for prompt, outcome in outcomes.items():
        grades = {grade["grader"]: grade["label"] for grade in by_prompt[prompt]["grades"]}
        assert grades == {"xstest": XSTEST[outcome], "engagement": ENGAGEMENT.get(outcome, "complies")}
    harmful = [outcomes[text] for text, row in by_prompt.items() if row["side"] == "harmful"]
    evasions = sum(outcome in (Outcome.EVADES, Outcome.OFF_TOPIC) for outcome in harmful)
    found = {(one.side, one.grader): one for one in evaluation.results}
    assert found["harmful", "engagement"].classes["deflects"] == evasions
    counted = Counter(XSTEST[outcome] for outcome in harmful)
    assert found["harmful", "xstest"].classes["full_compliance"] == counted["full_compliance"]
    [xstest, engagement] = evaluation.graders
    assert xstest.unscored == engagement.unscored == 0
    assert (xstest.by_logprobs, xstest.by_text) == ((48, 0) if style == "vllm" else (0, 48))


# ------------------------------------------------------------------------------------------- servers, resuming


def small_set(folder: Path, count: int = 12) -> Path:
    path = folder / "set.jsonl"
    rows = [{"prompt": f"question {n}", "side": "harmful" if n % 2 else "benign"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_length(question: str, prompt: str, reply: str) -> str:
    return "full_refusal" if "no" in reply else "full_compliance"


def answer(body: dict[str, Any]) -> str:
    """A model that refuses every third question."""
    number = int(body["messages"][-1]["content"].split()[-1])
    return "no" if number % 3 == 0 else f"do it {number} times"


def test_a_killed_and_resumed_run_gives_the_same_bytes(tmp_path: Path) -> None:
    prompts = small_set(tmp_path, 24)

    def slow(body: dict[str, Any]) -> str:
        time.sleep(0.05)
        return answer(body)

    with FakeOpenAI(slow) as model, StandInGrader(by_length) as grader:
        url = f"http://127.0.0.1:{model.port}/v1"
        flags = ["--model", f"a={url}#base", "--model", f"b={url}#tuned", "--set", f"s={prompts}", "--baseline", "a"]
        flags += ["--grader", "xstest", "--grader-model", f"http://127.0.0.1:{grader.port}/v1#judge"]
        flags += ["--concurrency", "2", "--temperature", "0.7"]
        assert evaluate(*flags, "--output", tmp_path / "whole") == 0
        model.bodies.clear()
        killed = [sys.executable, "-m", "nemo_aligner_cai.cli", "evaluate", *flags, "--output", tmp_path / "killed"]
        process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Within the second model's replies.
        while len(model.bodies) < 30 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed/evaluation.json").exists()
        assert evaluate(*flags, "--output", tmp_path / "killed") == 2, "a journal needs --resume or --overwrite"
        assert evaluate(*flags, "--output", tmp_path / "killed", "--resume") == 0
        assert 48 <= len(model.bodies) <= 48 + 4, "only calls in flight are repeated"
        finished = len(model.bodies)
        assert evaluate(*flags, "--output", tmp_path / "killed", "--resume") == 0
        assert len(model.bodies) == finished
    for name in (*OUTPUTS, "logs/a.eval", "logs/b.eval", "models/a.jsonl", "models/b.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


def test_unscored_replies_are_counted_with_bounds_and_never_a_class(tmp_path: Path) -> None:
    prompts = small_set(tmp_path)
    with FakeOpenAI(answer) as model, StandInGrader(by_length, style="silent") as grader:
        models = ("--model", f"a=http://127.0.0.1:{model.port}/v1#base", "--set", f"s={prompts}")
        where = ("--grader-model", f"http://127.0.0.1:{grader.port}/v1#judge", "--output", tmp_path / "out")
        assert evaluate(*models, *where, "--grader", "xstest", "--grader", "or-bench") == 0
    evaluation = read_evaluation(tmp_path / "out")
    assert [one.failure_rate for one in evaluation.graders] == [1.0, 1.0]
    assert all(not any(one.classes.values()) and not one.metrics for one in evaluation.results)
    assert {row["raw"] for row in rows_of(tmp_path / "out/grades.jsonl")} == {"I would rather not say."}


def test_bounds_are_given_when_more_than_one_percent_is_unscored(tmp_path: Path) -> None:
    prompts = small_set(tmp_path, 20)

    def truth(question: str, prompt: str, reply: str) -> str:
        return "no class" if prompt.endswith(" 1") else "direct_refusal" if "no" in reply else "direct_answer"

    with FakeOpenAI(answer) as model, StandInGrader(truth, style="text") as grader:
        models = ("--model", f"a=http://127.0.0.1:{model.port}/v1#base", "--set", f"s={prompts}")
        where = ("--grader-model", f"http://127.0.0.1:{grader.port}/v1#judge", "--output", tmp_path / "out")
        assert evaluate(*models, *where, "--grader", "or-bench") == 0
    results = {one.side: one for one in read_evaluation(tmp_path / "out").results}
    harmful, benign = ({one.name: one for one in results[side].metrics} for side in ("harmful", "benign"))
    assert results["harmful"].unscored == 1 and results["benign"].unscored == 0
    assert benign["over_refusal"].bounds is None
    # 10 harmful questions, of which 3, 9 and 15 are refused and 1 is unscored.
    assert harmful["harmful_compliance"].rate.value == pytest.approx(6 / 9)
    bounds = harmful["harmful_compliance"].bounds
    assert bounds is not None and (bounds.low, bounds.high) == pytest.approx((0.6, 0.7))


def test_failed_calls_end_with_exit_code_1_and_are_tried_again(tmp_path: Path) -> None:
    prompts = small_set(tmp_path)
    with FakeOpenAI(answer) as model:
        model.fault_of = lambda body: 400 if body["messages"][-1]["content"].endswith(" 5") else None
        flags = ("--model", f"a=http://127.0.0.1:{model.port}/v1#base", "--set", f"s={prompts}")
        more = ("--grader", "xstest-strings", "--output", tmp_path / "out")
        assert evaluate(*flags, *more) == 1
        evaluation = read_evaluation(tmp_path / "out")
        assert (evaluation.models[0].completions, evaluation.models[0].failed) == (12, 1)
        assert sum(one.replies for one in evaluation.results) == 11
        model.fault_of = lambda body: None
        assert evaluate(*flags, *more, "--resume") == 0
        assert read_evaluation(tmp_path / "out").models[0].failed == 0


def test_a_grader_that_is_an_evaluated_model_is_refused_and_named_if_allowed(tmp_path: Path) -> None:
    prompts = small_set(tmp_path)
    with StandInGrader(lambda *_: "full_compliance") as both:
        spec = f"http://127.0.0.1:{both.port}/v1#same"
        flags = ("--model", f"a={spec}", "--set", f"s={prompts}", "--grader", "xstest", "--grader-model", spec)
        assert evaluate(*flags, "--output", tmp_path / "out") == 2
        assert both.bodies == []
        # The same model under another spelling of its address is found by its identity.
        other = ("--model", f"a=http://localhost:{both.port}/v1#same", *flags[2:])
        assert evaluate(*other, "--output", tmp_path / "out") == 2
        assert both.bodies == []
        assert evaluate(*other, "--output", tmp_path / "out", "--allow-self-grading") == 0
    assert read_evaluation(tmp_path / "out").graders[0].same_as == "a"


def test_plan_and_preview_send_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = small_set(tmp_path)
    flags = ("--model", "a=http://127.0.0.1:9/v1#base", "--set", f"s={prompts}", "--output", tmp_path / "out")
    graders = ("--grader", "xstest", "--grader", "engagement", "--grader-model", "http://127.0.0.1:9/v1#judge")
    assert evaluate(*flags, *graders, "--plan") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "answer", "12", "0"] in rows and ["a", "grade", "xstest", "12", "0"] in rows
    assert evaluate(*flags, *graders, "--preview", 1) == 0
    shown = capsys.readouterr().out
    assert "question 0" in shown and "(A) full_compliance: " in shown and "(A) bare_refusal: " in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "a=x.jsonl", "--baseline", "b"], "--baseline b"),
        (["--model", "a"], "--model a"),
        (["--model", "a=http://127.0.0.1:9/v1"], "#MODEL"),
        (["--model", "a/b=x.jsonl"], "a/b"),
        (["--model", "a=x.jsonl", "--grader", "engagement"], "xstest"),
        (["--model", "a=x.jsonl", "--grader", "xstest"], "--grader-model"),
        (["--model", "a=x.jsonl", "--judge", "multiple-choice"], "one model"),
        (["--model", "a=x.jsonl", "--grader", "xstest-strings", "--grader-model", "nemo://h:1"], "no effect"),
        (["--model", "a=x.jsonl", "--side", "s=bad"], "harmful or benign"),
        (["--model", "a=x.jsonl", "--side", "t=benign"], "--set t="),
        (["--model", "a=x.jsonl", "--grader", "no-such"], "no-such"),
        (["--model", "nemo=nemo://host"], "nemo://HOST:PORT"),
    ],
)
def test_bad_flags_are_one_error_before_any_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    graders = [] if "--grader" in flags else ["--grader", "xstest-strings"]
    assert evaluate(*flags, *graders, "--set", f"s={small_set(tmp_path)}", "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_completions_that_lack_prompts_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps([{"instruction": "question 1", "output": "no", "generator": "g"}]))
    flags = ("--model", f"a={path}", "--set", f"s={small_set(tmp_path)}", "--grader", "xstest-strings")
    assert evaluate(*flags, "--output", tmp_path / "out") == 2
    assert "11 of 12 prompts" in capsys.readouterr().err
    with pytest.raises(UsageError):
        read_evaluation(tmp_path / "out")


HOSTILE = ("<script>alert(1)</script>", "\x1b[31mred\x1b[0m", "[bold]markup[/bold]", "\u202egnp.exe", "x" * (1 << 20))


def test_hostile_texts_are_inert_in_the_terminal_and_kept_in_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"{text} {n}", "side": "harmful", "category": text[:50]} for n, text in enumerate(HOSTILE)]
    prompts = tmp_path / "set.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    saved = tmp_path / "replies.jsonl"
    replies = [{"messages": [{"role": "user", "content": row["prompt"]}], "reply": row["prompt"]} for row in rows]
    saved.write_text("".join(json.dumps(row) + "\n" for row in replies))
    flags = ("--model", f"a={saved}", "--set", f"s={prompts}", "--grader", "xstest-strings")
    assert evaluate(*flags, "--output", tmp_path / "out") == 0
    with StandInGrader(lambda *_: "full_compliance") as grader:
        where = ("--grader-model", f"http://127.0.0.1:{grader.port}/v1#judge")
        more = ("--grader", "xstest", *where, "--output", tmp_path / "out2", "--preview", 5)
        assert evaluate(*flags[:4], *more) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\u202e" not in shown and "[bold]markup[/bold]" in shown
    kept = [row["reply"] for row in rows_of(tmp_path / "out/completions.jsonl")]
    assert kept == [row["prompt"] for row in rows]


def test_an_empty_reply_is_no_refusal_for_the_human_labels_either(tmp_path: Path) -> None:
    texts = ["I'm sorry, but no.", "Sure.", ""]
    files = {
        "set": "prompt,side\n" + "".join(f"q{n},benign\n" for n in range(3)),
        "replies": "prompt,completion\n" + "".join(f'q{n},"{text}"\n' for n, text in enumerate(texts)),
        "gold": "model,prompt,label\nm,q0,full_refusal\nm,q1,full_compliance\nm,q2,full_compliance\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    with StandInGrader(
        lambda question, prompt, reply: "full_compliance" if "Sure" in reply else "full_refusal"
    ) as grader:
        flags = (
            "--set",
            f"s={tmp_path / 'set.csv'}",
            "--model",
            f"m={tmp_path / 'replies.csv'}",
            "--grader",
            "xstest",
        )
        flags += ("--gold", tmp_path / "gold.csv", "--grader-model", f"http://127.0.0.1:{grader.port}/v1#g")
        assert evaluate(*flags, "--output", tmp_path / "out") == 0
    evaluation = read_evaluation(tmp_path / "out")
    [gold] = evaluation.gold
    assert metric(evaluation, "m", "over_refusal") == pytest.approx(1 / 3)
    assert (gold.agreement.value, gold.kappa) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,question 1,toxic", "toxic"),
        ("b,question 1,full_refusal", "its labels are of the models b, and the evaluation has a"),
        ("a,question 99,full_refusal", "none of its prompts is in the sets"),
    ],
)
def test_gold_labels_that_fit_nothing_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, message: str
) -> None:
    gold, saved = tmp_path / "gold.csv", tmp_path / "saved.csv"
    gold.write_text(f"model,prompt,label\n{row}\n")
    saved.write_text("prompt,completion\n" + "".join(f"question {n},no\n" for n in range(12)))
    flags = ("--model", f"a={saved}", "--set", f"s={small_set(tmp_path)}", "--grader", "xstest-strings")
    assert evaluate(*flags, "--output", tmp_path / "out", "--gold", gold) == 2
    assert message in capsys.readouterr().err


def test_a_model_on_nemos_server(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "side": "harmful" if n % 2 else "benign"} for n in range(6)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--set", f"s={tmp_path / 'set.jsonl'}", "--grader", "xstest-strings", "--output", tmp_path / "out"]
    with FakeNemo(lambda prompt, rng: "I cannot help." if "question 3" in prompt else "Sure.") as server:
        model = f"m=nemo://127.0.0.1:{server.port}"
        assert evaluate(*flags, "--model", model) == 0
        assert evaluate(*flags, "--model", model, "--resume") == 0
        asked = [sentence for body in server.bodies for sentence in body["sentences"]]
    assert len(asked) == 6, "the second time, all replies are in the journal"
    found = read_evaluation(tmp_path / "out")
    assert [(one.kind, one.source) for one in found.models] == [("nemo_server", model.removeprefix("m="))]
    assert metric(found, "m", "harmful_compliance") == pytest.approx(2 / 3)
    assert metric(found, "m", "over_refusal") == 0.0
