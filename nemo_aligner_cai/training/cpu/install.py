# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Patches with which NeMo and NeMo-Aligner run without CUDA, Apex or Transformer Engine.

`install_patches()` replaces attributes of the imported packages; none of their files is changed. Each patch is one
function below: its docstring is its reason, `when` is its condition. It raises `CaiError` if its target is missing, so
that a changed package is noticed at start and not by a wrong result. With CUDA, Apex, Transformer Engine and
TensorRT-LLM no patch applies, except M3, which depends on torch's version.

Call it before any import of NeMo or Megatron: both compile TorchScript functions at import.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.training.cpu.patches import PATCHES, fill, installed, missing, no_cuda, patch, replace

_CPU = torch.device("cpu")
_applied: list[str] = []


def _torch_writes_with_transforms() -> bool:
    import torch.distributed.checkpoint.filesystem as filesystem

    return "serialization_format" in inspect.signature(filesystem._write_item).parameters


def _is_cuda(device: Any) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.startswith("cuda")


# --- environment -----------------------------------------------------------------------------------------------


@patch("E1", when=lambda: "NVIDIA_PYTORCH_VERSION" not in os.environ)
def _nvidia_pytorch_version() -> None:
    """MegatronBaseModel matches a pattern against this variable of NVIDIA's containers even if unset (TypeError)."""
    os.environ["NVIDIA_PYTORCH_VERSION"] = "25.01"


# --- torch -----------------------------------------------------------------------------------------------------


@patch("T1", when=no_cuda)
def _current_device() -> None:
    """NeMo passes torch.cuda.current_device() as `device=`, which raises without CUDA."""
    replace(torch.cuda, "current_device", lambda: _CPU)


@patch("T2", when=no_cuda)
def _synchronize() -> None:
    """NeMo's timers synchronize with the GPU before they read the clock, which raises without CUDA."""
    replace(torch.cuda, "synchronize", lambda device=None: None)


@patch("T3", when=no_cuda)
def _tensor_cuda() -> None:
    """Tensor.cuda() raises without CUDA; the tensor is already on the model's device."""
    replace(torch.Tensor, "cuda", lambda self, *args, **kwargs: self)


@patch("T4", when=no_cuda)
def _typed_constructors() -> None:
    """Server signals and text generation create tensors by torch.cuda.LongTensor and similar constructors."""
    for name in ("LongTensor", "FloatTensor", "ByteTensor"):
        replace(torch.cuda, name, getattr(torch, name))


@patch("T5", when=no_cuda)
def _factories() -> None:
    """NeMo passes device="cuda" and pin_memory=True to these factories, whatever the trainer's accelerator."""
    for name in ("tensor", "zeros", "ones", "empty", "empty_like"):
        replace(torch, name, _on_cpu(getattr(torch, name)))


