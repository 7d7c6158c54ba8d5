# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""AdamW for Megatron's sharded checkpoints.

They require that every optimizer state has the shape of its parameter, but torch's AdamW has a scalar step per
parameter. This one stores one step per parameter group, like Apex's fused Adam.
"""

from __future__ import annotations

from typing import Any

import torch

from nemo_aligner_cai.training.cpu.config import APEX_ARGUMENTS


class AdamWWithGroupStep(torch.optim.AdamW):
    """torch's AdamW whose `state_dict` has `step` in the parameter groups.

    NeMo passes it all of `model.optim`, which includes arguments of Apex's distributed Adam in the stage
    configurations and in checkpoints from GPUs. These are ignored; other unknown arguments raise torch's TypeError.
    """

    def __init__(self, params: Any, **arguments: Any) -> None:
        super().__init__(params, **{name: value for name, value in arguments.items() if name not in APEX_ARGUMENTS})

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state, with the step in the parameter groups."""
        saved = super().state_dict()
        groups = [dict(group) for group in saved["param_groups"]]
        state = {index: dict(entry) for index, entry in saved["state"].items()}
        for group in groups:
            # A parameter without a gradient has no entry, or an entry by NeMo without a step.
            entries = [state[index] for index in group["params"] if index in state]
            steps = [entry.pop("step") for entry in entries if "step" in entry]
            group["step"] = float(steps[0]) if steps else 0.0
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this class or of torch's AdamW."""
        groups = [dict(group) for group in state_dict["param_groups"]]
        state = {index: dict(entry) for index, entry in state_dict["state"].items()}
        for group in groups:
            step = group.pop("step", 0.0)
            for index in group["params"]:
                if state.get(index):
                    state[index].setdefault("step", torch.tensor(float(step)))
        super().load_state_dict({"state": state, "param_groups": groups})
