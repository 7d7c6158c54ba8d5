# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_aligner_cai.commands.generate.sl_cai import build_parser
from nemo_aligner_cai.data.formats.files import validate_file
from nemo_aligner_cai.stages import sft_files
from tests.unit.fake_servers import FakeNemo, FakeOpenAI
from tests.unit.sl_run import rows, run
from tests.unit.test_length import Gpt2

ROOT = Path(__file__).parents[2]
HH = ROOT.parent / "shared" / "data" / "hh" / "harmless_base_test.jsonl.gz"
PAPER = ROOT.parent / "shared" / "data" / "cai_paper" / "prompts"


def reply(prompt: str, rng: random.Random | None) -> str:
    """A model under the server's own [INST] template."""
    asked = prompt.rsplit("[INST] ", 1)[1].removesuffix(" [/INST]")
    return f" About {asked!r}: done"


def test_flags_are_upstreams() -> None:
    """Frozen: a change here breaks command lines that people have."""
    parser = build_parser()
    known = {
        option: (action.default, action.required, tuple(action.choices) if action.choices else None)
        for action in parser._actions
        for option in action.option_strings
    }
    upstream = {
        "--max-seq-length": None,
        "--batch_size": 32,
        "--tokenizer-model": None,
        "--tokenizer-library": None,
        "--num-examples": -1,
        "--save-to-file-interval": 1,
        "--output-filepath": "cai_revisions_aligner_chat_template.jsonl",
        "--seed": 1234,
        "--top_k": 1,
        "--top_p": 0.9,
        "--repetition_penalty": 1.2,
        "--min_tokens_to_generate": 1,
        "--temperature": 1.0,
        "--tokens_to_generate": 1024,
        "--end_strings": None,
        "--port": 5656,
        "--host": "localhost",
        "--user_format": None,
        "--assistant_format": None,
        "--system_format": None,
        "--system_default_message": None,
        "--bos_token": None,
        "--eos_token": None,
        "--response_extract_pattern": "[/INST]",
    }
    assert {name: known[name][0] for name in upstream} == upstream
    truths = {"--add_bos": "False", "--all_probs": "False", "--greedy": "True", "--apply_chat_template": "False"}
    assert {name: known[name] for name in truths} == {n: (d, False, ("True", "False")) for n, d in truths.items()}
    required = {name for name, (_, needed, _) in known.items() if needed}
    assert required == {"--red-teaming-prompts-dataset-path"}
    assert {"--few-shot-prompts-dataset-path", "--critique-revision-instructions-path"} <= set(known)
    assert parser.allow_abbrev
    ours = {
        *(
            "--api-key-env",
            "--chat-template",
            "--concurrency",
            "--dry-run",
            "--endpoints-dir",
            "--upload",
            "--extra-body",
            "--omit",
            *("--keep-unrevised", "--learn-earlier-replies"),
            "--max-dropped",
            "--model",
            "--no-critique",
        ),
        *("--model-url", "--num-revisions", "--overwrite", "--plan", "--preview", "--price-read", "--price-written"),
        *(
            *("--constitution", "--few-shots", "--helpfulness-dataset-path", "--prompt-column", "--validation-share"),
            "--request-timeout",
            "--requests-per-minute",
            "--resume",
            *("--journal-from", "--no-calls", "--ray", "--shard", "--shards", "--system-message"),
            "--tokens-per-minute",
            "--turns",
        ),
    }
    assert set(known) - set(upstream) - set(truths) == required | ours | {
        *("--few-shot-prompts-dataset-path", "--critique-revision-instructions-path", "--help", "-h"),
    }


def test_a12_a_tokenizer_that_merges_an_empty_system_turn_is_found_before_any_call(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sft_files, "load_tokenizer", lambda _: Gpt2())
    tokenizer = tmp_path / "gpt2.model"
    tokenizer.write_bytes(b"only its hash is read")
    flags = ("--tokenizer-model", str(tokenizer), "--max-seq-length", "4096")
    with FakeOpenAI(lambda body: f"{len(body['messages'])}: {body['messages'][-1]['content']}") as server:
        flags += ("--model-url", f"http://127.0.0.1:{server.port}/v1", "--model", "m")
        assert run(inputs, *flags) == 2
        assert not server.bodies
        assert "--system-message" in capsys.readouterr().err
        assert run(inputs, *flags, "--system-message", "Be brief.") == 0
        assert {body["messages"][0]["content"] for body in server.bodies} == {"Be brief."}
    made = rows(tmp_path / "out" / "sl.jsonl")
    assert {row["system"] for row in made} == {"Be brief."}
    assert len({row["dataset"] for row in made}) == 2


