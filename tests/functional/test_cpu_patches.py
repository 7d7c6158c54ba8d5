# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The run-time patches: what each replaces is still what it was, and each does what it says."""

import ast
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemo_aligner_cai.errors import CaiError

pytest.importorskip("torch", reason="the training extra is not installed")

import torch

from nemo_aligner_cai.training.cpu import install, patches
from nemo_aligner_cai.training.cpu.adamw import AdamWWithGroupStep

GPT = "nemo/collections/nlp/models/language_modeling"
MODULES = "nemo/collections/nlp/modules/common/megatron"

# Patch -> file, path of names inside it, fingerprint of that code. When one differs, a package has been upgraded:
# read what has changed, decide whether the patch is still right, or needed at all, and write the new one down.
REPLACED = {
    "E1": (f"{GPT}/megatron_base_model.py", "MegatronBaseModel._enable_nvidia_optimizations", "dc1f2848cbd3"),
    "T9": ("nemo_aligner/utils/distributed.py", "rebalance_nd_tensor", "19a8b9a2172f"),
    "M1": ("megatron/core/tensor_parallel/random.py", "CudaRNGStatesTracker.fork", "4a516d57a9a9"),
    "M2": ("megatron/core/tensor_parallel/random.py", "CheckpointFunction", "d4a19973808c"),
    "M3": ("megatron/core/dist_checkpointing/strategies/filesystem_async.py", "FileSystemWriterAsync", "4ee584b98b44"),
    "M3 torch": ("torch/distributed/checkpoint/filesystem.py", "_write_item", "50d71dc8039b"),
    "M4": ("megatron/core/fusions/fused_softmax.py", "FusedScaleMaskSoftmax", "7773cfa5c1c2"),
    "M4 mask": ("nemo_aligner/models/nlp/gpt/megatron_gpt_reward_model.py", "MegatronGPTRewardModel", "370e805196a5"),
    "N1": ("nemo/collections/nlp/parts/nlp_overrides.py", "NLPDDPStrategy.__init__", "645366db1e3e"),
    "N2": ("nemo/collections/nlp/models/nlp_model.py", "NLPModel.__init__", "8631f3da81b0"),
    "N3": (f"{GPT}/megatron_gpt_model.py", "get_specs", "9d3863f17704"),
    "N4": (f"{MODULES}/build_model.py", "build_model", "77293c2c6d5f"),
    "N5": (f"{GPT}/megatron_base_model.py", "MegatronBaseModel.setup_transformer_engine_cp_groups", "ffcbe3f46394"),
    "N6": (f"{MODULES}/utils.py", "get_params_for_weight_decay_optimization", "a57b76b0b347"),
    "N7": (f"{MODULES}/clip_grads.py", "clip_grad_norm_fp32", "ce04ccc78d03"),
    "N8": ("nemo/core/optim/optimizers.py", "init_optimizer_states", "946307f146e7"),
    "N9": ("nemo/core/classes/modelPT.py", "ModelPT.cuda", "dc1a2aa6e0e9"),
    "N10": (
        f"{MODULES}/adapters/mcore_mixins.py",
        "MCoreSelfAttentionMixin.get_query_key_value_tensors",
        "c1c3073e5d8f",
    ),
    "A1": ("nemo_aligner/models/nlp/gpt/megatron_gpt_ppo_actor.py", "MegatronGPTActorModel.__init__", "1b88bc41c909"),
}

# Patches of torch's own names, whose meaning is torch's documented one.
OF_TORCH = {"T1", "T2", "T3", "T4", "T5"}


def fingerprint(file: str, names: str) -> str:
    package, _, rest = file.partition("/")
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(next(iter(spec.submodule_search_locations))) / rest
    text = source.read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for name in names.split("."):
        kinds = (ast.FunctionDef, ast.ClassDef)
        node = next(child for child in ast.walk(node) if isinstance(child, kinds) and child.name == name)
    # The text itself: what `ast.unparse` writes differs between versions of Python.
    segment = ast.get_source_segment(text, node)
    assert segment is not None
    return hashlib.sha256(segment.encode()).hexdigest()[:12]


@pytest.mark.parametrize("patch", REPLACED)
def test_what_a_patch_replaces_has_not_changed(patch: str) -> None:
    file, names, expected = REPLACED[patch]
    assert fingerprint(file, names) == expected


