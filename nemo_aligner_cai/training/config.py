# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Composes a stage's configuration from a config name and `key=value` overrides.

This uses Hydra's compose API, so that a mistake is a `UsageError` with a message of one line; Hydra's own command line
would exit.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError, one_line
from nemo_aligner_cai.files.yaml_text import read_yaml
from nemo_aligner_cai.packaged_files import MODEL
from nemo_aligner_cai.sections import meant

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)
_NO_KEY = re.compile(r"Could not override '([^']+)'")
_NO_OPTION = re.compile(r"Could not find '([\w/]+)/([^'/]+)'")
"""Hydra's messages of a wrong override."""


def config_dir() -> Path:
    """The folder of the shipped configs: nemo_aligner_cai.conf if installed, else the checkout's."""
    package = Path(__file__).resolve().parent.parent
    folders = (package / "conf", package.parent / "examples" / "nlp" / "gpt" / "conf")
    found = next((folder for folder in folders if (folder / "cai_sft.yaml").is_file()), None)
    if found is None:
        raise UsageError("the package's configs (nemo_aligner_cai.conf) are missing: install the package again")
    return found


def register_own_resolvers() -> None:
    """Define `${cai_tiny_model:}`, the path of the packaged model."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("cai_tiny_model", lambda: str(MODEL), replace=True)


def register_resolvers() -> None:
    """Define the resolvers of the configs: `${cai_tiny_model:}`, and arithmetic under upstream's names."""
    from omegaconf import OmegaConf

    register_own_resolvers()
    OmegaConf.register_new_resolver("multiply", lambda x, y: x * y, replace=True)
    OmegaConf.register_new_resolver("int_div", lambda x, y: x // y, replace=True)
    OmegaConf.register_new_resolver("subtract", lambda x, y: x - y, replace=True)


def compose(
    config_name: str, overrides: Sequence[str], *, search: Sequence[Path] = (), with_hydra: bool = False
) -> DictConfig:
    """Compose one configuration.

    Args:
        config_name: the name of a shipped config or, if no config has that name, of a file in `search`, with or
            without `.yaml`. A file in `search` may use shipped configs in its `defaults`.
        overrides: Hydra overrides: `key=value`, `+key=value`, `++key=value`, `~key`, `group=option`.
        search: more folders of configs.
        with_hydra: include Hydra's own section `hydra`.

    Returns:
        The configuration in struct mode: reading an unknown key raises, as in upstream's scripts.

    Raises:
        UsageError: a folder, config, group option or key is unknown, or an override cannot be parsed.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register_resolvers()
    name = config_name.removesuffix(".yaml")
    folders = [config_dir(), *(path.resolve() for path in search)]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"there is no config folder {folder}")
    # Hydra searches for the first config in its initial folder, and for the others in all folders. The search-path
    # plugin may add the shipped folder a second time, which does no harm.
    first = next((folder for folder in folders if (folder / f"{name}.yaml").is_file()), folders[0])
    others = [in_quotes(f"file://{folder}") for folder in folders if folder != first]
    extra = [f"hydra.searchpath=[{','.join(others)}]"] if others else []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(first), version_base=None):
            return hydra_compose(name, [*extra, *overrides], return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(f"{config_name}: {_explained(str(error), name, folders) or one_line(error)}") from error


def _explained(message: str, config_name: str, folders: Sequence[Path]) -> str | None:
    """The message of a wrong override, with the key or option that was meant; None for another error."""
    if found := _NO_KEY.search(message):
        key = found[1]
        known = known_keys(config_name, folders)
        close = meant(key, known)
        if close is None:
            return f"there is no key {key}; ++{key}=... adds it"
        if options := group_options(close, folders):
            return f"there is no key {key}; did you mean the group {close}, one of {', '.join(options)}?"
        return f"there is no key {key}; did you mean {close}, which {known[close]} sets? ++{key}=... adds a new key"
    if found := _NO_OPTION.search(message):
        group, option = found[1], found[2]
        options = group_options(group, folders)
        if options:
            close = difflib.get_close_matches(option, options, n=1)
            hint = f"did you mean {group}={close[0]}? " if close else ""
            return f"{group}={option}: there is no such option; {hint}known: {', '.join(options)}"
    return None


def group_options(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """The options of a config group, in the shipped folder or those given, sorted."""
    return sorted({path.stem for folder in folders or [config_dir()] for path in (folder / group).glob("*.yaml")})


def known_keys(config_name: str, folders: Sequence[Path] = ()) -> dict[str, Path]:
    """The groups and dotted keys that can be overridden, each with the file that sets it (a group with its folder).

    A key that refers to another one, as `max_steps: ${.sft.max_steps}` does, is replaced by that one.
    """
    folders, found = list(folders) or [config_dir()], dict[str, Path]()
    names = [config_name]
    for name in names:
        path = next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)
        tree: Any = read_yaml(path) if path is not None else None
        if path is None or not isinstance(tree, dict):
            continue
        for default in tree.pop("defaults", []):
            if isinstance(default, str) and default not in ("_self_", *names):
                names.append(default)
            elif isinstance(default, dict):
                groups = [str(group) for group in default if not str(group).startswith("optional ")]
                places = ((group, folder / group) for group in groups for folder in folders)
                found |= {group: place for group, place in places if place.is_dir()}
        for key in _settable(tree):
            found.setdefault(key, path)
    return found


def _settable(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _settable(value, f"{prefix}{name}.")
        elif not (isinstance(value, str) and value.startswith("${")):
            yield f"{prefix}{name}"


def quoted(path: str | Path) -> str:
    """The absolute path, quoted as the value of a Hydra override."""
    return in_quotes(str(Path(path).absolute()))


def in_quotes(text: str) -> str:
    """The text, quoted as the value of a Hydra override.

    In Hydra's quotes, a backslash is literal unless it precedes a quote or an interpolation: there it escapes, and
    must itself be escaped.
    """
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", text) + "'"


def missing_keys(cfg: DictConfig) -> list[str]:
    """The keys without a value (`???`), sorted."""
    from omegaconf import OmegaConf

    # OmegaConf.missing_keys() resolves interpolations, some of which refer to the checkpoint's configuration.
    return sorted(_missing(OmegaConf.to_container(cfg, resolve=False), ""))


def _missing(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _missing(value, f"{path}.{key}" if path else str(key))
    elif node == "???":
        yield path


def chooses_hardware(overrides: Iterable[str]) -> bool:
    """True if one of the overrides is a choice of the group `hardware`."""
    return any(override.lstrip("+").startswith("hardware=") for override in overrides)


def choose_hardware(
    config_name: str, overrides: Sequence[str], *, search: Sequence[Path] = (), cuda: bool
) -> list[str]:
    """Return the overrides, preceded by `hardware=cpu` if there is no GPU and the user has chosen no hardware.

    A user's own configuration may lack the group `hardware`; then Hydra would reject a choice.

    Raises:
        UsageError: from `compose`, which is called to list the groups.
    """
    if cuda or chooses_hardware(overrides):
        return list(overrides)
    if "hardware" not in compose(config_name, overrides, search=search, with_hydra=True).hydra.runtime.choices:
        return list(overrides)
    _log.warning("no CUDA device here: using hardware=cpu")
    return ["hardware=cpu", *overrides]


def log_dir(cfg: DictConfig) -> Path:
    """The log folder of a stage; by default, the one that NeMo's experiment manager creates."""
    return Path(str(select(cfg, "exp_manager.explicit_log_dir") or "nemo_experiments"))


def select(cfg: DictConfig, key: str) -> Any:
    """The value at a dotted key; None if the key is absent or has no value.

    Raises:
        UsageError: it refers to a key that is absent, or to one without a value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.select(cfg, key, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise UsageError(f"{key}: {one_line(error)}") from error


def adds_adapters(cfg: DictConfig) -> bool:
    """True if a trainer with this configuration trains adapters, such as LoRA's, instead of the whole model."""
    return select(cfg, "model.peft.peft_scheme") not in (None, "none")
