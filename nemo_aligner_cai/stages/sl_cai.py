# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The SL-CAI stage: red-team prompts -> critiques and revisions -> the files that SFT trains on.

Input:  SlCaiConfig(prompts={"path": "red_team.jsonl"}, files={"helpful": "helpful.jsonl"}, ...) and a model
Output: the files of `SlOutputs`, and a `StageReport` of what was done

Flags, config groups and `cai run` only build the configuration; nothing else decides what is written.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import Field, model_validator

from nemo_aligner_cai.constitution import load_constitution, packaged
from nemo_aligner_cai.constitution.prompt_templates import load_prompt_templates
from nemo_aligner_cai.data.length import EMPTY_SYSTEM_MERGED, merges_empty_system
from nemo_aligner_cai.data.tokenizer import tokenizer_path
from nemo_aligner_cai.engine.engine import Step
from nemo_aligner_cai.engine.json_list import write_json_list
from nemo_aligner_cai.engine.resuming import adopt
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts, read_jsonl, require_file
from nemo_aligner_cai.models.base import ModelClient, Sampling
from nemo_aligner_cai.prompts import read_few_shots
from nemo_aligner_cai.sections import Config
from nemo_aligner_cai.stages.checks import check_files, input_files
from nemo_aligner_cai.stages.manifest import Manifest, hashes
from nemo_aligner_cai.stages.report import StageReport, Written
from nemo_aligner_cai.stages.revisions import Revised, RevisionPipeline, fresh_records, generate_revisions
from nemo_aligner_cai.stages.settings import PromptSource, RunSettings
from nemo_aligner_cai.stages.sft_files import SftFiles, SlOutputs, prepare_helpful, write_sft_files


class SlCaiConfig(Config):
    """All that SL-CAI data depend on.

    Attributes:
        prompts: the red-team prompts.
        constitution: a file with critique and revision requests.
        few_shots: a file of examples of answer, critique and revision; None shows none.
        sampling: how all replies are drawn.
        num_revisions: rounds of critique and revision.
        keep_unrevised: keep answers that the revision leaves as they are.
        files: blend, length filter and validation split.
        outputs: where everything goes.
        run: seed, resume and the like.
        record: the settings that the manifest names; None for this configuration.
    """

    prompts: PromptSource
    constitution: Path = Field(default_factory=packaged)
    few_shots: Path | None = Field(default_factory=lambda: packaged("few_shots.json"))
    sampling: Sampling = Sampling()
    num_revisions: int = Field(default=1, gt=0)
    keep_unrevised: bool = False
    files: SftFiles
    outputs: SlOutputs
    run: RunSettings = RunSettings()
    record: dict[str, Any] | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _fits(self) -> "SlCaiConfig":
        if (self.files.validation_share is None) != (self.outputs.validation is None):
            raise UsageError("a validation share needs the name of a validation file, and the other way around")
        return self


