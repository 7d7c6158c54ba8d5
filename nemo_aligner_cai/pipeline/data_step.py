# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Step 1's output files: red-team prompts and helpfulness preferences.

Every function returns the row counts of its input files: rows in = rows written + rows skipped, by reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.data import anthropic_hh
from nemo_aligner_cai.data.prompt_files import Turns, read_prompts
from nemo_aligner_cai.data.split import assign_splits, parse_splits
from nemo_aligner_cai.data.tokenizer import Tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts, write_jsonl
from nemo_aligner_cai.prompts import Prompt

RowCountsByFile = dict[str, dict[str, Any]]


def red_team_prompts(
    source: Path,
    targets: Sequence[Path],
    *,
    share: float,
    turns: Turns,
    limit: int | None,
    max_tokens: int,
    tokenizer: Tokenizer,
    seed: int,
) -> RowCountsByFile:
    """Read red-team prompts and split them between SL-CAI and RL-CAI.

    Args:
        source: red-team attempts, HH, or a plain list of prompts.
        targets: the output files for SL-CAI and RL-CAI.
        share: SL-CAI's share of the prompts.
        turns: the first user turn, or the conversation up to its last user turn.
        limit: read at most this many prompts.
        max_tokens: skip longer prompts, counted in the model's tokens with its chat template.
        tokenizer: the model's.
        seed: of the split.
    """
    counts = RowCounts()
    kept = list(_short(read_prompts(source, counts=counts, turns=turns, limit=limit), max_tokens, tokenizer, counts))
    if len(kept) < len(targets):
        raise UsageError(f"{source}: {len(kept)} usable prompts, SL-CAI and RL-CAI need one each ({counts})")
    names = [str(number) for number in range(len(targets))]
    shares = parse_splits({names[0]: str(share), names[1]: str(round(1 - share, 6))})
    assigned = assign_splits((prompt.id for prompt in kept), shares, seed=seed)
    for name, target in zip(names, targets, strict=True):
        rows = ({"messages": prompt.conversation.to_messages()} for prompt in kept if assigned[prompt.id] == name)
        write_jsonl(target, rows, overwrite=True)
    counts.check()
    return {source.name: counts.to_dict()}


def _short(prompts: Iterable[Prompt], max_tokens: int, tokenizer: Tokenizer, counts: RowCounts) -> Iterator[Prompt]:
    for prompt in prompts:
        if len(tokenizer.encode([NEMO_CHAT.generation_prompt(prompt.conversation)])[0]) > max_tokens:
            counts.written -= 1
            counts.skip(f"longer than {max_tokens} tokens")
        else:
            yield prompt


def helpful_preferences(folder: Path, target: Path) -> RowCountsByFile:
    """Convert HH's ``train.jsonl.gz`` and ``test.jsonl.gz`` to prompts and comparisons, with upstream's file names."""
    counts: RowCountsByFile = {}
    for split in anthropic_hh.SPLITS:
        source = folder / f"{split}.jsonl.gz"
        outputs = anthropic_hh.Outputs.named(target, split, prefix="helpful", add_eos=True)
        rows = anthropic_hh.rows_of([source])
        counts[source.name] = anthropic_hh.write_split(rows, outputs, template=NEMO_CHAT, overwrite=True).to_dict()
    return counts
