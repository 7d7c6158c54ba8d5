# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The commands of the user's own draft of the tutorial: which are accepted as printed, and which never could be."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nemo_aligner_cai.commands.data import anthropic_hh
from nemo_aligner_cai.commands.generate import rl_cai, sl_cai
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.config import compose

_PARSERS = {
    "generate_sl_cai_dataset.py": sl_cai.build_parser,
    "generate_rl_cai_dataset.py": rl_cai.build_parser,
    "process_anthropic_hh_using_chat_prompt.py": anthropic_hh.build_parser,
}
_CONFIGS = {
    "train_gpt_sft.py": "cai_sft",
    "train_reward_model.py": "cai_reward_model",
    "serve_ppo_critic.py": "cai_ppo_critic",
    "train_gpt_ppo_actor.py": "cai_ppo_actor",
    "megatron_gpt_eval.py": "cai_inference",
}


@pytest.fixture
def draft(shared_data: Path) -> dict[str, list[str]]:
    """The draft's Python commands: the script's name -> its arguments, with a path for each `<...>` but tokens."""
    page = shared_data.parent / "seed" / "cai_tutorial_draft.rst"
    if not page.is_file():
        pytest.skip("the draft of the tutorial is not beside this checkout (../shared/seed)")
    text = page.read_text(encoding="utf-8")
    commands: dict[str, list[str]] = {}
    for block in re.split(r"code-block:: bash\n", text)[1:]:
        body = block.strip().split("\n\n")[0]
        words = shlex.split(re.sub(r"<(?!extra_id_)[^_>][^>]*>", "/data/file", body).replace("\n", " "))
        names = [Path(word).name for word in words]
        found = [number for number, name in enumerate(names) if name.endswith(".py")]
        if found:
            commands[names[found[-1]]] = words[found[-1] + 1 :]
    return commands


def test_all_of_its_scripts_are_known(draft: dict[str, list[str]]) -> None:
    ours = {*_PARSERS, *_CONFIGS}
    assert ours <= set(draft)
    assert set(draft) - ours == {"convert_hf_llama_to_nemo.py"}, "which is in no release of NeMo"


@pytest.mark.parametrize("script", ["generate_sl_cai_dataset.py", "process_anthropic_hh_using_chat_prompt.py"])
def test_data_commands_are_accepted(draft: dict[str, list[str]], script: str) -> None:
    _PARSERS[script]().parse_args(draft[script])


def test_step_4_lacks_its_prompts_alone(draft: dict[str, list[str]]) -> None:
    words, parser = draft["generate_rl_cai_dataset.py"], rl_cai.build_parser()
    with pytest.raises(UsageError, match=r"arguments are required: --red-teaming-file-path$"):
        parser.parse_args(words)
    parser.parse_args([*words, "--red-teaming-file-path", "red_team.jsonl"])


@pytest.mark.parametrize("script", [name for name in _CONFIGS if name != "train_gpt_ppo_actor.py"])
def test_trainers_take_its_overrides(draft: dict[str, list[str]], script: str) -> None:
    pytest.importorskip("hydra", reason="the training extra is not installed")
    compose(_CONFIGS[script], draft[script])


def test_step_3_sets_the_tokens_of_the_chat_template(draft: dict[str, list[str]]) -> None:
    pytest.importorskip("hydra", reason="the training extra is not installed")
    tokens = compose("cai_sft", draft["train_gpt_sft.py"]).model.data.chat_prompt_tokens
    given = (tokens.system_turn_start, tokens.turn_start, tokens.label_start)
    assert given == ("<extra_id_0>", "<extra_id_1>", "<extra_id_2>")


def test_the_actors_command_lacks_an_equals_sign_alone(draft: dict[str, list[str]]) -> None:
    pytest.importorskip("hydra", reason="the training extra is not installed")
    words = draft["train_gpt_ppo_actor.py"]
    with pytest.raises(UsageError, match="data_prefix"):
        compose("cai_ppo_actor", words)
    compose("cai_ppo_actor", [word.replace("data_prefix{", "data_prefix={") for word in words])
