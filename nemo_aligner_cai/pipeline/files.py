# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The files that go from one step to the next: prompts, fine-tuning rows, comparisons.

Every function returns the balances of what it read and wrote, by file: rows in = rows out + rows left out, by reason.
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

Balances = dict[str, dict[str, Any]]


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
) -> Balances:
    """Read red-team prompts and divide them between the supervised and the RL stage.

    Args:
        source: red-team attempts, HH, or a plain list of prompts.
        targets: the file for SL-CAI and the file for RL-CAI.
        share: of the prompts that goes to SL-CAI.
        turns: the first user turn, or the conversation up to the last one.
        limit: prompts to read at most.
        max_tokens: longer prompts, counted in the model's tokens with the template, are left out.
        tokenizer: the model's.
        seed: of the division.
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


def helpful_preferences(folder: Path, target: Path) -> Balances:
    """Turn HH's ``train.jsonl.gz`` and ``test.jsonl.gz`` into prompts and comparisons, under upstream's names."""
    balances: Balances = {}
    for split in anthropic_hh.SPLITS:
        source = folder / f"{split}.jsonl.gz"
        outputs = anthropic_hh.Outputs.named(target, split, prefix="helpful", add_eos=True)
        rows = anthropic_hh.rows_of([source])
        balances[source.name] = anthropic_hh.write_split(rows, outputs, template=NEMO_CHAT, overwrite=True).to_dict()
    return balances
