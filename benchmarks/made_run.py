# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A run's folder with generated rows in the real formats, of any size, for the report's benchmark and tests."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.constitution import Principle
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.data.judged_row import Candidate, JudgedPair, JudgedRow, JudgedVerdict
from nemo_aligner_cai.files import content_hash, write_json, write_jsonl
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.stages.revisions import RevisionSample, Turn, revision_row

STEPS = ("1_data", "2_sl_cai", "3_sft", "4_rl_cai", "5_reward_model", "6_ppo", "7_measure")
MODELS = ("helpful_only", "sl_cai", "rl_cai")
PRINCIPLES = tuple(
    Principle(name, f"Say what is not {name} in the reply.", f"Make it {name}.", f"Which is more {name}?")
    for name in ("harmless", "kind", "honest", "lawful")
)
_OUTCOMES = {True: ("complies", "right_refusal", "flawed_refusal", "evades"), False: ("helps", "over_refuses")}


@dataclass(frozen=True)
class Sizes:
    """Rows of each kind, and the mean number of words of a text."""

    revisions: int = 8
    comparisons: int = 8
    replies: int = 8
    words: int = 12


def make_run(
    folder: Path,
    sizes: Sizes,
    *,
    steps: Sequence[str] = STEPS,
    begun: Sequence[str] = (),
    planned: Sequence[str] = STEPS,
    extra: Sequence[str] = (),
    seed: int = 1,
) -> Path:
    """Write a run's folder.

    Args:
        folder: the folder.
        sizes: of its files.
        steps: the steps that are done.
        begun: steps that were begun.
        planned: all steps that its run.json names.
        extra: prompts and replies to use first, as they are.
        seed: of all texts.
    """
    texts = _texts(random.Random(seed), sizes.words, extra)
    write_json(folder / "run.json", _record(planned, seed), overwrite=True)
    makers: dict[str, Callable[[Path], None]] = {
        "2_sl_cai": lambda at: _revisions(at, sizes.revisions, texts, seed),
        "3_sft": lambda at: _metrics(at, {"train/loss": -0.02}),
        "4_rl_cai": lambda at: _comparisons(at, sizes.comparisons, texts, seed),
        "5_reward_model": lambda at: _metrics(at, {"train/loss": -0.02, "train/acc": 0.01}),
        "5_dpo": lambda at: _metrics(at, {"train/loss": -0.02, "train/rewards_chosen_mean": 0.1}),
        "6_ppo": lambda at: _metrics(at, {"train_rollouts/rewards": 0.1, "train_rollouts/init_policy_kl": 0.001}),
        "7_measure": lambda at: _replies(at, sizes.replies, texts, seed),
    }
    for name in (*steps, *begun):
        at = folder / name
        at.mkdir(parents=True, exist_ok=True)
        (at / "started").write_text("0" * 64, encoding="utf-8")
        if name in makers:
            makers[name](at)
        if name in steps:
            write_json(at / "step.json", _step(name, sizes), overwrite=True)
    return folder


def _record(planned: Sequence[str], seed: int) -> dict[str, Any]:
    return {
        "settings": {"seed": seed, "sl_cai": {"num_revisions": 1}, "ppo": {"actor": ["trainer.ppo.max_steps=30"]}},
        "constitution": {"name": "made", "principles": [{"id": one.id, **one.requests} for one in PRINCIPLES]},
        "steps": [{"name": name, "title": f"Step {name}"} for name in planned],
        "versions": {"nemo_aligner_cai": "0.1.0", "python": "3.11"},
    }


def _step(name: str, sizes: Sizes) -> dict[str, Any]:
    rows = {"2_sl_cai": sizes.revisions, "4_rl_cai": sizes.comparisons}.get(name)
    facts: dict[str, Any] = {}
    if rows is not None:
        balance = {"rows_in": rows + 2, "written": rows, "left_out": {"empty revision": 2}, "noted": {}}
        counts = dict.fromkeys(("reused", "failed", "faults", "retries", "prompt_tokens", "completion_tokens"), 0)
        facts["generation"] = {
            "balance": balance,
            "calls": 3 * rows,
            **counts,
            "cost": None,
            "seconds": 1,
            "facts": {},
        }
        facts["balances"] = {"blend": {"rows_in": rows, "written": rows, "left_out": {}, "noted": {}}}
    return {
        "step": name,
        "inputs": "0" * 64,
        "outputs": {},
        "seconds": 30.0,
        "peak_rss_mb": 1500.0,
        "facts": facts,
    }


