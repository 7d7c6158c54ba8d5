# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation
from nemo_aligner_cai.commands.generate.rl_cai import build_parser, main
from nemo_aligner_cai.constitution import load_constitution, packaged
from nemo_aligner_cai.data.formats.files import validate_file
from tests.unit.fake_servers import FakeNemo, FakeOpenAI
from tests.unit.nemo_rows import comparison_rows, prompt_row
from tests.unit.rl_run import judge, policy, red_team_flags, rows, run

SECRET = "nvapi-very-secret"


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    return red_team_flags(tmp_path)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NGC_API_KEY", raising=False)
    monkeypatch.delenv("NVIDIA_API_KEY", raising=False)


def test_flags_are_upstreams() -> None:
    """Frozen: a change here breaks command lines that people have."""
    parser = build_parser()
    known = {option: action for action in parser._actions for option in action.option_strings}
    upstream = {
        "--seed": 1234,
        "--output-dir": ".",
        "--output-filename-prefix": "cai_rlaif",
        "--splits": "{'train': 0.8, 'test': 0.2}",
        "--shuffle": "True",
        "--blend-with": None,
        "--ngc-api-key": None,
        "--ngc-url": "https://integrate.api.nvidia.com/v1/chat/completions",
        "--ngc-model": "mistralai/mixtral-8x7b-instruct-v0.1",
        "--add_bos": "False",
        "--top_k": 50,
        "--top_p": 0.95,
        "--all_probs": "False",
        "--repetition_penalty": 1.0,
        "--min_tokens_to_generate": 1,
        "--temperature": 1.0,
        "--greedy": "False",
        "--tokens_to_generate": 1024,
        "--end_strings": ["<extra_id_1>"],
        "--port": 5656,
        "--host": "localhost",
        "--user_format": r"<extra_id_1>User\n{MESSAGE}\n<extra_id_1>Assistant\n",
        "--assistant_format": r"{MESSAGE}\n",
        "--system_format": r"<extra_id_0>System\n{MESSAGE}\n",
        "--system_default_message": "",
        "--bos_token": None,
        "--eos_token": "<extra_id_1>",
        "--response_extract_pattern": r"<extra_id_1>Assistant\n",
        "--sys-prompt-constitution-file-path": str(packaged()),
    }
    assert {name: known[name].default for name in upstream} == upstream
    assert {name for name, action in known.items() if action.required} == {"--red-teaming-file-path"}
    assert "--batch-size" in known and parser.allow_abbrev


def test_a_whole_run_with_upstreams_judge(flags: list[str], tmp_path: Path) -> None:
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server) == 0
        sampled = server.bodies
        assert sorted({body["temperature"] for body in sampled}) == [0.01, 0.51, 1.01, 1.51]
        assert all("random_seed" in body and body["top_k"] == 50 for body in sampled)
        assert sum(len(body["sentences"]) for body in sampled) == 80
        asked = judge_server.bodies[1:]
        assert len(asked) == 40, "both orders of 20 prompts, after one probe"
        system = asked[0]["messages"][0]["content"]
        assert all(principle.judge_request in system for principle in load_constitution(packaged()).for_judging)
        assert asked[0]["temperature"] == 0.0 and asked[0]["max_tokens"] == 1024
    out = tmp_path / "out"
    preferences = json.loads((out / "cai_preference_dataset.json").read_text(encoding="utf-8"))
    assert len(preferences) == 20
    first = preferences[0]
    assert list(first) == ["prompt", "chosen", "rejected", "raw"] and first["prompt"] == "bad thing 0 中文"
    assert first["raw"]["explanation"] == "Because it is higher."
    texts = first["raw"]["all_responses"]
    assert list(texts) == ["response_t=0.01", "response_t=0.51", "response_t=1.01", "response_t=1.51"]
    assert (
        texts[first["raw"]["chosen_response_key"]]
        == first["chosen"]
        == max(texts.values(), key=lambda text: int(text.split()[2]))
    )
    candidates = json.loads((out / "cai_candidate_dataset.json").read_text(encoding="utf-8"))
    assert list(candidates[0]) == ["prompt", *texts] and len(candidates) == 20
    names = {
        f"cai_rlaif_{split}_{kind}_with_chat_prompt.jsonl": split
        for split in ("train", "test")
        for kind in ("prompts", "comparisons")
    }
    assert names.keys() <= {path.name for path in out.iterdir()}
    assert [len(rows(out / name)) for name in names] == [16, 32, 4, 8]
    train, test = (
        {row["text"] for row in rows(out / f"cai_rlaif_{split}_prompts_with_chat_prompt.jsonl")}
        for split in ("train", "test")
    )
    assert not train & test


