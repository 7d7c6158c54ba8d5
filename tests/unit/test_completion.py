# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Shell completion, as a real shell does it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("shtab", reason="the extra completion is not installed")

# Completes the last of the given words, as a press of the tab key does: in bash by the function that the script
# registers for `cai`.
_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function_of=$(complete -p cai | grep -o -- '-F [^ ]*'); ${function_of#-F } cai "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
# Presses the tab key in an interactive zsh that finds the script in the folder $1, and waits for $3.
_ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; fpath=($1 \$fpath); autoload -U compinit; compinit -u -D; echo re''ady"
zpty -r shell seen "*ready*"
zpty -w -n shell "$2"$'\t'
for ((n = 0; n < 300; n++)); do sleep 0.2; zpty -r -t shell more && seen+=$more; [[ $seen == *$3* ]] && break; done
print -r -- "$seen"
zpty -d shell
"""


def script(folder: Path, shell: str, repo_root: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "nemo_aligner_cai.cli", "--print-completion", shell],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repo_root), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    path = folder / f"cai.{shell}"
    path.write_text(done.stdout, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    return script(tmp_path_factory.mktemp("completion"), "bash", repo_root)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["val"], {"validate"}),
        (["train", "r"], {"reward-model"}),
        (["train", "sft", "--tra"], {"--trainer"}),
        (["train", "sft", "--trainer", "up"], {"upstream"}),
        (["data", "sl"], {"sl-cai"}),
        (["data", "rl-cai", "--judge-v"], {"--judge-votes"}),
        (["journal", "ex"], {"export"}),
        (["convert", "in.jsonl", "out.jsonl", "--to", "messa"], {"messages"}),
        (["data", "rl-cai", "--judge", "mul"], {"multiple-choice"}),
        (["report", "--output", "gi"], {"given.html"}),
        (["validate", "gi"], {"given.html"}),
        (["no-command", "--val"], set()),
    ],
    ids=lambda value: " ".join(value),
)
def test_bash_completes(bash_script: Path, tmp_path: Path, words: list[str], expected: set[str]) -> None:
    (tmp_path / "given.html").touch()
    command = ["bash", "--norc", "-c", _BASH, "bash", str(bash_script), "cai", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (set(done.stdout.split()), done.stderr) == (expected, "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_completes(tmp_path: Path, repo_root: Path) -> None:
    script(tmp_path, "zsh", repo_root).rename(tmp_path / "_cai")
    command = ["zsh", "-f", "-c", _ZSH, "zsh", str(tmp_path), "cai train sft --trai", "--trainer"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "cai train sft --trainer" in done.stdout