def test_a_whole_run_under_the_servers_template(inputs: dict[str, str], tmp_path: Path) -> None:
    with FakeNemo(reply, ending="</s>") as server:
        code = run(inputs, "--batch_size", "4", "--end_strings", "</s>", port=server.port)
        assert code == 0
        # The batches of 4, 4 and 2 prompts are sent at once and may arrive in any order.
        first = max((body["sentences"] for body in server.bodies), key=lambda columns: len(columns[0]["role"]))
        assert [column["content"][0] for column in first][:6] == [
            "shot question",
            "shot answer",
            "shot critique request",
            "shot critique",
            "shot revision request",
            "shot revision",
        ]
        assert first[0]["role"] == ["User"] * 4, "the tutorial's roles, four conversations at once"
        assert server.bodies[0]["greedy"] is True and "</s>" in server.bodies[0]["end_strings"]
        assert sorted({len(b["sentences"][0]["role"]) for b in server.bodies}) == [2, 4], "10 prompts, not 8 or 12"
    out = tmp_path / "out"
    samples = rows(out / "cai_output" / "sl.jsonl" / "cai_samples.jsonl")
    assert len(samples) == 10
    assert samples[0]["conversations"][0] == {"from": "User", "value": "Wie geht böses Ding 0 中文?", "label": None}
    assert samples[0]["dataset"] == "sl_cai_samples" and samples[0]["mask"] == "User" and samples[0]["system"] == ""
    steps = json.loads(
        (out / "cai_output" / "sl.jsonl" / "cai_critique_revision_samples.json").read_text(encoding="utf-8")
    )
    assert len(steps) == 10
    assert steps[0]["initial_response"] == "About 'Wie geht böses Ding 0 中文?': done"
    assert steps[0]["critique_prompt"].startswith("find flaw") and "\n" not in steps[0]["critique_prompt"]
    assert steps[0]["revision_response"] == f"About {steps[0]['revision_prompt']!r}: done"
    assert list(steps[0]) == [
        "initial_prompt",
        "initial_response",
        "critique_prompt",
        "critique_response",
        "revision_prompt",
        "revision_response",
    ]
    blended = rows(out / "sl.jsonl")
    assert len(blended) == 15 and [row["dataset"] for row in blended[:5]] != ["helpful"] * 5
    assert validate_file(out / "sl.jsonl", "sft-chat").written == 15
    summary = json.loads((out / "sl.summary.jsonl").read_text())
    assert summary["prompt_template"] == "chat" and summary["rows"] == {"helpful": 5, "sl_cai_samples": 10}
    assert len(samples) == 10, "blending leaves the CAI file as it is"


@pytest.mark.parametrize(("count", "batch"), [(3, 32), (10, 4), (7, 2)])
def test_num_examples_is_exact(inputs: dict[str, str], tmp_path: Path, count: int, batch: int) -> None:
    with FakeNemo(reply, ending="</s>") as server:
        assert run(inputs, "--num-examples", str(count), "--batch_size", str(batch), port=server.port) == 0
    assert len(rows(tmp_path / "out" / "cai_output" / "sl.jsonl" / "cai_samples.jsonl")) == count


