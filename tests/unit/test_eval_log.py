# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The log of an evaluation, opened by inspect_ai in an environment of its own (`make venv-inspect`)."""

import json
import math
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.evaluation.results import read_evaluation
from nemo_aligner_cai.files import read_jsonl
from tests.unit.stand_in_grader import StandInGrader

READ = """
import json, sys
from inspect_ai.log import read_eval_log, read_eval_log_sample_summaries
log = read_eval_log(sys.argv[1])
summaries = read_eval_log_sample_summaries(sys.argv[1])
scores = {f"{s.id} {s.epoch}": {n: s.scores[n].value for n in s.scores} for s in log.samples}
shown = {f"{s.id} {s.epoch}": {n: s.scores[n].value for n in s.scores} for s in summaries}
metrics = {f"{s.name} {s.scorer} {n}": m.value for s in log.results.scores for n, m in s.metrics.items()}
texts = {f"{s.id} {s.epoch}": [s.input[-1].text, s.output.completion] for s in log.samples}
print(json.dumps({"status": log.status, "model": log.eval.model, "scores": scores, "shown": shown,
                  "metrics": metrics, "texts": texts, "samples": log.results.total_samples}))
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation with two replies to some prompts, empty replies and unscored ones."""
    folder = tmp_path_factory.mktemp("log")
    rows = [{"prompt": f"question {n}", "id": f"b{n}", "side": "harmful" if n % 2 else "benign"} for n in range(8)]
    (folder / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [["no \u202e <b>"], ["yes", "no"], [""], ["odd"], ["no"], ["yes"], ["no"], ["yes"]]
    saved = {f"b{n}": [{"test_case": "", "generation": text} for text in some] for n, some in enumerate(texts)}
    (folder / "m.json").write_text(json.dumps(saved))

    def truth(question: str, prompt: str, reply: str) -> str:
        return "none" if reply == "odd" else "direct_refusal" if reply.startswith("no") else "direct_answer"

    with StandInGrader(truth, style="text") as grader:
        flags = ["--set", f"s={folder / 'set.jsonl'}", "--model", f"m={folder / 'm.json'}", "--grader", "or-bench"]
        flags += ["--grader", "xstest-strings", "--grader-model", f"http://127.0.0.1:{grader.port}/v1#g"]
        assert cli.main(["evaluate", *flags, "--output", str(folder / "out")]) == 0
    return folder / "out"


def test_the_log_is_a_zip_of_json_without_times(output: Path) -> None:
    with zipfile.ZipFile(output / "logs/m.eval") as log:
        names = set(log.namelist())
        assert {one.date_time for one in log.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        header, summaries = (json.loads(log.read(name)) for name in ("header.json", "summaries.json"))
    assert {"_journal/start.json", "_journal/summaries/1.json"} < names
    assert len([name for name in names if name.startswith("samples/")]) == len(summaries) == 9
    assert header["results"]["total_samples"] == 9 and header["eval"]["config"]["epochs"] == 2


def test_inspect_ai_reads_the_same_samples_and_scores(output: Path, repo_root: Path) -> None:
    python = Path(os.environ.get("CAI_INSPECT_PYTHON", repo_root / ".venv-inspect" / "bin" / "python"))
    if not python.exists():
        pytest.skip("inspect_ai has an environment of its own: make venv-inspect, or set CAI_INSPECT_PYTHON")
    command = [python, "-c", READ, output / "logs/m.eval"]
    read = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)
    assert (read["status"], read["model"], read["samples"]) == ("success", "m", 9)
    rows = {f"{row['set']}.{row['id']} {row['sample'] + 1}": row for _, row in read_jsonl(output / "models/m.jsonl")}
    assert read["scores"].keys() == read["shown"].keys() == rows.keys()
    unscored = 0
    for name, row in rows.items():
        assert read["texts"][name] == [row["messages"][-1]["content"], row["reply"]]
        for grade in row["grades"]:
            for scores in (read["scores"][name], read["shown"][name]):
                value = scores[grade["grader"]]
                assert math.isnan(value) if grade["label"] is None else value == grade["label"]
            unscored += grade["label"] is None
    assert unscored == 1
    metrics = {
        f"{one.set} {one.side} {one.grader} {metric.name}": metric.rate.value
        for one in read_evaluation(output).results
        for metric in one.metrics
    }
    assert read["metrics"] == metrics
