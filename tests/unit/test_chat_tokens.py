# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Each stage uses the chat template that its initial model was trained with, unless its configuration sets another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from omegaconf import DictConfig, OmegaConf

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats.all_formats import FORMATS
from nemo_aligner_cai.data.records import Comparison, to_kind
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import write_jsonl
from nemo_aligner_cai.training import config, dpo, ppo_actor, reward_model
from tests.unit.test_train_inputs import archive

END_STRINGS = "model.ppo.sampling_params.end_strings"
OWN = NemoChatTemplate.from_config({"turn_start": "<turn>", "system_turn_start": "<system>"})
TRAINED = "data: {chat: true, chat_prompt_tokens: {turn_start: <turn>, system_turn_start: <system>}}"
CHOSEN = ["++model.data.chat_prompt_tokens={turn_start: '<turn>', system_turn_start: '<system>'}"]
PAIRS = [Comparison(Conversation.of_user("Q"), "good", "bad")] * 2
PPO = ["model.ppo.num_rollout_samples=2", "model.ppo.num_val_samples=2", "model.ppo.length_params.max_length=20"]
PPO += ["model.ppo.rollout_micro_batch_size=2", "remote_critic_rm.critic.port=1"]
Check = Callable[[DictConfig], None]
STAGES = [
    ("cai_reward_model", reward_model.check, "rm-comparisons", []),
    ("cai_dpo", dpo.check, "dpo", []),
    ("cai_ppo_actor", ppo_actor.check, "ppo-prompts", PPO),
]


def configuration(
    name: str, folder: Path, trained: str, format_name: str, rows: NemoChatTemplate, *more: str
) -> DictConfig:
    """The configuration of a stage with a model of these settings, and with data in that template."""
    folder.mkdir(exist_ok=True)
    model = archive(folder / "m.nemo", f"encoder_seq_length: 64\n{trained}".encode())
    writer = FORMATS[format_name]
    records = [part for pair in PAIRS for part in to_kind(pair, writer.kind)]
    path = folder / "rows.jsonl"
    write_jsonl(path, (row for record in records for row in writer.write(record, rows)))
    overrides = [
        f"pretrained_checkpoint.restore_from_path={model}",
        f"model.data.data_prefix={{train: [{path}], validation: [{path}], test: [{path}]}}",
        f"exp_manager.explicit_log_dir={folder / 'log'}",
        *("model.global_batch_size=2", "model.micro_batch_size=2", "trainer.devices=1", *more),
    ]
    return config.compose(name, overrides)


def accept(check: Check, cfg: DictConfig) -> None:
    """Check a stage; PPO's last check is that of its critic, of which there is none."""
    if check is ppo_actor.check:
        with pytest.raises(UsageError, match="no critic server is ready"):
            check(cfg)
    else:
        check(cfg)


@pytest.mark.parametrize(("name", "check", "format_name", "more"), STAGES)
@pytest.mark.parametrize(
    ("trained", "chosen", "rows", "other"),
    [
        (TRAINED, [], OWN, NEMO_CHAT),
        (TRAINED.replace("chat: true, ", ""), [], OWN, NEMO_CHAT),
        (TRAINED, ["++model.data.chat_prompt_tokens.turn_start='<extra_id_1>'"], None, OWN),
        (TRAINED.replace("true", "false"), [], NEMO_CHAT, OWN),
        ("data: {chat: true}", [], NEMO_CHAT, OWN),
        ("data: null", [], NEMO_CHAT, OWN),
        ("", CHOSEN, OWN, NEMO_CHAT),
    ],
)
def test_rows_in_another_template_than_the_models_are_refused(
    tmp_path: Path,
    name: str,
    check: Check,
    format_name: str,
    more: list[str],
    trained: str,
    chosen: list[str],
    rows: NemoChatTemplate | None,
    other: NemoChatTemplate,
) -> None:
    rows = rows or NemoChatTemplate.from_config({"system_turn_start": "<system>"})
    cfg = configuration(name, tmp_path, trained, format_name, rows, *more, *chosen)
    accept(check, cfg)
    assert NemoChatTemplate.from_config(cfg.model.data.chat_prompt_tokens) == rows
    cfg = configuration(name, tmp_path / "other", trained, format_name, other, *more, *chosen)
    with pytest.raises(FormatError, match=r"rows\.jsonl:1: "):
        check(cfg)


@pytest.mark.parametrize(("trained", "warnings"), [(TRAINED, 0), (TRAINED.replace("<turn>", "<other>"), 1), ("", 0)])
def test_tokens_that_replace_those_of_the_model_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trained: str, warnings: int
) -> None:
    dpo.check(configuration("cai_dpo", tmp_path, trained, "dpo", OWN, *CHOSEN))
    found = [one.getMessage() for one in caplog.records if "was trained with" in one.getMessage()]
    assert len(found) == warnings
    assert all("'<other>'" in one and "'<turn>'" in one for one in found)


@pytest.mark.parametrize("token", ["''", "1", "[a]"])
def test_an_invalid_token_of_the_model_is_named(tmp_path: Path, token: str) -> None:
    trained = f"data: {{chat_prompt_tokens: {{turn_start: {token}}}}}"
    with pytest.raises(UsageError, match=r"m\.nemo: data\.chat_prompt_tokens\.turn_start="):
        dpo.check(configuration("cai_dpo", tmp_path, trained, "dpo", OWN))


@pytest.mark.parametrize(("trained", "rows", "stop"), [(TRAINED, OWN, "<turn>"), ("", NEMO_CHAT, "<extra_id_1>")])
def test_replies_of_ppo_end_with_the_token_of_the_model(
    tmp_path: Path, trained: str, rows: NemoChatTemplate, stop: str
) -> None:
    cfg = configuration("cai_ppo_actor", tmp_path, trained, "ppo-prompts", rows, *PPO)
    accept(ppo_actor.check, cfg)
    assert list(config.select(cfg, END_STRINGS)) == ["<|endoftext|>", stop]
    # Upstream's script merges the configurations without the checks of this package.
    cfg = config.compose("cai_ppo_actor", [])
    OmegaConf.set_struct(cfg, False)
    if trained:
        cfg.model = OmegaConf.merge({"data": {"chat_prompt_tokens": {"turn_start": stop}}}, cfg.model)
    assert list(config.select(cfg, END_STRINGS)) == ["<|endoftext|>", stop]


@pytest.mark.parametrize("given", ["[]", "null", "'<turn>'", "['<extra_id_1>']", "['<|endoftext|>']"])
def test_end_strings_without_the_token_of_the_model_are_refused(tmp_path: Path, given: str) -> None:
    override = f"{END_STRINGS}={given}"
    cfg = configuration("cai_ppo_actor", tmp_path, TRAINED, "ppo-prompts", OWN, *PPO, override)
    with pytest.raises(UsageError, match=rf"^{END_STRINGS}=.*turn_start"):
        ppo_actor.check(cfg)


def test_more_end_strings_may_be_given(tmp_path: Path) -> None:
    override = f"{END_STRINGS}=['</s>','<turn>']"
    accept(ppo_actor.check, configuration("cai_ppo_actor", tmp_path, TRAINED, "ppo-prompts", OWN, *PPO, override))
