# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of the two data stages, SL-CAI and RL-CAI, and their configurations.

On a cluster, several processes may make the calls of one step, each those of one shard; another process merges their
journals into the step's outputs, without a server. See `engine.shards`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nemo_aligner_cai.data.split import share_and_rest
from nemo_aligner_cai.data.tokenizer import can_load
from nemo_aligner_cai.engine.journal import has_content
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.engine.shards import JOURNAL_SUFFIX, Shard, shards_folder
from nemo_aligner_cai.judges.settings import JudgeConfig, JudgeOptions
from nemo_aligner_cai.pipeline.check import Checks
from nemo_aligner_cai.pipeline.config import settings_of, shared_settings
from nemo_aligner_cai.pipeline.layout import (
    DATA,
    HELPFUL_PREFERENCES,
    HELPFUL_SFT,
    RL_CAI,
    RL_PROMPTS,
    SFT,
    SL_CAI,
    SL_PROMPTS,
)
from nemo_aligner_cai.pipeline.serving.servers import HOST, ask
from nemo_aligner_cai.pipeline.step_cache import Step
from nemo_aligner_cai.pipeline.steps import trainers
from nemo_aligner_cai.pipeline.steps.context import RunContext
from nemo_aligner_cai.pipeline.steps.trainers import Trainer
from nemo_aligner_cai.stages.report import StageIncomplete, StageReport
from nemo_aligner_cai.stages.rl_cai import RlCaiConfig, RlCaiStage
from nemo_aligner_cai.stages.rl_outputs import (
    KINDS,
    BlendFiles,
    Kind,
    PreferenceFiles,
    PreferenceSettings,
    RlOutputs,
    SplitFiles,
    format_suffix,
)
from nemo_aligner_cai.stages.settings import PromptSource
from nemo_aligner_cai.stages.sft_files import SftFiles, SftSettings, SlOutputs
from nemo_aligner_cai.stages.sl_cai import RevisionSettings, SlCaiConfig, SlCaiStage
from nemo_aligner_cai.training.checks.values import parse_positive_int
from nemo_aligner_cai.training.config import compose, select

_log = logging.getLogger(__name__)


def sl_cai_step(run: RunContext) -> Step:
    """The helpful-only model responds, critiques and revises."""
    config, file = run.config, run.layout.file

    def work(folder: Path) -> Mapping[str, Any]:
        with SlCaiStage(sl_cai_config(run, folder)) as stage:
            stage.begin()
            log = _log_file(run, folder, "server")
            with run.clients.of("helpful_only", log, config.sl_cai.batch_size) as client:
                summary = ask(stage.generate(client), client)
            return _facts(run, stage.finish(summary, client))

    # Also at its default: steps were done before there was this setting, and learned these replies.
    rows = {"sft": config.sft.seq_length, "learn_earlier_replies": config.learn_earlier_replies}
    reads = (
        run.clients.path("helpful_only"),
        config.models.constitution,
        file(DATA, SL_PROMPTS),
        file(DATA, HELPFUL_SFT),
        run.files.tokenizer_source,
        config.sl_cai.few_shots,
    )
    return Step(
        SL_CAI,
        "Step 2: critiques and revisions (SL-CAI)",
        reads=tuple(filter(None, reads)),
        makes=("revisions.jsonl", "train.jsonl", "validation.jsonl"),
        settings=run.settings(settings_of(config.sl_cai) | rows | run.clients.settings("helpful_only")),
        endpoints=lambda: run.clients.endpoint_identities("helpful_only"),
        work=work,
    )


def rl_cai_step(run: RunContext) -> Step:
    """The SL-CAI model generates candidates; the judge compares them by the constitution."""
    config, file = run.config, run.layout.file

    def work(folder: Path) -> Mapping[str, Any]:
        stage, batch_size = RlCaiStage(rl_cai_config(run, folder)), config.rl_cai.batch_size
        stage.begin()
        with (
            run.clients.trained(SFT, _log_file(run, folder, "policy"), batch_size) as policy,
            run.clients.of("judge", _log_file(run, folder, "judge"), batch_size) as judge,
        ):
            summary = ask(stage.generate(policy, judge), policy, judge)
        return _facts(run, stage.finish(summary, policy, judge))

    reads = (
        run.clients.trained_path(SFT),
        run.clients.path("judge"),
        config.models.constitution,
        file(DATA, RL_PROMPTS),
        *(file(DATA, name) for name in HELPFUL_PREFERENCES),
        run.files.tokenizer_source,
        config.rl_cai.judge_few_shots,
    )
    return Step(
        RL_CAI,
        "Step 4: candidate responses and AI preferences (RL-CAI)",
        reads=tuple(filter(None, reads)),
        makes=("comparisons.jsonl", "rm_train.jsonl", "rm_test.jsonl", "ppo_train.jsonl", "ppo_test.jsonl"),
        settings=run.settings(settings_of(config.rl_cai) | _lengths(run) | run.clients.settings("policy", "judge")),
        endpoints=lambda: run.clients.endpoint_identities("judge"),
        work=work,
    )


def check_stages(run: RunContext, checks: Checks) -> None:
    """Validate the constitution and the judge before the first step; raises UsageError."""
    with checks.of("sl_cai"), SlCaiStage(sl_cai_config(run, run.layout.folder / SL_CAI)):
        pass
    with checks.of("rl_cai"):
        RlCaiStage(rl_cai_config(run, run.layout.folder / RL_CAI))


def _log_file(run: RunContext, folder: Path, name: str) -> Path:
    shard = f".{run.calls.index}-of-{run.calls.count}" if isinstance(run.calls, Shard) else ""
    return folder / f"{name}{shard}.log"


