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
