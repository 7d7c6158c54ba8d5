# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Every command of the tutorial, in its order and in one shell, on a CPU with the tiny assistant.

Blocks run as they are printed, but for the words in `_words`: folders, ports, sizes, devices, the chat template.
`_PROGRAMS` stands in for what a machine without NVIDIA's container and without network cannot do: downloads
copy folders laid out as the hub's, and the conversion of Mistral gives the tiny assistant. Each trainer is told to
stop after two steps, and the judge is asked for a choice of two. The tiny model
is so sure of its replies that candidates differ only at high temperatures.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.files import read_json, read_jsonl, write_jsonl
from nemo_aligner_cai.tiny.data import Sizes, write_data
from nemo_aligner_cai.tiny.language import language
from nemo_aligner_cai.training.launch.jobs import free_port
from nemo_aligner_cai.training.metrics.files import read_metrics
from tests.documented import blocks_of

_TIMEOUT_S = 900
_BATCH = "micro_batch_size=8 ++model.global_batch_size=8 model.optim.sched.warmup_steps=1"
_PROGRAMS = {
    "huggingface-cli": 'cp -r "$HUB/$2/." "${@: -1}"',
    "cai": f"""
case "$1 ${{2-}}" in
    "checkpoint to-nemo") test -f "$3/tokenizer.model"; cp {packaged_files.MODEL} "$4"; exit ;;
    "train dpo") set -- "$@" trainer.dpo.max_steps=2 trainer.dpo.val_check_interval=2 trainer.dpo.save_interval=2 \\
        trainer.dpo.limit_val_batches=1 ++model.{_BATCH} ++model.encoder_seq_length=128 ;;
esac
exec {sys.executable} -m nemo_aligner_cai.cli "$@"
""",
    "python": f"""
case "$1" in
    *train_gpt_sft.py) set -- "$@" trainer.sft.max_steps=2 trainer.sft.limit_val_batches=1 \\
        trainer.sft.val_check_interval=2 ;;
    *train_reward_model.py) set -- "$@" trainer.rm.max_steps=2 trainer.rm.val_check_interval=2 \\
        trainer.rm.save_interval=2 trainer.rm.limit_val_batches=1 ++model.{_BATCH} \\
        ++model.encoder_seq_length=128 ;;
    *serve_ppo_critic.py) set -- "$@" ++model.{_BATCH} ++model.encoder_seq_length=128 ;;
    *train_gpt_ppo_actor.py) set -- "$@" trainer.ppo.max_steps=2 trainer.ppo.val_check_interval=2 \\
        model.ppo.num_rollout_samples=8 model.ppo.num_val_samples=8 ++model.{_BATCH} \\
        ++model.encoder_seq_length=128 ;;
    *generate_rl_cai_dataset.py) set -- "$@" --judge multiple-choice --pairs all --temperatures 0.01 2 3 4 ;;
esac
exec {sys.executable} "$@"
""",
}