def _facts(run: RunContext, report: StageReport) -> dict[str, Any]:
    """A stage's counts, for the record of its step; raises StageIncomplete for too many failed calls."""
    try:
        report.check()
    except StageIncomplete as error:
        if not isinstance(run.calls, Shard):
            raise
        # The merge decides about the whole.
        _log.warning("shard %s: %s", run.calls, error)
    return {"balances": dict(report.rows), "generation": report.summary.to_dict()}


def sl_cai_config(run: RunContext, folder: Path) -> SlCaiConfig:
    """The SL-CAI stage of a run, with its outputs in a folder."""
    config, data, tokenizer = run.config, run.layout.folder / DATA, _tokenizer(run)
    journal = folder / "revisions.journal.jsonl"
    own = config.sl_cai
    return SlCaiConfig(
        # Of the tiny world's helpful conversations; the files of other sources have it already.
        prompts=PromptSource(path=str(data / SL_PROMPTS), turns="all", system_message=config.data.system_message),
        constitution=config.models.constitution,
        learn_earlier_replies=config.learn_earlier_replies,
        sampling=own.decoding,
        files=SftFiles(
            helpful=str(data / HELPFUL_SFT),
            seq_length=config.sft.seq_length if tokenizer else None,
            tokenizer=tokenizer,
            **shared_settings(own, SftSettings),
        ),
        outputs=SlOutputs(
            train=folder / "train.jsonl",
            validation=folder / "validation.jsonl",
            revisions=folder / "revisions.jsonl",
            journal=journal,
            samples=folder / "sl_cai.jsonl",
        ),
        run=_run(run, own.max_dropped, journal),
        **shared_settings(own, RevisionSettings),
    )


def rl_cai_config(run: RunContext, folder: Path) -> RlCaiConfig:
    """The RL-CAI stage of a run, with its outputs in a folder."""
    config, data, tokenizer = run.config, run.layout.folder / DATA, _tokenizer(run)
    own, journal = config.rl_cai, folder / "comparisons.journal.jsonl"
    test, train = share_and_rest(own.test_share)
    splits = {"train": train, "test": test}
    return RlCaiConfig(
        prompts=PromptSource(path=str(data / RL_PROMPTS), turns="all"),
        sampling=own.decoding,
        temperatures=own.candidate_temperatures,
        judge=JudgeConfig(
            strategy=own.judge,
            constitution=config.models.constitution,
            prompt=own.judge_prompt,
            few_shots=own.judge_few_shots,
            **shared_settings(own, JudgeOptions),
        ),
        files=PreferenceFiles(
            splits=splits,
            blend=BlendFiles(name="helpful", files={split: _helpful(split, data) for split in splits}),
            tokenizer=tokenizer,
            **(_lengths(run) if tokenizer else {}),
            **shared_settings(own, PreferenceSettings),
        ),
        outputs=RlOutputs(
            comparisons=folder / "comparisons.jsonl",
            journal=journal,
            splits={split: _split_files(split, own.formats, folder) for split in splits},
        ),
        run=_run(run, own.max_dropped, journal),
    )


def _lengths(run: RunContext) -> dict[str, int]:
    """The lengths of `PreferenceFiles` for the trainers that read them."""
    lengths = {"rm_seq_length": run.config.pairs_seq_length}
    if run.config.ppo is not None:
        # No length depends on the critic's address.
        actor = trainers.actor(run, host=HOST, port=0)
        lengths |= {"ppo_seq_length": run.config.ppo.seq_length, "ppo_response_length": _response_length(actor)}
    return lengths


@cache
def _response_length(actor: Trainer) -> int:
    key = "model.ppo.length_params.max_length"
    return parse_positive_int(select(compose(actor.config, actor.overrides), key), key)


def _tokenizer(run: RunContext) -> Path | None:
    # A model on the hub has no tokenizer here until it is downloaded: no length filter in the check before that. A
    # library that reads it may be missing in a dry run only: a run has loaded it before (`check.check`).
    path = run.files.tokenizer
    return path if path.exists() and can_load(path) else None


def _helpful(split: str, data: Path) -> dict[Kind, tuple[str, ...]]:
    return {kind: (str(data / f"helpful_{split}_{kind}_with_chat_prompt.jsonl"),) for kind in KINDS}


def _split_files(split: str, formats: tuple[str, ...], folder: Path) -> SplitFiles:
    return SplitFiles(
        own={
            "prompts": folder / f"cai_{split}_prompts.jsonl",
            "comparisons": folder / f"cai_{split}_comparisons.jsonl",
        },
        blended={"prompts": folder / f"ppo_{split}.jsonl", "comparisons": folder / f"rm_{split}.jsonl"},
        formats={name: folder / f"cai_{split}_comparisons{format_suffix(name)}" for name in formats},
    )


def _run(run: RunContext, max_dropped: float, journal: Path) -> RunSettings:
    is_shard = isinstance(run.calls, Shard)
    # Calls are reused whatever the number of shards was, and whether there were any.
    earlier = [*shards_folder(journal).glob(f"*{JOURNAL_SUFFIX}"), *([journal] if is_shard else [])]
    return RunSettings(
        seed=run.config.seed,
        shard=run.calls if isinstance(run.calls, Shard) else None,
        no_calls=run.calls == "none",
        journal_from=tuple(str(path) for path in earlier if has_content(path)),
        resume=True,
        progress=True,
        # The run's clients name their models by hash or identity; the name that a server reports is not needed.
        ask_for_models=False,
        max_dropped=max_dropped,
    )
