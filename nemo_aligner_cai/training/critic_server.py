# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The PPO critic: NeMo-Aligner's MegatronGPTCriticModel and CriticServerTrainer on a PyTriton server (step 6).

    python -m nemo_aligner_cai.training.critic_server pretrained_checkpoint.restore_from_path=... trainer.ppo.port=5567

It listens on the loopback interface; trainer.ppo.host opens it to actors on other nodes. It is ready when each of
http://HOST:PORT/v2/models/{critic_infer,critic_train,critic_save}/ready answers 200; /v2/health/ready does so before
the models are loaded. It exits on SIGINT and SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sysconfig
from functools import partial
from typing import TYPE_CHECKING

from nemo_aligner_cai.training import assembly, triton_limits
from nemo_aligner_cai.training.checks import constraints, model_kind, parallelism
from nemo_aligner_cai.training.checks.all_stages import check_stage
from nemo_aligner_cai.training.checks.ranks import is_first_rank
from nemo_aligner_cai.training.checks.values import check_port
from nemo_aligner_cai.training.launch import loopback
from nemo_aligner_cai.training.launch.stage_main import Stage, start

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)


def check(cfg: DictConfig) -> None:
    """Raise UsageError if the checkpoint or a setting is invalid, or the port is in use."""
    source, kinds = "pretrained_checkpoint.restore_from_path", (model_kind.REWARD_MODEL,)
    check_stage(cfg, source, constraints.CRITIC, head=True, kinds=kinds)
    parallelism.check_batch(cfg, "model.micro_batch_size", "model.global_batch_size")
    host = cfg.trainer.ppo.get("host", loopback.LOOPBACK)
    check_port(host, cfg.trainer.ppo.port, "trainer.ppo.port")
    if is_first_rank() and not loopback.is_loopback(host):
        _log.warning(
            "trainer.ppo.host=%s: anyone who can connect to port %s can train and save the critic, without a password",
            host,
            cfg.trainer.ppo.port,
        )


def serve(cfg: DictConfig) -> None:
    """Serve rewards and values, and train the critic, until SIGINT or SIGTERM."""
    from nemo_aligner.algorithms.critic_server_trainer import CriticServerTrainer
    from nemo_aligner.models.nlp.gpt.megatron_gpt_critic import MegatronGPTCriticModel
    from nemo_aligner.utils.text_generation_utils import tokenize_batch
    from nemo_aligner.utils.utils import copy_model_states_to_cpu, load_from_nemo, set_autocast_gpu_dtype

    source = cfg.pretrained_checkpoint.restore_from_path
    setup = assembly.set_up(cfg, source, "ppo")
    setup.trainer.strategy._timeout = assembly.SERVER_TIMEOUT  # not an argument of upstream's function
    set_autocast_gpu_dtype(cfg.trainer.precision)
    model = load_from_nemo(MegatronGPTCriticModel, cfg.model, setup.trainer, strict=True, restore_path=source)
    if cfg.trainer.ppo.combine_rm_and_critic_server:
        # One model object serves rewards and values: keep the reward model's weights, since training changes them.
        model.rm_state_dict_cpu = copy_model_states_to_cpu(
            model, cpu_dict=None, megatron_amp_O2=cfg.model.get("megatron_amp_O2", False), sync=True
        )
    assembly.init_process_groups(cfg, setup, model)
    server = CriticServerTrainer(
        **assembly.trainer_arguments(cfg, "ppo", setup, model),
        tokenize_func=partial(
            tokenize_batch,
            tokenizer=model.tokenizer,
            max_len=model.cfg.encoder_seq_length,
            add_BOS=False,
            add_EOS=False,
        ),
        gbs=cfg.model.global_batch_size,
        model_forward_micro_batch_size=cfg.model.get("forward_micro_batch_size", cfg.model.micro_batch_size),
    )
    if setup.resumed is not None:
        server.load_state_dict(setup.resumed)
    find_libpython()
    triton_limits.restrict_critic()
    # A shell that starts the server in the background makes it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.run_server()
    except KeyboardInterrupt:
        _log.info("stopping")


def find_libpython() -> None:
    """Add this interpreter's libpython to LD_LIBRARY_PATH, for Triton's Python stub.

    A Python outside the system's library path (pyenv, uv, conda) has it in a folder of its own.
    """
    library = sysconfig.get_config_var("LIBDIR")
    path = os.environ.get("LD_LIBRARY_PATH", "")
    if library and library not in path.split(":"):
        os.environ["LD_LIBRARY_PATH"] = f"{library}:{path}" if path else library


STAGE = Stage(config="cai_ppo_critic", check=check, work=serve)

if __name__ == "__main__":
    start(STAGE)
