# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Making data as Hydra composes it: components chosen by config groups, flags given as keys.

    cai data generator=rl-cai judge=multiple-choice judge_prompt=paper flags.pairs=all flags.output_dir=rl_cai ...

Input:  Hydra overrides, and --config-dir and --config-name for a configuration of one's own on top of `cai_data`
Output: the component that makes the data, and the command line that says the same in its flags

The groups ``generator``, ``processor``, ``judge`` and ``judge_prompt`` have an option for each component of that kind,
those of other packages too. Under ``flags`` stands every flag of the chosen one, with underscores for dashes.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, cast

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.registry import Component, components

CONFIG = "cai_data"
FLAGS = ("--config-name", "--config-dir", "--cfg")
"""Hydra's own flags that are taken."""
_GROUPS = {"generator": "generators", "processor": "processors", "judge": "judges", "judge_prompt": "judge_prompts"}
"""Hydra group -> kind of component."""
_MAKERS = ("generator", "processor")
_NOT_KEYS = ("help", "ngc_api_key", "judge", "judge_prompt")
"""A key of an API must not stand in a command or a configuration; the others are groups."""


def is_hydra(words: Sequence[str]) -> bool:
    """Whether a command line is of Hydra's kind; else its first word is a component's name."""
    return bool(words) and ("=" in words[0] or words[0].startswith(FLAGS))


def compose_command(words: Sequence[str]) -> tuple[Component, list[str]] | str:
    """What to run, or with ``--cfg job`` the composed configuration as YAML.

    Raises:
        UsageError: Hydra is not installed, an unknown group, option or flag, or not exactly one component that makes
            data.
    """
    if importlib.util.find_spec("hydra") is None:
        raise UsageError("config groups need Hydra: pip install hydra-core; without it, use the flags")
    from omegaconf import OmegaConf

    from nemo_aligner_cai.training import config
    from nemo_aligner_cai.training.launch.stage import parse_flags

    _register()
    given = parse_flags(list(words), CONFIG)
    cfg = config.compose(given.config, given.overrides, search=given.search)
    tree = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    if given.show:
        return OmegaConf.to_yaml(cfg)
    chosen = [group for group in _MAKERS if tree.get(group)]
    if len(chosen) != 1:
        names = ", ".join(name for group in _MAKERS for name in components(_GROUPS[group]))
        raise UsageError(f"choose one generator=NAME or processor=NAME; there are {names}")
    maker = components(_GROUPS[chosen[0]])[tree[chosen[0]]["name"]]
    return maker, _command_line(maker, tree)


def _register() -> None:
    """Give Hydra an option for each component: what is installed decides, so no file can list them."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, kind in _GROUPS.items():
        for component in components(kind).values():
            node: dict[str, Any] = {group: {"name": component.name}}
            if group in _MAKERS:
                node["flags"] = dict.fromkeys(_flags(component))
            store.store(group=group, name=component.name, node=node, package="_global_")


def _flags(maker: Component) -> dict[str, argparse.Action]:
    """Key -> flag of a component that shows its parser, as ours do; another package's may take any."""
    build = getattr(maker.load(), "build_parser", None)
    if build is None:
        return {}
    parser: argparse.ArgumentParser = build()
    found = {
        option[2:].replace("-", "_"): action
        for action in parser._actions  # argparse has no public way to list them
        for option in action.option_strings
        if option.startswith("--") and not option.startswith("--no-")
    }
    return {key: action for key, action in found.items() if key not in _NOT_KEYS}


def _command_line(maker: Component, tree: dict[str, Any]) -> list[str]:
    flags, words = _flags(maker), list[str]()
    for group in ("judge", "judge_prompt"):
        if tree.get(group):
            words += [f"--{group.replace('_', '-')}", tree[group]["name"]]
    for key, value in cast(dict[str, Any], tree.get("flags") or {}).items():
        if value is not None:
            words += _words(key, value, flags.get(key))
    return words


def _words(key: str, value: Any, action: argparse.Action | None) -> Iterator[str]:
    option = next(
        (one for one in action.option_strings if one[2:].replace("-", "_") == key) if action else iter(()),
        f"--{key.replace('_', '-')}",
    )
    switch = action is not None and action.nargs == 0
    if switch and not isinstance(value, bool):
        raise UsageError(f"flags.{key}={value}: must be true or false")
    if switch and not value:
        if isinstance(action, argparse.BooleanOptionalAction):
            yield f"--no-{option[2:]}"
        return
    yield option
    if switch:
        return
    # Lists are words; a mapping is the Python literal that upstream's flags take.
    yield from map(str, cast(list[Any], value if isinstance(value, list) else [value]))
