# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The SL-CAI stage: red-team prompts -> critiques and revisions -> SFT files.

Input:  SlCaiConfig(prompts={"path": "red_team.jsonl"}, files={"helpful": "helpful.jsonl"}, ...) and a model
Output: the files of `SlOutputs`, and a `StageReport`
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, model_validator

from nemo_aligner_cai.chat import Role
from nemo_aligner_cai.constitution import load_constitution, packaged
from nemo_aligner_cai.constitution.prompt_templates import load_prompt_templates
from nemo_aligner_cai.data.formats.nemo import SftChat
from nemo_aligner_cai.data.length import EMPTY_SYSTEM_MERGED, merges_empty_system
from nemo_aligner_cai.data.records import Chat
from nemo_aligner_cai.data.tokenizer import tokenizer_path
from nemo_aligner_cai.engine.rehearsal import RowLimit
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts, read_jsonl, require_file, write_json_list
from nemo_aligner_cai.models.base import ModelClient
from nemo_aligner_cai.prompts import read_few_shots
from nemo_aligner_cai.sections import Config
from nemo_aligner_cai.stages.report import StageReport, TrainingFiles
from nemo_aligner_cai.stages.revisions import RevisionPipeline, RevisionSample, generate_revisions
from nemo_aligner_cai.stages.run_files import RunFiles
from nemo_aligner_cai.stages.settings import StageConfig
from nemo_aligner_cai.stages.sft_files import SftFiles, SlOutputs, prepare_helpful, write_sft_files


class RevisionSettings(Config):
    """The settings of critique and revision.

    Attributes:
        few_shots: a file with examples of answer, critique and revision; None uses no examples.
        num_revisions: turns of critique and revision.
        keep_unrevised: keep answers that the revision does not change.
        critique: critique each answer before its revision.
    """

    few_shots: Path | None = Field(default_factory=lambda: packaged("few_shots.json"))
    num_revisions: int = Field(default=1, gt=0)
    keep_unrevised: bool = False
    critique: bool = True


class SlCaiConfig(RevisionSettings, StageConfig):
    """The settings of SL-CAI, in addition to those of `StageConfig` and `RevisionSettings`.

    Attributes:
        constitution: a file with critique and revision requests.
        learn_earlier_replies: use prompts that have earlier replies. NeMo's mask knows speakers, not turns: SFT learns
            these replies like the revision.
        files: blend, length filter and validation split.
        outputs: the names of all files.
    """

    constitution: Path = Field(default_factory=packaged)
    learn_earlier_replies: bool = False
    files: SftFiles
    outputs: SlOutputs

    @model_validator(mode="after")
    def _check_validation(self) -> "SlCaiConfig":
        if (self.files.validation_share is None) != (self.outputs.validation is None):
            raise UsageError("a validation share and the name of a validation file must be given together")
        return self


