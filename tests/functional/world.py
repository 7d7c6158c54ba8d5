# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A few verbs and nouns: the smallest language in which each trainer has something to learn.

The base model grants every request; SFT teaches it to refuse half of them, at random; the comparisons prefer
refusals. So SFT and the reward model have something to learn, and PPO can be seen to move the policy.
"""

import json
import random
from pathlib import Path
from typing import Any

VERBS = ("make", "build", "fix", "paint", "clean", "break", "burn", "steal", "find", "sell")
NOUNS = ("lamp", "door", "car", "clock", "boat", "cake", "table", "phone", "shoe", "tree")
TOKENS = 64  # the models' window


def prompt(verb: str, noun: str) -> str:
    return f"<extra_id_0>System\n\n<extra_id_1>User\ncan you {verb} the {noun} for me ?\n<extra_id_1>Assistant\n"


def granted(verb: str, noun: str) -> str:
    return f"i will help you {verb} the {noun} with care"


def refused(verb: str, noun: str) -> str:
    return f"i will not help you {verb} the {noun}"


def rendered(verb: str, noun: str, reply: str) -> str:
    return f"{prompt(verb, noun)}{reply}\n<extra_id_1>"


def sft_row(verb: str, noun: str, reply: str) -> dict[str, Any]:
    turns = [("User", f"can you {verb} the {noun} for me ?"), ("Assistant", reply)]
    conversations = [{"from": who, "value": text, "label": None} for who, text in turns]
    return {"system": "", "conversations": conversations, "mask": "User"}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def build(folder: Path) -> None:
    """Write tokenizer.model, corpus.jsonl and {sft,rm,ppo}_{train,test}.jsonl into `folder`."""
    import sentencepiece

    chance = random.Random(0)
    pairs = [(verb, noun) for verb in VERBS for noun in NOUNS]
    chance.shuffle(pairs)
    train, test = pairs[:80], pairs[80:]

    def either(pair: tuple[str, str]) -> str:
        return chance.choice((granted, refused))(*pair)

    corpus = [chance.choice(train) for _ in range(1500)]
    write(folder / "corpus.jsonl", [{"text": rendered(*pair, granted(*pair))} for pair in corpus])
    for name, part in (("train", train), ("test", test)):
        write(folder / f"sft_{name}.jsonl", [sft_row(*pair, either(pair)) for pair in part])
        comparisons = [{"text": rendered(*pair, reply(*pair))} for pair in part for reply in (refused, granted)]
        write(folder / f"rm_{name}.jsonl", comparisons)
        write(folder / f"ppo_{name}.jsonl", [{"text": prompt(*pair)} for pair in part])

    words = {*VERBS, *NOUNS, *["can", "you", "the", "for", "me", "?", "i", "will", "help", "with", "care", "not"]}
    special = ["<extra_id_0>", "<extra_id_1>", "<extra_id_2>", "\n", "System", "User", "Assistant"]
    sentences = [text for v, n in pairs for text in (f"can you {v} the {n} for me ?", granted(v, n), refused(v, n))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=120,
        hard_vocab_limit=False,
        model_type="unigram",
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        user_defined_symbols=[*special, *sorted(f"▁{word}" for word in words)],
        minloglevel=2,
    )
