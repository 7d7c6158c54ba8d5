# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The one writer of SFT files: the stage's rows and helpfulness data, blended, filtered by length and split by prompt.

Input:  {"system": "", "conversations": [{"from": "User", "value": "Q"}, ...], "mask": "User", "dataset": "..."}, twice
Output: the same rows in one random order, without those that SFT would cut, and some prompts' held out for validation
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field

from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.formats.files import convert_file, detect_format, validate_file
from nemo_aligner_cai.data.formats.nemo import SftChat
from nemo_aligner_cai.data.length import LengthReport, filter_file
from nemo_aligner_cai.data.split import parse_splits, split_file
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.engine.stage import left_out_path
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts, read_jsonl, write_json, write_jsonl
from nemo_aligner_cai.sections import Config, Source
from nemo_aligner_cai.stages.manifest import Place
from nemo_aligner_cai.stages.report import Written, blend_counts
from nemo_aligner_cai.stages.settings import Own

_DATA_SUFFIX = re.compile(r"(\.(jsonl|json|csv|txt|parquet))?(\.gz)?$")


class SftFiles(Config):
    """How the files that SFT trains on are made.

    Attributes:
        helpful: conversations to blend with, in any format that `convert` reads; None only for a plan.
        own: the place of the stage's own rows in the blend.
        seq_length: the model's sequence length in tokens; longer conversations are dropped. None keeps them.
        tokenizer: the model's, needed with `seq_length`.
        validation_share: of the prompts, held out for validation; None for no validation file.
    """

    helpful: Source | None
    own: Own = "last"
    seq_length: int | None = Field(default=None, gt=0)
    tokenizer: Path | None = None
    validation_share: float | None = Field(default=None, gt=0, lt=1)

    def load_tokenizer(self) -> Tokenizer | None:
        """The tokenizer if there is a length filter, else None; raises UsageError if it is missing."""
        if self.seq_length is None:
            return None
        if self.tokenizer is None:
            raise UsageError("--max-seq-length needs --tokenizer-model, the model's own tokenizer")
        return load_tokenizer(self.tokenizer)


class SlOutputs(Config):
    """Every file of an SL-CAI run; a file that is None is not written.

    Attributes:
        train: what SFT trains on.
        revisions: the raw rows of `generate.revisions`.
        journal: the finished calls.
        samples: the stage's own SFT rows.
        validation: held-out rows.
        steps: each prompt's answer, critique and revision, in upstream's form.
        blend_summary: what went into the blend, in upstream's form.
        without_long: the rows of `train` under upstream's name, if there is a length filter.
        statistics: of the lengths, in upstream's form.
        manifest: where the manifest is.
        old_journal: where earlier versions had the journal.
    """

    train: Path
    revisions: Path
    journal: Path
    samples: Path
    validation: Path | None = None
    steps: Path | None = None
    blend_summary: Path | None = None
    without_long: Path | None = None
    statistics: Path | None = None
    manifest: Place | None = None
    old_journal: Path | None = None

    @classmethod
    def named(cls, out: str | Path, *, seq_length: int | None = None, validation: bool = False) -> "SlOutputs":
        """Upstream's names for an output; files that belong to it are in ``cai_output/OUT/``."""
        out = Path(out)
        old_folder, removed = out.parent / "cai_output", out.parent / "removed_long_dialogs"
        folder = old_folder / out.name
        # Only the name's own ending changes, whatever the folders are called.
        known = out.suffix in (".json", ".jsonl")
        filtered = seq_length is not None
        stem = f"{out.stem}_remove_long_dialogs"
        name = "cai_manifest.json"
        return cls(
            train=out,
            revisions=folder / "cai_revisions.jsonl",
            journal=folder / "cai_revisions.journal.jsonl",
            samples=folder / "cai_samples.jsonl",
            validation=out.with_name(f"{out.stem}_validation{out.suffix}") if validation else None,
            steps=folder / "cai_critique_revision_samples.json",
            blend_summary=out.with_suffix(f".summary{out.suffix}") if known else Path(f"{out}.summary.json"),
            without_long=removed / f"{stem}_max_seq_{seq_length}{out.suffix}" if filtered else None,
            statistics=removed / f"{stem}_statistics.json" if filtered else None,
            manifest=Place(
                folder / name,
                "cai_revisions.jsonl",
                "output_filepath",
                (out.parent, folder, old_folder, removed),
                old_folder / name,
                str(out),
            ),
            old_journal=old_folder / "cai_revisions.journal.jsonl",
        )

    @property
    def raw(self) -> list[Path]:
        """What is written of every run, except the journal and the manifest."""
        steps = [] if self.steps is None else [self.steps]
        return [self.revisions, left_out_path(self.revisions), self.samples, *steps]

    @property
    def all(self) -> list[Path]:
        """Every file except the journal and the manifest."""
        made = (self.train, self.validation, self.blend_summary, self.without_long, self.statistics)
        return [*(path for path in made if path is not None), *self.raw]


