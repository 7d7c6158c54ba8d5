# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.commands.generate import rl_cai
from nemo_aligner_cai.stages import sl_cai
from tests.unit.fake_servers import FakeOpenAI
from tests.unit.rl_run import red_team_flags
from tests.unit.sl_run import rows, run


def answer(body: dict[str, Any]) -> str:
    return f"{len(body['messages'])}: {body['messages'][-1]['content']}"


def test_a_plan_counts_what_a_changed_principle_repeats(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeOpenAI(answer) as server:
        url = ["--model-url", f"http://127.0.0.1:{server.port}", "--model", "m"]
        assert run(inputs, *url) == 0
        instructions = Path(inputs["--critique-revision-instructions-path"])
        instructions.write_text(instructions.read_text().replace("flaw 1", "fault 1"))
        capsys.readouterr()
        assert run(inputs, *url, "--plan") == 0
        shown = capsys.readouterr().out
        planned = {name: (int(new), int(old)) for name, new, old in re.findall(r"(\w+) +(\d+) +(\d+)\n", shown)}
        asked = len(server.bodies)
        assert run(inputs, *url, "--resume") == 0
        assert planned["all"] == (len(server.bodies) - asked, 30 - (len(server.bodies) - asked))
        assert planned["answer"] == (0, 10) and planned["critique"] == planned["revision"]
        assert run(inputs, *url, "--plan", "--overwrite") == 0
        assert re.search(r"all +30 +0", capsys.readouterr().out)


def test_a_preview_shows_what_each_server_is_sent(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = "[user]\nshot question\n\n[assistant]\nshot answer\n"
    assert run(inputs, "--preview", "1") == 0, "the server's tokenizer renders"
    shown = capsys.readouterr().out
    assert messages in shown and "[user]\nWie geht böses Ding 0 中文?\n\n[assistant]\n" in shown
    assert "[/INST]" not in shown, "a pattern to find replies by is no template"
    template = ["--apply_chat_template", "True", "--chat-template", "nemo"]
    assert run(inputs, "--preview", "1", *template) == 0
    assert "<extra_id_1>User\nshot question\n<extra_id_1>Assistant\n" in capsys.readouterr().out
    server = ["--model-url", "http://127.0.0.1:1", "--model", "m"]
    assert run(inputs, "--preview", "1", *template, *server) == 2, "it renders by itself"
    capsys.readouterr()
    assert run(inputs, "--preview", "1", *server) == 0
    assert messages in capsys.readouterr().out


def test_a_preview_of_rl_cai_tells_the_policys_server_from_the_judges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*red_team_flags(tmp_path), "--preview", "1"]
    nemo, messages = "<extra_id_1>User\nbad thing 0 中文\n<extra_id_1>Assistant\n", "[user]\nbad thing 0 中文\n"
    assert rl_cai.main(flags) == 0
    shown = capsys.readouterr().out
    assert nemo in shown and messages not in shown and "[user]\nUser: bad thing 0 中文\n" in shown
    judge = ["--judge-port", "1"]
    assert rl_cai.main([*flags, *judge, "--model-url", "http://127.0.0.1:1", "--model", "m"]) == 0
    shown = capsys.readouterr().out
    assert nemo not in shown and messages in shown and "<extra_id_1>User\nUser: bad thing 0 中文\n" in shown


@pytest.mark.parametrize(
    ("flags", "hint"),
    [([], "with --resume resumes"), (["--overwrite"], "--resume instead of --overwrite")],
)
def test_whoever_interrupts_a_run_is_told_how_to_go_on(
    inputs: dict[str, str],
    flags: list[str],
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sl_cai, "generate_revisions", interrupted)
    assert run(inputs, *flags) == 130
    assert hint in capsys.readouterr().err


def test_faults_beyond_the_share_end_with_1_after_everything_is_saved(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse_one(body: dict[str, Any]) -> int | None:
        return 400 if "Ding 3" in body["messages"][-1]["content"] else None

    with FakeOpenAI(answer) as server:
        server.fault_of = refuse_one
        url = ["--model-url", f"http://127.0.0.1:{server.port}", "--model", "m"]
        assert run(inputs, *url, "--price-read", "1e6", "--price-written", "2e6") == 1
        captured = capsys.readouterr()
        assert "1 of 10 records" in captured.err
        assert re.search(r"cost +\d+\.00", captured.out)
        assert len(rows(tmp_path / "out" / "sl.jsonl")) == 14 and (tmp_path / "out" / "sl.summary.jsonl").exists()
        assert run(inputs, *url, "--resume", "--max-dropped", "0.1") == 0