def test_every_patch_has_a_reason_and_a_fingerprint() -> None:
    names = [patch.name for patch in install.PATCHES]
    assert len(names) == len(set(names))
    assert {name.split()[0] for name in REPLACED} | OF_TORCH == set(names)
    assert all(len(patch.reason) > 40 for patch in install.PATCHES)


def test_a_missing_target_is_an_error() -> None:
    with pytest.raises(CaiError, match="fork"):
        patches.replace(SimpleNamespace(), "fork", None)
    with pytest.raises(CaiError, match=r"utils\.listify_model"):
        patches.fill(SimpleNamespace(__name__="utils", listify_model=list), "listify_model", None)


def test_nothing_is_patched_where_cuda_and_the_packages_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(patches, "installed", lambda package: True)
    monkeypatch.setenv("NVIDIA_PYTORCH_VERSION", "25.02")
    assert {patch.name for patch in install.PATCHES if patch.when()} <= {"M3"}


def in_a_patched_process(code: str, folder: Path) -> str:
    """The output of `code` in a process with all patches, which must not affect the other tests."""
    script = folder / "script.py"  # TorchScript wants source files
    script.write_text(
        "from nemo_aligner_cai.training.cpu.install import install_patches\nactive = install_patches()\n" + code,
        encoding="utf-8",
    )
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_patched_names_do_what_they_say(tmp_path: Path) -> None:
    out = in_a_patched_process(
        """
import torch
assert active == install_patches(), "twice is once"
assert set(active) >= {"T1", "T2", "T3", "T4", "T5", "T9", "M1", "M2", "M4", "N5", "N9"}, active
assert torch.cuda.current_device() == torch.device("cpu")
torch.cuda.synchronize()
t = torch.ones(2)
assert t.cuda() is t and torch.cuda.LongTensor([3]).item() == 3
for made in (torch.zeros(2, device="cuda"), torch.tensor([1], device=torch.device("cuda", 0), pin_memory=True)):
    assert made.device.type == "cpu"

@torch.jit.script
def scripted(n: int):
    return torch.zeros(n) + torch.ones(n)
assert scripted(3).tolist() == [1.0, 1.0, 1.0]

# M4: a causal mask for half the batch is the causal mask for all of it; any other is refused
from megatron.core.fusions.fused_softmax import FusedScaleMaskSoftmax
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.utils import attention_mask_func
from nemo_aligner_cai.errors import CaiError
soft = FusedScaleMaskSoftmax(False, False, AttnMaskType.causal, False, attention_mask_func, True, None)
scores = torch.randn(4, 2, 5, 5)
future = torch.triu(torch.ones(5, 5, dtype=torch.bool), diagonal=1).view(1, 1, 5, 5)
half = soft(scores, future.expand(2, 1, 5, 5))
assert torch.equal(half, soft(scores, future)) and torch.equal(half, soft(scores, None))
reset = future.expand(2, 1, 5, 5).clone(); reset[..., 3, 0] = True
try:
    soft(scores, reset)
except CaiError as error:
    print("refused:", error)
full = torch.cat([reset, reset])
assert not torch.equal(soft(scores, full), half), "a mask of the batch's size is used as it is"
""",
        tmp_path,
    )
    assert "refused: attention mask of batch 2 for a batch of 4" in out


def test_adamw_keeps_its_step_through_a_checkpoint() -> None:
    def train(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()

    def fresh() -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
        return torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([3.0]))

    weight, unused = fresh()
    reference = torch.optim.AdamW([weight, unused], lr=0.1)
    train(reference, weight, 5)

    first, idle = fresh()
    # upstream's scripts hand it Apex's arguments too
    optimizer = AdamWWithGroupStep([first, idle], lr=0.1, bucket_cap_mb=200, overlap_grad_sync=False)
    train(optimizer, first, 2)
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["step"] == 2.0
    assert all(value.shape == first.shape for value in saved["state"][0].values()), "all shaped like the parameter"

    again = AdamWWithGroupStep([first, idle], lr=0.1)
    again.load_state_dict(saved)
    train(again, first, 3)
    assert torch.equal(first, weight)
