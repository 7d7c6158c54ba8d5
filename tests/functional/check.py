# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Check facts about a training run: `python check.py LOG_DIR FACT...`, the first that does not hold ends it.

steps:METRIC=N   TensorBoard has N values of the metric (`train_loss` is upstream's `train/loss`)
falls:METRIC     the mean of its last third is below that of its first third
finite:METRIC    there is a value, and all are finite
nemo:NAME        checkpoints/NAME.nemo is there, whole, with a configuration and weights
"""

import math
import sys
import tarfile
from pathlib import Path


def scalars(log_dir: Path, metric: str) -> list[float]:
    """The metric's values in the order of steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0})
    events.Reload()
    name = metric.replace("_", "/", 1)
    return [event.value for event in events.Scalars(name)] if name in events.Tags()["scalars"] else []


def holds(log_dir: Path, fact: str) -> tuple[bool, str]:
    """Whether a fact holds, and what was found."""
    kind, _, what = fact.partition(":")
    if kind == "nemo":
        path = log_dir / "checkpoints" / f"{what}.nemo"
        if not path.is_file():
            return False, f"{path} is not there"
        with tarfile.open(path) as archive:
            names = [name.removeprefix("./") for name in archive.getnames()]
        whole = "model_config.yaml" in names and any(name.startswith("model_weights/") for name in names)
        return whole, f"{path} holds {len(names)} files"
    metric, _, number = what.partition("=")
    values = scalars(log_dir, metric)
    found = f"{metric} is {[round(value, 4) for value in values]}"
    third = max(1, len(values) // 3)
    finite = bool(values) and all(math.isfinite(value) for value in values)
    known = {
        "steps": lambda: len(values) == int(number),
        "falls": lambda: finite and sum(values[-third:]) < sum(values[:third]),
        "finite": lambda: finite,
    }
    return known[kind](), found


def main(log_dir: Path, facts: list[str]) -> int:
    """Report each fact; returns 1 at the first that does not hold."""
    for fact in facts:
        true, found = holds(log_dir, fact)
        sys.stdout.write(f"{'ok' if true else 'FAILED'} {log_dir.name} {fact}: {found}\n")
        if not true:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