def test_texts_end_as_sft_teaches_and_prompts_are_their_prefix(flags: list[str], tmp_path: Path) -> None:
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server, "--shuffle", "False") == 0
    out = tmp_path / "out"
    preference = json.loads((out / "cai_preference_dataset.json").read_text(encoding="utf-8"))[0]
    prompt = Conversation.of_user(preference["prompt"])
    comparisons = rows(out / "cai_rlaif_train_comparisons_with_chat_prompt.jsonl")
    assert tuple(comparisons[:2]) == comparison_rows(
        prompt, chosen=preference["chosen"], rejected=preference["rejected"]
    )
    assert comparisons[0]["text"].endswith("of them.\n<extra_id_1>")
    prompts = rows(out / "cai_rlaif_train_prompts_with_chat_prompt.jsonl")
    assert prompts[0] == prompt_row(prompt)
    assert comparisons[0]["text"].startswith(NEMO_CHAT.generation_prompt(prompt))
    assert validate_file(out / "cai_rlaif_train_comparisons_with_chat_prompt.jsonl", "rm-comparisons").written == 32


def test_upstreams_end_of_turn_can_be_had_again(flags: list[str], tmp_path: Path) -> None:
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server, "--legacy-eot") == 0
    comparisons = rows(tmp_path / "out" / "cai_rlaif_train_comparisons_with_chat_prompt.jsonl")
    assert all(row["text"].endswith("of them.<extra_id_1>") for row in comparisons)


def test_another_chat_template_is_sent_and_written(flags: list[str], tmp_path: Path) -> None:
    def chatml(prompt: str, rng: random.Random | None) -> str:
        assert prompt.startswith("<|im_start|>user\n") and prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
        return policy(prompt, rng)

    chosen = ["--chat-template", "chatml"]
    with FakeNemo(chatml, ending="<|im_end|>") as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server, *chosen) == 0
        assert run(flags, server, judge_server, "--chat-template", "nemo", "--resume", "--legacy-eot") == 2
    comparisons = rows(tmp_path / "out" / "cai_rlaif_train_comparisons_with_chat_prompt.jsonl")
    assert all(row["text"].endswith("of them.<|im_end|>\n") and "<extra_id" not in row["text"] for row in comparisons)


