# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the SFT files: the stage's rows and helpfulness data, blended, filtered by length and split by prompt.

Input:  {"system": "", "conversations": [{"from": "User", "value": "Q"}, ...], "mask": "User", "dataset": "..."}, twice
Output: the same rows in random order, without those that SFT would truncate; optionally a held-out validation file
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field

from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.formats.all_formats import detect_format
from nemo_aligner_cai.data.formats.files import convert_file, validate_file
from nemo_aligner_cai.data.formats.nemo import SftChat
from nemo_aligner_cai.data.length import filter_file
from nemo_aligner_cai.data.length_report import LengthReport, UseReport
from nemo_aligner_cai.data.split import share_and_rest, split_file
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.engine.run_stage import left_out_path
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts, read_jsonl, write_json, write_jsonl
from nemo_aligner_cai.sections import Config, Source
from nemo_aligner_cai.stages.manifest import ManifestLocation
from nemo_aligner_cai.stages.report import TrainingFiles, blend_counts
from nemo_aligner_cai.stages.settings import BlendPosition

_DATA_SUFFIX = re.compile(r"(\.(jsonl|json|csv|txt|parquet))?(\.gz)?$")


class SftSettings(Config):
    """The settings of the SFT files that do not depend on other files.

    Attributes:
        own: position of the stage's own rows in the blend.
        validation_share: share of the prompts held out for validation; None for no validation file.
    """

    own: BlendPosition = "last"
    validation_share: float | None = Field(default=None, gt=0, lt=1)


class SftFiles(SftSettings):
    """The settings of the SFT files.

    Attributes:
        helpful: conversations to blend with, in any format that `convert` reads; None only for a plan.
        seq_length: the model's sequence length in tokens; longer conversations are dropped. None keeps all.
        tokenizer: the model's tokenizer, required with `seq_length`.
    """

    helpful: Source | None
    seq_length: int | None = Field(default=None, gt=0)
    tokenizer: Path | None = None

    def load_tokenizer(self) -> Tokenizer | None:
        """Load the tokenizer if there is a length filter, else return None; raises UsageError if it is missing."""
        if self.seq_length is None:
            return None
        if self.tokenizer is None:
            raise UsageError("--max-seq-length needs --tokenizer-model, the model's own tokenizer")
        return load_tokenizer(self.tokenizer)


