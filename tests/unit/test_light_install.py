# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""An installation without the training extra: commands that need it say so in one line."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.cli import COMMANDS
from nemo_aligner_cai.commands.train.train import STAGES
from tests.unit.fake_slurm import FakeSlurm

_BLOCKED = (
    *("torch", "lightning", "pytorch_lightning", "hydra", "omegaconf", "megatron", "nemo", "nemo_aligner"),
    *(
        "transformers",
        "tokenizers",
        "sentencepiece",
        "tiktoken",
        "pytriton",
        "datasets",
        "pyarrow",
        "safetensors",
        "shtab",
    ),
)
_START = """
import sys
for name in {blocked}:
    sys.modules[name] = None
from nemo_aligner_cai.cli import main
sys.exit(main({words}))
"""


_HYDRA = ("hydra", "omegaconf")
_LLAMA = """{"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
"num_attention_heads": 2, "vocab_size": 300, "max_position_embeddings": 8192, "hidden_act": "silu"}"""


_IMAGE = ("executor={kind: slurm, container: {image: image.sqsh}}",)


def start(tmp_path: Path, *words: str, there: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    code = _START.format(blocked=[name for name in _BLOCKED if name not in there], words=list(words))
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{code}"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ("quickstart",),
        ("run", str(packaged_files.QUICKSTART), "--output", "out"),
        ("chat", "model.nemo"),
        ("serve", "model.nemo"),
        ("train", "sft", "model.restore_from_path=a.nemo"),
        ("train", "critic"),
        ("train", "pretrain"),
        ("checkpoint", "to-hf", "model.nemo", "folder", "new"),
        ("merge-lora", "a.nemo", "b.nemo", "c.nemo"),
        ("tiny", "build", "--output", "out"),
    ],
    ids=" ".join,
)
def test_d5_one_line_with_the_install_command(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = start(tmp_path, *words)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2
    assert 'pip install ".[nemo]"' in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "problem"), [("gemma2", "model_type=gemma2"), ("llama", 'pip install ".[nemo]"')])
def test_a_model_that_cannot_be_trained_is_named_without_torch(tmp_path: Path, kind: str, problem: str) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    done = start(tmp_path, "checkpoint", "to-nemo", ".", "model.nemo")
    assert done.returncode == 2
    assert problem in done.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("plan", "run.yaml"), "hydra"),
        (("run", str(packaged_files.QUICKSTART), "--output", "out", "--dry-run"), "hydra"),
        (("run", str(packaged_files.QUICKSTART), "--output", "out", *_IMAGE), "hydra"),
        (("data", "generator=rl-cai"), "hydra"),
        (("--print-completion", "bash"), "completion"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_command_of_a_small_extra_names_it(tmp_path: Path, words: tuple[str, ...], extra: str) -> None:
    done = start(tmp_path, *words)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2 and f'pip install ".[{extra}]"' in line


@pytest.mark.parametrize("model_there", [True, False])
def test_a_dry_run_lists_what_could_not_be_checked(tmp_path: Path, model_there: bool) -> None:
    pytest.importorskip("hydra", reason="the extra [hydra] is not installed")
    model = tmp_path / "model"
    if model_there:
        model.mkdir()
        (model / "config.json").write_text(_LLAMA)
        (model / "tokenizer.json").write_text("{}")
    words = ["run", str(packaged_files.QUICKSTART), "--output", "out", f"models.helpful_only={{hf: {model}}}"]
    done = start(tmp_path, *words, "data.red_team=none.jsonl", "--dry-run", there=_HYDRA)
    assert (done.returncode, done.stderr) == (0, "")
    commands, _, listed = done.stdout.partition("# Not on this machine")
    assert commands.count("cai run ") == 8 and "cai checkpoint to-nemo" in commands
    missing = dict(line.removeprefix("#   ").split(": ", 1) for line in listed.splitlines()[1:])
    assert "data.red_team" in missing["none.jsonl"]
    assert "trainers" in missing["the package torch (extra [nemo])"]
    if model_there:
        assert "the conversion of models.base" in missing["the package torch (extra [nemo])"]
        assert "lengths" in missing["the package tokenizers"]
    else:
        assert "models.base" in missing[str(model)]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "override", "named"),
    [
        ('{"model_type": "gemma2"}', "seed=1", "model_type=gemma2"),
        (_LLAMA, "serve.helpful_only.chat_template=mistrl", "mistrl"),
    ],
)
def test_a_dry_run_refuses_what_it_can_check(tmp_path: Path, settings: str, override: str, named: str) -> None:
    pytest.importorskip("hydra", reason="the extra [hydra] is not installed")
    (tmp_path / "config.json").write_text(settings)
    words = ["run", str(packaged_files.QUICKSTART), "--output", "out", "models.helpful_only={hf: ./}", "--dry-run"]
    done = start(tmp_path, *words, override, there=_HYDRA)
    assert done.returncode == 2 and named in done.stderr


