# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Train with each trainer and serve on one GPU, and say how fast: `python -m tests.gpu.measure --out FOLDER`.

It needs no network. A table is printed, and written with the conditions to FOLDER/figures.json and FOLDER/table.txt.

The figures: seconds of a step are the median over the steps but the first two. Tokens are those of the rows, padding
not counted, or those generated. Memory is what nvidia-smi says is in use at most, above what was before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_aligner_cai.training.launch import jobs
from nemo_aligner_cai.training.metrics.files import read_metrics
from tests.gpu import tasks
from tests.gpu.figures import Agreement, Row, conditions, memory, table, version, write
from tests.gpu.tasks import PACKAGE, Size, Task

TIMEOUT_S = 480
PARTS = ("sft", "reward_model", "ppo", "generation", "cpu")
SIZES = {size.name: size for size in (tasks.TINY, tasks.BILLION)}
WARM_UP = 2  # steps that are slower than the others
COMPARED = 5  # steps on the GPU and on the CPU


@dataclass(frozen=True)
class Bench:
    """Where and with what runs are done."""

    out: Path
    hardware: str
    steps: int

    def trained(self, stage: str, name: str, overrides: Sequence[str], env: dict[str, str] | None = None) -> Path:
        """Run a stage to its end; returns its log directory."""
        log_dir = self.out / name
        shutil.rmtree(log_dir, ignore_errors=True)  # a run goes on from what an earlier one left
        command = [*overrides, f"exp_manager.explicit_log_dir={log_dir}"]
        jobs.finish(jobs.start(f"{PACKAGE}.{stage}", command, self.out / f"{name}.log", env), TIMEOUT_S)
        return log_dir


def sft_overrides(task: Task, steps: int) -> list[str]:
    rows = task.files["sft"]
    return [
        f"model.restore_from_path={task.model}",
        f"model.data.train_ds.file_path={rows}",
        f"model.data.validation_ds.file_path={rows}",
        f"model.data.train_ds.micro_batch_size={task.size.micro}",
        f"model.data.train_ds.global_batch_size={task.size.batch}",
        f"model.data.train_ds.max_seq_length={task.size.window}",
        f"++model.encoder_seq_length={task.size.window}",
        *_schedule("sft", steps, task.size.rate),
    ]


def rm_overrides(task: Task, steps: int) -> list[str]:
    pairs = task.files["comparisons"]
    return [
        f"pretrained_checkpoint.restore_from_path={task.model}",
        f"model.data.data_prefix={{train: [{pairs}], validation: [{pairs}], test: [{pairs}]}}",
        f"model.micro_batch_size={task.size.micro}",
        f"model.global_batch_size={task.size.batch}",
        f"model.data.seq_length={task.size.window}",
        f"++model.encoder_seq_length={task.size.window}",
        *_schedule("rm", steps, task.size.rate),
        f"trainer.rm.save_interval={steps}",
    ]


def _schedule(section: str, steps: int, rate: float) -> list[str]:
    return [
        f"trainer.{section}.max_epochs=1000",
        f"trainer.{section}.max_steps={steps}",
        f"trainer.{section}.val_check_interval={steps}",
        f"trainer.{section}.limit_val_batches=1",
        f"model.optim.lr={rate}",
        "model.optim.sched.warmup_steps=1",
    ]


def supervised(bench: Bench, task: Task, stage: str) -> Row:
    """Measure SFT or the reward model."""
    overrides, what, file, texts = {
        "sft": (sft_overrides, "SFT", "sft", 1),
        "reward_model": (rm_overrides, "reward model", "comparisons", 2),
    }[stage]
    with memory() as used:
        log_dir = bench.trained(
            stage, f"{task.size.name}_{stage}", [f"hardware={bench.hardware}", *overrides(task, bench.steps)]
        )
    step = settled(series(log_dir, "train/step_time"))
    tokens = task.size.batch * texts * task.tokens[file]
    return Row(task.size.name, what, precision(log_dir), step, tokens / step, used(), series(log_dir, "train/loss"))


