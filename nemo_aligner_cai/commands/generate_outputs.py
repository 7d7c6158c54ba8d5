# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
r"""The files that PPO and the reward model train on, out of RL-CAI comparisons: split by prompt, rendered, blended.

Input:  rows of `generate.comparisons` (a prompt and its pairs); those without a pair are passed over
Output: {"text": "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"} per prompt, and per pair a
        line of the chosen and a line of the rejected answer, each ending as SFT taught it; on demand, the pairs in
        other formats, with rewards where the judge gave probabilities
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import orjson

from nemo_aligner_cai.commands.generate_manifest import Place
from nemo_aligner_cai.conversation import NEMO_CHAT, ChatTemplate, Conversation, Role, StringTemplate
from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.formats import format_named, validate_file, write_records
from nemo_aligner_cai.data.formats_cai import RL_CAI
from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.data.records import Comparison
from nemo_aligner_cai.data.split import NAME, NAME_FORM, Splits, assign_splits, parse_mapping, split_counts
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, Row, require_file, write_jsonl
from nemo_aligner_cai.generate.seeds import generator
from nemo_aligner_cai.generate.soft_labels import SoftLabels, hard_pairs
from nemo_aligner_cai.generate.stage import left_out_path

DEFAULT_PREFIX = "cai_rlaif"
KINDS = {"prompts": "ppo-prompts", "comparisons": "rm-comparisons"}
"""Upstream's words for the two kinds of file, and our names of their formats."""


@dataclass(frozen=True)
class Blending:
    """What --blend-with says: a name, and files by split and kind."""

    name: str
    files: Mapping[str, Mapping[str, Sequence[Path]]]

    @property
    def paths(self) -> list[Path]:
        """All the files."""
        return [path for kinds in self.files.values() for paths in kinds.values() for path in paths]

    @classmethod
    def parse(cls, text: str, splits: Splits) -> "Blending":
        """Read the flag and check its files.

        Raises:
            UsageError: it is not as the message says, a file cannot be read, or a row in it is wrong.
        """
        form = "{'name': NAME, SPLIT: {'prompts': [FILES], 'comparisons': [FILES]}, ...}"
        entries = parse_mapping("--blend-with", text, form)
        name = entries.pop("name", None)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UsageError(f"--blend-with needs a 'name', which becomes part of the file names: {NAME_FORM}")
        if set(entries) != set(splits):
            raise UsageError(
                f"--blend-with needs the splits {', '.join(splits)}; it has {', '.join(entries) or 'none'}"
            )
        files = {split: {kind: _files(entry, split, kind) for kind in KINDS} for split, entry in entries.items()}
        return cls(name, files)


def _files(entry: Any, split: str, kind: str) -> list[Path]:
    listed: Any = cast(dict[str, Any], entry).get(kind) if isinstance(entry, dict) else None
    if isinstance(listed, str):
        listed = [listed]
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in cast(list[Any], listed)):
        raise UsageError(f"--blend-with: {split!r} needs the key {kind!r} with a list of files")
    paths = [require_file(item) for item in cast(list[str], listed)]
    for path in paths:
        validate_file(path, KINDS[kind])
    return paths


