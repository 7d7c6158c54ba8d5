# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The rows that a run must have written, computed one call after the other from the stand-in's replies.

Neither engine, journal nor HTTP takes part: each request's body goes to the function that the stand-in answers with,
and its answer to the step that asked. What a run writes in another way was lost, doubled or put in the wrong place.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from benchmarks.command import COMPARISONS, PROMPTS, REVISIONS, RlCai, SlCai
from benchmarks.standin.replies import Lengths, content_digest, reply_to
from benchmarks.standin.server import answer_to, rendered
from nemo_aligner_cai.commands.generate import rl_cai, sl_cai
from nemo_aligner_cai.engine.engine import HasId, SkipRecord, Step
from nemo_aligner_cai.engine.run_stage import left_out_path
from nemo_aligner_cai.engine.seeds import derive_seed
from nemo_aligner_cai.files import read_jsonl
from nemo_aligner_cai.models import Completion, OpenAIClient, Request
from nemo_aligner_cai.stages.comparisons import judged_row
from nemo_aligner_cai.stages.revisions import revision_row
from nemo_aligner_cai.stages.rl_cai import RlCaiStage
from nemo_aligner_cai.stages.sl_cai import SlCaiStage

R = TypeVar("R", bound=HasId)
_SEED = 1234
"""The commands' default."""


class Oracle(OpenAIClient):
    """The package's client with the stand-in's replies in place of the network."""

    def __init__(self, lengths: Lengths) -> None:
        """`lengths` are those of the stand-in."""
        super().__init__("http://127.0.0.1:1/v1", "standin")
        self._lengths = lengths

    async def _send(
        self,
        body: Mapping[str, Any],
        request: Request,
        parse: Callable[[Any], Completion],
        probe: Callable[[], Mapping[str, Any]],
    ) -> Completion:
        digest = content_digest(body)
        return parse(answer_to(body, digest, rendered(body), reply_to(body, digest, self._lengths)))


@dataclass(frozen=True)
class Findings:
    """A run's rows against those that are due, in prompts.

    Attributes:
        due: prompts of the run.
        rows: rows written.
        left_out: prompts that the run lists as left out.
        lost: prompts without the row, or without the reason to leave them out, that is due.
        doubled: rows beyond the first of a prompt.
        mislabeled: rows with another content than the one that is due, or of no prompt of the run.
    """

    due: int = 0
    rows: int = 0
    left_out: int = 0
    lost: int = 0
    doubled: int = 0
    mislabeled: int = 0

    def plus(self, other: "Findings") -> "Findings":
        """The sum of both."""
        return Findings(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def check(run: SlCai, lengths: Lengths) -> Findings:
    """Compare the rows of a finished run with those that are due."""
    is_rl = isinstance(run, RlCai)
    rows, reasons = asyncio.run(_rl(run, lengths) if is_rl else _sl(run, lengths))
    path = run.folder / (COMPARISONS if is_rl else REVISIONS)
    written = [row for _, row in read_jsonl(path)]
    skipped = {row["id"]: row["reason"] for _, row in read_jsonl(left_out_path(path))}
    ids = Counter(row["id"] for row in written)
    return Findings(
        due=len(rows) + len(reasons.keys() - rows.keys()),
        rows=len(written),
        left_out=len(skipped),
        lost=len(rows.keys() - ids.keys()) + len(reasons.items() ^ skipped.items()),
        doubled=ids.total() - len(ids),
        mislabeled=sum(rows.get(row["id"]) != row for row in written),
    )


Expected = tuple[dict[str, Any], dict[str, str]]
"""The rows by id, and the reason of each prompt that is left out by id."""


async def _sl(run: SlCai, lengths: Lengths) -> Expected:
    args = sl_cai.build_parser().parse_args(run.command()[2:])
    args.red_teaming_prompts_dataset_path = str(run.folder / PROMPTS)
    args.helpfulness_dataset_path = None
    rows, reasons = dict[str, Any](), dict[str, str]()
    with SlCaiStage(sl_cai.config_of(args, run.folder)) as stage:
        pipeline = stage.pipeline(Oracle(lengths))
        steps = pipeline.steps()
        for sample in stage.records():
            sample, reason = await _one_by_one(sample, steps)
            if reason is None:
                rows[sample.id] = _as_read(revision_row(sample, pipeline.templates))
            else:
                reasons[sample.id] = reason
    return rows, reasons


async def _rl(run: SlCai, lengths: Lengths) -> Expected:
    args = rl_cai.build_parser().parse_args(run.command()[2:])
    args.red_teaming_file_path = str(run.folder / PROMPTS)
    stage = RlCaiStage(rl_cai.config_of(args, run.folder))
    rows, reasons = dict[str, Any](), dict[str, str]()
    steps = stage.pipeline(Oracle(lengths), Oracle(lengths)).steps()
    for sample in stage.records():
        sample, reason = await _one_by_one(sample, steps)
        # A prompt without a pair has a row, too, with its verdicts.
        rows[sample.id] = _as_read(judged_row(sample).to_row())
        if reason is not None:
            reasons[sample.id] = reason
    return rows, reasons


async def _one_by_one(record: R, steps: Sequence[Step[R]]) -> tuple[R, str | None]:
    """Return the record after all steps, and the reason to leave it out, if any."""
    for step in steps:
        completions: list[Completion] = []
        for number, request in enumerate(step.requests(record)):
            seed = derive_seed(_SEED, record.id, step.name, number) if request.is_random else None
            completions.append(await step.client.complete(request.scheduled(seed=seed, priority=0)))
        try:
            record = step.absorb(record, completions)
        except SkipRecord as skipped:
            return (record if skipped.record is None else skipped.record), skipped.reason
    return record, None


def _as_read(row: Mapping[str, Any]) -> Any:
    return orjson.loads(orjson.dumps(row))
