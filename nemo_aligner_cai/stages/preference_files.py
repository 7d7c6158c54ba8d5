# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Writes the files of PPO and the reward model: split by prompt, filtered by length, rendered and blended.

Input:  rows of `data.judged_row` (a prompt and its pairs)
Output: {"text": "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"} per prompt; per pair, a line
        with the chosen and a line with the rejected response, each ending as SFT taught it; optionally the pairs in
        other formats, with rewards if the judge gave probabilities
"""

import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import orjson

from nemo_aligner_cai.chat import Role
from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.formats.all_formats import format_named
from nemo_aligner_cai.data.formats.cai import RL_CAI
from nemo_aligner_cai.data.formats.files import read_records, write_records
from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.data.length import drop_long
from nemo_aligner_cai.data.records import Comparison, PromptOnly, Record
from nemo_aligner_cai.data.soft_labels import hard_pairs
from nemo_aligner_cai.data.split import assign_splits, split_counts
from nemo_aligner_cai.data.tokenizer import Tokenizer
from nemo_aligner_cai.engine.seeds import generator
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import PathLike, Row, RowCounts, write_jsonl
from nemo_aligner_cai.stages.report import TrainingFiles, blend_counts
from nemo_aligner_cai.stages.rl_outputs import KINDS, BlendFiles, Kind, PreferenceFiles, RlOutputs, SplitFiles

Item = TypeVar("Item")


class _Pair(NamedTuple):
    record: Comparison
    probability: float | None


def write_preference_files(
    files: PreferenceFiles, outputs: RlOutputs, *, tokenizer: Tokenizer | None, seed: int
) -> TrainingFiles:
    """Split, filter, render and blend.

    The file of comparisons is read. Without a tokenizer there is no length filter.

    Raises:
        UsageError: there are fewer prompts than splits.
        CaiError: the length filter leaves nothing of a split.
    """
    writer = _Writer(files, outputs.comparisons, tokenizer, seed)
    for split, offsets in writer.offsets().items():
        for kind in KINDS:
            writer.write_kind(split, kind, outputs.splits[split], offsets)
        writer.write_formats(outputs.splits[split], offsets)
    return TrainingFiles(writer.lines, writer.rows)


@dataclass
class _Writer:
    files: PreferenceFiles
    comparisons: Path
    tokenizer: Tokenizer | None
    seed: int
    lines: list[str] = field(default_factory=list[str])
    rows: dict[str, Any] = field(default_factory=dict[str, Any])

    def offsets(self) -> "dict[str, array[int]]":
        """Return the byte offsets of the rows of each split, in output order."""
        splits = self.files.splits
        offsets = {split: array("Q") for split in splits}
        if self.files.consecutive:
            total = sum(1 for _ in self._prompts())
            names = (name for name, count in split_counts(total, splits).items() for _ in range(count))
            for split, (_, offset) in zip(names, self._prompts(), strict=True):
                offsets[split].append(offset)
        else:
            assigned = assign_splits((prompt_id for prompt_id, _ in self._prompts()), splits, seed=self.seed)
            for prompt_id, offset in self._prompts():
                offsets[assigned[prompt_id]].append(offset)
        if self.files.shuffle:
            for split in splits:
                generator(self.seed, "shuffle", split).shuffle(offsets[split])
        return offsets

    def _prompts(self) -> Iterator[tuple[str, int]]:
        """Yield the id and the row's byte offset of each prompt to split, in file order."""
        offset = 0
        with self.comparisons.open("rb") as lines:
            for line in lines:
                row = JudgedRow.from_row(orjson.loads(line))
                if row.pairs or self.files.ppo_prompts == "all":
                    yield row.id, offset
                offset += len(line)

    def _judged(self, offsets: Iterable[int]) -> Iterator[JudgedRow]:
        """Yield the rows at these byte offsets; one is in memory at a time."""
        with self.comparisons.open("rb") as lines:
            for offset in offsets:
                lines.seek(offset)
                yield JudgedRow.from_row(orjson.loads(lines.readline()))

    def write_kind(self, split: str, kind: Kind, outputs: SplitFiles, offsets: Iterable[int]) -> None:
        """Write the split's own rows of this kind, and the blend."""
        path, counts = outputs.own[kind], RowCounts()
        own = self._prompt_rows(offsets, counts) if kind == "prompts" else self._comparison_rows(offsets, counts)
        counts.made = write_jsonl(path, own, overwrite=True)
        self.lines.append(f"{path}: {counts.made} rows")
        self._record(path, counts)
        if self.files.blend is None:
            return
        target = outputs.blended[kind]
        # In the output's folder, since the files are large and the default temporary folder may be small.
        with tempfile.TemporaryDirectory(prefix=".blend_", dir=target.parent) as folder:
            human = self._human(self.files.blend, split, kind, Path(folder))
            if kind == "comparisons" and self.files.soft_labels == "repeat":
                # Each of the stage's pairs has as many rows: the shares of the blend stay those of the pairs.
                human *= self.files.label_copies
            sources: list[PathLike] = [path, *human] if self.files.own == "first" else [*human, path]
            blend = blend_files(sources, target, seed=self.seed, format_name=KINDS[kind], overwrite=True)
        self.lines.append(f"{target}: {blend}")
        self.rows[target.name] = blend_counts(blend)

    def write_formats(self, outputs: SplitFiles, offsets: Iterable[int]) -> None:
        """Write the split's pairs in the additional formats."""
        for name, path in outputs.formats.items():
            records = (pair.record for pair in self._pairs(offsets, RowCounts()))
            self.lines.append(f"{path}: {write_records(path, records, name, overwrite=True)} rows")

    def _record(self, path: Path, counts: RowCounts) -> None:
        counts.check()
        self.rows[path.name] = counts.to_dict()
        if not counts.written:
            raise CaiError(f"{path}: no rows to write: {counts}; give more prompts or a longer sequence length")

    def _prompt_rows(self, offsets: Iterable[int], counts: RowCounts) -> Iterator[Row]:
        records = (PromptOnly(row.prompt, RL_CAI) for row in self._judged(offsets))
        for record in self._short("prompts", records, counts):
            if self.files.metadata:
                yield from format_named(KINDS["prompts"]).write(record, self.files.nemo_template)
            else:
                yield {"text": self.files.template.generation_prompt(record.prompt)}

    def _pairs(self, offsets: Iterable[int], counts: RowCounts) -> Iterator[_Pair]:
        pairs = (
            _Pair(record, pair.probability)
            for row in self._judged(offsets)
            for record, pair in zip(row.comparisons(RL_CAI), row.pairs, strict=True)
        )
        return self._short("comparisons", pairs, counts, lambda pair: pair.record)

    def _short(
        self,
        kind: Kind,
        items: Iterable[Item],
        counts: RowCounts,
        record_of: Callable[[Item], Record] = lambda item: cast(Record, item),
    ) -> Iterator[Item]:
        """Yield the items that the trainer of this kind does not truncate; without a length filter, all items."""
        length, tokenizer = self.files.seq_length(kind), self.tokenizer
        if length is not None and tokenizer is not None:
            name = KINDS[kind]
            yield from drop_long(
                items,
                name,
                tokenizer=tokenizer,
                seq_length=length,
                response_length=self.files.response_length(kind),
                counts=counts,
                record_of=record_of,
            )
            return
        for item in items:
            counts.rows_in += 1
            counts.written += 1
            yield item

    def _comparison_rows(self, offsets: Iterable[int], counts: RowCounts) -> Iterator[Row]:
        how, copies = self.files.soft_labels, self.files.label_copies
        for record, probability in self._pairs(offsets, counts):
            for better, worse in hard_pairs(record.chosen, record.rejected, probability, how=how, copies=copies):
                if self.files.metadata:
                    # Copies already express the probability, so their rows have no rewards.
                    hard = record if how == "threshold" else _without_rewards(record, better, worse)
                    yield from format_named(KINDS["comparisons"]).write(hard, self.files.nemo_template)
                else:
                    for text in (better, worse):
                        yield {"text": self.files.render(record.prompt.with_turn(Role.ASSISTANT, text))}

    def _human(self, blend: BlendFiles, split: str, kind: Kind, folder: Path) -> list[Path]:
        """Return the files to blend with; with a length filter, filtered copies in `folder`.

        The names of the copies become the origins of their rows.
        """
        sources = [Path(path) for path in blend.files[split].get(kind, ())]
        if self.files.seq_length(kind) is None:
            return sources
        parts = [folder / f"{blend.name}_{split}_{kind}.jsonl"]
        if len(sources) > 1:
            parts = [parts[0].with_stem(f"{parts[0].stem}_{number}") for number in range(len(sources))]
        for source, part in zip(sources, parts, strict=True):
            read, counts = RowCounts(), RowCounts()
            records = self._short(kind, read_records(source, KINDS[kind], counts=read), counts)
            write_records(part, records, KINDS[kind], overwrite=True)
            self.rows[source.name] = read.to_dict()
            self._record(part, counts)
        return parts


def _without_rewards(record: Comparison, better: str, worse: str) -> Comparison:
    return replace(record, chosen=better, rejected=worse, chosen_reward=None, rejected_reward=None)


def upstream_candidates(rows: Iterable[JudgedRow]) -> Iterator[dict[str, Any]]:
    """Yield the rows of upstream's list of candidates."""
    for row in rows:
        yield {"prompt": row.prompt.messages[-1].content} | _responses(row)


def upstream_preferences(rows: Iterable[JudgedRow]) -> Iterator[dict[str, Any]]:
    """Yield the rows of upstream's list of preferences."""
    for row in rows:
        for pair in row.pairs:
            yield {
                "prompt": row.prompt.messages[-1].content,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "raw": {
                    "chosen_response_key": pair.chosen_key,
                    "rejected_response_key": pair.rejected_key,
                    "explanation": pair.explanation,
                    "probability": pair.probability,
                    "principle": pair.principle,
                    "all_responses": _responses(row),
                },
            }


def _responses(row: JudgedRow) -> dict[str, str]:
    return {one.key: one.text for one in sorted(row.candidates, key=lambda one: one.key)}
