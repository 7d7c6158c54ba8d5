# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The section `evaluate` of a run: checked before the first step, run on models behind real sockets."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.constitution import load_constitution, packaged
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.results import read_evaluation
from nemo_aligner_cai.evaluation.settings import EvaluatedModel
from nemo_aligner_cai.files import read_jsonl
from nemo_aligner_cai.models import ModelClient, NemoServerClient, OpenAIClient
from nemo_aligner_cai.pipeline.config import RunConfig, load_run_config
from nemo_aligner_cai.pipeline.layout import EVALUATE
from nemo_aligner_cai.pipeline.run import Pipeline
from nemo_aligner_cai.pipeline.sections.evaluate import Evaluate
from nemo_aligner_cai.pipeline.sections.models import EndpointModel
from nemo_aligner_cai.pipeline.steps.evaluate import evaluate, run_model
from tests.run_steps import STEPS
from tests.unit.fake_servers import FakeNemo, FakeOpenAI, FakeVllm
from tests.unit.stand_in_grader import StandInGrader
from tests.unit.test_evaluation_pairwise import longer

TINY = {"sets": [{"name": "tiny", "file": "tiny"}], "grader": ["tiny"]}


def config_with(section: dict[str, Any]) -> RunConfig:
    tree = load_run_config(packaged_files.QUICKSTART).model_dump()
    return RunConfig.model_validate(tree | {"evaluate": section})


def test_the_step_follows_the_others_and_changes_none(tmp_path: Path) -> None:
    pytest.importorskip("hydra", reason="the training extra is not installed")
    steps = Pipeline(config_with(TINY), tmp_path / "run").steps()
    assert [step.name for step in steps] == [*STEPS, EVALUATE]
    plain = Pipeline(load_run_config(packaged_files.QUICKSTART), tmp_path / "plain").steps()
    assert [step.settings for step in plain] == [step.settings for step in steps[:-1]]
    reads = {path.name for path in steps[-1].reads}
    assert {"assistant.nemo", "model.nemo", "measure.jsonl", packaged_files.GRADER.name} <= reads


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (TINY | {"grader": ["no-such"]}, "no-such"),
        (TINY | {"grader": ["engagement"]}, "engagement"),
        (TINY | {"grader": ["xstest"]}, "evaluate.grader_model"),
        (TINY | {"grader_model": "judge"}, "no effect"),
        (TINY | {"sets": [{"name": "x", "file": "missing.csv"}]}, "missing.csv"),
        (TINY | {"pairwise": "multiple-choice"}, "evaluate.grader_model"),
    ],
)
def test_a_wrong_section_is_an_error_before_the_first_step(
    tmp_path: Path, section: dict[str, Any], message: str
) -> None:
    pytest.importorskip("hydra", reason="the training extra is not installed")
    with pytest.raises(UsageError, match=message):
        Pipeline(config_with(section), tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"prompt\nq1\n", r"set\.csv:2: .*--side x="),
        (b"prompt,side\n", "no usable prompt"),
        (b"other,columns\n1,2\n", r"set\.csv:2"),
        ("prompt,side\nq\xe9,benign\n".encode("latin-1"), r"set\.csv:.*UTF-8"),
    ],
)
def test_an_unusable_set_is_an_error_before_the_first_step(tmp_path: Path, content: bytes, where: str) -> None:
    pytest.importorskip("hydra", reason="the training extra is not installed")
    (tmp_path / "set.csv").write_bytes(content)
    section = {"sets": [{"name": "x", "file": str(tmp_path / "set.csv")}], "grader": ["xstest-strings"]}
    with pytest.raises(UsageError, match=where):
        Pipeline(config_with(section), tmp_path / "run")


def test_unusable_labels_and_a_grader_that_is_evaluated_are_errors_before_the_first_step(tmp_path: Path) -> None:
    pytest.importorskip("hydra", reason="the training extra is not installed")
    (tmp_path / "set.csv").write_text("prompt,side\nq1,benign\n")
    (tmp_path / "gold.csv").write_text("prompt,model\nq1,rl_cai\n")
    own = {"sets": [{"name": "x", "file": str(tmp_path / "set.csv")}]}
    with pytest.raises(UsageError, match=r"gold\.csv"):
        labels = [str(tmp_path / "gold.csv")]
        Pipeline(config_with(own | {"grader": ["xstest-strings"], "gold": labels}), tmp_path / "run")
    judged = own | {"grader": ["xstest"], "grader_model": "judge"}
    with pytest.raises(UsageError, match=r"evaluate\.grader_model: .*evaluate\.allow_self_grading"):
        Pipeline(config_with(judged), tmp_path / "run")
    Pipeline(config_with(judged | {"allow_self_grading": True}), tmp_path / "run")