def _on_cpu(factory: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    import torch.jit._builtins as builtins

    @functools.wraps(factory)
    def build(*args: Any, **kwargs: Any) -> torch.Tensor:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = _CPU
        kwargs.pop("pin_memory", None)
        return factory(*args, **kwargs)

    # NeMo compiles functions that call these factories with torch.jit.script, which accepts only registered operators:
    # register the wrapper under the operator of the wrapped factory.
    operator = builtins._find_builtin(factory)
    if operator is not None:
        builtins._register_builtin(build, operator)
    return build


@patch("T9", when=no_cuda)
def _gather_scalars() -> None:
    """Gloo's all_gather_into_tensor rejects 0-dim inputs, which NCCL accepts and NeMo-Aligner sends."""
    import torch.distributed as dist

    gather = dist.all_gather_into_tensor

    @functools.wraps(gather)
    def all_gather_into_tensor(output: torch.Tensor, part: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return gather(output, part.reshape(1) if part.dim() == 0 else part, *args, **kwargs)

    replace(dist, "all_gather_into_tensor", all_gather_into_tensor)


# --- Megatron-Core ---------------------------------------------------------------------------------------------


@patch("M1", when=no_cuda)
def _rng_fork() -> None:
    """The tracker switches the CUDA generator in regions that are split over tensor-parallel ranks; there is none."""
    import megatron.core.tensor_parallel.random as random

    @contextlib.contextmanager
    def fork(self: Any, name: str = random._MODEL_PARALLEL_RNG_TRACKER_NAME) -> Iterator[None]:
        yield

    replace(random.CudaRNGStatesTracker, "fork", fork)


@patch("M2", when=no_cuda)
def _rng_state() -> None:
    """Activation recomputation saves and restores the CUDA generator too, and there is none."""
    import megatron.core.tensor_parallel.random as random

    replace(random, "_get_cuda_rng_state", lambda *args, **kwargs: torch.get_rng_state())
    replace(random, "_set_cuda_rng_state", lambda *args, **kwargs: None)


@patch("M3", when=_torch_writes_with_transforms)
def _checkpoint_writer() -> None:
    """Torch 2.7 added arguments to a private helper that Megatron-Core 0.11 calls without them."""
    import megatron.core.dist_checkpointing.strategies.filesystem_async as filesystem_async
    import torch.distributed.checkpoint.filesystem as filesystem

    write = filesystem._write_item

    def write_item(stream: Any, data: Any, item: Any, storage_key: str) -> Any:
        transforms = filesystem._StorageWriterTransforms()
        return write(transforms, stream, data, item, storage_key, filesystem.SerializationFormat.TORCH_SAVE)

    replace(filesystem_async, "_write_item", write_item)


@patch("M4", when=missing("transformer_engine"))
def _half_batch_mask() -> None:
    """The reward model passes a causal mask for half of its batch of chosen and rejected texts.

    Transformer Engine ignores the mask for causal attention, but the local softmax broadcasts it and fails. A mask of
    the batch's size is used unchanged. Any other mask must be the plain causal one, which the softmax then builds
    itself.
    """
    from megatron.core.fusions.fused_softmax import FusedScaleMaskSoftmax
    from megatron.core.transformer.enums import AttnMaskType

    softmax = FusedScaleMaskSoftmax.forward

    def forward(self: Any, input: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        batch, _, queries, keys = input.shape
        if mask is not None and mask.size(0) not in (1, batch):
            future = torch.triu(torch.ones(queries, keys, dtype=torch.bool, device=mask.device), diagonal=1)
            if self.attn_mask_type != AttnMaskType.causal or not torch.equal(mask, future.expand_as(mask)):
                raise CaiError(
                    f"attention mask of batch {mask.size(0)} for a batch of {batch}: only the causal mask may be "
                    "shared; set model.data.reset_attention_mask=False"
                )
            mask = None
        return softmax(self, input, mask)

    replace(FusedScaleMaskSoftmax, "forward", forward)


# --- NeMo ------------------------------------------------------------------------------------------------------


@patch("N1", when=missing("apex"))
def _strategy_without_apex() -> None:
    """NLPDDPStrategy requires Apex, of which it uses only the names of the fused optimizers."""
    import nemo.collections.nlp.parts.nlp_overrides as overrides
    from nemo.core.optim.mcore_optim import McoreDistributedOptimizer

    replace(overrides, "HAVE_APEX", True)
    fill(overrides, "McoreDistributedOptimizer", McoreDistributedOptimizer)
    fill(overrides, "MegatronDistributedFusedAdam", type("MegatronDistributedFusedAdam", (), {}))


@patch("N2", when=missing("transformer_engine"))
def _no_pretrained_berts() -> None:
    """Every NLPModel lists pretrained BERT models, whose import needs Transformer Engine (undefined name)."""
    import nemo.collections.nlp.models.nlp_model as nlp_model

    replace(nlp_model, "get_megatron_pretrained_bert_models", lambda: [])


@patch("N3", when=missing("transformer_engine"))
def _local_layer_spec() -> None:
    """get_specs() builds all layer specs, including Transformer Engine's, which the reward model selects."""
    import nemo.collections.nlp.models.language_modeling.megatron_gpt_model as gpt_model
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

    def get_specs(
        spec_name: str, transformer_config: Any = None, use_te: bool = True, hyena_cfg: Any = None, fp8: bool = False
    ) -> Any:
        if spec_name:
            raise CaiError(f"model.name={spec_name} needs Transformer Engine, which is not installed")
        return get_gpt_layer_local_spec(transformer_config.num_moe_experts, transformer_config.moe_grouped_gemm)

    replace(gpt_model, "get_specs", get_specs)


@patch("N4", when=missing("apex"))
def _parallel_attributes() -> None:
    """build_model() imports this function from Apex; Megatron-Core has the same one."""
    import nemo.collections.nlp.modules.common.megatron.build_model as build_model
    from megatron.core.tensor_parallel.layers import set_defaults_if_not_set_tensor_model_parallel_attributes

    fill(
        build_model,
        "set_defaults_if_not_set_tensor_model_parallel_attributes",
        set_defaults_if_not_set_tensor_model_parallel_attributes,
    )


@patch("N5", when=no_cuda)
def _no_context_parallel_stream() -> None:
    """MegatronGPTModel.setup() and generate() create a CUDA stream for Transformer Engine's context parallelism."""
    from nemo.collections.nlp.models.language_modeling.megatron_base_model import MegatronBaseModel

    replace(MegatronBaseModel, "setup_transformer_engine_cp_groups", lambda self: None)


@patch("N6", when=missing("apex"))
def _weight_decay_groups() -> None:
    """Weight-decay groups use Apex's listify_model and norm classes (norms have no weight decay)."""
    import nemo.collections.nlp.modules.common.megatron.utils as utils

    fill(utils, "listify_model", lambda model: model if isinstance(model, list) else [model])
    fill(utils, "FusedLayerNorm", torch.nn.LayerNorm)
    fill(utils, "FastLayerNorm", torch.nn.LayerNorm)
    fill(utils, "MixedFusedRMSNorm", torch.nn.RMSNorm)


@patch("N7", when=missing("apex"))
def _gradient_clipping() -> None:
    """Gradient clipping calls Apex's multi-tensor kernels; Megatron-Core has the same functions in plain torch."""
    import megatron.core.utils as core_utils
    import nemo.collections.nlp.modules.common.megatron.clip_grads as clip_grads

    kernels = types.SimpleNamespace(
        multi_tensor_l2norm=core_utils.local_multi_tensor_l2_norm,
        multi_tensor_scale=core_utils.local_multi_tensor_scale,
    )
    fill(clip_grads, "multi_tensor_applier", core_utils.local_multi_tensor_applier)
    fill(clip_grads, "amp_C", kernels)


@patch("N8", when=missing("apex"))
def _adamw_for_sharded_checkpoints() -> None:
    """Megatron's sharded checkpoints need optimizer states of the parameters' shapes; see `adamw`."""
    import nemo.core.optim.optimizers as optimizers

    from nemo_aligner_cai.training.cpu.adamw import AdamWWithGroupStep

    if "adamw" not in optimizers.AVAILABLE_OPTIMIZERS:
        raise CaiError("NeMo no longer has the optimizer 'adamw'; update nemo_aligner_cai/training/cpu/install.py")
    optimizers.AVAILABLE_OPTIMIZERS["adamw"] = AdamWWithGroupStep


@patch("N9", when=no_cuda)
def _model_cuda() -> None:
    """ModelPT.cuda() creates torch.device("cuda", index) before it moves the weights."""
    from nemo.core.classes.modelPT import ModelPT

    replace(ModelPT, "cuda", lambda self, device=None: self)


@patch("N10", when=missing("transformer_engine"))
def _adapters_without_transformer_engine() -> None:
    """The LoRA mixins import Transformer Engine's SplitAlongDim, but do not need it: None works."""
    from nemo.collections.nlp.parts import peft_config
    from nemo.collections.nlp.parts.mixins import nlp_adapter_mixins

    name = "megatron.core.extensions.transformer_engine"
    stub = types.ModuleType(name)
    stub.SplitAlongDim = None  # type: ignore[attr-defined]
    # For this import alone: other code detects a missing Transformer Engine by the failed import.
    sys.modules[name] = stub
    try:
        mixins = importlib.import_module("nemo.collections.nlp.modules.common.megatron.adapters.mcore_mixins")
    finally:
        del sys.modules[name]
    fill(nlp_adapter_mixins, "swap_mcore_mixin", mixins.swap_mcore_mixin)
    for mixin in ("SelfAttention", "MLP", "TransformerLayer", "GPTEmbedding"):
        replace(peft_config, f"MCore{mixin}Mixin", getattr(mixins, f"MCore{mixin}Mixin"))
    for mixin in ("SequentialMLP", "TransformerBlock"):
        fill(peft_config, f"MCore{mixin}Mixin", getattr(mixins, f"MCore{mixin}Mixin"))


# --- NeMo-Aligner ----------------------------------------------------------------------------------------------


@patch("A1", when=missing("tensorrt_llm"))
def _no_tensorrt_llm() -> None:
    """The PPO actor imports the TensorRT-LLM generator even with trt_llm.enable=False."""
    name = "nemo_aligner.utils.trt_llm"
    if not installed(name):
        raise CaiError(f"{name} is missing; update nemo_aligner_cai/training/cpu/install.py")

    class GPTGenerateTRTLLM:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise CaiError("TensorRT-LLM is not installed: set trainer.ppo.trt_llm.enable=False")

    stub = types.ModuleType(name)
    stub.GPTGenerateTRTLLM = GPTGenerateTRTLLM  # type: ignore[attr-defined]
    sys.modules[name] = stub


def install_patches() -> tuple[str, ...]:
    """Apply the patches that this machine needs, once per process.

    Returns:
        The names of the active patches, in the order of application.

    Raises:
        CaiError: the target of a patch is missing or has changed.
    """
    if not _applied:
        # Evaluate all conditions first: a patch may change the result of a later one.
        needed = [one for one in PATCHES if one.when()]
        with _quick_imports():
            for one in needed:
                one.apply()
        _applied.extend(one.name for one in needed)
    return tuple(_applied)


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Import NeMo, on which most patches work, in little more than half the time."""
    with contextlib.suppress(ImportError):
        # Its pydantic models look for their source among all imported modules, which takes 6 s once NeMo's are there.
        importlib.import_module("wandb")
    # Imports make millions of objects and hardly any garbage; every full collection visits all of them.
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
