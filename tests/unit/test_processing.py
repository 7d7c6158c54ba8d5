# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Data processors convert raw files to the trainer's format, once, in a cache."""

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from omegaconf import DictConfig, OmegaConf

from nemo_aligner_cai.chat import Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats.files import convert_file, sft_row, validate_file
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import write_jsonl
from nemo_aligner_cai.training import config, data_processors, ppo_actor, reward_model, sft
from nemo_aligner_cai.training.checks import data_files
from tests.unit.nemo_rows import comparison_rows
from tests.unit.test_train_inputs import archive

FILE = "model.data.train_ds.file_path"
OTHER_FILE = "model.data.validation_ds.file_path"
OWN_TOKENS = {"turn_start": "<turn>", "system_turn_start": "<system>", "label_start": "<label>"}


def revisions(path: Path, count: int = 3, **more: Any) -> Path:
    prompt = [{"role": "user", "content": "How do I pick a lock? 锁"}]
    rows = [{"id": f"{n}", "prompt": prompt, "critique": "?", "revision": f"{n} no", **more} for n in range(count)]
    write_jsonl(path, rows, overwrite=True)
    return path


def comparisons(path: Path, text: str = "Q") -> Path:
    pair = {"chosen": "A", "chosen_key": "A", "probability": 0.9}
    pairs = [{**pair, "rejected": other, "rejected_key": other} for other in ("B", "C")]
    candidates = [{"key": key, "text": key} for key in "ABC"]
    prompt = [{"role": "user", "content": text}]
    row = {"id": "1", "prompt": prompt, "candidates": candidates, "pairs": pairs, "verdicts": []}
    write_jsonl(path, [row, {**row, "pairs": []}])
    return path


def trainers_file(path: Path) -> Path:
    write_jsonl(
        path, [sft_row(Conversation.from_messages([{"role": r, "content": "x"} for r in ("user", "assistant")]))]
    )
    return path


def configuration(tmp_path: Path, name: str | None, **values: Any) -> DictConfig:
    cfg = OmegaConf.create(
        {
            "data_processor": {"format": name, "cache": None},
            "exp_manager": {"explicit_log_dir": str(tmp_path / "log")},
            "model": {"data": {"chat_prompt_tokens": None, **values}},
        }
    )
    OmegaConf.set_struct(cfg, True)
    return cfg


def sft_configuration(
    tmp_path: Path, name: str | None, train: Path, validation: Path | str | None = None
) -> DictConfig:
    files = {"train_ds": {"file_path": str(train)}, "validation_ds": {"file_path": str(validation or train)}}
    return configuration(tmp_path, name, **files)


def process(cfg: DictConfig, to: str = "sft-chat") -> Path:
    """Process the two files of an SFT configuration; returns the path that the first key has then."""
    data_processors.process(cfg, [FILE, OTHER_FILE], to=to)
    return Path(config.select(cfg, FILE))


def process_blend(tmp_path: Path, value: Any, name: str = "auto", to: str = "rm-comparisons", **data: Any) -> Any:
    prefix = {"train": value, "validation": value, "test": value}
    cfg = configuration(tmp_path, name, data_prefix=prefix, **data)
    data_processors.process(cfg, data_files.split_keys(cfg), to=to)
    return OmegaConf.to_container(cfg.model.data.data_prefix)["train"]


def test_without_a_processor_nothing_happens(tmp_path: Path) -> None:
    cfg = sft_configuration(tmp_path, None, tmp_path / "nowhere.jsonl")
    assert process(cfg) == tmp_path / "nowhere.jsonl"
    assert list(tmp_path.iterdir()) == []
    # A configuration of someone else's, without the group.
    data_processors.process(OmegaConf.create({"model": {}}), [FILE], to="ppo-prompts")


def test_raw_revisions_become_a_cached_file_that_sft_reads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = revisions(tmp_path / "cai_revisions.jsonl")
    with caplog.at_level(logging.INFO):
        cached = process(sft_configuration(tmp_path, "cai-revisions", source))
    convert_file(source, tmp_path / "by_hand.jsonl", to="sft-chat")
    assert cached.read_bytes() == (tmp_path / "by_hand.jsonl").read_bytes()
    assert validate_file(cached, "sft-chat").rows_in == 3
    assert cached.parent == tmp_path / "log" / "data_cache"
    summary = json.loads(cached.with_suffix(".json").read_bytes())
    assert "critique" in summary["rows"].pop("unused_columns")
    assert summary == {
        "source": str(source),
        "format": "cai-revisions",
        "to": "sft-chat",
        "rows": {"rows_in": 3, "written": 3, "left_out": {}, "noted": {}},
    }
    first, second = caplog.messages
    assert first.startswith(
        f"{FILE}: {source} converted from cai-revisions to sft-chat: {cached}; 3 rows in = 3 written"
    )
    assert second.startswith(f"{OTHER_FILE}: {source} ") and second.endswith(str(cached))


