# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The settings and the names of RL-CAI's training files."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Conversation, NemoChatTemplate, Role, StringTemplate
from nemo_aligner_cai.data.formats.all_formats import format_named
from nemo_aligner_cai.data.formats.writers import require_writable
from nemo_aligner_cai.data.records import Comparison
from nemo_aligner_cai.data.soft_labels import SoftLabels
from nemo_aligner_cai.data.split import parse_splits
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.engine.run_stage import left_out_path
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.sections import Config, Source
from nemo_aligner_cai.stages.manifest import ManifestLocation
from nemo_aligner_cai.stages.settings import BlendPosition

DEFAULT_PREFIX = "cai_rlaif"
Kind = Literal["prompts", "comparisons"]
KINDS: Mapping[Kind, str] = {"prompts": "ppo-prompts", "comparisons": "rm-comparisons"}
"""Upstream's name of each kind of file -> the name of its format."""
Template = Annotated[ChatTemplate, PlainSerializer(repr, return_type=str)]


class BlendFiles(Config):
    """Files to blend with, by split and kind; `name` becomes part of the output names."""

    name: str
    files: dict[str, dict[Kind, tuple[Source, ...]]]


class PreferenceSettings(Config):
    """The settings of the files of PPO and the reward model that do not depend on other files.

    Attributes:
        shuffle: write the prompts of each split in random order.
        consecutive: split by position, with the first prompts in the first split, instead of at random.
        ppo_prompts: "all", or only those "with-pairs". The selected prompts are the ones that are split.
        soft_labels: conversion of probabilities to hard pairs; see `data.soft_labels`.
        label_copies: copies of each pair with `soft_labels="repeat"`, those that are blended in included.
        formats: additional formats of the pairs.
        metadata: add the origin and the judge's rewards to each row; trainers read only the text.
        own: position of the stage's own file in the blend.
    """

    shuffle: bool = True
    consecutive: bool = False
    ppo_prompts: Literal["with-pairs", "all"] = "with-pairs"
    soft_labels: SoftLabels = "threshold"
    label_copies: int = Field(default=10, ge=2)
    formats: tuple[str, ...] = ()
    metadata: bool = False
    own: BlendPosition = "last"


class PreferenceFiles(PreferenceSettings):
    """The settings of the files of PPO and the reward model.

    Attributes:
        splits: share of the prompts in each split.
        blend: files to blend with; None for no blend.
        rm_seq_length: the reward model's sequence length in tokens; longer pairs are dropped. None keeps all.
        ppo_seq_length: PPO's sequence length in tokens; prompts that leave no room for a reply are dropped.
        ppo_response_length: the part of it that is reserved for the reply; None for half of it.
        tokenizer: the model's tokenizer, required with a sequence length.
        template: renders the texts; candidates that contain its tokens are dropped.
        legacy_eot: end comparisons like upstream's script.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    splits: Annotated[dict[str, Decimal], BeforeValidator(parse_splits)] = Field(
        default_factory=lambda: parse_splits({"train": "0.8", "test": "0.2"})
    )
    blend: BlendFiles | None = None
    rm_seq_length: int | None = Field(default=None, gt=0)
    ppo_seq_length: int | None = Field(default=None, gt=0)
    ppo_response_length: int | None = Field(default=None, gt=0)
    tokenizer: Path | None = None
    template: Template = NEMO_CHAT
    legacy_eot: bool = False

    @model_validator(mode="after")
    def _check(self) -> "PreferenceFiles":
        if self.legacy_eot and not isinstance(self.template, StringTemplate):
            raise UsageError("--legacy-eot applies to the template of the single flags; remove --chat-template")
        example = Conversation.of_user("a").with_turn(Role.ASSISTANT, "b")
        if self.legacy_eot or self.render(example) != NEMO_CHAT.render(example):
            for used, flags in (
                (self.blend is not None, "--blend-with"),
                (self.formats, "--formats"),
                (self.metadata or self.is_filtered, "row metadata, --rm-seq-length and --ppo-seq-length"),
            ):
                if used:
                    raise UsageError(f"{flags}: only with NeMo's chat template, and without --legacy-eot")
        if self.is_filtered and self.tokenizer is None:
            raise UsageError("--rm-seq-length and --ppo-seq-length need --tokenizer-model, the model's own tokenizer")
        for name in self.formats:
            if format_named(name).kind is not Comparison:
                raise UsageError(f"--formats: {name!r} does not hold comparisons")
            require_writable(format_named(name))
        if self.blend is not None and set(self.blend.files) != set(self.splits):
            raise UsageError(
                f"the blend has the splits {', '.join(self.blend.files)}, the files have {', '.join(self.splits)}"
            )
        return self

    @property
    def is_filtered(self) -> bool:
        """True if there is a length filter."""
        return self.rm_seq_length is not None or self.ppo_seq_length is not None

    def seq_length(self, kind: Kind) -> int | None:
        """Return the sequence length of the trainer that reads this kind of file."""
        return self.ppo_seq_length if kind == "prompts" else self.rm_seq_length

    def response_length(self, kind: Kind) -> int | None:
        """Return the part of the sequence that the trainer of this kind of file reserves for a reply, if it is set."""
        return self.ppo_response_length if kind == "prompts" else None

    def load_tokenizer(self) -> Tokenizer | None:
        """Load the tokenizer if there is a length filter, else return None."""
        return load_tokenizer(self.tokenizer) if self.is_filtered and self.tokenizer is not None else None

    @property
    def blended_files(self) -> list[str]:
        """All files to blend with."""
        files = self.blend.files if self.blend else {}
        return [path for kinds in files.values() for paths in kinds.values() for path in paths]

    def render(self, conversation: Conversation) -> str:
        """Return the text of a whole conversation."""
        if self.legacy_eot:
            assert isinstance(self.template, StringTemplate), "checked by the validator"
            # Upstream strips the text, including the line break that SFT teaches before the end-of-turn token.
            text = self.template.without_eos(conversation).strip()
            return text if text.endswith(self.template.eos_token or "") else text + (self.template.eos_token or "")
        return self.template.render(conversation)

    @property
    def nemo_template(self) -> NemoChatTemplate:
        """The template for rows that a format writes; the validator checks that it renders like NeMo's."""
        return self.template if isinstance(self.template, NemoChatTemplate) else NEMO_CHAT