class SlCaiStage:
    """One run of the stage: `begin`, `generate`, `finish`, in this order, in a `with` block."""

    def __init__(self, config: SlCaiConfig) -> None:
        """Read the constitution, the examples and the tokenizer; raises UsageError if one of them is invalid."""
        self.config = config
        self.run_files = RunFiles(config, config.outputs)
        self.tokenizer = config.files.load_tokenizer()
        path = require_file(config.constitution)
        self.constitution, self.templates = load_constitution(path), load_prompt_templates(path)
        self.few_shots = read_few_shots(config.few_shots) if config.few_shots else ()
        self.total = 0
        self._helpful, self._lines = Path(), list[str]()

    def __enter__(self) -> "SlCaiStage":
        self._scratch = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def pipeline(self, model: ModelClient) -> RevisionPipeline:
        """Return the pipeline of each prompt; raises UsageError for invalid settings."""
        config = self.config
        return RevisionPipeline(
            model,
            self.constitution,
            self.few_shots,
            self.templates,
            config.sampling,
            config.run.seed,
            config.num_revisions,
            config.keep_unrevised,
            config.critique,
        )

    def records(self, first: int | None = None) -> Iterator[RevisionSample]:
        """Return new samples for the prompts, or only for the `first` ones."""
        config = self.config
        prompts = config.prompts.read(RowCounts(), first=first, replies=config.learn_earlier_replies)
        return map(RevisionSample, prompts)

    def check_inputs(self) -> None:
        """Read all inputs once; raises UsageError or FormatError if one is invalid."""
        config = self.config
        if self.tokenizer is not None and not config.prompts.system_message and merges_empty_system(self.tokenizer):
            # SFT would stop at the first prompt without a system message.
            every = config.prompts.model_copy(update={"limit": None})
            prompts = every.read(RowCounts(), replies=config.learn_earlier_replies)
            if any(not prompt.conversation.system for prompt in prompts):
                raise UsageError(f"--tokenizer-model {config.files.tokenizer}: {EMPTY_SYSTEM_MERGED}")
        self.total = config.prompts.count(replies=config.learn_earlier_replies)
        if config.files.helpful is not None:
            folder = Path(self._scratch.name, "helpful")
            message = config.prompts.system_message
            self._helpful, self._lines = prepare_helpful(config.files.helpful, folder, system_message=message)

    def begin(self) -> None:
        """Check inputs and outputs, and hash the inputs, before the first request.

        Raises:
            UsageError, FormatError: an input or output is invalid.
        """
        config = self.config
        if config.files.helpful is None:
            raise UsageError(
                "--helpfulness-dataset-path: conversations to blend with are needed, except with --preview and --plan"
            )
        self.check_inputs()
        tokenizer = tokenizer_path(config.files.tokenizer) if self.tokenizer and config.files.tokenizer else None
        self.run_files.begin(
            config.prompts.path, config.few_shots, config.constitution, config.files.helpful, tokenizer
        )

    async def generate(self, model: ModelClient) -> Summary:
        """Run the model, which stays open; see `generate_revisions`."""
        config, outputs, read = self.config, self.config.outputs, RowCounts()
        return await generate_revisions(
            config.prompts.read(read, replies=config.learn_earlier_replies),
            self.pipeline(model),
            out_path=outputs.revisions,
            sft_path=outputs.samples,
            journal_path=self.run_files.journal,
            run=config.run,
            total=self.total,
            read=read,
            limits=self._limits(),
        )

    def _limits(self) -> tuple[RowLimit[RevisionSample], ...]:
        length = self.config.files.seq_length
        if length is None or self.tokenizer is None:
            return ()
        setting = "--max-seq-length (sft.seq_length)"
        return (RowLimit(setting, SftChat.name, length, self.tokenizer, _shortest),)

    def finish(self, summary: Summary, model: ModelClient) -> StageReport:
        """Write the training files and the manifest; none for a shard. Call `StageReport.check` afterwards."""
        config, outputs, written = self.config, self.config.outputs, TrainingFiles()
        models = {"helpful-only": model.identity}
        if config.run.shard is not None:
            return self.run_files.shard_report("SL-CAI", summary, models)
        self.run_files.announce()
        if outputs.steps is not None:
            write_json_list(outputs.steps, _steps(outputs.revisions), overwrite=True)
        if summary.counts.written:
            seed = config.run.seed
            written = write_sft_files(config.files, outputs, self._helpful, tokenizer=self.tokenizer, seed=seed)
        complete = bool(summary.counts.written) and written.missing is None
        lines = [*self._lines, *written.lines, *self.run_files.remove_stale(complete=complete)]
        return self.run_files.report("SL-CAI", summary, models, written, lines)


def _shortest(sample: RevisionSample) -> Chat:
    """The shortest training record of a prompt."""
    return Chat(sample.prompt.conversation.with_turn(Role.ASSISTANT, "Yes."))


def _steps(revisions: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of upstream's file. With several turns, it has the last one, whose revision is trained on."""
    for _, row in read_jsonl(revisions):
        last = row["rounds"][-1]
        yield {
            "initial_prompt": row["prompt"][-1]["content"],
            "initial_response": row["response"] if len(row["rounds"]) == 1 else row["rounds"][-2]["revision"],
            "critique_prompt": last["critique_request"],
            "critique_response": row["critique"],
            "revision_prompt": last["revision_request"],
            "revision_response": row["revision"],
        }


async def run_sl_cai(config: SlCaiConfig, model: ModelClient) -> StageReport:
    """Make SL-CAI data. The model, helpful-only, stays open.

    Returns:
        The counts and the written files.

    Raises:
        UsageError: the settings, inputs or outputs are invalid; no request was sent.
        StageIncomplete: too little was written; the rest is saved.
        CaiError: a server refused every request, or writing failed.
    """
    with SlCaiStage(config) as stage:
        stage.begin()
        report = stage.finish(await stage.generate(model), model)
    report.check()
    return report
