# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The files around a command: inputs are never replaced, and what a run claims to have written it has written."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.files import sha256_file
from nemo_aligner_cai.stages import rl_cai
from tests.unit.fake_servers import FakeNemo, FakeOpenAI
from tests.unit.rl_run import judge, policy, red_team_flags, run
from tests.unit.sl_run import run as run_sl


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    return red_team_flags(tmp_path)


@pytest.mark.parametrize("which", ["--red-teaming-prompts-dataset-path", "--helpfulness-dataset-path"])
@pytest.mark.parametrize("by", ["name", "symbolic link", "hard link"])
def test_sl_cai_never_replaces_what_it_reads(
    inputs: dict[str, str], tmp_path: Path, which: str, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    read = Path(inputs[which])
    before, target = read.read_bytes(), tmp_path / "other.jsonl"
    if by == "name":
        target = tmp_path / "." / read.name
    elif by == "symbolic link":
        target.symlink_to(read)
    else:
        target.hardlink_to(read)
    with FakeNemo(lambda prompt, rng: "done") as server:
        assert run_sl(inputs | {"--output-filepath": str(target)}, "--overwrite", port=server.port) == 2
        assert server.bodies == []
    assert "is read by this command" in capsys.readouterr().err and read.read_bytes() == before


def test_rl_cai_never_replaces_what_it_blends(flags: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server) == 0
        own = {
            split: {
                kind: [str(out / f"cai_rlaif_{split}_{kind}_with_chat_prompt.jsonl")]
                for kind in ("prompts", "comparisons")
            }
            for split in ("train", "test")
        }
        before, asked = sorted((path.name, path.read_bytes()) for path in out.iterdir()), len(server.bodies)
        assert run(flags, server, judge_server, "--overwrite", "--blend-with", repr({"name": "own"} | own)) == 2
        assert len(server.bodies) == asked
    assert sorted((path.name, path.read_bytes()) for path in out.iterdir()) == before, "the journal too"


def test_other_commands_never_replace_what_they_read(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server) == 0
    journal, rows = (str(tmp_path / "out" / f"cai_comparisons{end}.jsonl") for end in (".journal", ""))
    pairs = str(tmp_path / "out" / "cai_rlaif_train_comparisons_with_chat_prompt.jsonl")
    before = {path: Path(path).read_bytes() for path in (journal, rows, pairs)}
    figures = str(tmp_path / "figures")
    for command in (
        ["journal", "export", journal, journal],
        ["convert", pairs, pairs, "--to", "dpo"],
        ["audit", rows, "--json", rows],
        ["audit", rows, "--json", figures, "--icai", figures],
    ):
        assert cli.main([*command, "--overwrite"]) == 2, command
        assert "choose another name" in capsys.readouterr().err
    assert {path: Path(path).read_bytes() for path in before} == before


def test_a_folder_of_prompts_stands_in_the_manifest_by_its_files(tmp_path: Path) -> None:
    flags = red_team_flags(tmp_path)
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    source = shutil.move(tmp_path / "red.jsonl", tmp_path / "folder" / "sub" / "train.jsonl")
    flags[flags.index("--red-teaming-file-path") + 1] = str(tmp_path / "folder")
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server) == 0
    manifest = json.loads((tmp_path / "out" / "cai_manifest.json").read_text())
    assert manifest["inputs"][str(source)] == sha256_file(source)


def test_a_run_that_keeps_nothing_leaves_nothing_of_an_earlier_one_and_claims_nothing(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server, "--formats", "dpo") == 0
        assert "written:" in capsys.readouterr().out
    with FakeNemo(policy) as server, FakeOpenAI(lambda body: "I cannot tell.") as judge_server:
        assert run(flags, server, judge_server, "--formats", "dpo", "--overwrite") == 1
    assert "written:" not in capsys.readouterr().out
    manifest = json.loads((out / "cai_manifest.json").read_text())
    left = {str(path) for path in out.iterdir() if "journal" not in path.name and "manifest" not in path.name}
    assert set(manifest["outputs"]) == left and not any("with_chat_prompt" in path for path in left)


def test_the_same_of_sl_cai(inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(inputs["--output-filepath"])
    with FakeNemo(lambda prompt, rng: f"about {len(prompt)}", ending="</s>") as server:
        assert run_sl(inputs, port=server.port) == 0
        assert out.exists()
    capsys.readouterr()
    with FakeNemo(lambda prompt, rng: "always the same", ending="</s>") as server:
        assert run_sl(inputs, "--overwrite", port=server.port) == 1
    captured = capsys.readouterr()
    assert "written:" not in captured.out and "no record was written" in captured.err
    manifest = json.loads((out.parent / "cai_output" / out.name / "cai_manifest.json").read_text())
    assert not out.exists() and str(out) not in manifest["outputs"]


def test_a_run_whose_first_request_failed_is_started_again_without_a_flag(inputs: dict[str, str]) -> None:
    with FakeOpenAI(lambda body: f"about {len(str(body))}") as server:
        url = ("--model-url", f"http://localhost:{server.port}/v1", "--model", "name")
        server.fault_of = lambda body: 404
        assert run_sl(inputs, *url) == 1
        server.fault_of = lambda body: None
        assert run_sl(inputs, *url) == 0
        assert run_sl(inputs, *url) == 2, "and a finished one is kept"


def test_a_full_disk_is_one_line(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rl_cai, "write_json_list", full)
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "cai: [Errno 28] No space left on device"
