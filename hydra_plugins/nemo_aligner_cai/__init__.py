# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Lets every Hydra application, upstream's unmodified scripts among them, find this package's configs.

    python train_gpt_sft.py --config-name=cai_sft ...

Hydra imports what it finds in `hydra_plugins/` on the Python path when an application starts.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from nemo_aligner_cai.training.config import register_own_resolvers

CONFIG_PACKAGE = "pkg://nemo_aligner_cai.conf"


class CaiSearchPath(SearchPathPlugin):
    """Appends the shipped configs to the search path, behind the application's own, and defines what they refer to."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once per application."""
        register_own_resolvers()
        search_path.append(provider="nemo_aligner_cai", path=CONFIG_PACKAGE)