class SplitFiles(Config):
    """The files of one split, by kind or format."""

    own: dict[Kind, Path]
    blended: dict[Kind, Path] = Field(default_factory=dict[Kind, Path])
    formats: dict[str, Path] = Field(default_factory=dict[str, Path])

    @property
    def all(self) -> list[Path]:
        """All files of the split."""
        by_kind = [files[kind] for kind in KINDS for files in (self.own, self.blended) if kind in files]
        return [*by_kind, *self.formats.values()]


class RlOutputs(Config):
    """The files of an RL-CAI run; a file that is None is not written.

    Attributes:
        comparisons: the raw rows; see `data.judged_row`.
        journal: the journal of finished calls.
        splits: the training files of each split.
        candidates: all candidates, in upstream's format.
        preferences: all preferences, in upstream's format.
        manifest: the location of the manifest.
        old_journal: the journal's path in earlier versions.
    """

    comparisons: Path
    journal: Path
    splits: dict[str, SplitFiles]
    candidates: Path | None = None
    preferences: Path | None = None
    manifest: ManifestLocation | None = None
    old_journal: Path | None = None

    @classmethod
    def named(
        cls,
        folder: str | Path,
        *,
        prefix: str = DEFAULT_PREFIX,
        splits: Sequence[str] = ("train", "test"),
        blend: str | None = None,
        formats: Sequence[str] = (),
    ) -> "RlOutputs":
        """Return upstream's file names.

        Args:
            folder: the folder of all files.
            prefix: prefix of the training files; runs with different prefixes can share a folder.
            splits: the names of the splits.
            blend: the name of the files to blend with; None for no blend.
            formats: the additional formats.
        """
        folder = Path(folder)
        start = "" if prefix == DEFAULT_PREFIX else f"{prefix or 'no_prefix'}_"
        own, old = folder / f"{start}cai_manifest.json", folder / "cai_manifest.json"
        owner = "output_filename_prefix"
        return cls(
            comparisons=folder / f"{start}cai_comparisons.jsonl",
            journal=folder / f"{start}cai_comparisons.journal.jsonl",
            splits={split: _named(folder, prefix, split, blend, formats) for split in splits},
            candidates=folder / f"{start}cai_candidate_dataset.json",
            preferences=folder / f"{start}cai_preference_dataset.json",
            manifest=ManifestLocation(
                own, "cai_comparisons.jsonl", owner, (folder,), None if own == old else old, prefix
            ),
            old_journal=folder / "cai_comparisons.journal.jsonl",
        )

    @property
    def raw(self) -> list[Path]:
        """The files that every run writes, except the journal and the manifest."""
        lists = (self.candidates, self.preferences)
        return [self.comparisons, left_out_path(self.comparisons), *(path for path in lists if path is not None)]

    @property
    def all(self) -> list[Path]:
        """All files except the journal and the manifest."""
        return [*self.raw, *(path for files in self.splits.values() for path in files.all)]


def format_suffix(name: str) -> str:
    """The ending of a file of comparisons in another format."""
    return f".{name}{format_named(name).suffix}"


def _named(folder: Path, prefix: str, split: str, blend: str | None, formats: Sequence[str]) -> SplitFiles:
    start = f"{prefix}_" if prefix else ""
    own: dict[Kind, Path] = {kind: folder / f"{start}{split}_{kind}_with_chat_prompt.jsonl" for kind in KINDS}
    others = {name: own["comparisons"].with_suffix(format_suffix(name)) for name in formats}
    if blend is None:
        return SplitFiles(own=own, formats=others)
    blended: dict[Kind, Path] = {kind: folder / f"blend_{blend}_with_{path.name}" for kind, path in own.items()}
    return SplitFiles(own=own, blended=blended, formats=others)