class SlCaiStage:
    """One run of the stage: `check_inputs`, `begin`, `generate`, `finish`, in this order; use it in a `with` block."""

    def __init__(self, config: SlCaiConfig) -> None:
        """Read the constitution, the examples and the tokenizer; raises UsageError for what is wrong in them."""
        self.config = config
        self.tokenizer = config.files.load_tokenizer()
        path = require_file(config.constitution)
        self.constitution, self.wording = load_constitution(path), load_prompt_templates(path)
        self.few_shots = read_few_shots(config.few_shots) if config.few_shots else ()
        self.total = 0
        self._scratch = Path()
        self._cleanup = ExitStack()
        self._helpful, self._lines = Path(), list[str]()
        self._manifest: Manifest | None = None

    def __enter__(self) -> "SlCaiStage":
        self._scratch = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def steps(self, model: ModelClient) -> list[Step[Revised]]:
        """The chain of calls for each prompt; raises UsageError for settings that cannot work."""
        config = self.config
        return RevisionPipeline(
            model,
            self.constitution,
            self.few_shots,
            self.wording,
            config.sampling,
            config.run.seed,
            config.num_revisions,
            config.keep_unrevised,
        ).steps()

    def records(self, first: int | None = None) -> Iterator[Revised]:
        """The prompts, or the first ones, as records that nothing has been done with."""
        return fresh_records(self.config.prompts.read(RowCounts(), first=first))

    def check_inputs(self) -> None:
        """Read all inputs once; raises UsageError or FormatError for what is wrong in them."""
        config = self.config
        if self.tokenizer is not None and not config.prompts.system_message:
            self._require_system()
        self.total = config.prompts.count()
        if config.files.helpful is not None:
            folder = self._scratch / "helpful"
            message = config.prompts.system_message
            self._helpful, self._lines = prepare_helpful(config.files, folder, system_message=message)

    def _require_system(self) -> None:
        """Raises UsageError if SFT would stop at every prompt without a system message, before any is paid for."""
        assert self.tokenizer is not None, "asked for only with a length filter"
        everything = self.config.prompts.model_copy(update={"limit": None}).read(RowCounts())
        if merges_empty_system(self.tokenizer) and any(not prompt.conversation.system for prompt in everything):
            raise UsageError(f"--tokenizer-model {self.config.files.tokenizer}: {EMPTY_SYSTEM_MERGED}")

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
        if config.files.helpful is None:
            prepare_helpful(config.files, Path(), system_message="")
        self.check_inputs()
        self.adopt_journal()
        inputs = input_files(
            *(config.prompts.path, config.few_shots, config.constitution, config.files.helpful),
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

    async def generate(self, model: ModelClient) -> Summary:
        """Ask the model, which is left open; see `generate_revisions`."""
        config, outputs, read = self.config, self.config.outputs, RowCounts()
        return await generate_revisions(
            config.prompts.read(read),
            model,
            self.constitution,
            few_shots=self.few_shots,
            wording=self.wording,
            sampling=config.sampling,
            out_path=outputs.revisions,
            journal_path=outputs.journal,
            sft_path=outputs.samples,
            num_revisions=config.num_revisions,
            keep_unrevised=config.keep_unrevised,
            options=config.run.options(self.total),
            read=read,
        )

    def finish(self, summary: Summary, model: ModelClient) -> StageReport:
        """Write the files that are made of the revisions, and the manifest; `StageReport.check` follows."""
        config, outputs, manifest = self.config, self.config.outputs, self._manifest
        if manifest is not None:
            manifest.announce(outputs.all)
        if outputs.steps is not None:
            write_json_list(outputs.steps, _steps(outputs.revisions), overwrite=True)
        written = Written()
        if summary.counts.written:
            seed = config.run.seed
            written = write_sft_files(config.files, outputs, self._helpful, tokenizer=self.tokenizer, seed=seed)
        made = bool(summary.counts.written) and written.missing is None
        lines = [*self._lines, *written.lines]
        if manifest is not None:
            lines += manifest.remove_stale(outputs.all if made else outputs.raw, outputs.all)
        report = StageReport(
            "SL-CAI",
            summary,
            {"helpful-only": model.identity},
            written.rows or {},
            hashes(outputs.all),
            lines,
            config.run.max_dropped,
            written.missing,
        )
        if manifest is not None:
            manifest.write(report.files, **report.to_dict())
        return report


def _steps(revisions: Path) -> Iterator[dict[str, str]]:
    """Upstream's rows; of several rounds the last one, whose revision is trained on."""
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
    """Make SL-CAI data.

    Args:
        config: all settings.
        model: the helpful-only model; left open.

    Returns:
        What was done, and which files were written.

    Raises:
        UsageError: something is wrong with the settings, inputs or outputs; nothing was asked.
        StageIncomplete: too little was written; what there is, is saved.
        CaiError: a server refused every request, or writing failed.
    """
    with SlCaiStage(config) as stage:
        stage.begin()
        report = stage.finish(await stage.generate(model), model)
    report.check()
    return report
