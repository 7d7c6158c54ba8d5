# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The RL-CAI stage: red-team prompts -> candidates and AI preferences -> the files of PPO and the reward model.

Input:  RlCaiConfig(prompts={"path": "red_team.jsonl"}, outputs=RlOutputs.named("rl_cai"), ...), a policy and a judge
Output: the files of `RlOutputs`, and a `StageReport` of what was done

Flags, config groups and `cai run` only build the configuration; nothing else decides what is written.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from nemo_aligner_cai.data.formats.files import validate_file
from nemo_aligner_cai.data.judged_row import read_judged
from nemo_aligner_cai.data.split import split_counts
from nemo_aligner_cai.data.tokenizer import tokenizer_path
from nemo_aligner_cai.engine.engine import Step
from nemo_aligner_cai.engine.json_list import write_json_list
from nemo_aligner_cai.engine.resuming import adopt
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.judges.base import position_line, unparsed_line
from nemo_aligner_cai.judges.preference_sample import PreferenceSample
from nemo_aligner_cai.models.base import ModelClient, Sampling
from nemo_aligner_cai.sections import Config
from nemo_aligner_cai.stages.checks import check_files, input_files
from nemo_aligner_cai.stages.comparisons import ComparisonPipeline, generate_comparisons
from nemo_aligner_cai.stages.judging import JudgeConfig, build_judge
from nemo_aligner_cai.stages.manifest import Manifest, hashes
from nemo_aligner_cai.stages.preference_files import upstream_lists, upstream_preferences, write_preference_files
from nemo_aligner_cai.stages.report import StageReport, Written
from nemo_aligner_cai.stages.rl_outputs import KINDS, PreferenceFiles, RlOutputs
from nemo_aligner_cai.stages.settings import PromptSource, RunSettings

UPSTREAM_TEMPERATURES = (0.01, 0.51, 1.01, 1.51)


class RlCaiConfig(Config):
    """All that RL-CAI data depend on.

    Attributes:
        prompts: the red-team prompts.
        sampling: how candidates are drawn, except for their temperature.
        temperatures: one for each candidate.
        judge: how candidates are judged.
        files: splits, soft labels, blend, length filter and formats.
        outputs: where everything goes.
        run: seed, resume and the like.
        record: the settings that the manifest names; None for this configuration.
    """

    prompts: PromptSource
    sampling: Sampling = Sampling()
    temperatures: tuple[float, ...] = UPSTREAM_TEMPERATURES
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    files: PreferenceFiles = Field(default_factory=PreferenceFiles)
    outputs: RlOutputs
    run: RunSettings = RunSettings()
    record: dict[str, Any] | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _fits(self) -> "RlCaiConfig":
        wanted, named = list(self.files.splits), list(self.outputs.splits)
        if wanted != named:
            raise UsageError(f"outputs are named for the splits {', '.join(named)}, not for {', '.join(wanted)}")
        for split in self.outputs.splits.values():
            if (self.files.blend is not None) != bool(split.blended) or set(split.formats) != set(self.files.formats):
                raise UsageError("the outputs need a name for each blended file and each format, and for no other")
        return self


