# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's evaluation items, judged by the tiny assistant on NeMo's real server: right or wrong, all are asked."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.cli import main
from nemo_aligner_cai.training.launch import jobs
from tests.functional.conftest import ENV, PACKAGE


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    number = jobs.free_port()
    model = packaged_files.MODEL
    overrides = [f"gpt_model_file={model}", f"port={number}", "hardware=cpu", "max_model_len=8192"]
    log = tmp_path_factory.mktemp("server") / "log"
    url = f"http://127.0.0.1:{number}/health"
    with jobs.server(f"{PACKAGE}.inference_server", overrides, log, [url], env=ENV):
        yield number


@pytest.mark.parametrize(("name", "count", "options"), [("hhh_first_220", 8, 2), ("HarmfulnessClassification", 2, 9)])
def test_every_item_is_asked_in_both_orders_and_paid_for_once(
    port: int, shared_data: Path, tmp_path: Path, name: str, count: int, options: int
) -> None:
    rows, figures = tmp_path / "rows.jsonl", tmp_path / "figures.json"
    command = ["judge-accuracy", str(shared_data / "cai_paper" / "evals" / f"{name}.jsonl"), "--port", str(port)]
    command += ["--num-examples", str(count), "--output", str(rows), "--json", str(figures)]
    assert main(command) == 0
    first = rows.read_bytes()
    written = [json.loads(line) for line in first.splitlines()]
    assert len(written) == count
    for row in written:
        shown = [verdict["shown"] for verdict in row["verdicts"]]
        assert shown == [list(range(options)), list(range(options))[::-1]]
    said = json.loads(figures.read_text())
    assert said["asked"] == count and said["unparsed"] == 0
    assert said["right"] == sum(row["answer"] == "correct" for row in written)
    assert main([*command, "--resume"]) == 0
    assert rows.read_bytes() == first
    manifest = json.loads((tmp_path / "rows.manifest.json").read_text())
    assert (manifest["summary"]["calls"], manifest["summary"]["reused"]) == (0, 2 * count)
