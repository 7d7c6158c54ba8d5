# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""NeMo's text-generation server on a .nemo model (tutorial, step 7; also behind steps 2 and 4).

    python -m nemo_aligner_cai.training.inference_server gpt_model_file=model.nemo port=1427

It prints one line when it is ready, `ready: http://127.0.0.1:1427`, and exits cleanly on SIGINT and SIGTERM.

Deviations from NeMo's megatron_gpt_eval.py: that script needs a GPU, generates two samples first, listens on all
interfaces and logs the text of every request. Generation is NeMo's; the routes are those of `serving`, since NeMo's
fail on invalid values and on a chat without a temperature, and are unbounded.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.chat import template_named
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training import assembly, config
from nemo_aligner_cai.training.checks import model_file, model_needs, parallelism
from nemo_aligner_cai.training.checks.ranks import is_first_rank
from nemo_aligner_cai.training.checks.values import check_port, positive_int
from nemo_aligner_cai.training.launch.stage_main import Stage, start

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)


def check(cfg: DictConfig) -> None:
    """Raise UsageError if the model is invalid, the port is in use or a setting is not supported."""
    model_needs.check(cfg, "gpt_model_file", tokenizer="tokenizer.type")
    if cfg.port:
        check_port(cfg.host, cfg.port, "port")
    if not cfg.server:
        raise UsageError(
            "server=False is not supported; send requests to the server, or use NeMo's megatron_gpt_eval.py"
        )
    if cfg.chat_template is not None:
        template_named(str(cfg.chat_template))
    _check_length(cfg)
    if cfg.web_server:
        _log.warning("web_server=True: the web page is not supported; only the endpoints are started")


def _check_length(cfg: DictConfig) -> None:
    """Raise UsageError if max_model_len is more than the number of learned position embeddings."""
    length = positive_int(cfg, "max_model_len")
    stored = model_file.model_config(model_file.nemo_model(cfg, "gpt_model_file"))
    learned = stored.get("position_embedding_type", "learned_absolute") == "learned_absolute"
    most = stored.get("encoder_seq_length")
    if learned and length is not None and isinstance(most, int) and length > most:
        raise UsageError(f"max_model_len={length}: the model has embeddings for {most} positions; give at most {most}")


def serve(cfg: DictConfig) -> None:
    """Load the model and serve until SIGINT or SIGTERM."""
    from megatron.core import parallel_state

    from nemo_aligner_cai.training.serving import model_info
    from nemo_aligner_cai.training.serving.strategy import RowStrategy

    path = model_file.nemo_model(cfg, "gpt_model_file")
    fingerprint = model_info.fingerprint(path, cfg.chat_template) if is_first_rank() else None
    model = load_model(cfg)
    strategy = RowStrategy(model)
    if parallel_state.is_pipeline_first_stage() and parallel_state.get_tensor_model_parallel_rank() == 0:
        _listen(cfg, model, strategy, fingerprint)
    else:
        _follow(model, strategy)


