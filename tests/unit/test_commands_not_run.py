# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that README, CONTRIBUTING and the docs show and that no test runs as printed: each has a reason.

Blocks `bash` are run (tests/functional/test_docs.py and others), and so are blocks `console` of its PAGES.
"""

import re
from pathlib import Path

from tests.documented import blocks_of
from tests.functional.test_docs import PAGES

_PROGRAMS = (
    r"(?:\$ )?(?:[A-Z_]+=\S+ )*"
    r"((?:cai|python|pip|make|docker|vllm|sbatch|curl|huggingface-cli|uv|twine|tests/\S+|\.venv\S*|\w+\.py) "
    r"(?:[\w/.]+)?)"
)
_SETUP = "sets this checkout up or tests it: CI does nothing else"
_HOURS = "tests/functional/test_real_model.py runs its parts; the whole takes an hour and 9 GB"
NOT_RUN = {
    ("CONTRIBUTING.md", "make venv"): _SETUP,
    ("CONTRIBUTING.md", "make test"): _SETUP,
    ("CONTRIBUTING.md", "tests/functional/run_all.sh "): "tests/functional/test_shell.py runs it with the tiny model",
    ("CONTRIBUTING.md", "tests/functional/run_all.sh rm"): "needs GPUs and a model of 7 billion parameters",
    ("CONTRIBUTING.md", ".venv/bin/python constraints/renew_hashes.py"): "asks PyPI for every package",
    ("benchmarks.rst", "generate_rl_cai_dataset.py "): "a measurement: needs vLLM",
    ("benchmarks.rst", "cai checkpoint"): "a measurement: tests/functional/test_real_model.py does the same",
    ("benchmarks.rst", "cai train"): "a measurement: tests/functional/test_real_model.py does the same",
    ("benchmarks.rst", "vllm serve"): "a measurement: needs vLLM",
    ("checkpoints.rst", "cai checkpoint"): "tests/functional/test_checkpoint_conversion.py converts tiny models",
    ("checkpoints.rst", "vllm serve"): "needs vLLM, and a GPU for a model of this size",
    ("evaluation.rst", "cai evaluate"): "needs a quickstart's models; tests/unit/test_evaluate.py runs the command",
    ("export.rst", "cai checkpoint"): "tests/functional/test_checkpoint_conversion.py converts tiny models",
    ("install.rst", "docker build"): "needs a container engine",
    ("install.rst", "docker run"): "needs a container engine and GPUs",
    ("install.rst", "pip install"): "asks PyPI; tests/unit/test_completion.py needs shtab, too",
    ("install.rst", "cai "): "writes into the home folder; tests/unit/test_completion.py uses the printed scripts",
    ("nemo_rl.rst", "uv run"): "NeMo-RL's own command",
    ("real_model.rst", "make real"): _HOURS,
    ("scaling.rst", "python examples/nlp/cai/generate_sl_cai_dataset.py"): "tests/functional/test_endpoints.py",
    ("scaling.rst", "vllm serve"): "tests/functional/test_endpoints.py runs the script with a stand-in for vLLM",
    ("servers.rst", "vllm serve"): "needs vLLM, and a GPU for a model of this size",
    ("shards.rst", "sbatch "): "needs Slurm; tests/functional/test_shards.py runs tasks of an array",
    ("shards.rst", "cai data"): "needs a Ray cluster; tests/functional/test_ray.py",
}
MOST = 24
"""May become smaller, and never larger."""


def test_each_command_that_no_test_runs_is_listed_with_a_reason(repo_root: Path) -> None:
    pages = [repo_root / "README.md", repo_root / "CONTRIBUTING.md"]
    pages += [page for page in (repo_root / "docs").rglob("*.rst") if "generated" not in page.parts]
    found = {
        (page.name, command[1])
        for page in pages
        for language, block in blocks_of(page, r"\w*")
        if language in ("", "text", "sh") or (language == "console" and page.name not in PAGES)
        for line in block.splitlines()
        if (command := re.match(_PROGRAMS, line))
    }
    assert found == NOT_RUN.keys()
    assert len(NOT_RUN) <= MOST
