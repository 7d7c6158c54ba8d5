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
"""`cai train STAGE key=value...`: one of the trainers, with our configs and Hydra overrides."""

import argparse
import importlib
from typing import Any

# What is typed -> the module whose STAGE runs.
STAGES = {
    "sft": "sft",
    "reward-model": "reward_model",
    "critic": "critic_server",
    "ppo-actor": "ppo_actor",
    "dpo": "dpo",
    "pretrain": "pretrain",
}


def add_parser(subparsers: Any) -> None:
    """Declare `cai train`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="start a trainer",
        description="Start a trainer. Settings are Hydra overrides; --cfg job prints them all.",
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        metavar="key=value",
        help="overrides of the stage's config; also --config-name, --config-dir and --cfg job",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the stage in this process; it ends the process itself where upstream leaves threads behind."""
    from nemo_aligner_cai.training import run as runner

    stage = importlib.import_module(f"nemo_aligner_cai.training.{STAGES[args.stage]}").STAGE
    code = runner.main(stage, args.overrides)
    if code:
        runner.leave(code)
    return code