@dataclass(frozen=True)
class PreferenceFiles:
    """Every file of an RL-CAI run, under upstream's names where upstream has them."""

    folder: Path
    prefix: str
    splits: Splits
    blending: Blending | None
    template: ChatTemplate
    legacy_eot: bool
    soft_labels: SoftLabels = "threshold"
    copies: int = 10
    formats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises UsageError where texts would not fit to what they are blended with, or a format holds no pairs."""
        if self.legacy_eot and not isinstance(self.template, StringTemplate):
            raise UsageError("--legacy-eot is about the template of the single flags; leave out --chat-template")
        example = Conversation.of_user("a").with_turn(Role.ASSISTANT, "b")
        of_nemo = not self.legacy_eot and self._render(example) == NEMO_CHAT.render(example)
        if self.blending and not of_nemo:
            raise UsageError("--blend-with needs NeMo's chat template, and no --legacy-eot: one file, one template")
        if self.formats and not of_nemo:
            raise UsageError("--formats needs NeMo's chat template, and no --legacy-eot")
        if self.copies < 2:
            raise UsageError(f"--label-copies must be 2 or more, it is {self.copies}")
        for name in self.formats:
            if format_named(name).kind is not Comparison:
                raise UsageError(f"--formats: {name!r} does not hold comparisons")

    def _own(self, name: str) -> Path:
        """A file that belongs to this prefix, so that several can be in one folder."""
        start = "" if self.prefix == DEFAULT_PREFIX else f"{self.prefix or 'no_prefix'}_"
        return self.folder / f"{start}{name}"

    @property
    def comparisons(self) -> Path:
        """The raw rows."""
        return self._own("cai_comparisons.jsonl")

    @property
    def journal(self) -> Path:
        """The journal."""
        return self._own("cai_comparisons.journal.jsonl")

    @property
    def old_journal(self) -> Path:
        """Where earlier versions had the journal, whatever the prefix."""
        return self.folder / "cai_comparisons.journal.jsonl"

    @property
    def candidate_dataset(self) -> Path:
        """All candidates, in upstream's form."""
        return self._own("cai_candidate_dataset.json")

    @property
    def preference_dataset(self) -> Path:
        """All preferences, in upstream's form."""
        return self._own("cai_preference_dataset.json")

    @property
    def place(self) -> Place:
        """Where the manifest is, with flags and counts."""
        path, old = self._own("cai_manifest.json"), self.folder / "cai_manifest.json"
        return Place(
            path, "cai_comparisons.jsonl", "output_filename_prefix", (self.folder,), None if path == old else old
        )

    def of(self, split: str, kind: str) -> Path:
        """A split's file of a kind."""
        start = f"{self.prefix}_" if self.prefix else ""
        return self.folder / f"{start}{split}_{kind}_with_chat_prompt.jsonl"

    def blended(self, split: str, kind: str) -> Path:
        """A split's blended file of a kind."""
        assert self.blending is not None, "asked for only where something is blended"
        return self.folder / f"blend_{self.blending.name}_with_{self.of(split, kind).name}"

    def formatted(self, split: str, name: str) -> Path:
        """A split's pairs in another format."""
        return self.of(split, "comparisons").with_suffix(f".{name}.jsonl")

    @property
    def raw(self) -> list[Path]:
        """What is written of every run, but for the journal and the manifest."""
        return [self.comparisons, left_out_path(self.comparisons), self.candidate_dataset, self.preference_dataset]

    @property
    def outputs(self) -> list[Path]:
        """Every file but the journal and the manifest."""
        paths = self.raw
        for split in self.splits:
            for kind in KINDS:
                paths += [self.of(split, kind), *([self.blended(split, kind)] if self.blending else [])]
            paths += [self.formatted(split, name) for name in self.formats]
        return paths

    def write(self, *, shuffle: bool, seed: int) -> list[str]:
        """Split, render and blend; returns lines for people.

        Raises:
            UsageError: there are fewer prompts than splits.
        """
        lines: list[str] = []
        for split, places in self._places(shuffle=shuffle, seed=seed).items():
            for kind, rows in (("prompts", self._prompt_rows), ("comparisons", self._comparison_rows)):
                path = self.of(split, kind)
                written = write_jsonl(path, chain.from_iterable(map(rows, self._rows(places))), overwrite=True)
                lines.append(f"{path}: {written} rows")
                if self.blending:
                    sources: list[PathLike] = [*self.blending.files[split][kind], path]
                    target = self.blended(split, kind)
                    blend = blend_files(sources, target, seed=seed, format_name=KINDS[kind], overwrite=True)
                    lines.append(f"{target}: {blend}")
            for name in self.formats:
                path = self.formatted(split, name)
                records = chain.from_iterable(row.comparisons(RL_CAI) for row in self._rows(places))
                lines.append(f"{path}: {write_records(path, records, name, overwrite=True)} rows")
        return lines

    def _rows(self, places: Iterable[int]) -> Iterator[JudgedRow]:
        """The rows that begin at these places, in this order; one is in memory at a time."""
        with self.comparisons.open("rb") as lines:
            for place in places:
                lines.seek(place)
                yield JudgedRow.from_row(orjson.loads(lines.readline()))

    def _places(self, *, shuffle: bool, seed: int) -> "dict[str, array[int]]":
        """Where the rows of each split's prompts begin, in the order in which they are to be written."""
        places = {split: array("Q") for split in self.splits}
        if shuffle:
            assigned = assign_splits((name for name, _ in _with_pairs(self.comparisons)), self.splits, seed=seed)
            for name, place in _with_pairs(self.comparisons):
                places[assigned[name]].append(place)
            for split in self.splits:
                generator(seed, "shuffle", split).shuffle(places[split])
        else:
            total = sum(1 for _ in _with_pairs(self.comparisons))
            names = (name for name, count in split_counts(total, self.splits).items() for _ in range(count))
            for split, (_, place) in zip(names, _with_pairs(self.comparisons), strict=True):
                places[split].append(place)
        return places

    def _prompt_rows(self, row: JudgedRow) -> Iterator[Row]:
        yield {"text": self.template.generation_prompt(row.prompt)}

    def _comparison_rows(self, row: JudgedRow) -> Iterator[Row]:
        for pair in row.pairs:
            texts = (pair.chosen, pair.rejected, pair.probability)
            for both in hard_pairs(*texts, how=self.soft_labels, copies=self.copies):
                for text in both:
                    yield {"text": self._render(row.prompt.with_turn(Role.ASSISTANT, text))}

    def _render(self, conversation: Conversation) -> str:
        if self.legacy_eot:
            assert isinstance(self.template, StringTemplate), "checked when this was made"
            # Upstream strips the text, and with it the line end that SFT teaches before the end-of-turn token.
            text = self.template.without_eos(conversation).strip()
            return text if text.endswith(self.template.eos_token or "") else text + (self.template.eos_token or "")
        return self.template.render(conversation)


def _with_pairs(comparisons: Path) -> Iterator[tuple[str, int]]:
    """The id of each prompt with a pair, and where its row begins, in the order of the file."""
    place = 0
    with comparisons.open("rb") as lines:
        for line in lines:
            row = JudgedRow.from_row(orjson.loads(line))
            if row.pairs:
                yield row.id, place
            place += len(line)