def ppo(bench: Bench, task: Task) -> Row:
    """Measure PPO: a critic's server and an actor on the same GPU, from the SFT and reward models made before."""
    name, size = task.size.name, task.size
    port = jobs.free_port()
    window = [f"hardware={bench.hardware}", f"++model.encoder_seq_length={size.window}"]
    critic = [
        *window,
        f"pretrained_checkpoint.restore_from_path={bench.out}/{name}_reward_model/checkpoints/cai_reward_model.nemo",
        f"trainer.ppo.port={port}",
        f"trainer.ppo.inference_micro_batch_size={size.micro}",
        f"model.micro_batch_size={size.micro}",
        f"model.global_batch_size={size.batch}",
        f"exp_manager.explicit_log_dir={bench.out}/{name}_critic",
    ]
    prompts = task.files["prompts"]
    actor = [
        *window,
        f"pretrained_checkpoint.restore_from_path={bench.out}/{name}_sft/checkpoints/cai_sft.nemo",
        f"model.data.data_prefix={{train: [{prompts}], validation: [{prompts}], test: [{prompts}]}}",
        f"model.data.seq_length={size.window}",
        f"model.micro_batch_size={size.micro}",
        f"model.global_batch_size={size.batch}",
        f"model.ppo.num_rollout_samples={size.batch}",
        f"model.ppo.num_val_samples={size.micro}",
        f"model.ppo.rollout_micro_batch_size={size.micro}",
        f"model.ppo.val_rollout_micro_batch_size={size.micro}",
        f"model.ppo.forward_micro_batch_size={size.micro}",
        f"model.ppo.length_params.max_length={size.reply}",
        "model.optim.lr=1e-5",
        "model.optim.sched.warmup_steps=1",
        "trainer.ppo.max_epochs=1000",
        f"trainer.ppo.max_steps={bench.steps}",
        f"trainer.ppo.val_check_interval={bench.steps}",
        "remote_critic_rm.critic.ip=127.0.0.1",
        f"remote_critic_rm.critic.port={port}",
    ]
    shutil.rmtree(bench.out / f"{name}_critic", ignore_errors=True)
    urls = jobs.critic_urls("127.0.0.1", port)
    with (
        memory() as used,
        jobs.server(f"{PACKAGE}.critic_server", critic, bench.out / f"{name}_critic.log", urls, timeout_s=TIMEOUT_S),
    ):
        log_dir = bench.trained("ppo_actor", f"{name}_actor", actor)
    rollouts, trainings = (series(log_dir, f"timers/{part}_time") for part in ("rollout", "train"))
    step = settled([one + other for one, other in zip(rollouts, trainings, strict=True)])
    replies = statistics.mean(series(log_dir, "train_rollouts/generation_length")) * size.batch
    return Row(
        name, "PPO", precision(log_dir), step, replies / step, used(), series(log_dir, "train_rollouts/rewards")
    )


def generation(bench: Bench, task: Task) -> Row:
    """Measure NeMo's server on the SFT model: batches of greedy replies, each of just `size.reply` tokens."""
    name, size = task.size.name, task.size
    port = jobs.free_port()
    command = [
        f"gpt_model_file={bench.out}/{name}_sft/checkpoints/cai_sft.nemo",
        f"port={port}",
        f"hardware={bench.hardware}",
    ]
    lines = task.files["prompts"].read_text(encoding="utf-8").splitlines()[: size.batch]
    body = {
        "sentences": [json.loads(line)["text"] for line in lines],
        "tokens_to_generate": size.reply,
        "min_tokens_to_generate": size.reply,
        "greedy": True,
        "add_BOS": False,
    }
    url = f"http://127.0.0.1:{port}"
    log = bench.out / f"{name}_server.log"
    with (
        memory() as used,
        jobs.server(f"{PACKAGE}.inference_server", command, log, [f"{url}/health"], timeout_s=TIMEOUT_S),
    ):
        seconds: list[float] = []
        for _ in range(WARM_UP + 3):
            began = time.perf_counter()
            replies = put(f"{url}/generate", body)["sentences"]
            seconds.append(time.perf_counter() - began)
            if not all(len(reply) > len(asked) for reply, asked in zip(replies, body["sentences"], strict=True)):
                raise RuntimeError(f"the server gave an empty reply, see {log}")
    step = settled(seconds)
    return Row(
        name,
        "generation",
        "fp32" if bench.hardware == "cpu" else "bf16",
        step,
        len(lines) * size.reply / step,
        used(),
        [],
    )


