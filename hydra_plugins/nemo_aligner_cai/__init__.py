# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Hydra plugin: every Hydra application finds this package's configs, upstream's unmodified scripts included.

    python train_gpt_sft.py --config-name=cai_sft ...

Hydra imports all modules in `hydra_plugins/` on the Python path when an application starts.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from nemo_aligner_cai.training.config import register_own_resolvers

CONFIG_PACKAGE = "pkg://nemo_aligner_cai.conf"


class CaiSearchPath(SearchPathPlugin):
    """Append this package's configs to the application's search path, and register their resolvers."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Extend the search path; Hydra calls it once per application."""
        register_own_resolvers()
        search_path.append(provider="nemo_aligner_cai", path=CONFIG_PACKAGE)