def test_a_cached_file_is_used_as_it_is_whatever_the_sources_name(tmp_path: Path) -> None:
    cached = process(sft_configuration(tmp_path, "auto", revisions(tmp_path / "a.jsonl")))
    before = cached.stat().st_mtime_ns
    assert process(sft_configuration(tmp_path, "cai-revisions", revisions(tmp_path / "b.jsonl"))) == cached
    assert cached.stat().st_mtime_ns == before


def test_what_determines_the_rows_determines_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = revisions(tmp_path / "a.jsonl")
    names = {process(sft_configuration(tmp_path, "auto", source)).name}
    names.add(process(sft_configuration(tmp_path, "auto", source), to="ppo-prompts").name)
    cfg = sft_configuration(tmp_path, "auto", source)
    cfg.model.data.chat_prompt_tokens = OWN_TOKENS
    names.add(process(cfg).name)
    names.add(process(sft_configuration(tmp_path, "trl-prompts", source), to="ppo-prompts").name)
    revisions(source, 2)
    names.add(process(sft_configuration(tmp_path, "auto", source)).name)
    monkeypatch.setattr(data_processors, "__version__", "9.9")
    names.add(process(sft_configuration(tmp_path, "auto", source)).name)
    assert len(names) == 6


def test_rows_without_their_summary_are_converted_again(tmp_path: Path) -> None:
    source = revisions(tmp_path / "a.jsonl")
    cached = process(sft_configuration(tmp_path, "auto", source))
    complete = cached.read_bytes()
    cached.with_suffix(".json").unlink()
    cached.write_bytes(complete[:10])
    assert process(sft_configuration(tmp_path, "auto", source)).read_bytes() == complete


def test_auto_leaves_the_trainers_own_files_alone(tmp_path: Path) -> None:
    own, raw = trainers_file(tmp_path / "own.jsonl"), revisions(tmp_path / "raw.jsonl")
    cfg = sft_configuration(tmp_path, "auto", raw, own)
    assert process(cfg).parent.name == "data_cache"
    assert config.select(cfg, OTHER_FILE) == str(own)


def test_a_key_that_refers_to_another_is_converted_as_that_is(tmp_path: Path) -> None:
    cfg = sft_configuration(
        tmp_path, "cai-revisions", revisions(tmp_path / "a.jsonl"), "${model.data.train_ds.file_path}"
    )
    assert str(process(cfg)) == config.select(cfg, OTHER_FILE)


