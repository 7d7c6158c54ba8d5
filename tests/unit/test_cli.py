# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: order of arguments, exit codes, one-line errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_aligner_cai import __version__, cli, errors
from nemo_aligner_cai.console.program import main_guard


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == f"nemo_aligner_cai {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["quickstart", "sede=1", "--output", "RUN"],
        ["quickstart", "--output", "RUN", "sede=1"],
        ["quickstart", "seed=1", "--output", "RUN", "sede=1"],
    ],
)
def test_overrides_may_stand_anywhere(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    assert cli.main([str(tmp_path) if word == "RUN" else word for word in arguments]) == 2
    assert "no key 'sede'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["quickstart", "--nothing"],
        ["quickstart", "--output", "RUN", "word"],
        ["quickstart", "--from", "8_more"],
        ["validate"],
    ],
)
def test_a_wrong_command_line_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        raise SystemExit(cli.main(arguments))
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    assert cli.main(["run", str(tmp_path / "none.yaml"), "--output", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert "none.yaml" in message
    assert message.count("\n") == 1


def test_each_exit_code_is_that_of_the_table(tmp_path: Path, repo_root: Path) -> None:
    (tmp_path / "wrong.jsonl").write_text('{"prompt": 3}\n')
    (tmp_path / "right.jsonl").write_text('{"prompt": "How far?"}\n')

    def interrupted() -> int:
        raise KeyboardInterrupt

    codes = {
        "done": cli.main(["validate", str(tmp_path / "right.jsonl")]),
        "failed": cli.main(["validate", str(tmp_path / "wrong.jsonl")]),
        "wrong": cli.main(["validate", str(tmp_path / "missing.jsonl")]),
        "interrupted": main_guard(interrupted),
    }
    assert list(codes.values()) == list(errors.EXIT_CODES)
    raised = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CaiError)]
    assert len(raised) >= 3 and {kind.exit_code for kind in raised} == {1, 2}
    assert "\n.. exit-codes::\n" in (repo_root / "docs" / "troubleshooting.rst").read_text(encoding="utf-8")
