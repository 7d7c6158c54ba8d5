# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""One evaluation: replies and grades of each model, pairwise comparisons, figures, files.

Every model has one run of the engine with its own journal, so an interrupted evaluation resumes within a model. The
result has no time stamps: an evaluation that was killed and resumed gives the same bytes.
"""

from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from nemo_aligner_cai import __version__
from nemo_aligner_cai.engine.run_stage import Output, companion, left_out_path, run_stage
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.eval_log import write_eval_log
from nemo_aligner_cai.evaluation.figures import Cells
from nemo_aligner_cai.evaluation.gold import gold_agreements
from nemo_aligner_cai.evaluation.inputs import EvaluationInputs
from nemo_aligner_cai.evaluation.preferences.pairwise import model_replies, pairwise_results
from nemo_aligner_cai.evaluation.results import Evaluation, ModelFacts, Pairwise, ResultFiles, RunFacts
from nemo_aligner_cai.evaluation.self_grading import same_model, self_grading_error
from nemo_aligner_cai.evaluation.settings import EvaluatedModel
from nemo_aligner_cai.files import Row, read_jsonl, write_json, write_jsonl
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.judges.base import Judge
from nemo_aligner_cai.judges.steps import JudgePipeline
from nemo_aligner_cai.models.base import ModelClient
from nemo_aligner_cai.stages.manifest import Manifest, ManifestLocation, hashes
from nemo_aligner_cai.stages.run_files import check_files, input_files

T = TypeVar("T")
_COMPARISONS = "comparisons"


class Ask(Protocol):
    """Runs a coroutine that uses clients, and closes them."""

    def __call__(self, work: Coroutine[Any, Any, T], *clients: ModelClient) -> T:
        """Return the coroutine's result."""
        ...