def _texts(random_: random.Random, words: int, extra: Sequence[str]) -> Iterator[str]:
    yield from extra
    syllables = [first + last for first in "bdfgklmnprst" for last in "aeiou"]
    vocabulary = ["".join(random_.choices(syllables, k=random_.randint(1, 3))) for _ in range(4000)]
    while True:
        yield " ".join(random_.choices(vocabulary, k=random_.randint(words // 2, 3 * words // 2))) + "."


def _prompts(rows: int, texts: Iterator[str], kind: str, seed: int) -> Iterator[Conversation]:
    for number in range(rows):
        # The number makes prompts different, and equal for equal seeds.
        yield Conversation.of_user(f"{next(texts)} {kind} {seed}.{number}?")


def _id(prompt: Conversation) -> str:
    return content_hash(prompt.to_messages())


def _revisions(folder: Path, rows: int, texts: Iterator[str], seed: int) -> None:
    def samples() -> Iterator[RevisionSample]:
        for number, prompt in enumerate(_prompts(rows, texts, "revise", seed)):
            answer = next(texts)
            revision = answer if number % 4 == 3 else f"I will not. {answer} {next(texts)}"
            turn = Turn(PRINCIPLES[number % len(PRINCIPLES)], next(texts), revision)
            yield RevisionSample(Prompt(_id(prompt), prompt), answer, (turn.principle,), (turn,))

    templates = PromptTemplates()
    write_jsonl(folder / "revisions.jsonl", (revision_row(one, templates) for one in samples()), overwrite=True)
    dropped = (
        {"id": _id(prompt), "prompt": prompt.to_messages(), "reason": "empty revision", "detail": ""}
        for prompt in _prompts(2, texts, "drop", seed)
    )
    write_jsonl(folder / "revisions.left_out.jsonl", dropped, overwrite=True)


def _comparisons(folder: Path, rows: int, texts: Iterator[str], seed: int) -> None:
    def judged() -> Iterator[JudgedRow]:
        for number, prompt in enumerate(_prompts(rows, texts, "judge", seed)):
            candidates = tuple(Candidate(f"response_{n}", f"{next(texts)} ({number}.{n})") for n in range(2))
            principle = PRINCIPLES[number % len(PRINCIPLES)].id
            # Every fifth pair is decided by its order.
            consistent = number % 5 < 4
            better = number % 3 % 2
            verdicts = (
                JudgedVerdict((0, 1), principle, better, 1 - better, 0.9 if better == 0 else 0.2, ""),
                JudgedVerdict((1, 0), principle, better, 1 - better, 0.8 if better == 1 else 0.1, "")
                if consistent
                else JudgedVerdict((1, 0), principle, 1 - better, better, 0.7 if better == 0 else 0.4, ""),
            )
            won, lost = candidates[better], candidates[1 - better]
            pair = JudgedPair(won.text, lost.text, won.key, lost.key, 0.85, principle, "")
            yield JudgedRow(_id(prompt), prompt, candidates, (pair,) if consistent else (), verdicts)

    write_jsonl(folder / "comparisons.jsonl", (row.to_row() for row in judged()), overwrite=True)


def _replies(folder: Path, rows: int, texts: Iterator[str], seed: int) -> None:
    prompts = list(_prompts(rows, texts, "measure", seed))
    random_, stages = random.Random(seed), dict[str, Any]()
    for model in MODELS:
        outcomes = [random_.choice(_OUTCOMES[number % 2 == 0]) for number in range(rows)]
        replies = [
            {"messages": prompt.to_messages(), "reply": next(texts), "outcome": outcome, "harmful": number % 2 == 0}
            for number, (prompt, outcome) in enumerate(zip(prompts, outcomes, strict=True))
        ]
        write_jsonl(folder / f"{model}_sampled.jsonl", replies, overwrite=True)
        stages[model] = {"sampled": _rates(outcomes)}
    figures = {
        "stages": stages,
        "judge": {"accuracy": 0.9, "low": 0.8, "high": 0.95, "n": 50},
        "reward_model": {"val/acc": 0.875},
    }
    write_json(folder / "figures.json", figures, overwrite=True)


def _rates(outcomes: Sequence[str]) -> dict[str, dict[str, float]]:
    names = {
        "harmful_compliance": ("complies", outcomes[0::2]),
        "right_refusal": ("right_refusal", outcomes[0::2]),
        "flawed_refusal": ("flawed_refusal", outcomes[0::2]),
        "evasion": ("evades", outcomes[0::2]),
        "helpfulness": ("helps", outcomes[1::2]),
        "over_refusal": ("over_refuses", outcomes[1::2]),
    }
    shares = {name: (values.count(hit) / len(values), len(values)) for name, (hit, values) in names.items()}
    return {
        name: {"value": share, "low": max(0.0, share - 0.1), "high": min(1.0, share + 0.1), "n": n}
        for name, (share, n) in shares.items()
    }


def _metrics(folder: Path, slopes: dict[str, float]) -> None:
    rows = ({"step": step} | {name: 1 + slope * step for name, slope in slopes.items()} for step in range(20))
    write_jsonl(folder / "train" / "metrics.jsonl", rows, overwrite=True)
