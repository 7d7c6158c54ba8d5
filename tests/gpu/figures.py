# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The figures of a GPU: what they are, the conditions they hold under, and the tables of them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        model: the size's name.
        what: "SFT", "reward model", "PPO" or "generation".
        precision: of the matrix products.
        step_s: seconds of a step; of a batch of replies for generation.
        tokens_per_s: tokens a second.
        memory_mib: of the GPU, by all that ran; None where nvidia-smi says nothing.
        losses: of each step; PPO's rewards; empty for generation.
    """

    model: str
    what: str
    precision: str
    step_s: float
    tokens_per_s: float
    memory_mib: int | None
    losses: list[float]


@dataclass(frozen=True)
class Agreement:
    """The losses of the same steps on the GPU and on the CPU."""

    model: str
    stage: str
    gpu: list[float]
    cpu: list[float]

    def difference(self) -> float:
        """The largest one of any step."""
        return max(abs(one - other) for one, other in zip(self.gpu, self.cpu, strict=True))


def nvidia_smi(field: str) -> list[str]:
    """A field of each GPU, as nvidia-smi says it; empty where it says nothing."""
    try:
        command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
        # It shows every GPU, whatever torch may see.
        if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
            command.append(f"--id={visible.split(',')[0]}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines()]


@contextmanager
def memory() -> Iterator[Callable[[], int | None]]:
    """What the first GPU has in use at most inside the `with` block, above what it had before, in MiB."""

    def in_use() -> int | None:
        said = nvidia_smi("memory.used")
        return int(said[0]) if said and said[0].isdigit() else None

    before = in_use()
    most = [before or 0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            most.append(in_use() or 0)

    if before is not None:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield lambda: None if before is None else max(most) - before
    finally:
        over.set()


def conditions(hardware: str, steps: int) -> dict[str, str]:
    """What the figures depend on."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    packages = ("nemo_toolkit", "nemo_aligner", "megatron-core", "transformer_engine", "apex")
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        revision = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        revision = "not known"
    return {
        "revision": revision,
        "gpu": gpu,
        "driver": ", ".join(nvidia_smi("driver_version")[:1]) or "none",
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "python": platform.python_version(),
        "hardware": hardware,
        "steps": str(steps),
        **{name: version(name) for name in packages},
    }


def version(package: str) -> str:
    """Of an installed package, "none" where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def table(rows: list[Row], agreements: list[Agreement]) -> str:
    """The figures as tables of reStructuredText, which docs/benchmarks.rst can take over."""
    figures = [
        [
            row.model,
            row.what,
            row.precision,
            f"{row.step_s:.3f}",
            f"{row.tokens_per_s:,.0f}",
            "not known" if row.memory_mib is None else f"{row.memory_mib / 1024:.1f}",
            f"{row.losses[0]:.3f} to {row.losses[-1]:.3f}" if row.losses else "none",
        ]
        for row in rows
    ]
    head = ["model", "what", "precision", "step, s", "tokens/s", "memory, GiB", "loss or reward"]
    parts = [_simple_table(head, figures)] if rows else []
    if agreements:
        compared = [[one.model, one.stage, str(len(one.gpu)), f"{one.difference():.1e}"] for one in agreements]
        parts.append(_simple_table(["model", "stage", "steps", "GPU against CPU, fp32: loss differs by"], compared))
    return "\n".join(parts)


def _simple_table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule, ""])


def write(folder: Path, found: dict[str, str], rows: list[Row], agreements: list[Agreement]) -> None:
    """Write figures.json, with the conditions `found`, and table.txt."""
    content = {
        "conditions": found,
        "rows": [asdict(row) for row in rows],
        "agreements": [asdict(one) for one in agreements],
    }
    (folder / "figures.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "table.txt").write_text(table(rows, agreements), encoding="utf-8")
