# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""From a config name and `key=value` overrides to one resolved-on-demand configuration.

The stage configs are composed with Hydra, as upstream's scripts do, but through its compose API: a mistake
becomes a `UsageError` with one line instead of Hydra's own exit.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.packaged_files import MODEL

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)


def config_dir() -> Path:
    """The directory of the shipped configs: nemo_aligner_cai.conf where installed, else the checkout's."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "examples" / "nlp" / "gpt" / "conf"):
        if (folder / "cai_sft.yaml").is_file() or (folder / "cai_pretrain.yaml").is_file():
            return folder
    import importlib.util

    spec = importlib.util.find_spec("nemo_aligner_cai.conf")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("the package's configs (nemo_aligner_cai.conf) are missing: install the package again")
    return Path(next(iter(spec.submodule_search_locations)))


def register_own_resolvers() -> None:
    """Define `${cai_tiny_model:}`, the path of the packaged model; its name is nobody else's."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("cai_tiny_model", lambda: str(MODEL), replace=True)


def register_resolvers() -> None:
    """Define what the configs use: `${cai_tiny_model:}`, and arithmetic under upstream's names."""
    from omegaconf import OmegaConf

    register_own_resolvers()
    OmegaConf.register_new_resolver("multiply", lambda x, y: x * y, replace=True)
    OmegaConf.register_new_resolver("int_div", lambda x, y: x // y, replace=True)
    OmegaConf.register_new_resolver("subtract", lambda x, y: x - y, replace=True)


def compose(config_name: str, overrides: Sequence[str], *, search: Sequence[Path] = ()) -> DictConfig:
    """Compose one configuration.

    Args:
        config_name: a file in the shipped configs or, where they have none of that name, in `search`; with or without
            `.yaml`. A file in `search` may name one of ours in its `defaults`.
        overrides: Hydra overrides: `key=value`, `+key=value`, `++key=value`, `~key`, `group=option`.
        search: more directories to look for configs in.

    Returns:
        The configuration in struct mode: reading an unknown key raises, as under upstream's scripts.

    Raises:
        UsageError: unknown folder, config, group option or key, or an override that does not parse.
    """
    return _compose(config_name, overrides, search)


def _compose(config_name: str, overrides: Sequence[str], search: Sequence[Path], *, hydras_own: bool = False) -> Any:
    """`compose`, with Hydra's own section `hydra` where asked for."""
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
            raise UsageError(f"there is no folder {folder} to look for configs in")
    # Hydra looks for the first config in the folder that it begins with, and for the others in all folders. Our own
    # may be given by the search-path plugin too; looking twice does no harm.
    first = next((folder for folder in folders if (folder / f"{name}.yaml").is_file()), folders[0])
    others = [in_quotes(f"file://{folder}") for folder in folders if folder != first]
    extra = [f"hydra.searchpath=[{','.join(others)}]"] if others else []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(first), version_base=None):
            return hydra_compose(name, [*extra, *overrides], return_hydra_config=hydras_own)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(f"{config_name}: {one_line(error)}") from error


def quoted(path: str | Path) -> str:
    """A path, made absolute, as the value of a Hydra override, whatever characters it has."""
    return in_quotes(str(Path(path).absolute()))


def in_quotes(text: str) -> str:
    """A text as the value of a Hydra override.

    In Hydra's quotes a backslash stands for itself, except before a quote or an interpolation: it escapes these, and
    is itself escaped there.
    """
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", text) + "'"


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, with the causes that Hydra leaves out of its own."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = " ".join(str(cause).split())
        if text and not any(text in seen for seen in texts):
            texts.append(text)
        cause = cause.__cause__
    return ": ".join(texts) or type(error).__name__


def missing_keys(cfg: DictConfig) -> list[str]:
    """The keys that have no value yet (`???`), sorted."""
    from omegaconf import OmegaConf

    # OmegaConf.missing_keys() resolves interpolations, of which some point into the checkpoint's configuration.
    return sorted(_missing(OmegaConf.to_container(cfg, resolve=False), ""))


def _missing(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _missing(value, f"{path}.{key}" if path else str(key))
    elif node == "???":
        yield path


def choose_hardware(
    config_name: str, overrides: Sequence[str], *, search: Sequence[Path] = (), cuda: bool
) -> list[str]:
    """Add `hardware=cpu` where there is no GPU and the user chose nothing, and say so.

    A configuration of the user's own may have no group `hardware`, in which Hydra would refuse a choice.

    Args:
        config_name: as for `compose`.
        overrides: the user's.
        search: as for `compose`.
        cuda: whether torch sees a GPU.

    Raises:
        UsageError: as `compose`, of which it needs one to know the groups.
    """
    chosen = any(override.lstrip("+").startswith("hardware=") for override in overrides)
    if chosen or cuda:
        return list(overrides)
    if "hardware" not in _compose(config_name, overrides, search, hydras_own=True).hydra.runtime.choices:
        return list(overrides)
    _log.warning("no CUDA device here: using hardware=cpu")
    return ["hardware=cpu", *overrides]


def select(cfg: DictConfig, key: str) -> Any:
    """The value at a dotted key, None where it is absent or has no value."""
    from omegaconf import OmegaConf

    return OmegaConf.select(cfg, key, throw_on_missing=False)
