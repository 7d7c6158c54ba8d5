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
"""The files of the tiny assistant that come with the package; ``cai tiny build`` makes them again."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
MODEL = _FOLDER / "assistant.nemo"
PROVENANCE = _FOLDER / "assistant.json"
TOKENIZER = _FOLDER / "tokenizer.model"
CONSTITUTION = _FOLDER / "constitution.yaml"
QUICKSTART = _FOLDER / "quickstart.yaml"