def load_model(cfg: DictConfig) -> Any:
    """Load the MegatronGPTModel of `gpt_model_file` in evaluation mode, with its process groups initialized."""
    import torch
    from lightning.pytorch.trainer.trainer import Trainer
    from nemo.collections.nlp.models.language_modeling.megatron_gpt_model import MegatronGPTModel
    from nemo.collections.nlp.parts.nlp_overrides import NLPDDPStrategy, NLPSaveRestoreConnector
    from omegaconf import OmegaConf

    from nemo_aligner_cai.training.cpu.patches import installed

    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        _use_one_process(cfg)
    sizes = {key: max(1, cfg[key]) for key in ("tensor_model_parallel_size", "pipeline_model_parallel_size")}
    trainer = Trainer(strategy=NLPDDPStrategy(timeout=assembly.SERVER_TIMEOUT), **cfg.trainer)
    connector = NLPSaveRestoreConnector()
    path = model_file.nemo_model(cfg, "gpt_model_file")
    if path.is_dir():
        connector.model_extracted_dir = str(path)
    restore = {"restore_path": str(path), "trainer": trainer, "save_restore_connector": connector}
    model_cfg = MegatronGPTModel.restore_from(**restore, return_config=True)
    # These settings belong to training, or to the machine on which the model was trained.
    changes = {
        **parallelism.LAYOUT,
        **sizes,
        "micro_batch_size": 1,
        "activations_checkpoint_granularity": None,
        "activations_checkpoint_method": None,
        "precision": cfg.trainer.precision,
        "megatron_amp_O2": cfg.megatron_amp_O2,
        "apply_rope_fusion": False,
    }
    if on_cpu:
        changes |= {"use_cpu_initialization": True, "use_flash_attention": False}
        if line := model_needs.drop_sliding_window(model_cfg):
            _log.warning(line)
    if on_cpu or not installed("transformer_engine"):
        changes |= {key: False for key in ("transformer_engine", "persist_layer_norm", "gradient_accumulation_fusion")}
        changes |= {f"{fused}_fusion": False for fused in ("masked_softmax", "bias_activation", "bias_dropout_add")}
    if folder := config.select(cfg, "tokenizer.type"):
        changes["tokenizer"] = {"type": folder}
    model_cfg = OmegaConf.merge(model_cfg, changes)
    device = "cpu" if on_cpu else f"cuda:{trainer.local_rank}"
    model = MegatronGPTModel.restore_from(**restore, override_config_path=model_cfg, map_location=device)
    model.freeze()
    assembly.freeze_objects()
    return model.eval()


def _use_one_process(cfg: DictConfig) -> None:
    """Without a GPU, serve from a single process: parallelism gains nothing for a tiny model."""
    for key, section in (
        ("tensor_model_parallel_size", cfg),
        ("pipeline_model_parallel_size", cfg),
        ("devices", cfg.trainer),
        ("num_nodes", cfg.trainer),
    ):
        if section[key] > 1:
            _log.warning("no GPU here: %s=%s replaced by 1", key, section[key])
            section[key] = 1


def _listen(cfg: DictConfig, model: Any, strategy: Any, fingerprint: Any) -> None:
    """Serve HTTP until SIGINT or SIGTERM."""
    from nemo.utils import logging as nemo_logging
    from werkzeug.serving import make_server

    from nemo_aligner_cai.training.serving import model_info
    from nemo_aligner_cai.training.serving.engine import Engine
    from nemo_aligner_cai.training.serving.routes import Server, make_app

    path = model_file.nemo_model(cfg, "gpt_model_file")
    template = model_info.template_of(model, cfg.chat_template)
    if template is None:
        _log.info("%s has no chat template: chat requests need chat_template=NAME (--chat-template)", path)
    app = make_app(
        Server(
            engine=Engine(model.cuda(), strategy, _broadcast, positive_int(cfg, "max_model_len")),
            text=model_info.Text(model.tokenizer),
            name=path.name.removesuffix(".nemo"),
            root=str(path),
            fingerprint=fingerprint,
            created=int(time.time()),
            template=template,
            log_requests=cfg.log_requests,
        )
    )
    if not cfg.log_requests:
        # werkzeug logs a line per request, Lightning one per seed.
        nemo_logging.setLevel(nemo_logging.WARNING)
        for name in ("werkzeug", "lightning.fabric.utilities.seed"):
            logging.getLogger(name).setLevel(logging.WARNING)
    server = make_server(cfg.host, cfg.port, app, threaded=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.write(f"ready: http://{cfg.host}:{server.server_port}\n")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        _log.info("stopping")
    finally:
        server.server_close()


def _broadcast(rules: Any) -> None:
    """Send the rules of the next batch to the other ranks of a model-parallel server."""
    import torch

    if torch.distributed.get_world_size() > 1:
        torch.distributed.broadcast_object_list([rules], 0)


def _follow(model: Any, strategy: Any) -> None:
    """Generate whenever rank 0 broadcasts a batch, until it ends: the other ranks of a model-parallel server."""
    import torch
    from nemo.collections.nlp.modules.common.text_generation_utils import generate

    while True:
        received: list[Any] = [None]
        torch.distributed.broadcast_object_list(received, 0)
        strategy.begin(received[0])
        generate(model.cuda(), strategy=strategy)


STAGE = Stage(config="cai_inference", check=check, work=serve)

if __name__ == "__main__":
    start(STAGE)