class RlCaiStage:
    """One run of the stage: `begin`, `generate`, `finish`, in this order."""

    def __init__(self, config: RlCaiConfig) -> None:
        """Read the constitution, the judge's examples and the tokenizer; raises UsageError for what is wrong there."""
        self.config = config
        self.judge = build_judge(config.judge, seed=config.run.seed)
        self.tokenizer = config.files.load_tokenizer()
        self.total = 0
        self._manifest: Manifest | None = None

    def steps(self, policy: ModelClient, judge: ModelClient) -> list[Step[PreferenceSample]]:
        """The chain of calls for each prompt; raises UsageError for settings that cannot work."""
        config = self.config
        return ComparisonPipeline(
            policy,
            judge,
            self.judge,
            config.sampling,
            config.temperatures,
            config.run.seed,
            config.files.template,
        ).steps()

    def records(self, first: int | None = None) -> Iterator[PreferenceSample]:
        """The prompts, or the first ones, as records that nothing has been done with."""
        return map(
            PreferenceSample, self.config.prompts.read(RowCounts(), template=self.config.files.template, first=first)
        )

    def check_inputs(self) -> None:
        """Read all inputs once; raises UsageError or FormatError for what is wrong in them."""
        blend = self.config.files.blend
        for kinds in blend.files.values() if blend else ():
            for kind, paths in kinds.items():
                for path in paths:
                    validate_file(path, KINDS[kind])
        self.total = self.config.prompts.count()
        split_counts(self.total, self.config.files.splits)

    def adopt_journal(self) -> None:
        """With `resume`, take over a journal at the place of earlier versions."""
        outputs = self.config.outputs
        if self.config.run.resume and outputs.old_journal is not None:
            adopt(outputs.old_journal, outputs.journal)

    def begin(self) -> None:
        """Check inputs and outputs, and hash the inputs; nothing is asked before.

        Raises:
            UsageError, FormatError: something is wrong.
        """
        config, outputs = self.config, self.config.outputs
        self.check_inputs()
        self.adopt_journal()
        inputs = input_files(
            *(config.prompts.path, config.judge.constitution, config.judge.few_shots, *config.files.blended_files),
            tokenizer_path(config.files.tokenizer) if self.tokenizer and config.files.tokenizer else None,
        )
        check_files(
            inputs,
            outputs.all,
            journal=outputs.journal,
            manifest=outputs.manifest and outputs.manifest.path,
            resume=config.run.resume,
            overwrite=config.run.overwrite,
        )
        if outputs.manifest is not None:
            record = config.record
            if record is None:
                record = config.model_dump(mode="json") | {outputs.manifest.owner: outputs.manifest.value}
            self._manifest = Manifest.begin(outputs.manifest, record, inputs)

    async def generate(self, policy: ModelClient, judge: ModelClient) -> Summary:
        """Ask the models, which are left open; see `generate_comparisons`."""
        config, read, template = self.config, RowCounts(), self.config.files.template
        return await generate_comparisons(
            config.prompts.read(read, template=template),
            policy,
            judge,
            self.judge,
            sampling=config.sampling,
            temperatures=config.temperatures,
            out_path=config.outputs.comparisons,
            journal_path=config.outputs.journal,
            template=template,
            options=config.run.options(self.total),
            read=read,
        )

    def finish(self, summary: Summary, policy: ModelClient, judge: ModelClient) -> StageReport:
        """Write the files that are made of the comparisons, and the manifest; `StageReport.check` follows."""
        config, outputs, manifest = self.config, self.config.outputs, self._manifest
        if manifest is not None:
            manifest.announce(outputs.all)
        rows = outputs.comparisons
        if outputs.candidates is not None:
            write_json_list(outputs.candidates, upstream_lists(read_judged(rows)), overwrite=True)
        if outputs.preferences is not None:
            write_json_list(outputs.preferences, upstream_preferences(read_judged(rows)), overwrite=True)
        enough = summary.counts.written >= len(config.files.splits)
        verdicts = (verdict for row in read_judged(rows) for verdict in row.verdicts)
        lines = [line for line in (position_line(summary.facts), unparsed_line(summary.facts, verdicts)) if line]
        if manifest is not None:
            lines += manifest.remove_stale(outputs.all if enough else outputs.raw, outputs.all)
        written = self._few(summary)
        if enough:
            written = write_preference_files(config.files, outputs, tokenizer=self.tokenizer, seed=config.run.seed)
        report = StageReport(
            "RL-CAI",
            summary,
            {"policy": policy.identity, "judge": judge.identity},
            written.rows or {},
            hashes(outputs.all),
            [*lines, *written.lines],
            config.run.max_dropped,
            written.missing,
        )
        if manifest is not None:
            manifest.write(report.files, **report.to_dict())
        return report

    def _few(self, summary: Summary) -> Written:
        splits = ", ".join(self.config.files.splits)
        return Written(
            missing=f"{summary.counts.written} prompts with a pair cannot be split into {splits}; every split needs "
            f"one at least. All that was generated is in {self.config.outputs.comparisons.parent}"
        )


async def run_rl_cai(config: RlCaiConfig, policy: ModelClient, judge: ModelClient) -> StageReport:
    """Make RL-CAI data.

    Args:
        config: all settings.
        policy: the SL-CAI model; left open.
        judge: the model that judges; it may be `policy`.

    Returns:
        What was done, and which files were written.

    Raises:
        UsageError: something is wrong with the settings, inputs or outputs; nothing was asked.
        StageIncomplete: too little was written; what there is, is saved.
        CaiError: a server refused every request, or writing failed.
    """
    stage = RlCaiStage(config)
    stage.begin()
    report = stage.finish(await stage.generate(policy, judge), policy, judge)
    report.check()
    return report
