# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The PPO critic: NeMo-Aligner's MegatronGPTCriticModel and CriticServerTrainer on a PyTriton server (step 6).

    python -m nemo_aligner_cai.training.critic_server pretrained_checkpoint.restore_from_path=... trainer.ppo.port=5567

It listens on this machine only; trainer.ppo.host opens it to actors on other nodes. It is ready when each of
http://HOST:PORT/v2/models/{critic_infer,critic_train,critic_save}/ready answers 200 (the server's own
/v2/health/ready does so earlier, and then not while the models load). It ends on SIGINT and SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sysconfig
from functools import partial
from typing import TYPE_CHECKING

from nemo_aligner_cai.training import assembly, closed_triton
from nemo_aligner_cai.training.checks import common as checks
from nemo_aligner_cai.training.checks import constraints, model_file, model_kind, parallelism
from nemo_aligner_cai.training.launch import listening
from nemo_aligner_cai.training.launch.stage import Stage, start

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)


def check(cfg: DictConfig) -> None:
    """Raise UsageError for a model that is none or a port that is taken."""
    checks.common(
        cfg, "pretrained_checkpoint.restore_from_path", constraints.CRITIC, head=True, kinds=(model_kind.REWARD_MODEL,)
    )
    parallelism.batch(cfg, "model.micro_batch_size", "model.global_batch_size")
    host = cfg.trainer.ppo.get("host", listening.LOOPBACK)
    model_file.free_port(host, cfg.trainer.ppo.port, "trainer.ppo.port")
    if model_file.first_rank() and not listening.is_loopback(host):
        _log.warning(
            "trainer.ppo.host=%s: whoever reaches port %s can train and save the critic, without a password",
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
    setup.trainer.strategy._timeout = assembly.PATIENCE  # upstream's builder of the strategy does not let one choose
    set_autocast_gpu_dtype(cfg.trainer.precision)
    model = load_from_nemo(MegatronGPTCriticModel, cfg.model, setup.trainer, strict=True, restore_path=source)
    if cfg.trainer.ppo.combine_rm_and_critic_server:
        # The reward model's weights, kept aside: the critic's change, and one model object answers for both.
        model.rm_state_dict_cpu = copy_model_states_to_cpu(
            model, cpu_dict=None, megatron_amp_O2=cfg.model.get("megatron_amp_O2", False), sync=True
        )
    assembly.join_processes(cfg, setup, model)
    training = assembly.prepare_training(cfg, setup, model, None, None)

    server = CriticServerTrainer(
        cfg=cfg.trainer.ppo,
        model=model,
        optimizer=training.optimizer,
        scheduler=training.scheduler,
        logger=setup.logger,
        ckpt_callback=training.ckpt_callback,
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
    closed_triton.restrict_critic()
    # A shell that starts the server in the background has it ignore SIGINT, which would leave no way to stop it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.run_server()
    except KeyboardInterrupt:
        _log.info("stopping")


def find_libpython() -> None:
    """Let Triton's Python stub, which is linked to libpython by name, find this interpreter's.

    A Python outside the system's library path (pyenv, uv, conda) has it in a folder that only LD_LIBRARY_PATH names.
    """
    library = sysconfig.get_config_var("LIBDIR")
    known = os.environ.get("LD_LIBRARY_PATH", "")
    if library and library not in known.split(":"):
        os.environ["LD_LIBRARY_PATH"] = f"{library}:{known}" if known else library


STAGE = Stage(config="cai_ppo_critic", check=check, work=serve)

if __name__ == "__main__":
    start(STAGE)
