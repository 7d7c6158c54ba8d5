# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Check facts about what a run left: `python check.py FOLDER FACT...`, the first that does not hold ends it.

Of a trainer's log directory; a METRIC has TensorBoard's name, such as train/loss:

steps:METRIC=N       it has N values
falls:METRIC         the mean of its last third is below that of its first third
grows:METRIC         its last value is above its first
finite:METRIC        there is a value, and all are finite
nemo:NAME            checkpoints/NAME.nemo is there, whole, with a configuration and weights
checkpoint:NAME      checkpoints/NAME is a distributed checkpoint with weights in it

Of data; a SUM is numbers and .jsonl files, each of which stands for its number of rows, with ` + ` between them:

rows:SUM = SUM       both sides come to the same
read:FILE = SUM      by a run's manifest it read so many rows, and wrote, or left out for a reason, each of them
wrote:FILE = SUM     by a run's manifest it wrote so many rows, one at least
outputs:FILE         the files that a run's manifest names are there, as they were written
"""

import json
import math
import sys
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

Found = tuple[bool, str]
"""Whether a fact holds, and what was found."""


def scalars(folder: Path, metric: str) -> list[float]:
    """The metric's values in the order of steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [event.value for event in events.Scalars(metric)] if metric in events.Tags()["scalars"] else []


def metric(kind: str, folder: Path, what: str) -> Found:
    """A fact about the values of a metric."""
    name, _, number = what.partition("=")
    values = scalars(folder, name)
    third = max(1, len(values) // 3)
    finite = bool(values) and all(math.isfinite(value) for value in values)
    known = {
        "steps": lambda: len(values) == int(number),
        "falls": lambda: finite and sum(values[-third:]) < sum(values[:third]),
        "grows": lambda: finite and values[-1] > values[0],
        "finite": lambda: finite,
    }
    return known[kind](), f"{name} is {[float(f'{value:.4g}') for value in values]}"


def nemo(folder: Path, name: str) -> Found:
    """A model as NeMo saves it."""
    path = folder / "checkpoints" / f"{name}.nemo"
    with tarfile.open(path) as archive:
        names = [name.removeprefix("./") for name in archive.getnames()]
    whole = "model_config.yaml" in names and any(name.startswith("model_weights/") for name in names)
    return whole, f"{path} holds {len(names)} files"


def checkpoint(folder: Path, name: str) -> Found:
    """A checkpoint to go on from."""
    path = folder / "checkpoints" / name
    weights = sum(shard.stat().st_size for shard in path.glob("*.distcp"))
    return (path / ".metadata").stat().st_size > 0 and weights > 0, f"{path} holds {weights} bytes of weights"


def total(folder: Path, terms: str) -> int:
    """What a sum comes to."""
    return sum(
        int(term) if term.isdigit() else (folder / term).read_bytes().count(b"\n")
        for term in terms.strip().split(" + ")
    )


def rows(folder: Path, what: str) -> Found:
    """Two sums that are equal."""
    left, right = (total(folder, side) for side in what.split(" = "))
    return left == right, f"{left} and {right}"


def balance(kind: str, folder: Path, what: str) -> Found:
    """What a run read or wrote."""
    name, terms = what.split(" = ")
    said: dict[str, Any] = json.loads((folder / name).read_bytes())["summary"]["balance"]
    read, wrote, left_out, expected = said["rows_in"], said["written"], said["left_out"], total(folder, terms)
    found = f"{read} rows in, {wrote} written, left out {left_out}; the other side is {expected}"
    if kind == "read":
        return read == expected == wrote + sum(left_out.values()), found
    return 0 < wrote == expected, found


def outputs(folder: Path, name: str) -> Found:
    """Files with the hashes that a manifest gives them."""
    said: dict[str, str] = json.loads((folder / name).read_bytes())["outputs"]
    other = [path for path, digest in said.items() if sha256(Path(path).read_bytes()).hexdigest() != digest]
    return bool(said) and not other, f"{len(said)} files, changed {other}"


FACTS: dict[str, Callable[[Path, str], Found]] = {
    "nemo": nemo,
    "checkpoint": checkpoint,
    "rows": rows,
    "outputs": outputs,
}


def holds(folder: Path, fact: str) -> Found:
    """Whether a fact holds."""
    kind, _, what = fact.partition(":")
    try:
        if kind in FACTS:
            return FACTS[kind](folder, what)
        return (balance if kind in ("read", "wrote") else metric)(kind, folder, what)
    except OSError as error:
        return False, str(error)


def main(folder: Path, facts: list[str]) -> int:
    """Report each fact; returns 1 at the first that does not hold."""
    for fact in facts:
        true, found = holds(folder, fact)
        name = f"{folder.parent.name}/{folder.name}"
        sys.stdout.write(f"{'ok' if true else 'FAILED'} {name} {fact}: {found}\n")
        if not true:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