def test_our_template_flags_with_unicode_reach_the_server(inputs: dict[str, str]) -> None:
    flags = [
        *("--apply_chat_template", "True", "--user_format", r"<extra_id_1>User\n{MESSAGE}\n<extra_id_1>Assistant\n"),
        *("--assistant_format", r"{MESSAGE}\n", "--system_format", r"<extra_id_0>System\n{MESSAGE}\n"),
        *("--system_default_message", "Système 中文", "--eos_token", "<extra_id_1>"),
        *("--response_extract_pattern", r"<extra_id_1>Assistant\n", "--greedy", "False", "--top_k", "50"),
    ]
    with FakeNemo() as server:
        assert run(inputs, *flags, port=server.port) == 0
        sentence = server.bodies[0]["sentences"][0]
        assert sentence.startswith("<extra_id_0>System\nSystème 中文\n<extra_id_1>User\nshot question\n")
        assert sentence.endswith("<extra_id_1>User\nWie geht böses Ding 0 中文?\n<extra_id_1>Assistant\n")
        assert "random_seed" in server.bodies[0]


def test_killed_and_resumed_it_repeats_no_call_and_writes_the_same_bytes(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    flags = ["--batch_size", "2", "--greedy", "False", "--top_k", "0"]

    def chatty(prompt: str, rng: random.Random | None) -> str:
        return f" {reply(prompt, rng)} {rng.randrange(10**9) if rng else 0}"

    with FakeNemo(chatty, ending="</s>") as server:
        assert run(inputs, *flags, port=server.port) == 0
        whole = (tmp_path / "out" / "sl.jsonl").read_bytes()
        killed = inputs | {"--output-filepath": str(tmp_path / "killed" / "sl.jsonl")}
        script = ROOT / "examples" / "nlp" / "cai" / "generate_sl_cai_dataset.py"
        server.delay = 0.1
        command = [sys.executable, str(script), *(part for pair in killed.items() for part in pair), *flags]
        process = subprocess.Popen(
            [*command, "--port", str(server.port), "--host", "127.0.0.1"], env={"PYTHONPATH": str(ROOT)}
        )
        journal = tmp_path / "killed" / "cai_output" / "sl.jsonl" / "cai_revisions.journal.jsonl"
        try:
            while not (journal.exists() and journal.read_bytes().count(b"\n") > 8):
                assert process.poll() is None
        finally:
            process.kill()
            process.wait()
        server.delay = 0.0
        assert not (tmp_path / "killed" / "sl.jsonl").exists(), "nothing half-written"
        before = len(server.bodies)
        assert run(killed, *flags, port=server.port) == 2, "an earlier run's journal is not thrown away unasked"
        assert run(killed, *flags, "--resume", port=server.port) == 0
        assert (tmp_path / "killed" / "sl.jsonl").read_bytes() == whole
        assert len(server.bodies) - before < 15
        done = len(server.bodies)
        assert run(killed, *flags, "--resume", port=server.port) == 0
        assert len(server.bodies) == done


def test_ctrl_c_leaves_a_journal_to_resume(inputs: dict[str, str], tmp_path: Path) -> None:
    with FakeNemo(reply, ending="</s>", delay=0.3) as server:
        script = ROOT / "examples" / "nlp" / "cai" / "generate_sl_cai_dataset.py"
        flags = ["--port", str(server.port), "--host", "127.0.0.1", "--batch_size", "2"]
        process = subprocess.Popen(
            [sys.executable, str(script), *(part for pair in inputs.items() for part in pair), *flags],
            env={"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
        )
        journal = tmp_path / "out" / "cai_output" / "sl.jsonl" / "cai_revisions.journal.jsonl"
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 130
        assert stderr.decode().splitlines()[-1] == "cai: interrupted; the same command with --resume resumes from here"
        assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [journal.name]
        server.delay = 0.0
        done = len(server.bodies)
        assert run(inputs, *flags, "--resume", port=server.port) == 0
        assert len(server.bodies) - done < 15


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-examples", "0"], "--num-examples must be positive, or -1"),
        (["--max-seq-length", "64"], "--max-seq-length needs --tokenizer-model"),
        (["--max-seq-length", "64", "--tokenizer-model", "none.model"], "none.model: cannot be read"),
        (["--red-teaming-prompts-dataset-path", "nowhere"], "nowhere: cannot be read"),
        (["--few-shot-prompts-dataset-path", "placeholders.json"], "placeholders such as 'prompt'"),
        (["--model-url", "http://localhost:1"], "--model-url needs --model"),
        (["--model-url", "http://h:1", "--model", "m", "--api-key-env", "CAI_UNSET"], "CAI_UNSET with the API key"),
        (["--temperature", "-1"], "--temperature: must be a number between 0 and 100"),
        (["--resume", "--overwrite"], "give one of them"),
        (["--num-revisions", "0"], "--num-revisions: must be a whole number, 1 or more"),
        (["--max-dropped", "2"], "--max-dropped: must be a number between 0 and 1"),
        (["--batch_size", "0"], "--batch_size: must be a whole number, 1 or more"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_asked(
    inputs: dict[str, str],
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    placeholders = [
        {"role": role, "content": text}
        for role, text in (("User", "prompt"), ("Assistant", "response"), ("User", "critique request"))
    ]
    (tmp_path / "placeholders.json").write_text(
        json.dumps({"samples": [[*placeholders, {"role": "Assistant", "content": "critique response"}]]})
    )
    with FakeNemo(reply) as server:
        assert run(inputs, *flags, port=server.port) == 2
        assert server.bodies == []
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_bad_row_is_named_before_anything_is_asked(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "red.jsonl").open("a") as file:
        file.write('{"text": 1}\n')
    with FakeNemo(reply) as server:
        assert run(inputs, port=server.port) == 2 and server.bodies == []
    assert "red.jsonl:11: a row with 'text'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("plain", "plain.summary.json"),
        ("data.json", "data.summary.json"),
        ("dir.json/data.jsonl", "dir.json/data.summary.jsonl"),
        ("x.y.jsonl", "x.y.summary.jsonl"),
    ],
)
def test_the_summary_never_takes_the_place_of_the_data(
    inputs: dict[str, str], tmp_path: Path, name: str, summary: str
) -> None:
    target = tmp_path / "out" / name
    with FakeNemo(reply, ending="</s>") as server:
        assert run(inputs | {"--output-filepath": str(target)}, port=server.port) == 0
    assert len(rows(target)) == 15
    assert json.loads((tmp_path / "out" / summary).read_text())["output_file"] == str(target)


def test_an_existing_output_stays(inputs: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sl.jsonl").write_text("precious")
    with FakeNemo(reply, ending="</s>") as server:
        assert run(inputs, port=server.port) == 2 and server.bodies == []
        assert (tmp_path / "out" / "sl.jsonl").read_text() == "precious"
        assert run(inputs, "--overwrite", port=server.port) == 0
    assert len(rows(tmp_path / "out" / "sl.jsonl")) == 15


def test_long_dialogues_are_left_out_of_what_training_gets(inputs: dict[str, str], tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = tmp_path / "t"
    (tmp_path / "corpus").write_text("\n".join(f"help gladly {n} find flaw mend about done" for n in range(50)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus"), model_prefix=str(model), vocab_size=60, hard_vocab_limit=False, minloglevel=9
    )
    flags = ["--max-seq-length", "95", "--tokenizer-model", f"{model}.model", "--tokenizer-library", "sentencepiece"]
    with FakeNemo(reply, ending="</s>") as server:
        assert run(inputs, *flags, port=server.port) == 0
    out = tmp_path / "out"
    kept = rows(out / "sl.jsonl")
    assert 0 < len(kept) < 15 and "helpful" in {row["dataset"] for row in kept}
    same = out / "removed_long_dialogs" / "sl_remove_long_dialogs_max_seq_95.jsonl"
    assert same.read_bytes() == (out / "sl.jsonl").read_bytes()
    statistics = json.loads((out / "removed_long_dialogs" / "sl_remove_long_dialogs_statistics.json").read_text())
    assert statistics["num_removed_ids"] == 15 - len(kept) == len(statistics["removed_ids"])
    flags[1] = "20"
    with FakeNemo(reply, ending="</s>") as server:
        assert run(inputs, *flags, "--resume", port=server.port) == 2, "nothing would be left to train on"
        assert not server.bodies


def test_an_openai_server_takes_the_place_of_nemos(inputs: dict[str, str], tmp_path: Path) -> None:
    with FakeOpenAI(lambda body: f"{len(body['messages'])}: {body['messages'][-1]['content']}") as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        assert run(inputs, "--model-url", url, "--model", "m") == 0
        assert {body["model"] for body in server.bodies} == {"m"} and len(server.bodies) == 30
        assert server.bodies[0]["temperature"] == 0.0 and "top_k" not in server.bodies[0]
    assert len(rows(tmp_path / "out" / "sl.jsonl")) == 15


def test_dry_run_and_preview_ask_nobody_and_keep_nothing(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(inputs, "--dry-run") == 0
    assert "10 rows in = 10 written" in capsys.readouterr().out
    assert run(inputs, "--preview", "2") == 0
    shown = capsys.readouterr().out
    assert shown.count("call 3 of 3") == 2 and "mend flaw" in shown and "Wie geht böses Ding 1 中文?" in shown
    assert "call 1 of 3" not in shown, "the last call of a chain shows all of it"
    assert run(inputs, "--plan") == 0
    assert re.search(r"answer +10 +0\n *critique +10 +0\n *revision +10 +0\n *all +30 +0", capsys.readouterr().out)
    assert not (tmp_path / "out").exists()


def test_the_papers_files_and_real_prompts(inputs: dict[str, str], tmp_path: Path) -> None:
    if not HH.exists() or not PAPER.exists():
        pytest.skip("the public data of Anthropic is not beside this repository")
    real = inputs | {
        "--red-teaming-prompts-dataset-path": str(HH),
        "--few-shot-prompts-dataset-path": str(PAPER / "CritiqueRevisionFewShotPrompts.json"),
        "--critique-revision-instructions-path": str(PAPER / "CritiqueRevisionInstructions.json"),
    }
    with FakeNemo(reply, ending="</s>") as server:
        assert run(real, "--num-examples", "60", port=server.port) == 0
    samples = rows(tmp_path / "out" / "cai_output" / "sl.jsonl" / "cai_samples.jsonl")
    assert len(samples) == 60 == len({row["conversations"][0]["value"] for row in samples})
    steps = json.loads(
        (tmp_path / "out" / "cai_output" / "sl.jsonl" / "cai_critique_revision_samples.json").read_text()
    )
    assert not any("CritiqueRequest" in row["critique_prompt"] for row in steps)
    assert len({row["critique_prompt"] for row in steps}) > 8


def test_d3_preview_and_plan_need_no_helpfulness_data(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {key: value for key, value in inputs.items() if "helpfulness" not in key}
    assert run(few, "--preview", "1") == 0
    assert run(few, "--plan") == 0
    assert run(few) == 2
    assert "--helpfulness-dataset-path" in capsys.readouterr().err


def test_d3_d4_helpfulness_data_of_any_format_and_no_few_shots(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "helpful.jsonl").write_text('{"instruction": "Say hello.", "input": "", "output": "Hello."}\n')
    constitution = tmp_path / "short.yaml"
    constitution.write_text("principles:\n- {critique: Say what is wrong., revision: Put it right.}\n")
    options = ["--constitution", str(constitution), "--few-shots", "none"]
    given = {**inputs, "--helpfulness-dataset-path": str(tmp_path / "helpful.jsonl")}
    with FakeOpenAI(lambda body: f"{len(body['messages'])}: {body['messages'][-1]['content']}") as server:
        options += ["--model-url", f"http://127.0.0.1:{server.port}/v1", "--model", "m"]
        assert run(given, *options) == 0
        assert min(len(body["messages"]) for body in server.bodies) == 1
    assert "read as alpaca; 1 rows in = 1 written" in capsys.readouterr().out


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--plan",), ("--preview", "1")])
def test_a_secret_in_a_recorded_flag_is_refused_and_not_shown(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    body = '{"headers": {"X-Auth": "Bearer hunter22"}, "api_keys": ["hunter23"]}'
    flags = ("--model-url", "http://127.0.0.1:1/v1", "--model", "m", "--extra-body", body, *more)
    before = set(tmp_path.rglob("*"))
    assert run(inputs, *flags) == 2
    shown = "".join(capsys.readouterr())
    assert "--extra-body" in shown
    assert "headers.X-Auth" in shown
    assert "hunter" not in shown
    assert set(tmp_path.rglob("*")) == before