def test_models_and_grader_behind_sockets(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "side": "harmful" if n % 2 else "benign"} for n in range(8)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = Evaluate.model_validate(
        {"sets": [{"name": "s", "file": str(tmp_path / "set.jsonl")}], "grader": ["xstest"], "grader_model": "judge"}
    )

    def truth(question: str, prompt: str, reply: str) -> str:
        return "full_refusal" if reply == "no" else "full_compliance"

    with FakeOpenAI(lambda body: "no" if body["model"] == "tuned" else "yes") as model, StandInGrader(truth) as judge:

        def of(name: str, port: int, served: str) -> Any:
            url = f"http://127.0.0.1:{port}/v1"
            source = EndpointModel(endpoint=(url,), model=served)
            return run_model(name, source, tmp_path, lambda: nullcontext(OpenAIClient(url, served)))

        models = [of("helpful_only", model.port, "base"), of("rl_cai", model.port, "tuned")]
        settings = section.config(tmp_path / "out", tmp_path / "none", constitution=packaged(), seed=1)
        rates = evaluate(settings, models, of("grader", judge.port, "judge"))["rates"]
        assert evaluate(settings, models, of("grader", judge.port, "judge"))["rates"] == rates
        assert len(model.bodies) == 16, "the second time, all replies are in the journals"
    found = {(one["model"], one["metric"]): one["value"] for one in rates}
    assert found["helpful_only", "harmful_compliance"] == 1.0 and found["rl_cai", "harmful_compliance"] == 0.0
    assert found["rl_cai", "over_refusal"] == 1.0
    [difference] = [one for one in read_evaluation(tmp_path / "out").differences if one.metric == "over_refusal"]
    assert (difference.model, difference.baseline, difference.value) == ("rl_cai", "helpful_only", 1.0)


def test_pairwise_with_a_model_on_nemos_server(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "side": "harmful" if n % 2 else "benign"} for n in range(8)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = Evaluate.model_validate(
        {
            "sets": [{"name": "s", "file": str(tmp_path / "set.jsonl")}],
            "grader": ["xstest-strings"],
            "grader_model": "judge",
            "pairwise": "multiple-choice",
        }
    )
    refusal = "I'm sorry, but that would do harm."
    with FakeNemo(lambda prompt, rng: refusal) as nemo, FakeOpenAI() as base, FakeVllm(longer) as judge:

        def of(name: str, port: int) -> EvaluatedModel:
            url = f"http://127.0.0.1:{port}/v1"
            source = EndpointModel(endpoint=(url,), model=name)
            return run_model(name, source, tmp_path, lambda: nullcontext(OpenAIClient(url, name)))

        def client() -> AbstractContextManager[ModelClient]:
            return nullcontext(NemoServerClient("127.0.0.1", nemo.port, model="rl_cai"))

        models = [of("helpful_only", base.port), run_model("rl_cai", tmp_path / "6_ppo/model.nemo", tmp_path, client)]
        settings = section.config(tmp_path / "out", tmp_path / "none", constitution=packaged(), seed=1)
        rates = evaluate(settings, models, of("judge", judge.port))["rates"]
    found = read_evaluation(tmp_path / "out")
    assert [(one.kind, one.completions) for one in found.models] == [("endpoint", 8), ("nemo_file", 8)]
    assert found.models[1].source == "6_ppo/model.nemo"
    assert {(one["model"], one["metric"]): one["value"] for one in rates}["rl_cai", "over_refusal"] == 1.0
    wins = {(one.side, match.model): match.wins for one in found.pairwise for match in one.matches}
    assert wins["harmful", "rl_cai"] == wins["benign", "rl_cai"] == 4, "the judge prefers the longer reply"
    judged = [one for _, row in read_jsonl(tmp_path / "out/comparisons.jsonl") for one in row["verdicts"]]
    principles = {one["principle"] for one in judged}
    assert principles <= {one.id for one in load_constitution(packaged()).principles} and len(principles) > 1
