# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Build the tiny assistant: its vocabulary, its corpus, and a Megatron GPT pretrained on the corpus by NeMo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.constitution import Constitution
from nemo_aligner_cai.constitution.prompt_templates import load_prompt_templates
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import sha256_file, write_json, write_jsonl
from nemo_aligner_cai.tiny.concerns import packaged_concerns
from nemo_aligner_cai.tiny.corpus import CORPUS_WORDS, REASONING_SHARES, REASONING_WORDS, SHARES, Corpus
from nemo_aligner_cai.tiny.language import language
from nemo_aligner_cai.tiny.tokenizer import write_tokenizer

_PRETRAINING = (
    "model.num_layers=4",
    "model.hidden_size=128",
    "model.num_attention_heads=4",
    "model.encoder_seq_length=256",
    "model.micro_batch_size=8",
    "model.global_batch_size=8",
    "model.optim.lr=3e-3",
    "model.optim.sched.min_lr=1e-4",
    "trainer.max_steps=4000",
)


@dataclass(frozen=True)
class Recipe:
    """The ingredients of an assistant.

    Attributes:
        shares: of each kind of document in its corpus.
        words: texts whose words its vocabulary has besides those of the language and the constitutions.
        documents: in its corpus, about 63 tokens each.
        settings: Hydra overrides of its pretraining.
    """

    shares: Mapping[str, float]
    words: tuple[str, ...]
    documents: int
    settings: tuple[str, ...]


PACKAGED = Recipe(SHARES, CORPUS_WORDS, 150_000, _PRETRAINING)
REASONING = Recipe(
    REASONING_SHARES,
    (*CORPUS_WORDS, *REASONING_WORDS),
    165_000,
    # With four layers the thoughts ignored which kind of harm a principle permits.
    (*_PRETRAINING, "model.num_layers=6", "trainer.max_steps=5000"),
)
"""An assistant that can reason before it chooses, for judges by chain of thought."""


def vocabulary(constitutions: Iterable[Constitution], recipe: Recipe = PACKAGED) -> list[str]:
    """Every word of the language, the constitutions, the chat template and the recipe's texts, sorted."""
    requests = [
        text
        for constitution in constitutions
        for principle in constitution.principles
        for text in principle.requests.values()
    ]
    words = {word for text in (*requests, *recipe.words) for word in text.split() if "{" not in word}
    return sorted(words | set(language().words()))


def write_corpus(folder: Path, *, seed: int, documents: int, recipe: Recipe = PACKAGED) -> tuple[Path, Path]:
    """Write ``tokenizer.model`` and ``corpus.jsonl``; returns their paths."""
    concerns = packaged_concerns(language())
    tokenizer, corpus = folder / "tokenizer.model", folder / "corpus.jsonl"
    write_tokenizer(tokenizer, vocabulary(concerns.constitutions.values(), recipe))
    templates = load_prompt_templates(packaged_files.CONSTITUTION)
    conversations = Corpus(language(), concerns, templates, seed=seed, shares=recipe.shares).documents(documents)
    write_jsonl(corpus, ({"text": NEMO_CHAT.render(c)} for c in conversations), overwrite=True)
    return tokenizer, corpus


def build_assistant(
    folder: Path,
    *,
    seed: int,
    documents: int | None = None,
    recipe: Recipe = PACKAGED,
    overrides: Sequence[str] = (),
) -> Path:
    """Pretrain an assistant; returns the path of ``assistant.nemo``.

    Args:
        folder: gets ``assistant.nemo``, ``tokenizer.model``, ``corpus.jsonl``, the training log, and
            ``assistant.json``, the provenance of the model.
        seed: of the corpus and of the weights.
        documents: in the corpus; None for those of the recipe.
        recipe: of the assistant.
        overrides: Hydra overrides, appended to those of the recipe.

    Raises:
        CaiError: the training failed.
    """
    from nemo_aligner_cai.training import pretrain
    from nemo_aligner_cai.training.config import quoted
    from nemo_aligner_cai.training.launch.stage_main import main

    documents = documents or recipe.documents
    tokenizer, corpus = write_corpus(folder, seed=seed, documents=documents, recipe=recipe)
    model = folder / "assistant.nemo"
    model.unlink(missing_ok=True)
    settings = (*recipe.settings, *overrides)
    code = main(
        pretrain.STAGE,
        [
            f"corpus.file={quoted(corpus)}",
            f"model.tokenizer.model={quoted(tokenizer)}",
            f"output={quoted(model)}",
            f"exp_manager.explicit_log_dir={quoted(folder / 'log')}",
            f"model.seed={seed}",
            *settings,
        ],
    )
    if code:
        raise CaiError(f"pretraining the tiny assistant failed with exit code {code}; see {folder / 'log'}")
    made_of = provenance(corpus, tokenizer, recipe, seed=seed, documents=documents, settings=settings)
    write_json(folder / "assistant.json", made_of, overwrite=True)
    return model


def provenance(
    corpus: Path, tokenizer: Path, recipe: Recipe, *, seed: int, documents: int, settings: Sequence[str]
) -> dict[str, Any]:
    """The inputs of a model: hashes of corpus and tokenizer, and all training settings."""
    return {
        "corpus_sha256": sha256_file(corpus),
        "tokenizer_sha256": sha256_file(tokenizer),
        "seed": seed,
        "documents": documents,
        "shares": dict(recipe.shares),
        "pretraining": list(settings),
    }
