# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Run an unmodified NeMo-Aligner script, also on a machine without CUDA.

    python -m nemo_aligner_cai.training.upstream_script train_gpt_sft.py --config-name=cai_sft hardware=cpu ...

With CUDA, Apex and Transformer Engine, the only difference from `python train_gpt_sft.py ...` is that a job on one
machine listens on the loopback interface, and so does the critic unless trainer.ppo.host is set. Without CUDA, the
configuration must be for a CPU: GPU settings are not replaced as in `nemo_aligner_cai.training.sft`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from nemo_aligner_cai.console import program
from nemo_aligner_cai.console.printable import error_line
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.training.checks.ranks import is_first_rank
from nemo_aligner_cai.training.launch import log_folder
from nemo_aligner_cai.training.launch.stage_main import compose, exit_process, log_to_stderr, parse_flags

_CRITIC, _ACTOR = "serve_ppo_critic.py", "train_gpt_ppo_actor.py"


def main(argv: list[str]) -> int:
    """Run the script `argv[0]` with the arguments that follow it; returns the exit code."""
    program.begin()
    try:
        if not argv or not Path(argv[0]).is_file():
            raise UsageError("name a script: python -m nemo_aligner_cai.training.upstream_script SCRIPT key=value ...")
        began = time.time()
        _execute(Path(argv[0]).resolve(), argv)
        if Path(argv[0]).name != _CRITIC and is_first_rank():
            _report(argv[1:], began)
    except CaiError as error:
        sys.stderr.write(error_line(error))
        return error.exit_code
    return 0


def _report(words: list[str], began: float) -> None:
    """Log the path of the saved model, if the script uses a configuration with a log folder."""
    known = [word for word in words if not word.startswith("-") or word.startswith("--config-")]
    arguments = parse_flags(known, "")
    if arguments.config:
        log_to_stderr()
        log_folder.report(compose(arguments), "exp_manager.explicit_log_dir", began)


def _execute(script: Path, argv: list[str]) -> None:
    from nemo_aligner_cai.training import config, critic_server, triton_limits
    from nemo_aligner_cai.training.cpu.install import install_patches
    from nemo_aligner_cai.training.launch import loopback

    config.register_resolvers()
    critic_server.find_libpython()
    loopback.restrict()
    install_patches()
    if script.name == _CRITIC:
        triton_limits.restrict_critic()
    if script.name == _ACTOR:
        loopback.restrict_rollouts()
    sys.argv = [str(script), *argv[1:]]
    sys.path.insert(0, str(script.parent))
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # The script runs as __main__, but sys.modules["__main__"] remains this small module: Megatron's checkpoint writer
    # spawns processes that import __main__ again, and the script would import NeMo in each.
    scope = {"__name__": "__main__", "__file__": str(script)}
    exec(compile(script.read_bytes(), str(script), "exec"), scope)


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
