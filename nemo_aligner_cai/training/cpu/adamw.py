# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""AdamW that Megatron's sharded checkpoints can save.

They want every optimiser state shaped like its parameter, and torch's AdamW keeps a scalar step for each. This one
saves the step once per parameter group, as Apex's fused Adam does.
"""

from __future__ import annotations

from typing import Any

import torch

from nemo_aligner_cai.training.cpu.config import APEX_ARGUMENTS


class AdamWWithGroupStep(torch.optim.AdamW):
    """torch's AdamW whose `state_dict` keeps `step` in the parameter group.

    Upstream's unmodified scripts hand it all of `model.optim`, where the stage configs, and checkpoints made on GPUs,
    have arguments of Apex's distributed Adam. It leaves these out; any other unknown one is torch's TypeError.
    """

    def __init__(self, params: Any, **arguments: Any) -> None:
        super().__init__(params, **{name: value for name, value in arguments.items() if name not in APEX_ARGUMENTS})

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state with the steps moved from the parameters to their group."""
        saved = super().state_dict()
        groups = [dict(group) for group in saved["param_groups"]]
        state = {index: dict(entry) for index, entry in saved["state"].items()}
        for group in groups:
            # A parameter that has had no gradient has no entry, or one that NeMo made, without a step.
            entries = [state[index] for index in group["params"] if index in state]
            steps = [entry.pop("step") for entry in entries if "step" in entry]
            group["step"] = float(steps[0]) if steps else 0.0
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, or what torch's own AdamW would have."""
        groups = [dict(group) for group in state_dict["param_groups"]]
        state = {index: dict(entry) for index, entry in state_dict["state"].items()}
        for group in groups:
            step = group.pop("step", 0.0)
            for index in group["params"]:
                if state.get(index):
                    state[index].setdefault("step", torch.tensor(float(step)))
        super().load_state_dict({"state": state, "param_groups": groups})
