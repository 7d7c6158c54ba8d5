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
"""The files that go from one step to the next: prompts, fine-tuning rows, comparisons.

Every function returns the balances of what it read and wrote, by file: rows in = rows out + rows left out, by reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nemo_aligner_cai.conversation import NEMO_CHAT
from nemo_aligner_cai.data import anthropic_hh
from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.formats import read_records, write_records
from nemo_aligner_cai.data.formats_cai import RL_CAI
from nemo_aligner_cai.data.judged_row import read_judged
from nemo_aligner_cai.data.length import drop_long
from nemo_aligner_cai.data.prompt_files import Turns, read_prompts
from nemo_aligner_cai.data.records import PromptOnly, Record
from nemo_aligner_cai.data.split import assign_splits, parse_splits, record_prompt_id, split_items
from nemo_aligner_cai.data.tokenizer import Tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Balance, write_jsonl
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
    balance = Balance()
    kept = list(
        _short(read_prompts(source, balance=balance, turns=turns, limit=limit), max_tokens, tokenizer, balance)
    )
    if len(kept) < len(targets):
        raise UsageError(f"{source}: {len(kept)} usable prompts, SL-CAI and RL-CAI need one each ({balance})")
    names = [str(number) for number in range(len(targets))]
    shares = parse_splits({names[0]: str(share), names[1]: str(round(1 - share, 6))})
    assigned = assign_splits((prompt.id for prompt in kept), shares, seed=seed)
    for name, target in zip(names, targets, strict=True):
        rows = ({"messages": prompt.conversation.to_messages()} for prompt in kept if assigned[prompt.id] == name)
        write_jsonl(target, rows, overwrite=True)
    balance.check()
    return {source.name: balance.to_dict()}


def _short(prompts: Iterable[Prompt], max_tokens: int, tokenizer: Tokenizer, balance: Balance) -> Iterator[Prompt]:
    for prompt in prompts:
        if len(tokenizer.encode([NEMO_CHAT.generation_prompt(prompt.conversation)])[0]) > max_tokens:
            balance.written -= 1
            balance.leave_out(f"longer than {max_tokens} tokens")
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


def sft_files(
    sl_cai: Path, helpful: Path, folder: Path, *, seq_length: int, validation: float, tokenizer: Tokenizer, seed: int
) -> Balances:
    """Blend revisions with helpfulness data, leave out what SFT would cut, and hold some prompts out.

    Writes ``blend.jsonl``, ``train.jsonl`` and ``validation.jsonl`` into ``folder``.
    """
    blend = folder / "blend.jsonl"
    blend_files([sl_cai, helpful], blend, seed=seed, format_name="sft-chat", overwrite=True)
    read, balance = Balance(), Balance()
    records = read_records(blend, "sft-chat", balance=read)
    kept = list(drop_long(records, "sft-chat", tokenizer=tokenizer, seq_length=seq_length, balance=balance))
    _write_splits(kept, {"train": 1 - validation, "validation": validation}, "sft-chat", folder, seed=seed)
    return _checked({f"{blend.name} (reading)": read, blend.name: balance})


def _checked(balances: dict[str, Balance]) -> Balances:
    for balance in balances.values():
        balance.check()
    return {name: balance.to_dict() for name, balance in balances.items()}


def _write_splits(
    records: Sequence[Record], shares: dict[str, float], format_name: str, folder: Path, *, seed: int
) -> None:
    splits = parse_splits({name: str(round(share, 6)) for name, share in shares.items()})
    for name, part in split_items(records, splits, seed=seed, prompt_id=record_prompt_id).items():
        write_records(folder / f"{name}.jsonl", part, format_name, overwrite=True)


def preference_files(
    comparisons: Path,
    prompts: Path,
    helpful: Path,
    folder: Path,
    *,
    rm_seq_length: int,
    ppo_seq_length: int,
    test_share: float,
    tokenizer: Tokenizer,
    seed: int,
) -> Balances:
    """Make the reward model's and PPO's files out of AI preferences and human helpfulness preferences.

    Prompts are split, not comparisons: none is in both splits, in either file.

    Args:
        comparisons: rows of ``generate/comparisons.py``.
        prompts: all RL-CAI prompts; PPO sees those without a comparison too.
        helpful: the folder that :func:`helpful_preferences` wrote.
        folder: gets ``rm_<split>.jsonl`` and ``ppo_<split>.jsonl``, and their parts.
        rm_seq_length: the reward model's sequence length in tokens.
        ppo_seq_length: PPO's; prompts may have half of it.
        test_share: of the prompts that is held out.
        tokenizer: the model's.
        seed: of split and order.
    """
    read = Balance()
    asked = [PromptOnly(prompt.conversation, RL_CAI) for prompt in read_prompts(prompts, balance=read, turns="all")]
    shares = parse_splits({"train": str(round(1 - test_share, 6)), "test": str(test_share)})
    assigned = assign_splits((record_prompt_id(record) for record in asked), shares, seed=seed)
    preferred = [pair for row in read_judged(comparisons) for pair in row.comparisons(RL_CAI)]
    limits = {"rm-comparisons": rm_seq_length, "ppo-prompts": ppo_seq_length}
    balances = {prompts.name: read}
    for split in shares:
        for kind, stem, records in (("rm-comparisons", "comparisons", preferred), ("ppo-prompts", "prompts", asked)):
            own = [record for record in records if assigned[record_prompt_id(record)] == split]
            source = helpful / f"helpful_{split}_{stem}_with_chat_prompt.jsonl"
            balances[source.name] = Balance()
            human = read_records(source, kind, balance=balances[source.name])
            parts = [folder / f"cai_{split}_{stem}.jsonl", folder / f"helpful_{split}_{stem}.jsonl"]
            for part, candidates in zip(parts, (own, human), strict=True):
                balances[part.name] = Balance()
                kept = drop_long(
                    candidates, kind, tokenizer=tokenizer, seq_length=limits[kind], balance=balances[part.name]
                )
                write_records(part, kept, kind, overwrite=True)
            name = "rm" if kind == "rm-comparisons" else "ppo"
            blend_files(parts, folder / f"{name}_{split}.jsonl", seed=seed, format_name=kind, overwrite=True)
    return _checked(balances)
