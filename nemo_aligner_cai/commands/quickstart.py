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
"""``cai quickstart``: the whole of CAI on this machine with the tiny assistant."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemo_aligner_cai.commands.run import add_run_arguments, run
from nemo_aligner_cai.tiny import assistant


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add ``cai quickstart``."""
    parser = subparsers.add_parser("quickstart", help="run the whole of CAI on this machine with the tiny assistant")
    add_run_arguments(parser, output=Path("runs/quickstart"))
    parser.set_defaults(run=run, config=assistant.QUICKSTART)