class EvaluationRun:
    """One evaluation: `begin`, then `execute`.

    Attributes:
        inputs: the checked inputs.
        summaries: the counts of each model's run, and of the comparisons.
    """

    def __init__(self, inputs: EvaluationInputs, ask: Ask) -> None:
        self.inputs = inputs
        self.summaries: dict[str, Summary] = {}
        self._ask = ask
        self._identities: dict[str, dict[str, Any]] = {}
        self._grader_identity: dict[str, Any] | None = None
        self._same_as: str | None = None

    def begin(self) -> None:
        """Check outputs and hash the inputs, before the first request.

        Raises:
            UsageError: an output exists and may not be replaced, or is an input.
        """
        inputs, config, files = self.inputs, self.inputs.config, self.inputs.files
        read = input_files(*inputs.sources)
        stages = [(files.rows(model.name), inputs.journal(model)) for model in inputs.models if inputs.calls(model)]
        if inputs.judge is not None:
            stages.append((files.comparisons, companion(files.comparisons, "journal.jsonl")))
        for rows, journal in stages:
            flags = {"resume": config.run.resume, "overwrite": config.run.overwrite}
            check_files(read, [rows, left_out_path(rows)], journal=journal, manifest=files.manifest, **flags)
        logs = [files.log(model.name) for model in inputs.models]
        for path in (files.result, files.completions, files.grades, *logs):
            check_output(path, overwrite=self.inputs.config.run.replaces)
        location = ManifestLocation(
            files.manifest, files.result.name, "output", (files.folder,), value=str(files.folder)
        )
        settings = config.record
        if settings is None:
            settings = config.model_dump(mode="json", exclude={"output"}) | {"output": str(files.folder)}
        self._manifest = Manifest.begin(location, settings, read)

    def execute(self) -> Evaluation:
        """Run all models and graders, and write all files.

        Raises:
            UsageError: the grader is one of the models.
            ServerRefused: a server rejects every request. Finished calls are in the journals.
        """
        inputs = self.inputs
        for model in inputs.models:
            with model.client() as client, self._grader() as grader:
                work = self._run_samples(model, client, grader)
                self.summaries[model.name] = self._ask(work, *(one for one in (client, grader) if one is not None))
        pairwise = self._compare()
        evaluation = self._evaluation(pairwise)
        self._write(evaluation)
        return evaluation

    def _grader(self) -> AbstractContextManager[ModelClient | None]:
        grader = self.inputs.grader_model
        return grader.client() if grader is not None else nullcontext()

    async def _run_samples(
        self, model: EvaluatedModel, client: ModelClient | None, grader: ModelClient | None
    ) -> Summary:
        inputs, rows = self.inputs, self.inputs.files.rows(model.name)
        self._identities[model.name] = inputs.saved_identity(model.name) if client is None else dict(client.identity)
        self._grader_identity = dict(grader.identity) if grader is not None else None
        if client is not None and grader is not None and await same_model(client, grader):
            self._same_as = model.name
            if not inputs.config.allow_self_grading:
                assert inputs.grader_model is not None, "there is a client of it"
                raise self_grading_error(model, inputs.grader_model)
        # Before the first file of an earlier evaluation is replaced, and after the last error that replaces none.
        self._manifest.announce(self._outputs())
        pipeline = inputs.pipeline(client, grader)
        steps = pipeline.steps()
        records = list(inputs.records(model))
        if not steps:
            summary = Summary()
            summary.counts.rows_in = summary.counts.written = len(records)
            made = (pipeline.to_row(model.name, record) for record in records)
            write_jsonl(rows, made, overwrite=self.inputs.config.run.replaces)
            return summary
        return await run_stage(
            f"evaluate {model.name}",
            records,
            steps,
            [Output(rows, lambda sample: [pipeline.to_row(model.name, sample)], include_skipped=True)],
            journal_path=inputs.journal(model),
            run=inputs.config.run,
            total=len(records),
        )

    def rows(self) -> Iterator[Row]:
        """Yield the graded replies of all models in order."""
        for model in self.inputs.models:
            for _, row in read_jsonl(self.inputs.files.rows(model.name)):
                yield row

    def _compare(self) -> tuple[Pairwise, ...]:
        inputs, files = self.inputs, self.inputs.files
        if inputs.judge is None:
            return ()
        with self._grader() as client:
            assert client is not None, "EvaluationInputs has checked that there is a grader model"
            self.summaries[_COMPARISONS] = self._ask(self._judge_pairs(inputs.judge, client), client)
        return pairwise_results(
            (row for _, row in read_jsonl(files.comparisons)),
            [model.name for model in inputs.models],
            judge=inputs.judge.name,
            judge_model=client.identity,
            baseline=inputs.config.baseline,
        )

    async def _judge_pairs(self, judge: Judge, client: ModelClient) -> Summary:
        inputs, files = self.inputs, self.inputs.files
        samples = model_replies(self.rows())
        return await run_stage(
            _COMPARISONS,
            samples,
            JudgePipeline(judge, client).steps(len(inputs.models)),
            [Output(files.comparisons, lambda sample: [sample.to_row()], include_skipped=True)],
            journal_path=companion(files.comparisons, "journal.jsonl"),
            run=inputs.config.run,
            total=len(samples),
        )

    def _evaluation(self, pairwise: Sequence[Pairwise]) -> Evaluation:
        inputs, config = self.inputs, self.inputs.config
        cells = Cells(inputs.graders)
        counts = {model.name: _ReplyCounts() for model in inputs.models}
        for row in self.rows():
            cells.add(row)
            counts[row["model"]].add(row)
        results = cells.results()
        return Evaluation(
            run=RunFacts(
                seed=config.run.seed,
                baseline=config.baseline,
                sampling=config.sampling.to_dict(),
                settings=config.model_dump(mode="json", include={"limit", "judge", "allow_self_grading"}),
                version=__version__,
            ),
            models=tuple(
                ModelFacts(
                    name=model.name,
                    kind=model.kind,
                    source=model.source,
                    identity=self._identities[model.name],
                    saved=inputs.saved_facts(model.name),
                    **vars(counts[model.name]),
                )
                for model in inputs.models
            ),
            sets=tuple(one.facts for one in inputs.sets),
            graders=tuple(
                cells.facts(grader, model=self._grader_identity, same_as=self._same_as) for grader in inputs.graders
            ),
            results=results,
            differences=cells.differences(config.baseline),
            pairwise=tuple(pairwise),
            gold=tuple(
                found
                for gold, graders in inputs.gold
                for found in gold_agreements(gold, graders, self.rows(), results)
            ),
            files=ResultFiles(
                completions=inputs.files.completions.name,
                grades=inputs.files.grades.name,
                comparisons=inputs.files.comparisons.name if inputs.judge is not None else None,
                logs={model.name: self._relative(inputs.files.log(model.name)) for model in inputs.models},
            ),
        )

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.inputs.files.folder).as_posix()

    def _write(self, evaluation: Evaluation) -> None:
        files = self.inputs.files
        write_jsonl(files.completions, (_without_grades(row) for row in self.rows()), overwrite=True)
        write_jsonl(files.grades, (grade for row in self.rows() for grade in _grades(row)), overwrite=True)
        for model in self.inputs.models:
            rows = (row for _, row in read_jsonl(files.rows(model.name)))
            write_eval_log(files.log(model.name), evaluation, model.name, rows)
        write_json(files.result, evaluation.model_dump(mode="json"), overwrite=True)
        self._manifest.write(
            hashes(self._outputs()),
            summary={name: summary.to_dict() for name, summary in self.summaries.items()},
            models=self._identities | ({"grader": self._grader_identity} if self._grader_identity else {}),
        )

    def _outputs(self) -> list[Path]:
        files, names = self.inputs.files, [model.name for model in self.inputs.models]
        written = [files.result, files.completions, files.grades, *map(files.log, names)]
        written += [files.comparisons] if self.inputs.judge is not None else []
        return [*written, *map(files.rows, names)]

    def check(self) -> None:
        """Raises CaiError if calls failed for too many prompts. Call it after `execute`, which saves everything."""
        for name, summary in self.summaries.items():
            try:
                summary.check_faults(self.inputs.config.run.max_dropped)
            except CaiError as error:
                raise CaiError(f"{name}: {error}") from error


class _ReplyCounts:
    """Replies of one model."""

    def __init__(self) -> None:
        self.completions = self.empty = self.failed = self.cut = 0

    def add(self, row: Row) -> None:
        self.completions += 1
        self.cut += row["finish_reason"] == "length"
        self.failed += row["reply"] is None
        self.empty += row["reply"] is not None and not row["reply"].strip()


def _without_grades(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "grades"}


def _grades(row: Row) -> Iterator[Row]:
    shared = {key: row[key] for key in ("model", "set", "side", "id", "sample", "key", "category")}
    for grade in row["grades"]:
        yield shared | grade