def prepare_helpful(files: SftFiles, folder: Path, *, system_message: str) -> tuple[Path, list[str]]:
    """The helpfulness data as SFT rows, converted into `folder` if they are not, and lines for people.

    Raises:
        UsageError, FormatError: there is none, or a row is wrong.
    """
    given = files.helpful
    if given is None:
        raise UsageError(
            "--helpfulness-dataset-path: name the conversations to blend with; only --preview and --plan need none"
        )
    name = detect_format(given)
    if name == SftChat.name and not system_message:
        validate_file(given, name)
        return Path(given), []
    # Under its own name, which the rows get as their data set's.
    folder.mkdir(exist_ok=True)
    source = folder / f"{_DATA_SUFFIX.sub('', Path(given).name)}.jsonl"
    counts = convert_file(given, source, to=SftChat.name, system_message=system_message)
    return source, [] if name == SftChat.name else [f"{given}: read as {name}; {counts}"]


def write_sft_files(
    files: SftFiles, outputs: SlOutputs, helpful: Path, *, tokenizer: Tokenizer | None, seed: int
) -> Written:
    """Blend, filter and split.

    Args:
        files: how.
        outputs: where; the file of samples is read.
        helpful: SFT rows, as `prepare_helpful` gives them.
        tokenizer: the model's, None for no length filter.
        seed: the run's.
    """
    sources = [outputs.samples, helpful] if files.own == "first" else [helpful, outputs.samples]
    # In the folder of the output: what is large stays on its disk.
    with tempfile.TemporaryDirectory(prefix=".blend_", dir=outputs.revisions.parent) as folder:
        direct = tokenizer is None and outputs.validation is None
        kept = outputs.train if direct else Path(folder) / "blended.jsonl"
        blend = blend_files(sources, kept, seed=seed, format_name=SftChat.name, overwrite=True)
        lines = [f"blended: {blend}"]
        rows: dict[str, Any] = {"blend": blend_counts(blend)}
        summary: dict[str, Any] = {
            "input_files": [files.helpful, str(outputs.samples)],
            "output_file": str(outputs.train),
            "prompt_template": "chat",
            "rows": blend.rows,
        }
        if tokenizer is not None:
            assert files.seq_length is not None, "the tokenizer is loaded for it"
            source, kept = kept, outputs.without_long or Path(folder) / "kept.jsonl"
            use = filter_file(
                source, kept, SftChat.name, tokenizer=tokenizer, seq_length=files.seq_length, overwrite=True
            )
            lines.append(f"length: {use}")
            rows["length"] = use.counts.to_dict()
            if not use.used:
                return Written(lines, rows, f"--max-seq-length {files.seq_length} leaves nothing to train on")
            summary["removed_long_dialogs"] = len(use.too_long)
            if outputs.statistics is not None:
                write_json(outputs.statistics, _statistics(kept, use), overwrite=True)
        if outputs.validation is not None:
            rows |= _split(kept, outputs.train, outputs.validation, files, seed=seed)
        elif kept != outputs.train:
            write_jsonl(outputs.train, (row for _, row in read_jsonl(kept)), overwrite=True)
    if outputs.blend_summary is not None:
        write_json(outputs.blend_summary, summary, overwrite=True)
    return Written(lines, rows)


def _statistics(kept: Path, use: LengthReport) -> dict[str, Any]:
    """Upstream's file of lengths."""
    return {
        "output_file": str(kept),
        "num_removed_ids": len(use.too_long),
        "removed_ids": [number - 1 for number in use.too_long],
        "length_statistics": {str(tokens): count for tokens, count in sorted(use.lengths.items())},
    }


def _split(source: Path, train: Path, validation: Path, files: SftFiles, *, seed: int) -> dict[str, Any]:
    share = files.validation_share
    assert share is not None, "checked by the stage"
    splits = parse_splits({"train": str(round(1 - share, 6)), "validation": str(round(share, 6))})
    counts = RowCounts()
    parts = split_file(
        source,
        {"train": train, "validation": validation},
        splits,
        seed=seed,
        format_name=SftChat.name,
        counts=counts,
        overwrite=True,
    )
    return {"split": counts.to_dict() | {"parts": parts}}
