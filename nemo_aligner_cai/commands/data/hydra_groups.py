# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai data` with Hydra: components chosen by config groups, flags given as keys.

    cai data generator=rl-cai judge=multiple-choice judge_prompt=paper flags.pairs=all flags.output_dir=rl_cai ...

Input:  Hydra overrides; --config-dir and --config-name for a user's configuration on top of `cai_data`
Output: the component, and the equivalent command line of its flags

The groups ``generator``, ``processor``, ``judge`` and ``judge_prompt`` have one option per registered component.
``flags`` holds every flag of the chosen one, with underscores instead of dashes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, cast

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.registry import Component, components

CONFIG = "cai_data"
FLAGS = {
    "--config-name": f"with generator=NAME: the configuration (default: {CONFIG})",
    "--config-dir": "with generator=NAME: a folder with further configurations",
    "--cfg": "job: with generator=NAME, print the configuration and exit",
}
"""Hydra's flags that `cai data` accepts, and their help."""
_GROUPS = {"generator": "generators", "processor": "processors", "judge": "judges", "judge_prompt": "judge_prompts"}
"""Hydra group -> kind of component."""
_MAKERS = ("generator", "processor")
_NOT_KEYS = ("help", "ngc_api_key", "judge", "judge_prompt")
"""An API key must not be in a command or a configuration; the judge and its prompts are groups."""


def is_hydra(words: Sequence[str]) -> bool:
    """Tell a command line with Hydra overrides from one that begins with a component's name."""
    return bool(words) and ("=" in words[0] or words[0].startswith(tuple(FLAGS)))


def compose_command(words: Sequence[str]) -> tuple[Component, list[str]] | str:
    """Return the component and its command line, or with ``--cfg job`` the composed configuration as YAML.

    Raises:
        UsageError: Hydra is not installed; an unknown group, option or flag; or not exactly one generator or
            processor.
    """
    extras.require("cai data with config groups", extras.COMPOSING, "hydra")
    from omegaconf import OmegaConf

    from nemo_aligner_cai.training import config
    from nemo_aligner_cai.training.launch.stage_main import parse_flags

    _register()
    given = parse_flags(list(words), CONFIG)
    cfg = config.compose(given.config, given.overrides, search=given.search)
    tree = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    if given.show:
        return OmegaConf.to_yaml(cfg)
    chosen = [group for group in _MAKERS if tree.get(group)]
    if len(chosen) != 1:
        names = ", ".join(name for group in _MAKERS for name in components(_GROUPS[group]))
        raise UsageError(f"choose one generator=NAME or processor=NAME; known: {names}")
    maker = components(_GROUPS[chosen[0]])[tree[chosen[0]]["name"]]
    return maker, _command_line(maker, tree)


def _register() -> None:
    """Register a Hydra option for each component; the installed packages determine them."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, kind in _GROUPS.items():
        for component in components(kind).values():
            node: dict[str, Any] = {group: {"name": component.name}}
            if group in _MAKERS:
                node["flags"] = dict.fromkeys(_flags(component))
            store.store(group=group, name=component.name, node=node, package="_global_")


def _flags(maker: Component) -> dict[str, tuple[str, argparse.Action]]:
    """Return key -> (option, action). A component without a `Parser` may have any flag; its keys are unknown."""
    build = getattr(maker.load(), "build_parser", None)
    parser = build() if build is not None else None
    if not isinstance(parser, Parser):
        return {}
    found = {
        option[2:].replace("-", "_"): (option, action)
        for action in parser.flags
        for option in _positive(action)
        if option.startswith("--")
    }
    return {key: flag for key, flag in found.items() if key not in _NOT_KEYS}


def _positive(action: argparse.Action) -> Sequence[str]:
    """The names of a flag, without those that mean the opposite."""
    if not isinstance(action, argparse.BooleanOptionalAction):
        return action.option_strings
    return [option for option in action.option_strings if not option.startswith("--no-")]


def _command_line(maker: Component, tree: dict[str, Any]) -> list[str]:
    flags, words = _flags(maker), list[str]()
    for group in ("judge", "judge_prompt"):
        if tree.get(group):
            words += [f"--{group.replace('_', '-')}", tree[group]["name"]]
    for key, value in cast(dict[str, Any], tree.get("flags") or {}).items():
        if value is not None:
            words += _words(key, value, *flags.get(key, (f"--{key.replace('_', '-')}", None)))
    return words


def _words(key: str, value: Any, option: str, action: argparse.Action | None) -> Iterator[str]:
    if action is None or action.nargs != 0:
        yield option
        # A list becomes several words; a mapping becomes the Python literal that upstream's flags accept.
        yield from map(str, cast(list[Any], value if isinstance(value, list) else [value]))
    elif not isinstance(value, bool):
        raise UsageError(f"flags.{key}={value}: must be true or false")
    elif value:
        yield option
    elif isinstance(action, argparse.BooleanOptionalAction):
        yield f"--no-{option[2:]}"