class SlOutputs(Config):
    """The files of an SL-CAI run; a file that is None is not written.

    Attributes:
        train: the training file of SFT.
        revisions: the raw rows; see `stages.revisions`.
        journal: the journal of finished calls.
        samples: the stage's own SFT rows.
        validation: held-out rows.
        steps: answer, critique and revision of each prompt, in upstream's format.
        blend_summary: the sources of the blend, in upstream's format.
        without_long: the rows of `train` under upstream's name, if there is a length filter.
        statistics: statistics of the lengths, in upstream's format.
        manifest: the location of the manifest.
        old_journal: the journal's path in earlier versions.
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
    manifest: ManifestLocation | None = None
    old_journal: Path | None = None

    @classmethod
    def named(cls, out: str | Path, *, seq_length: int | None = None, validation: bool = False) -> "SlOutputs":
        """Return upstream's file names for the output `out`, with this package's own files in ``cai_output/OUT/``."""
        out = Path(out)
        old_folder, removed = out.parent / "cai_output", out.parent / "removed_long_dialogs"
        folder = old_folder / out.name
        known = out.suffix in (".json", ".jsonl")
        filtered = seq_length is not None
        stem = f"{out.stem}_remove_long_dialogs"
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
            manifest=ManifestLocation(
                folder / "cai_manifest.json",
                "cai_revisions.jsonl",
                "output_filepath",
                (out.parent, folder, old_folder, removed),
                old_folder / "cai_manifest.json",
                str(out),
            ),
            old_journal=old_folder / "cai_revisions.journal.jsonl",
        )

    @property
    def raw(self) -> list[Path]:
        """The files that every run writes, except the journal and the manifest."""
        steps = [] if self.steps is None else [self.steps]
        return [self.revisions, left_out_path(self.revisions), self.samples, *steps]

    @property
    def all(self) -> list[Path]:
        """All files except the journal and the manifest."""
        made = (self.train, self.validation, self.blend_summary, self.without_long, self.statistics)
        return [*(path for path in made if path is not None), *self.raw]


def prepare_helpful(source: Source, folder: Path, *, system_message: str) -> tuple[Path, list[str]]:
    """Return the file of helpfulness data as SFT rows, converted into `folder` if necessary, and terminal lines.

    Raises:
        UsageError, FormatError: the data are missing, or a row is invalid.
    """
    name = detect_format(source)
    if name == SftChat.name and not system_message:
        validate_file(source, name)
        return Path(source), []
    # The file keeps its name, which becomes the `dataset` of its rows.
    folder.mkdir(exist_ok=True)
    converted = folder / f"{_DATA_SUFFIX.sub('', Path(source).name)}.jsonl"
    counts = convert_file(source, converted, to=SftChat.name, system_message=system_message)
    return converted, [] if name == SftChat.name else [f"{source}: read as {name}; {counts}"]


def write_sft_files(
    files: SftFiles, outputs: SlOutputs, helpful: Path, *, tokenizer: Tokenizer | None, seed: int
) -> TrainingFiles:
    """Blend, filter and split.

    The file of samples is read. Without a tokenizer there is no length filter; `helpful` is from `prepare_helpful`.
    """
    sources = [outputs.samples, helpful] if files.own == "first" else [helpful, outputs.samples]
    # In the output's folder, since the files are large and the default temporary folder may be small.
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
            assert files.seq_length is not None, "the tokenizer is loaded only with a sequence length"
            source, kept = kept, outputs.without_long or Path(folder) / "kept.jsonl"
            # Only the statistics need the length of every row.
            report = filter_file(
                source,
                kept,
                SftChat.name,
                kind=UseReport if outputs.statistics is None else LengthReport,
                tokenizer=tokenizer,
                seq_length=files.seq_length,
                overwrite=True,
            )
            lines.append(f"length: {report}")
            rows["length"] = report.counts.to_dict()
            if not report.used:
                return TrainingFiles(lines, rows, f"--max-seq-length {files.seq_length} leaves nothing to train on")
            summary["removed_long_dialogs"] = len(report.too_long)
            if outputs.statistics is not None:
                assert isinstance(report, LengthReport), "lengths are counted for the statistics"
                write_json(outputs.statistics, _statistics(kept, report), overwrite=True)
        if outputs.validation is not None:
            rows |= _split(kept, outputs.train, outputs.validation, files, seed=seed)
        elif kept != outputs.train:
            write_jsonl(outputs.train, (row for _, row in read_jsonl(kept)), overwrite=True)
    if outputs.blend_summary is not None:
        write_json(outputs.blend_summary, summary, overwrite=True)
    return TrainingFiles(lines, rows)


def _statistics(kept: Path, report: LengthReport) -> dict[str, Any]:
    """Return upstream's statistics of lengths; `removed_ids` are 0-based."""
    return {
        "output_file": str(kept),
        "num_removed_ids": len(report.too_long),
        "removed_ids": [number - 1 for number in report.too_long],
        "length_statistics": {str(tokens): count for tokens, count in sorted(report.lengths.items())},
    }


def _split(source: Path, train: Path, validation: Path, files: SftFiles, *, seed: int) -> dict[str, Any]:
    share = files.validation_share
    assert share is not None, "the stage's configuration requires it with a validation file"
    held_out, rest = share_and_rest(share)
    counts = RowCounts()
    parts = split_file(
        source,
        {"train": train, "validation": validation},
        {"train": rest, "validation": held_out},
        seed=seed,
        format_name=SftChat.name,
        counts=counts,
        overwrite=True,
    )
    return {"split": counts.to_dict() | {"parts": parts}}