def against_cpu(bench: Bench, task: Task) -> list[Agreement]:
    """Compare the losses of GPU and CPU in fp32, from the same weights and in the same batches."""
    reward_model = bench.out / f"{task.size.name}_reward_model/checkpoints/cai_reward_model.nemo"
    runs = {
        "sft": sft_overrides(task, COMPARED),
        # A new head's weights would be drawn by the device that holds it.
        "reward_model": [
            *rm_overrides(replace(task, model=reward_model), COMPARED),
            "model.regression.load_rm_head_weights=true",
        ],
    }
    machines = ((bench.hardware, "gpu", {}), ("cpu", "cpu", {"CUDA_VISIBLE_DEVICES": ""}))
    found: list[Agreement] = []
    for stage, overrides in runs.items():
        losses: list[list[float]] = []
        for hardware, device, env in machines:
            full = [f"hardware={hardware}", "trainer.precision=32", "model.megatron_amp_O2=false"]
            name = f"{task.size.name}_{stage}_fp32_{device}"
            log_dir = bench.trained(stage, name, [*full, *overrides], env)
            losses.append(series(log_dir, "train/loss"))
        found.append(Agreement(task.size.name, stage, *losses))
    return found


def series(log_dir: Path, key: str) -> list[float]:
    """The values of a metric, in their order."""
    return [row[key] for row in read_metrics(log_dir) if key in row]


def settled(values: Sequence[float]) -> float:
    """The median, without the steps of the beginning."""
    return statistics.median(values[WARM_UP:] or values)


def precision(log_dir: Path) -> str:
    """What a run's matrix products were done in."""
    from omegaconf import OmegaConf

    return "fp32" if OmegaConf.load(log_dir / "config.yaml").trainer.precision == 32 else "bf16"


def put(url: str, body: dict[str, Any]) -> Any:
    """A PUT of JSON, and its answer."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="PUT"
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=TIMEOUT_S) as reply:
        return json.load(reply)


def measure(bench: Bench, sizes: Sequence[Size], parts: Sequence[str]) -> tuple[list[Row], list[Agreement]]:
    """Do `parts` with each size, saying each figure as it comes; what is done is written down at once."""
    found = conditions(bench.hardware, bench.steps)
    rows: list[Row] = []
    agreements: list[Agreement] = []
    for size in sizes:
        task = tasks.build(size, bench.out / size.name, bench.hardware)
        for part in parts:
            if part == "cpu":
                # A billion parameters would take the CPU an hour.
                agreements += against_cpu(bench, task) if size.architecture is None else []
            else:
                rows.append(MEASURED[part](bench, task))
            sys.stdout.write(f"{size.name} {part}: done\n")
            sys.stdout.flush()
            write(bench.out, found, rows, agreements)
    return rows, agreements


MEASURED: dict[str, Callable[[Bench, Task], Row]] = {
    "sft": lambda bench, task: supervised(bench, task, "sft"),
    "reward_model": lambda bench, task: supervised(bench, task, "reward_model"),
    "ppo": ppo,
    "generation": generation,
}


def own_hardware() -> str:
    """The option of the group `hardware` that fits this machine."""
    return "1xh200" if all(version(name) != "none" for name in ("apex", "transformer_engine")) else "1xgpu"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table; returns 2 where there is no GPU to measure."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m tests.gpu.measure", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder for models, logs and figures")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--steps", type=int, default=12, help="of each trainer (default: %(default)s)")
    parser.add_argument("--hardware", help="an option of the configs; cpu tries this script without a GPU")
    given = parser.parse_args(argv)
    if given.hardware is None and not torch.cuda.is_available():
        sys.stderr.write("cai: no CUDA device; --hardware cpu tries this script without one\n")
        return 2
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(out, given.hardware or own_hardware(), given.steps)
    rows, agreements = measure(bench, [SIZES[name] for name in given.sizes], given.parts)
    for name, value in conditions(bench.hardware, bench.steps).items():
        sys.stdout.write(f"{name}: {value}\n")
    sys.stdout.write(f"\n{table(rows, agreements)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