def test_with_a_container_nothing_outside_needs_nemo(
    tmp_path: Path, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra", reason="the extra [hydra] is not installed")
    pytest.importorskip("sentencepiece")
    fake_slurm.answer("sbatch", "echo 11")
    model, there = tmp_path / "model", (*_HYDRA, "sentencepiece")
    model.mkdir()
    (model / "config.json").write_text(_LLAMA)
    (model / "tokenizer.model").write_bytes(packaged_files.TOKENIZER.read_bytes())
    words = ["run", str(packaged_files.QUICKSTART), "--output", str(tmp_path / "out"), *_IMAGE]
    words.append(f"models.helpful_only={{hf: {model}}}")
    done = start(tmp_path, *words, there=there)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1_data: job 11" in done.stdout
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    done = start(tmp_path, *words, "--step", "1_data", there=there)
    assert (done.returncode, (tmp_path / "out" / "1_data" / "step.json").is_file()) == (0, True), done.stderr
    monkeypatch.delenv("SLURM_JOB_ID")
    done = start(tmp_path, *words, "--status")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"1_data +done", done.stdout)


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        (("--step", "3_sft"), ["3_sft"]),
        (("--from", "5_reward_model"), ["5_reward_model", "6_ppo", "7_measure"]),
        (("--step", "3_sftt"), None),
        (("--from", "3_sftt"), None),
    ],
)
def test_a_dry_run_prints_the_chosen_steps_only(
    tmp_path: Path, flags: tuple[str, ...], steps: list[str] | None
) -> None:
    pytest.importorskip("hydra", reason="the extra [hydra] is not installed")
    done = start(tmp_path, "run", str(packaged_files.QUICKSTART), "--output", "out", "--dry-run", *flags, there=_HYDRA)
    if steps is None:
        assert (done.returncode, done.stdout) == (2, "") and "3_sftt" in done.stderr
    else:
        assert re.findall(r"^cai run .* --step (\S+)$", done.stdout, re.MULTILINE) == steps


@pytest.mark.parametrize("stage", STAGES)
def test_the_help_of_a_trainer_needs_nothing(tmp_path: Path, stage: str) -> None:
    done = start(tmp_path, "train", stage, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--print-command" in done.stdout and "explicit_log_dir=" in done.stdout


def test_an_object_store_names_the_extra(tmp_path: Path) -> None:
    files = (
        "--red-teaming-prompts-dataset-path",
        "s3://bucket/prompts.jsonl",
        "--helpfulness-dataset-path",
        "h.jsonl",
    )
    done = start(tmp_path, "data", "sl-cai", *files)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2 and 'pip install ".[s3]"' in line


@pytest.mark.parametrize("command", COMMANDS)
def test_d5_help_needs_nothing(tmp_path: Path, command: str) -> None:
    done = start(tmp_path, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_c6_nobody_is_told_to_install_the_name_from_an_index() -> None:
    root = Path(__file__).resolve().parents[2]
    files = [
        path
        for pattern in ("*.py", "*.rst", "*.md", "*.yaml", "*.sh", "Dockerfile", "Makefile")
        for path in root.rglob(pattern)
        if not {".git", ".venv", ".venv-core"} & set(path.parts) and path != Path(__file__)
    ]
    assert len(files) > 200
    advice = re.compile(
        r"pip3? install[^\n`'\";]*[\s'\"]nemo[_-]aligner[_-]cai|nemo[_-]aligner[_-]cai\[", re.IGNORECASE
    )
    found = [f"{path}: {match[0]}" for path in files for match in advice.finditer(path.read_text(encoding="utf-8"))]
    assert not found