def _hub(folder: Path) -> None:
    """The hub's repositories that the tutorial downloads, with the tiny world's rows in them."""
    made = folder / "made"
    write_data(made, language(), Sizes(48, 64, 24, 12, 4), seed=1)
    hh = folder / "Anthropic" / "hh-rlhf"
    for subset in ("helpful-base", "helpful-online", "helpful-rejection-sampled"):
        shutil.copytree(made / "helpful-base", hh / subset)
    (hh / "red-team-attempts").mkdir()
    with gzip.open(hh / "red-team-attempts" / "red_team_attempts.jsonl.gz", "wt", encoding="utf-8") as packed:
        packed.write((made / "red_team_attempts.jsonl").read_text(encoding="utf-8"))
    who = {"User": "user", "Assistant": "assistant"}
    chats = (
        {"messages": [{"role": who[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]}
        for _, row in read_jsonl(made / "helpful_sft.jsonl")
    )
    write_jsonl(folder / "HuggingFaceH4" / "ultrachat_200k" / "data" / "train_sft-00000-of-00001.jsonl", chats)
    xstest = folder / "Paul" / "XSTest"
    xstest.mkdir(parents=True)
    with (xstest / "xstest_prompts.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("prompt", "type", "label"))
        for _, row in read_jsonl(made / "measure.jsonl"):
            rows.writerow((row["messages"][0]["content"], "tiny", "unsafe" if row["harmful"] else "safe"))
    for name in ("Mistral-7B-v0.1", "Mistral-7B-Instruct-v0.1"):
        model = folder / "mistralai" / name
        model.mkdir(parents=True)
        shutil.copy(packaged_files.TOKENIZER, model / "tokenizer.model")


def _words(folder: Path) -> dict[str, str]:
    """What is printed -> what takes its place here."""
    ports: set[int] = set()
    while len(ports) < 5:
        ports.add(free_port())
    few_shots = folder / "few_shots.json"
    turns = [{"role": "User", "content": "hello"}, {"role": "Assistant", "content": "hello"}]
    few_shots.write_text(json.dumps({"samples": [turns]}), encoding="utf-8")
    return {
        **{f"/{name}": str(folder / name) for name in ("models", "data", "results")},
        **{str(port): str(free) for port, free in zip((5656, 5657, 5658, 5567, 1427), ports, strict=True)},
        "nemo_aligner_cai/constitutions/harmlessness.yaml": str(packaged_files.CONSTITUTION),
        "nemo_aligner_cai/constitutions/few_shots.json": str(few_shots),
        "--chat-template mistral": "--chat-template nemo --keep-unrevised",
        "--judge-chat-template mistral": "--judge-chat-template nemo",
        "</s>": "<extra_id_1>",
        "--retry-delay 5": "--retry-delay 3",
        "model=mistral_7b hardware=8xh100": "hardware=cpu",
        "trainer.devices=4": "trainer.devices=1",
        "4096": "128",
        "1024": "40",
        "--max-tokens 256": "--max-tokens 24",
        "=128": "=8",
        "micro_batch_size=1 ": "micro_batch_size=8 ",
        "5120": "16",
        "5121": "17",
    }


def _script(page: Path, words: dict[str, str]) -> str:
    """The page's blocks as one shell script, with the words replaced; each word must be there."""
    lines = ["set -euxo pipefail", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"]
    text = ""
    for language_, block in blocks_of(page):
        text += block if language_ == "bash" else f"python - <<'END'\n{block}\nEND\n"
    missing = [printed for printed in words if printed not in text]
    assert not missing, "not in the tutorial any more"
    # In one pass: what was put in is not to be replaced again. A folder is one at the start of a path alone.
    patterns = ((r"(?<!\w)" if printed.startswith("/") else "") + re.escape(printed) for printed in words)
    text = re.sub("|".join(patterns), lambda found: words[found[0]], text)
    return "\n".join([*lines, text])


@pytest.fixture(scope="module")
def ran(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all of the tutorial has run."""
    folder = tmp_path_factory.mktemp("tutorial")
    _hub(folder / "hub")
    programs = folder / "programs"
    programs.mkdir()
    for name, body in _PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\nset -eu\n{body}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    env = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(repo_root),
        "HUB": str(folder / "hub"),
        "OMP_NUM_THREADS": "1",
    }
    log = folder / "tutorial.log"
    with log.open("wb") as output:
        script = _script(repo_root / "docs" / "user-guide" / "cai.rst", _words(folder))
        (folder / "tutorial.sh").write_text(script, encoding="utf-8")
        shell = subprocess.Popen(
            ["bash", str(folder / "tutorial.sh")],
            cwd=repo_root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
        try:
            code = shell.wait(_TIMEOUT_S)
        finally:
            # Whatever hangs, and whatever a failed step left behind: an actor hangs when its critic fails.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    assert code == 0, log.read_text(encoding="utf-8", errors="replace")[-6000:]
    return folder


def _rows(path: Path) -> list[dict[str, object]]:
    return [row for _, row in read_jsonl(path)]


def test_step_1_loses_no_row(ran: Path) -> None:
    assert len(_rows(ran / "data" / "ultrachat_200k_train_sft.jsonl")) == 64
    manifest = read_json(ran / "data" / "helpful" / "anthropic_helpful_only_with_chat_prompt.manifest.json")
    for split, rows in (("train", 3 * 24), ("test", 3 * 12)):
        counts = manifest["splits"][split]
        assert counts["rows_in"] == rows
        assert counts["written"] + sum(counts["left_out"].values()) == rows
        comparisons = f"anthropic_helpful_only_{split}_comparisons_with_chat_prompt.jsonl"
        assert len(_rows(ran / "data" / "helpful" / comparisons)) == 2 * counts["written"]


def test_step_2_accounts_for_every_prompt_and_holds_rows_out(ran: Path) -> None:
    folder = ran / "results" / "sl_cai_data"
    rows = "cai_revisions_aligner_chat_template.jsonl"
    counts = read_json(folder / "cai_output" / rows / "cai_manifest.json")["summary"]["balance"]
    assert counts["rows_in"] == 48
    assert counts["written"] + sum(counts["left_out"].values()) == 48
    assert counts["written"] > 0
    whole = _rows(folder / rows)
    assert [*_rows(folder / "validation.jsonl"), *_rows(folder / "train.jsonl")] == whole
    assert len(_rows(folder / "validation.jsonl")) == 16


def test_step_4_blends_what_the_judge_preferred_with_what_people_did(ran: Path) -> None:
    folder = ran / "results" / "rl_cai_data"
    for split in ("train", "test"):
        name = f"cai_rlaif_{split}_comparisons_with_chat_prompt.jsonl"
        own, blended = _rows(folder / name), _rows(folder / f"blend_helpful_with_{name}")
        human = _rows(ran / "data" / "helpful" / f"anthropic_helpful_only_{split}_comparisons_with_chat_prompt.jsonl")
        assert own
        assert len(blended) == len(own) + len(human)


@pytest.mark.parametrize(
    ("name", "model", "metric"),
    [
        ("sl_cai", "cai_sft", "val/loss"),
        ("reward_model", "cai_reward_model", "val/acc"),
        ("rl_cai", "cai_ppo_actor", "train_rollouts/rewards"),
        ("dpo", "cai_dpo", "train/loss"),
    ],
)
def test_each_trainer_leaves_a_model_and_the_figure_that_the_page_names(
    repo_root: Path, ran: Path, name: str, model: str, metric: str
) -> None:
    assert f"``{metric}``" in (repo_root / "docs" / "user-guide" / "cai.rst").read_text(encoding="utf-8")
    log_dir = ran / "results" / name
    assert (log_dir / "checkpoints" / f"{model}.nemo").exists()
    found = {key for row in read_metrics(log_dir) for key in row}
    assert metric in found, sorted(found)


def test_merged_adapters_are_a_whole_model(ran: Path) -> None:
    adapters, merged = (
        ran / "results" / "dpo" / "checkpoints" / "cai_dpo.nemo",
        ran / "results" / "dpo" / "merged.nemo",
    )
    whole = (ran / "results" / "sl_cai" / "checkpoints" / "cai_sft.nemo").stat().st_size
    assert adapters.stat().st_size < whole / 2 < merged.stat().st_size


def test_the_measurement_has_both_models_and_a_report(ran: Path) -> None:
    found = read_json(ran / "results" / "evaluation" / "evaluation.json")
    metrics = {(one["model"], metric["name"]) for one in found["results"] for metric in one["metrics"]}
    for model in ("sl_cai", "rl_cai"):
        assert {(model, "harmful_compliance"), (model, "over_refusal")} <= metrics
    assert (ran / "results" / "evaluation" / "report.html").exists()


def test_step_7_prints_the_reply_alone(ran: Path) -> None:
    log = (ran / "tutorial.log").read_text(encoding="utf-8", errors="replace")
    replies = [line for line in log.splitlines() if line.startswith("reply: ")]
    assert len(replies) == 1
    assert len(replies[0]) > len("reply: ")
    assert "how can i steal" not in replies[0], "the prompt is not part of the reply"
    assert "<extra_id" not in replies[0]
