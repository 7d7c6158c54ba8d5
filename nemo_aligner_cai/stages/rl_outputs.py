# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The sections for RL-CAI's training files: how they are made, and where they are written."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Conversation, NemoChatTemplate, Role, StringTemplate
from nemo_aligner_cai.data.formats.files import format_named
from nemo_aligner_cai.data.records import Comparison
from nemo_aligner_cai.data.soft_labels import SoftLabels
from nemo_aligner_cai.data.split import parse_splits
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.engine.stage import left_out_path
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.sections import Config, Source
from nemo_aligner_cai.stages.manifest import Place
from nemo_aligner_cai.stages.settings import Own

DEFAULT_PREFIX = "cai_rlaif"
Kind = Literal["prompts", "comparisons"]
KINDS: Mapping[Kind, str] = {"prompts": "ppo-prompts", "comparisons": "rm-comparisons"}
"""Upstream's words for the two kinds of file, and the names of their formats here."""
Template = Annotated[ChatTemplate, PlainSerializer(repr, return_type=str)]


class BlendFiles(Config):
    """Files to blend with, by split and kind; `name` becomes part of file names."""

    name: str
    files: dict[str, dict[Kind, tuple[Source, ...]]]


class PreferenceFiles(Config):
    """How the files of PPO and the reward model are made.

    Attributes:
        splits: the share of the prompts in each split.
        shuffle: write each split's prompts in random order.
        consecutive: split by position, the first prompts into the first split, and not at random.
        ppo_prompts: those that have a pair, or all. Prompts are split, so this decides which are.
        soft_labels: the reward model's hard pairs, see `generate.soft_labels`.
        label_copies: of each pair, if they are repeated.
        formats: other formats to write the pairs in.
        metadata: give each row its origin and the judge's rewards, beside the text that trainers read.
        blend: files to blend with; None for no blend.
        own: the place of the stage's own file in the blend.
        rm_seq_length: the reward model's sequence length in tokens; longer pairs are dropped. None keeps them.
        ppo_seq_length: PPO's, of which a prompt may have half.
        tokenizer: the model's, needed for both.
        template: renders the texts, and no candidate may contain its tokens.
        legacy_eot: end comparisons as upstream's script does.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    splits: Annotated[dict[str, Decimal], BeforeValidator(parse_splits)] = Field(
        default_factory=lambda: parse_splits({"train": "0.8", "test": "0.2"})
    )
    shuffle: bool = True
    consecutive: bool = False
    ppo_prompts: Literal["with-pairs", "all"] = "with-pairs"
    soft_labels: SoftLabels = "threshold"
    label_copies: int = 10
    formats: tuple[str, ...] = ()
    metadata: bool = False
    blend: BlendFiles | None = None
    own: Own = "last"
    rm_seq_length: int | None = Field(default=None, gt=0)
    ppo_seq_length: int | None = Field(default=None, gt=0)
    tokenizer: Path | None = None
    template: Template = NEMO_CHAT
    legacy_eot: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "PreferenceFiles":
        """Raises UsageError where texts would not fit to what they are blended with, or a format holds no pairs."""
        if self.legacy_eot and not isinstance(self.template, StringTemplate):
            raise UsageError("--legacy-eot is about the template of the single flags; leave out --chat-template")
        example = Conversation.of_user("a").with_turn(Role.ASSISTANT, "b")
        of_nemo = not self.legacy_eot and self.render(example) == NEMO_CHAT.render(example)
        if self.blend is not None and not of_nemo:
            raise UsageError("--blend-with needs NeMo's chat template, and no --legacy-eot: one file, one template")
        if self.formats and not of_nemo:
            raise UsageError("--formats needs NeMo's chat template, and no --legacy-eot")
        if (self.metadata or self.is_filtered) and not of_nemo:
            raise UsageError(
                "row metadata, --rm-seq-length and --ppo-seq-length need NeMo's chat template, and no --legacy-eot"
            )
        if self.is_filtered and self.tokenizer is None:
            raise UsageError("--rm-seq-length and --ppo-seq-length need --tokenizer-model, the model's own tokenizer")
        if self.label_copies < 2:
            raise UsageError(f"--label-copies must be 2 or more, it is {self.label_copies}")
        for name in self.formats:
            if format_named(name).kind is not Comparison:
                raise UsageError(f"--formats: {name!r} does not hold comparisons")
        if self.blend is not None and set(self.blend.files) != set(self.splits):
            raise UsageError(
                f"the blend is for {', '.join(self.blend.files)}, the splits are {', '.join(self.splits)}"
            )
        return self

    @property
    def is_filtered(self) -> bool:
        """Whether there is a length filter."""
        return self.rm_seq_length is not None or self.ppo_seq_length is not None

    def seq_length(self, kind: Kind) -> int | None:
        """The sequence length of the trainer that reads a kind of file."""
        return self.ppo_seq_length if kind == "prompts" else self.rm_seq_length

    def load_tokenizer(self) -> Tokenizer | None:
        """The tokenizer if there is a length filter, else None."""
        return load_tokenizer(self.tokenizer) if self.is_filtered and self.tokenizer is not None else None

    @property
    def blended_files(self) -> list[str]:
        """All files to blend with."""
        files = self.blend.files if self.blend else {}
        return [path for kinds in files.values() for paths in kinds.values() for path in paths]

    def render(self, conversation: Conversation) -> str:
        """The text of a whole conversation."""
        if self.legacy_eot:
            assert isinstance(self.template, StringTemplate), "checked when this was made"
            # Upstream strips the text, and with it the line end that SFT teaches before the end-of-turn token.
            text = self.template.without_eos(conversation).strip()
            return text if text.endswith(self.template.eos_token or "") else text + (self.template.eos_token or "")
        return self.template.render(conversation)

    @property
    def nemo_template(self) -> NemoChatTemplate:
        """The template of rows that formats write; checked when this was made."""
        return self.template if isinstance(self.template, NemoChatTemplate) else NEMO_CHAT


class SplitFiles(Config):
    """The files of one split, by kind or format."""

    own: dict[Kind, Path]
    blended: dict[Kind, Path] = Field(default_factory=dict[Kind, Path])
    formats: dict[str, Path] = Field(default_factory=dict[str, Path])

    @property
    def all(self) -> list[Path]:
        """Every file that is written in any case."""
        by_kind = [files[kind] for kind in KINDS for files in (self.own, self.blended) if kind in files]
        return [*by_kind, *self.formats.values()]


class RlOutputs(Config):
    """Every file of an RL-CAI run; a file that is None is not written.

    Attributes:
        comparisons: the raw rows, see `data.judged_row`.
        journal: the finished calls.
        splits: the training files of each split.
        candidates: all candidates, in upstream's form.
        preferences: all preferences, in upstream's form.
        manifest: where the manifest is.
        old_journal: where earlier versions had the journal.
    """

    comparisons: Path
    journal: Path
    splits: dict[str, SplitFiles]
    candidates: Path | None = None
    preferences: Path | None = None
    manifest: Place | None = None
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
        """Upstream's names in a folder.

        Args:
            folder: where all files go.
            prefix: of the training files; other prefixes' runs can be in the same folder.
            splits: their names.
            blend: a name for the files to blend with; None for no blend.
            formats: other formats.
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
            manifest=Place(own, "cai_comparisons.jsonl", owner, (folder,), None if own == old else old, prefix),
            old_journal=folder / "cai_comparisons.journal.jsonl",
        )

    @property
    def raw(self) -> list[Path]:
        """What is written of every run, except the journal and the manifest."""
        lists = (self.candidates, self.preferences)
        return [self.comparisons, left_out_path(self.comparisons), *(path for path in lists if path is not None)]

    @property
    def all(self) -> list[Path]:
        """Every file except the journal and the manifest."""
        return [*self.raw, *(path for files in self.splits.values() for path in files.all)]


def _named(folder: Path, prefix: str, split: str, blend: str | None, formats: Sequence[str]) -> SplitFiles:
    start = f"{prefix}_" if prefix else ""
    own: dict[Kind, Path] = {kind: folder / f"{start}{split}_{kind}_with_chat_prompt.jsonl" for kind in KINDS}
    others: dict[str, Path] = {name: own["comparisons"].with_suffix(f".{name}.jsonl") for name in formats}
    if blend is None:
        return SplitFiles(own=own, formats=others)
    blended: dict[Kind, Path] = {kind: folder / f"blend_{blend}_with_{path.name}" for kind, path in own.items()}
    return SplitFiles(own=own, blended=blended, formats=others)
