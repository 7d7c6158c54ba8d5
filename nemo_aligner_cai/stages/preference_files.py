# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The one writer of the files that PPO and the reward model train on: split by prompt, filtered, rendered, blended.

Input:  rows of `data.judged_row` (a prompt and its pairs)
Output: {"text": "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"} per prompt, and per pair a
        line of the chosen and a line of the rejected answer, each ending as SFT taught it; on demand, the pairs in
        other formats, with rewards where the judge gave probabilities
"""

import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from nemo_aligner_cai.chat import Role
from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.formats.cai import RL_CAI
from nemo_aligner_cai.data.formats.files import format_named, read_records, write_records
from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.data.length import drop_long
from nemo_aligner_cai.data.records import Comparison, PromptOnly, Record
from nemo_aligner_cai.data.soft_labels import hard_pairs
from nemo_aligner_cai.data.split import assign_splits, split_counts
from nemo_aligner_cai.data.tokenizer import Tokenizer
from nemo_aligner_cai.engine.seeds import generator
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import PathLike, Row, RowCounts, write_jsonl
from nemo_aligner_cai.stages.report import Written, blend_counts
from nemo_aligner_cai.stages.rl_outputs import KINDS, BlendFiles, Kind, PreferenceFiles, RlOutputs, SplitFiles

Item = TypeVar("Item")


class _Pair(NamedTuple):
    record: Comparison
    probability: float | None


def _itself(record: Record) -> Record:
    return record


def _record_of(pair: _Pair) -> Comparison:
    return pair.record


def write_preference_files(
    files: PreferenceFiles, outputs: RlOutputs, *, tokenizer: Tokenizer | None, seed: int
) -> Written:
    """Split, filter, render and blend.

    Args:
        files: how.
        outputs: where; the file of comparisons is read.
        tokenizer: the model's, None for no length filter.
        seed: the run's.

    Raises:
        UsageError: there are fewer prompts than splits.
        CaiError: the length filter leaves nothing of a split.
    """
    writer = _Writer(files, outputs.comparisons, tokenizer, seed)
    for split, places in writer.places().items():
        for kind in KINDS:
            writer.write_kind(split, kind, outputs.splits[split], places)
        writer.write_formats(outputs.splits[split], places)
    return Written(writer.lines, writer.rows)


@dataclass
class _Writer:
    files: PreferenceFiles
    comparisons: Path
    tokenizer: Tokenizer | None
    seed: int
    lines: list[str] = field(default_factory=list[str])
    rows: dict[str, Any] = field(default_factory=dict[str, Any])

    def places(self) -> "dict[str, array[int]]":
        """Where the rows of each split's prompts begin, in the order in which they are to be written."""
        splits = self.files.splits
        places = {split: array("Q") for split in splits}
        if self.files.consecutive:
            total = sum(1 for _ in self._prompts())
            names = (name for name, count in split_counts(total, splits).items() for _ in range(count))
            for split, (_, place) in zip(names, self._prompts(), strict=True):
                places[split].append(place)
        else:
            assigned = assign_splits((name for name, _ in self._prompts()), splits, seed=self.seed)
            for name, place in self._prompts():
                places[assigned[name]].append(place)
        if self.files.shuffle:
            for split in splits:
                generator(self.seed, "shuffle", split).shuffle(places[split])
        return places

    def _prompts(self) -> Iterator[tuple[str, int]]:
        """The id of each prompt that is split, and where its row begins, in the order of the file."""
        place = 0
        with self.comparisons.open("rb") as lines:
            for line in lines:
                row = JudgedRow.from_row(orjson.loads(line))
                if row.pairs or self.files.ppo_prompts == "all":
                    yield row.id, place
                place += len(line)

    def _judged(self, places: Iterable[int]) -> Iterator[JudgedRow]:
        """The rows that begin at these places, in this order; one is in memory at a time."""
        with self.comparisons.open("rb") as lines:
            for place in places:
                lines.seek(place)
                yield JudgedRow.from_row(orjson.loads(lines.readline()))

    def write_kind(self, split: str, kind: Kind, outputs: SplitFiles, places: Iterable[int]) -> None:
        """Write the split's own rows of a kind, and the blend."""
        path, counts = outputs.own[kind], RowCounts()
        own = self._prompt_rows(places, counts) if kind == "prompts" else self._comparison_rows(places, counts)
        counts.made = write_jsonl(path, own, overwrite=True)
        self.lines.append(f"{path}: {counts.made} rows")
        self._count(path, counts)
        if self.files.blend is None:
            return
        target = outputs.blended[kind]
        # In the folder of the output: what is large stays on its disk.
        with tempfile.TemporaryDirectory(prefix=".blend_", dir=target.parent) as folder:
            human = self._human(self.files.blend, split, kind, Path(folder))
            sources: list[PathLike] = [path, *human] if self.files.own == "first" else [*human, path]
            blend = blend_files(sources, target, seed=self.seed, format_name=KINDS[kind], overwrite=True)
        self.lines.append(f"{target}: {blend}")
        self.rows[target.name] = blend_counts(blend)

    def write_formats(self, outputs: SplitFiles, places: Iterable[int]) -> None:
        """Write the split's pairs in other formats."""
        for name, path in outputs.formats.items():
            records = map(_record_of, self._pairs(places, RowCounts()))
            self.lines.append(f"{path}: {write_records(path, records, name, overwrite=True)} rows")

    def _count(self, path: Path, counts: RowCounts) -> None:
        counts.check()
        self.rows[path.name] = counts.to_dict()
        if not counts.written:
            raise CaiError(
                f"{path}: nothing is left to write: {counts}; give more prompts or a longer sequence length"
            )

    def _prompt_rows(self, places: Iterable[int], counts: RowCounts) -> Iterator[Row]:
        records: Iterable[PromptOnly] = (PromptOnly(row.prompt, RL_CAI) for row in self._judged(places))
        for record in self._short("prompts", records, _itself, counts):
            if self.files.metadata:
                yield from format_named(KINDS["prompts"]).write(record, self.files.nemo_template)
            else:
                yield {"text": self.files.template.generation_prompt(record.prompt)}

    def _pairs(self, places: Iterable[int], counts: RowCounts) -> Iterator[_Pair]:
        pairs = (
            _Pair(record, pair.probability)
            for row in self._judged(places)
            for record, pair in zip(row.comparisons(RL_CAI), row.pairs, strict=True)
        )
        return self._short("comparisons", pairs, _record_of, counts)

    def _short(
        self, kind: Kind, items: Iterable[Item], record_of: Callable[[Item], Record], counts: RowCounts
    ) -> Iterator[Item]:
        """The items that the trainer of a kind uses whole; all of them if there is no length filter."""
        length, tokenizer = self.files.seq_length(kind), self.tokenizer
        if length is not None and tokenizer is not None:
            yield from drop_long(
                items,
                KINDS[kind],
                tokenizer=tokenizer,
                seq_length=length,
                counts=counts,
                record_of=record_of,
            )
            return
        for item in items:
            counts.rows_in += 1
            counts.written += 1
            yield item

    def _comparison_rows(self, places: Iterable[int], counts: RowCounts) -> Iterator[Row]:
        for record, probability in self._pairs(places, counts):
            how, copies = self.files.soft_labels, self.files.label_copies
            for better, worse in hard_pairs(record.chosen, record.rejected, probability, how=how, copies=copies):
                if self.files.metadata:
                    # The rewards say how probable the label is, which the copies say already.
                    hard = record if how == "threshold" else _without_rewards(record, better, worse)
                    yield from format_named(KINDS["comparisons"]).write(hard, self.files.nemo_template)
                else:
                    for text in (better, worse):
                        yield {"text": self.files.render(record.prompt.with_turn(Role.ASSISTANT, text))}

    def _human(self, blend: BlendFiles, split: str, kind: Kind, folder: Path) -> list[Path]:
        """The files to blend with; after the length filter, copies in `folder`, whose names their rows get."""
        sources = [Path(path) for path in blend.files[split].get(kind, ())]
        if self.files.seq_length(kind) is None:
            return sources
        parts = [folder / f"{blend.name}_{split}_{kind}.jsonl"]
        if len(sources) > 1:
            parts = [parts[0].with_stem(f"{parts[0].stem}_{number}") for number in range(len(sources))]
        for source, part in zip(sources, parts, strict=True):
            read, counts = RowCounts(), RowCounts()
            records = self._short(kind, read_records(source, KINDS[kind], counts=read), _itself, counts)
            write_records(part, records, KINDS[kind], overwrite=True)
            self.rows[source.name] = read.to_dict()
            self._count(part, counts)
        return parts


def _without_rewards(record: Comparison, better: str, worse: str) -> Comparison:
    return replace(record, chosen=better, rejected=worse, chosen_reward=None, rejected_reward=None)


def upstream_lists(rows: Iterable[JudgedRow]) -> Iterator[dict[str, Any]]:
    """The rows of upstream's list of candidates."""
    for row in rows:
        yield {"prompt": row.prompt.messages[-1].content} | _responses(row)


def upstream_preferences(rows: Iterable[JudgedRow]) -> Iterator[dict[str, Any]]:
    """The rows of upstream's list of preferences."""
    return chain.from_iterable(map(_preferences, rows))


def _preferences(row: JudgedRow) -> Iterator[dict[str, Any]]:
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
