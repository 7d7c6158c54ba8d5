# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The arms: changes of the quickstart's configuration, and the arm whose finished steps each one shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.layout import DPO, PPO, SFT

BASE = "base"
_JUDGES = "benchmarks.ablations.judges"
_ONE_PRINCIPLE = Path(__file__).with_name("one_principle.yaml")
# Another assistant, whose corpus reasons before it chooses (`cai tiny build --reasoning`); the packaged one can not.
_REASONING = str(Path(__file__).with_name("reasoning") / "assistant.nemo")
_ASSISTANT = {f"models.{name}.nemo": _REASONING for name in ("helpful_only", "base", "judge")}
_CLAMPED = {**_ASSISTANT, "rl_cai.judge": "chain-of-thought", "rl_cai.max_tokens": 64}
_REASONS = {**_CLAMPED, "rl_cai.clamp": (0.0, 1.0)}
# A permission is seen only in pairs of a refusal and help with what is permitted. SL-CAI gives few of them, so both
# arms sample more responses at a higher temperature, and train longer on the pairs.
_VARIED = {**_REASONS, "rl_cai.num_responses": 8, "rl_cai.decoding.temperature": 1.5, "rl_cai.pairs": "tournament"}
_LONG = {
    "reward_model.overrides": tuple(
        f"trainer.rm.{key}=400" for key in ("max_steps", "val_check_interval", "save_interval")
    ),
    "ppo.actor": ("trainer.ppo.max_steps=200", "trainer.ppo.val_check_interval=200"),
}
_SOFT = {"rl_cai.margin": 0.0, "rl_cai.soft_labels": "repeat"}
_KL = "trainer.ppo.initial_policy_kl_penalty"
# As many rows and steps as the reward model sees, at the learning rate of PPO's actor.
_DPO = (
    "++model.micro_batch_size=32",
    "++model.global_batch_size=32",
    "trainer.dpo.max_epochs=20",
    "trainer.dpo.max_steps=110",
    "trainer.dpo.val_check_interval=110",
    "trainer.dpo.save_interval=110",
    "trainer.dpo.limit_val_batches=1.0",
    "model.optim.lr=1e-4",
    "model.optim.sched.min_lr=1e-5",
    "model.optim.sched.warmup_steps=10",
    "++model.optim.sched.constant_steps=0",
)


@dataclass(frozen=True)
class Arm:
    """A run that differs from the quickstart.

    Attributes:
        name: of the arm and of its folder.
        title: for the table.
        last: the last step that it needs.
        change: dotted key of the configuration -> its value.
        overrides: dotted key of a trainer's overrides -> those that are added.
        shares: the arm whose steps and model calls it takes over as far as they are the same; None for the first.
    """

    name: str
    title: str
    last: str = PPO
    change: Mapping[str, Any] = field(default_factory=dict[str, Any])
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    shares: str | None = BASE

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are measured: those that the arm changes, and both of the first arm."""
        if self.shares is None:
            return ("sl_cai", "rl_cai")
        return ("sl_cai",) if self.last == SFT else ("rl_cai",)

    def configure(self, base: RunConfig) -> RunConfig:
        """Return the arm's configuration; raises UsageError for a key that the base does not have."""
        tree = base.model_dump()
        for key, value in self.change.items():
            section, last = _section(tree, key)
            section[last] = value
        for key, added in self.overrides.items():
            section, last = _section(tree, key)
            section[last] = (*section[last], *added)
        return RunConfig.model_validate(tree)


def _section(tree: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    *parents, last = key.split(".")
    section: dict[str, Any] | None = tree
    for name in parents:
        inner: Any = section.get(name) if section else None
        section = cast(dict[str, Any], inner) if isinstance(inner, dict) else None
    if section is None or last not in section:
        raise UsageError(f"there is no key {key!r} in the configuration")
    return section, last


def _revisions(count: int) -> Arm:
    shares = BASE if count == 2 else f"revisions_{count - 1}"
    return Arm(f"revisions_{count}", f"{count} revisions", SFT, {"sl_cai.num_revisions": count}, shares=shares)


ARMS = (
    Arm(BASE, "quickstart", shares=None),
    Arm("shuffled", "shuffled preference labels", change={"rl_cai.judge": f"{_JUDGES}:shuffled_labels"}),
    Arm("reasoned", "judge that reasons first", change=_REASONS),
    Arm(
        "permits_nothing",
        "judge that reasons first, more responses and steps",
        change=_VARIED,
        overrides=_LONG,
        shares="reasoned",
    ),
    Arm(
        "permits_damage",
        "the same with a constitution that permits damage",
        change={**_VARIED, "models.constitution": "permits_damage"},
        overrides=_LONG,
        shares="permits_nothing",
    ),
    Arm("reasoned_direct", "the same assistant, judge that does not reason", change=_ASSISTANT, shares="reasoned"),
    Arm("reasoned_soft", "reasoning, soft labels, no margin", change={**_REASONS, **_SOFT}, shares="reasoned"),
    Arm(
        "reasoned_clamped",
        "reasoning, soft labels of 40 to 60 %",
        change={**_CLAMPED, **_SOFT},
        shares="reasoned_soft",
    ),
    Arm("politeness", "constitution of good manners", change={"models.constitution": "politeness"}),
    Arm("direct", "revised without a critique", SFT, {"sl_cai.critique": False}),
    Arm("one_principle", "one principle", SFT, {"models.constitution": str(_ONE_PRINCIPLE)}),
    _revisions(2),
    _revisions(3),
    _revisions(4),
    Arm("margin_0", "no confidence margin", change={"rl_cai.margin": 0.0}),
    Arm(
        "soft_labels",
        "soft labels, no margin",
        change=_SOFT,
        shares="margin_0",
    ),
    Arm("biased_two_orders", "position-biased judge", change={"rl_cai.judge": f"{_JUDGES}:position_biased"}),
    Arm(
        "biased_one_order",
        "position-biased judge, one order",
        change={"rl_cai.judge": f"{_JUDGES}:position_biased", "rl_cai.both_orders": False},
        shares="biased_two_orders",
    ),
    Arm(
        "dpo",
        "DPO",
        DPO,
        {"reward_model": None, "ppo": None, "dpo": {"seq_length": 96, "overrides": _DPO}},
    ),
    Arm("kl_0", "KL coefficient 0", overrides={"ppo.actor": (f"{_KL}=0",)}),
    Arm("kl_1", "KL coefficient 1", overrides={"ppo.actor": (f"{_KL}=1",)}),
    Arm(
        "overtrained",
        "KL coefficient 0, 90 steps of PPO",
        overrides={"ppo.actor": (f"{_KL}=0", "trainer.ppo.max_steps=90", "trainer.ppo.val_check_interval=90")},
    ),
)
"""All arms, each after the one that it shares steps of; the quickstart has 1 revision and a KL coefficient of 0.1."""


def chosen(names: Sequence[str]) -> list[Arm]:
    """Return the named arms and those that they share steps of, in the order of `ARMS`; all without names.

    Raises:
        UsageError: there is no such arm.
    """
    by_name = {arm.name: arm for arm in ARMS}
    if unknown := [name for name in names if name not in by_name]:
        raise UsageError(f"there is no arm {unknown[0]!r}; the arms are {', '.join(by_name)}")
    wanted = set(names or by_name)
    for arm in reversed(ARMS):
        # The first arm is the baseline of most comparisons.
        wanted |= {BASE} | ({arm.shares} if arm.name in wanted and arm.shares else set())
    return [arm for arm in ARMS if arm.name in wanted]