def test_blending_keeps_pairs_together_and_is_optional(flags: list[str], tmp_path: Path) -> None:
    human = {"prompts": tmp_path / "p.jsonl", "comparisons": tmp_path / "c.jsonl"}
    prompts = [Conversation.of_user(f"help {n}") for n in range(6)]
    human["prompts"].write_text("".join(json.dumps(prompt_row(prompt)) + "\n" for prompt in prompts))
    pairs = [row for p in prompts for row in comparison_rows(p, chosen="good", rejected="bad")]
    human["comparisons"].write_text("".join(json.dumps(row) + "\n" for row in pairs))
    files = {kind: [str(path)] for kind, path in human.items()}
    blend = repr({"name": "human", "train": files, "test": {kind: str(path) for kind, path in human.items()}})
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server, "--blend-with", blend) == 0
    out = tmp_path / "out"
    blended = rows(out / "blend_human_with_cai_rlaif_train_comparisons_with_chat_prompt.jsonl")
    assert len(blended) == 32 + 12
    for chosen, rejected in zip(blended[::2], blended[1::2], strict=True):
        prompt = chosen["text"].rsplit("Assistant\n", 1)[0]
        assert rejected["text"].startswith(prompt) and chosen["text"] != rejected["text"]
        if "help" in prompt:
            assert "good" in chosen["text"] and "bad" in rejected["text"]
    assert len(rows(out / "blend_human_with_cai_rlaif_test_prompts_with_chat_prompt.jsonl")) == 4 + 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--splits", "{'train': 0.8}"], "must add up to 1"),
        (["--blend-with", "{'name': 'x', 'train': {}}"], "needs the splits train, test"),
        (["--blend-with", "name"], "--blend-with must look like"),
        (["--blend-with", "{'name': 'x', 'train': {'prompts': ['no']}, 'test': {}}"], "no: cannot be read"),
        (["--sys-prompt-constitution-file-path", "nowhere"], "nowhere: cannot be read"),
        (["--num-responses", "1"], "--num-responses"),
        (["--num-responses", "2", "--greedy", "True"], "no --greedy"),
        (["--num-responses", "2", "--temperatures", "1"], "--num-responses"),
        (["--judge-api-key-env", "CAI_UNSET"], "CAI_UNSET with the API key is not set"),
        (["--ngc-url", "https://integrate.api.nvidia.com/v1"], "set NGC_API_KEY or NVIDIA_API_KEY"),
        (["--margin", "1", "--judge", "multiple-choice"], "margin"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_asked(
    flags: list[str], more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server, *more) == 2
        assert server.bodies == judge_server.bodies == []
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_bad_key_is_found_by_one_probe_and_appears_nowhere(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        judge_server.fault_of = lambda body: 401
        assert run(flags, server, judge_server, "--judge-api-key-env", "MY_KEY") == 1
        assert server.bodies == [] and len(judge_server.headers) == 2
        assert judge_server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert "HTTP 401" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["flag", "NGC_API_KEY", "MY_KEY"])
def test_the_key_is_sent_and_written_nowhere(
    flags: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    more = ["--ngc-api-key", SECRET] if way == "flag" else []
    if way != "flag":
        monkeypatch.setenv(way, SECRET)
        more = ["--judge-api-key-env", way]
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server, caplog.at_level(logging.DEBUG):
        assert run(flags, server, judge_server, *more) == 0
        assert {h["Authorization"] for h in judge_server.headers} == {f"Bearer {SECRET}"}
    assert SECRET not in caplog.text and ("process lists" in caplog.text) == (way == "flag")
    assert not any(SECRET in path.read_text() for path in (tmp_path / "out").iterdir())


def test_a_failing_judge_costs_no_label_and_makes_none(flags: list[str], tmp_path: Path) -> None:
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server) == 0
        whole = (tmp_path / "out" / "cai_comparisons.jsonl").read_bytes()
        rng = random.Random(4)
        faults = [*[None] * 15, 500, 503, 429, "garbage", "reset"]
        judge_server.fault_of = lambda body: rng.choice(faults)
        assert run(flags, server, judge_server, "--overwrite") == 0
    assert (tmp_path / "out" / "cai_comparisons.jsonl").read_bytes() == whole


def test_a_judge_that_names_one_twice_gives_no_label(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def undecided(body: dict[str, Any]) -> str:
        return '{"chosen": 2, "rejected": 2}' if "thing 3 " in body["messages"][-1]["content"] else judge(body)

    with FakeNemo(policy) as server, FakeOpenAI(undecided) as judge_server:
        assert run(flags, server, judge_server) == 1
        assert "1 no verdict in the judge's answer" in capsys.readouterr().err
        assert run(flags, server, judge_server, "--resume", "--max-dropped", "0.1") == 0
    assert len(json.loads((tmp_path / "out" / "cai_preference_dataset.json").read_text())) == 19


def test_multiple_choice_on_nemos_own_server(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def first_letter(prompt: str) -> float:
        numbers = [int(line.split("number ")[1].split()[0]) for line in prompt.splitlines() if "number" in line]
        return 0.9 if numbers and numbers[0] > numbers[1] else 0.1

    with FakeNemo(policy, first_letter=first_letter) as server:
        more = ["--judge", "multiple-choice", "--judge-port", str(server.port), "--judge-host", "127.0.0.1"]
        more += ["--num-responses", "3", "--temperature", "0.7", "--margin", "0.5"]
        assert run(flags, server, None, *more) == 0
        assert {b["temperature"] for b in server.bodies if not b.get("compute_logprob") and "random_seed" in b} == {
            0.7
        }
    assert "position bias: flips 0.0%; first position 50.0%" in capsys.readouterr().out
    raw = rows(tmp_path / "out" / "cai_comparisons.jsonl")
    assert all(row["pairs"][0]["probability"] == pytest.approx(0.9) for row in raw) and len(raw) == 20


def test_a_text_file_is_the_judges_system_prompt_to_the_letter(flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "sys_prompt_constitution"
    path.write_text("Be {fair}.\n中文")
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server, "--sys-prompt-constitution-file-path", str(path)) == 0
        assert judge_server.bodies[1]["messages"][0] == {"role": "system", "content": "Be {fair}.\n中文"}


def test_resume_repeats_nothing_and_existing_files_stay(flags: list[str], tmp_path: Path) -> None:
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server) == 0
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("cai_*.jsonl")}
        calls = len(server.bodies), len(judge_server.bodies)
        assert run(flags, server, judge_server) == 2
        assert run(flags, server, judge_server, "--resume") == 0
        assert (len(server.bodies), len(judge_server.bodies) - 1) == calls
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("cai_*.jsonl")} == before


def test_dry_run_and_preview_ask_nobody_and_keep_nothing(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--dry-run"]) == 0
    assert "20 rows in = 20 written" in capsys.readouterr().out
    assert main([*flags, "--dry-run", "--judge", "multiple-choice"]) == 0
    assert main([*flags, "--preview", "1"]) == 0
    shown = capsys.readouterr().out
    assert "call 4 of 6" in shown and "call 6 of 6" in shown and "bad thing 0 中文" in shown
    assert not (tmp_path / "out").exists()
