# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The RL-CAI stage: red-team prompts -> candidates and AI preferences -> the files of PPO and the reward model.

Input:  RlCaiConfig(prompts={"path": "red_team.jsonl"}, outputs=RlOutputs.named("rl_cai"), ...), a policy and a judge
Output: the files of `RlOutputs`, and a `StageReport`
"""

from collections.abc import Callable, Iterator, Mapping

from pydantic import Field, model_validator

from nemo_aligner_cai.data.formats.files import validate_file
from nemo_aligner_cai.data.judged_row import read_judged
from nemo_aligner_cai.data.records import Comparison, PromptOnly, Record
from nemo_aligner_cai.data.split import split_counts
from nemo_aligner_cai.data.tokenizer import tokenizer_path
from nemo_aligner_cai.engine.rehearsal import RowLimit
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts, write_json_list
from nemo_aligner_cai.judges.base import position_line, unparsed_line
from nemo_aligner_cai.judges.settings import JudgeConfig, build_judge
from nemo_aligner_cai.judges.steps import PreferenceSample
from nemo_aligner_cai.models.base import ModelClient
from nemo_aligner_cai.stages.comparisons import ComparisonPipeline, generate_comparisons
from nemo_aligner_cai.stages.preference_files import upstream_candidates, upstream_preferences, write_preference_files
from nemo_aligner_cai.stages.report import StageReport, TrainingFiles
from nemo_aligner_cai.stages.rl_outputs import KINDS, Kind, PreferenceFiles, RlOutputs
from nemo_aligner_cai.stages.run_files import RunFiles
from nemo_aligner_cai.stages.settings import StageConfig

UPSTREAM_TEMPERATURES = (0.01, 0.51, 1.01, 1.51)
_SETTINGS: Mapping[Kind, str] = {
    "comparisons": "--rm-seq-length (reward_model.seq_length or dpo.seq_length)",
    "prompts": "--ppo-seq-length (ppo.seq_length)",
}
_SHORTEST: Mapping[Kind, Callable[[PreferenceSample], Record]] = {
    "comparisons": lambda sample: Comparison(sample.prompt.conversation, "Yes.", "No."),
    "prompts": lambda sample: PromptOnly(sample.prompt.conversation),
}
"""The shortest training record of a prompt."""


class RlCaiConfig(StageConfig):
    """The settings of RL-CAI, in addition to those of `StageConfig`.

    Attributes:
        temperatures: one per candidate.
        judge: the judge.
        files: splits, soft labels, blend, length filter and formats.
        outputs: the names of all files.
    """

    temperatures: tuple[float, ...] = UPSTREAM_TEMPERATURES
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    files: PreferenceFiles = Field(default_factory=PreferenceFiles)
    outputs: RlOutputs

    @model_validator(mode="after")
    def _check_outputs(self) -> "RlCaiConfig":
        splits, named = list(self.files.splits), list(self.outputs.splits)
        if splits != named:
            raise UsageError(f"the outputs have the splits {', '.join(named)}, the files {', '.join(splits)}")
        for split in self.outputs.splits.values():
            if (self.files.blend is not None) != bool(split.blended) or set(split.formats) != set(self.files.formats):
                raise UsageError(
                    "the outputs must have a name for each blended file and each format, and for no other"
                )
        return self


class RlCaiStage:
    """One run of the stage: `begin`, `generate`, `finish`, in this order."""

    def __init__(self, config: RlCaiConfig) -> None:
        """Read the constitution, the judge's examples and the tokenizer; raises UsageError if one is invalid."""
        self.config = config
        self.run_files = RunFiles(config, config.outputs)
        self.judge = build_judge(config.judge, seed=config.run.seed)
        self.tokenizer = config.files.load_tokenizer()
        self.total = 0

    def pipeline(self, policy: ModelClient, judge: ModelClient) -> ComparisonPipeline:
        """Return the pipeline of each prompt; raises UsageError for invalid settings."""
        config = self.config
        return ComparisonPipeline(
            policy,
            judge,
            self.judge,
            config.sampling,
            config.temperatures,
            config.run.seed,
            config.files.template,
        )

    def records(self, first: int | None = None) -> Iterator[PreferenceSample]:
        """Return new samples for the prompts, or only for the `first` ones."""
        template = self.config.files.template
        return map(PreferenceSample, self.config.prompts.read(RowCounts(), template=template, first=first))

    def check_inputs(self) -> None:
        """Read all inputs once; raises UsageError or FormatError if one is invalid."""
        blend = self.config.files.blend
        for kinds in blend.files.values() if blend else ():
            for kind, paths in kinds.items():
                for path in paths:
                    validate_file(path, KINDS[kind])
        self.total = self.config.prompts.count()
        split_counts(self.total, self.config.files.splits)

    def begin(self) -> None:
        """Check inputs and outputs, and hash the inputs, before the first request.

        Raises:
            UsageError, FormatError: an input or output is invalid.
        """
        files, judge = self.config.files, self.config.judge
        self.check_inputs()
        tokenizer = tokenizer_path(files.tokenizer) if self.tokenizer and files.tokenizer else None
        self.run_files.begin(
            self.config.prompts.path, judge.constitution, judge.few_shots, *files.blended_files, tokenizer
        )

    async def generate(self, policy: ModelClient, judge: ModelClient) -> Summary:
        """Run the models, which stay open; see `generate_comparisons`."""
        config, read = self.config, RowCounts()
        return await generate_comparisons(
            config.prompts.read(read, template=config.files.template),
            self.pipeline(policy, judge),
            out_path=config.outputs.comparisons,
            journal_path=self.run_files.journal,
            run=config.run,
            total=self.total,
            read=read,
            limits=[*self._limits()],
        )

    def _limits(self) -> Iterator[RowLimit[PreferenceSample]]:
        files = self.config.files
        if self.tokenizer is None:
            return
        for kind, setting in _SETTINGS.items():
            length = files.seq_length(kind)
            if length is not None:
                shortest, reserved = _SHORTEST[kind], files.response_length(kind)
                yield RowLimit(setting, KINDS[kind], length, self.tokenizer, shortest, reserved)

    def finish(self, summary: Summary, policy: ModelClient, judge: ModelClient) -> StageReport:
        """Write the training files and the manifest; none for a shard. Call `StageReport.check` afterwards."""
        config, outputs = self.config, self.config.outputs
        models = {"policy": policy.identity, "judge": judge.identity}
        if config.run.shard is not None:
            return self.run_files.shard_report("RL-CAI", summary, models)
        self.run_files.announce()
        rows = outputs.comparisons
        if outputs.candidates is not None:
            write_json_list(outputs.candidates, upstream_candidates(read_judged(rows)), overwrite=True)
        if outputs.preferences is not None:
            write_json_list(outputs.preferences, upstream_preferences(read_judged(rows)), overwrite=True)
        complete = summary.counts.written >= len(config.files.splits)
        verdicts = (verdict for row in read_judged(rows) for verdict in row.verdicts)
        lines = [line for line in (position_line(summary.facts), unparsed_line(summary.facts, verdicts)) if line]
        lines += self.run_files.remove_stale(complete=complete)
        if complete:
            written = write_preference_files(config.files, outputs, tokenizer=self.tokenizer, seed=config.run.seed)
        else:
            written = TrainingFiles(
                missing=f"{summary.counts.written} prompts with a pair cannot be split into "
                f"{', '.join(config.files.splits)}; each split needs at least one. All generated data is in "
                f"{rows.parent}"
            )
        return self.run_files.report("RL-CAI", summary, models, written, [*lines, *written.lines])


async def run_rl_cai(config: RlCaiConfig, policy: ModelClient, judge: ModelClient) -> StageReport:
    """Make RL-CAI data. Both models stay open; they may be the same.

    Returns:
        The counts and the written files.

    Raises:
        UsageError: the settings, inputs or outputs are invalid; no request was sent.
        StageIncomplete: too little was written; the rest is saved.
        CaiError: a server refused every request, or writing failed.
    """
    stage = RlCaiStage(config)
    stage.begin()
    report = stage.finish(await stage.generate(policy, judge), policy, judge)
    report.check()
    return report