def test_blends_keep_their_weights_and_every_file_is_detected(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    write_jsonl(own, comparison_rows(Conversation.of_user("Q"), chosen="A", rejected="B"))
    raw = comparisons(tmp_path / "raw.jsonl")
    weight, cached, other_weight, kept = process_blend(tmp_path, [0.3, str(raw), 0.7, str(own)])
    assert (weight, other_weight, kept) == (0.3, 0.7, str(own))
    assert validate_file(cached, "rm-comparisons").rows_in == 4
    assert json.loads(Path(cached).with_suffix(".json").read_bytes())["rows"]["left_out"] == {
        "none of the replies is preferred": 1
    }
    assert process_blend(tmp_path, [str(raw)]) == [cached]
    assert process_blend(tmp_path, str(raw)) == cached


def test_a_judged_prompt_is_one_prompt_for_ppo(tmp_path: Path) -> None:
    cached = process_blend(tmp_path, str(comparisons(tmp_path / "raw.jsonl")), to="ppo-prompts")
    assert validate_file(cached, "ppo-prompts").rows_in == 2


def test_the_cache_is_where_the_configuration_says(tmp_path: Path) -> None:
    cfg = sft_configuration(tmp_path, "auto", revisions(tmp_path / "a.jsonl"))
    cfg.data_processor.cache = str(tmp_path / "shared" / "cache")
    assert process(cfg).parent == tmp_path / "shared" / "cache"
    assert not (tmp_path / "log").exists()


def test_rendered_text_has_the_configured_tokens(tmp_path: Path) -> None:
    raw = comparisons(tmp_path / "raw.jsonl", "Q <turn>Assistant\nSure")
    cached = process_blend(tmp_path, str(raw), chat_prompt_tokens=OWN_TOKENS)
    first = json.loads(Path(cached).read_text(encoding="utf-8").splitlines()[0])["text"]
    assert first == "<system>System\n\n<turn>User\nQ < turn>Assistant\nSure\n<turn>Assistant\nA\n<turn>"
    template = NemoChatTemplate.from_config(OWN_TOKENS)
    assert validate_file(cached, "rm-comparisons", template=template).rows_in == 4


def reward_model_overrides(tmp_path: Path, model_config: str, raw: Path) -> list[str]:
    model = archive(tmp_path / "m.nemo", f"encoder_seq_length: 64\n{model_config}".encode())
    return [
        f"pretrained_checkpoint.restore_from_path={model}",
        f"model.data.data_prefix={{train: [{raw}], validation: [{raw}], test: [{raw}]}}",
        f"exp_manager.explicit_log_dir={tmp_path / 'log'}",
        *("model.global_batch_size=2", "trainer.devices=1"),
    ]


@pytest.mark.parametrize(("configured", "turn_start"), [([], "<turn>"), (["turn_start='<other>'"], "<other>")])
def test_rendered_text_has_the_tokens_of_the_model_unless_they_are_configured(
    tmp_path: Path, configured: list[str], turn_start: str
) -> None:
    raw = comparisons(tmp_path / "raw.jsonl")
    taught = "data: {chat_prompt_tokens: {turn_start: <turn>, label_start: <label>, end_of_turn: null}}\n"
    overrides = [*reward_model_overrides(tmp_path, taught, raw), "data_processor=cai_comparisons"]
    more = [f"++model.data.chat_prompt_tokens.{one}" for one in configured]
    reward_model.check(cfg := config.compose("cai_reward_model", [*overrides, *more]))
    first = json.loads(Path(cfg.model.data.data_prefix.train[0]).read_text(encoding="utf-8").splitlines()[0])["text"]
    assert first == f"<extra_id_0>System\n\n{turn_start}User\nQ\n{turn_start}Assistant\nA\n{turn_start}"
    assert cfg.model.data.chat_prompt_tokens.label_start == "<label>"


def test_the_stages_convert_and_then_check_the_converted_files(tmp_path: Path) -> None:
    raw = comparisons(tmp_path / "raw.jsonl")
    overrides = reward_model_overrides(tmp_path, "", raw)
    with pytest.raises(UsageError, match=r"raw\.jsonl:1: "):
        reward_model.check(config.compose("cai_reward_model", overrides))
    reward_model.check(cfg := config.compose("cai_reward_model", [*overrides, "data_processor=cai_comparisons"]))
    assert validate_file(cfg.model.data.data_prefix.test[0], "rm-comparisons").rows_in == 4

    overrides += [
        "model.ppo.num_rollout_samples=2",
        "model.ppo.rollout_micro_batch_size=2",
        "model.micro_batch_size=2",
    ]
    overrides += ["model.ppo.length_params.max_length=20", "remote_critic_rm.critic.port=1"]
    cfg = config.compose("cai_ppo_actor", [*overrides, "data_processor=cai_comparisons"])
    with pytest.raises(UsageError, match="no critic server is ready"):
        ppo_actor.check(cfg)
    assert validate_file(cfg.model.data.data_prefix.test[0], "ppo-prompts").rows_in == 2

    model, source = archive(tmp_path / "m.nemo"), revisions(tmp_path / "a.jsonl")
    overrides = [f"model.restore_from_path={model}", f"{FILE}={source}", f"{OTHER_FILE}={source}"]
    overrides += [f"exp_manager.explicit_log_dir={tmp_path / 'log'}", "data_processor.format=cai-revisions"]
    overrides += ["trainer.devices=1"]
    sft.check(cfg := config.compose("cai_sft", [*overrides, "model.data.train_ds.global_batch_size=3"]))
    assert validate_file(config.select(cfg, FILE), "sft-chat").rows_in == 3
    with pytest.raises(UsageError, match=r"3 samples.*global_batch_size=4"):
        sft.check(config.compose("cai_sft", [*overrides, "model.data.train_ds.global_batch_size=4"]))


OTHER_PACKAGE = '''
from nemo_aligner_cai.data.formats.other_trainers import PlainPrompts

class Shouted(PlainPrompts):
    """Prompts in capitals."""

    name = "shouted"

    def read(self, rows, template):
        return super().read([{"prompt": row["PROMPT"].lower()} for row in rows], template)
'''


def test_another_packages_format_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cai_shouted-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cai-shouted\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[nemo_aligner_cai.formats]\nshouted = cai_shouted:Shouted\n")
    (tmp_path / "cai_shouted.py").write_text(OTHER_PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_jsonl(tmp_path / "a.jsonl", [{"PROMPT": "HELP ME"}])
    cached = process_blend(tmp_path, str(tmp_path / "a.jsonl"), "shouted", "ppo-prompts")
    assert "<extra_id_1>User\\nhelp me\\n" in Path(cached).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("hh", "{}", r"^data_processor\.format=hh: unknown format 'hh'; the formats are .*"),
        ("cai-revisions", None, rf"^{FILE}: there is no file .*a\.jsonl$"),
        (
            "cai-revisions",
            '{"prompt": [{"role": "user", "content": "Q"}]}\n',
            rf"^{FILE}: .*a\.jsonl:1: key 'revision': is missing.*\(read as cai-revisions; data_processor=auto",
        ),
        ("auto", '{"a": 1}\n', r"a\.jsonl:1: a row with 'a' is of no known format"),
        ("auto", "", r"a\.jsonl: has no rows"),
        ("auto", "no JSON", r"a\.jsonl:1: not JSON"),
        (
            "auto",
            '{"prompt": "Q"}\n',
            rf"^{FILE}: .*a\.jsonl:1: a prompt without a reply .* a conversation.*plain-prompts\)",
        ),
        (
            "anthropic-hh",
            '{"chosen": "?", "rejected": "?"}\n',
            rf"^{FILE}: .*a\.jsonl: nothing is left to write: 1 rows in = 0 written \+ 1 skipped",
        ),
    ],
)
def test_mistakes_are_reported_on_one_line(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    source = tmp_path / "a.jsonl"
    if content is not None:
        source.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=said) as error:
        process(sft_configuration(tmp_path, name, source))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("data_cache/*.json")), "something counts as converted"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ({"turn_start": ""}, r"^model\.data\.chat_prompt_tokens\.turn_start=: "),
        ({"turn_start": 1}, r"^model\.data\.chat_prompt_tokens\.turn_start=1: "),
        ({"turn_end": "x"}, r"^model\.data\.chat_prompt_tokens: unknown key 'turn_end'"),
        ("<extra_id_1>", r"^model\.data\.chat_prompt_tokens=<extra_id_1>: "),
    ],
)
def test_invalid_tokens(tmp_path: Path, tokens: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        process_blend(tmp_path, str(comparisons(tmp_path / "raw.jsonl")), chat_prompt_tokens=tokens)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    cfg = sft_configuration(tmp_path, "auto", revisions(tmp_path / "a.jsonl"))
    cfg.data_processor.cache = str(tmp_path / "a.jsonl")
    with pytest.raises(UsageError, match=r"a\.jsonl/.*: cannot be written"):
        process(cfg)


def test_only_the_first_process_converts_and_the_others_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = revisions(tmp_path / "a.jsonl")
    found: list[Path] = []
    monkeypatch.setenv("RANK", "1")
    other = threading.Thread(target=lambda: found.append(process(sft_configuration(tmp_path, "auto", source))))
    other.start()
    time.sleep(3 * data_processors._POLL_S)
    assert not (tmp_path / "log").exists() and not found, "it has not waited"
    os.environ["RANK"] = "0"
    cached = process(sft_configuration(tmp_path, "auto", source))
    other.join(timeout=30)
    assert found == [cached]


def test_a_wait_for_a_folder_that_is_not_shared_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setattr(data_processors, "_WAIT_S", 0.0)
    with pytest.raises(UsageError, match=r" 0 s: .*data_processor\.cache"):
        process(sft_configuration(tmp_path, "auto", revisions(tmp_path / "a.jsonl")))
    assert not (tmp_path / "log").exists()
