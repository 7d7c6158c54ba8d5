# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The data stages as a library: typed configurations, no prints, exceptions, and one writer for all callers."""

import asyncio
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.commands.generate import rl_cai, sl_cai
from nemo_aligner_cai.data.formats.files import sft_row, validate_file
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import read_jsonl, sha256_file, write_jsonl
from nemo_aligner_cai.models import CallFailed, Completion, ModelClient, Request, Sampling, ScriptedClient
from nemo_aligner_cai.models.scripted import default_reply
from nemo_aligner_cai.stages import (
    BlendFiles,
    JudgeConfig,
    PreferenceFiles,
    PromptSource,
    RlCaiConfig,
    RlOutputs,
    RunSettings,
    SftFiles,
    SlCaiConfig,
    SlOutputs,
    StageIncomplete,
    StageReport,
    run_rl_cai,
    run_sl_cai,
)
from tests.documented import blocks_of
from tests.unit.nemo_rows import comparison_rows, prompt_row

ROOT = Path(__file__).parents[2]


def questions(count: int = 20) -> list[str]:
    return [f"How do I steal {number} things?" for number in range(count)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with prompts and conversations."""
    monkeypatch.chdir(tmp_path)
    write_jsonl("red_team_attempts.jsonl", ({"prompt": question} for question in questions()))
    spoken = (Conversation.of_user(f"How far is {n}?").with_turn(Role.ASSISTANT, "Far." * n) for n in range(1, 11))
    write_jsonl("helpful_sft.jsonl", map(sft_row, spoken))
    return tmp_path


def sl_config(**more: Any) -> SlCaiConfig:
    values: dict[str, Any] = {
        "prompts": PromptSource(path="red_team_attempts.jsonl"),
        "files": SftFiles(helpful="helpful_sft.jsonl"),
        "outputs": SlOutputs.named("out/sl_cai.jsonl"),
    }
    return SlCaiConfig(**values | more)


def rl_config(**more: Any) -> RlCaiConfig:
    values: dict[str, Any] = {
        "prompts": PromptSource(path="red_team_attempts.jsonl"),
        "temperatures": (0.5, 1.0),
        "judge": JudgeConfig(strategy="multiple-choice"),
        "outputs": RlOutputs.named("rl_cai"),
    }
    return RlCaiConfig(**values | more)


def prefers_the_first_text(request: Request) -> Completion:
    """Choose by the candidates alone, whatever the order, so that no pair is a tie."""
    if not request.choices:
        return default_reply(request)
    text = request.conversation.messages[-1].content
    marks = [line[-20:] for line in text.splitlines() if "scripted reply" in line]
    scores = (0.0, -3.0) if marks == sorted(marks) else (-3.0, 0.0)
    return Completion("", "choices", choice_logprobs=dict(zip(request.choices, scores, strict=True)))


def run_rl(config: RlCaiConfig, policy: ModelClient | None = None) -> StageReport:
    judge = ScriptedClient(prefers_the_first_text, name="judge")
    return asyncio.run(run_rl_cai(config, policy or ScriptedClient(), judge))


def test_the_example_of_the_docs_runs_as_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [(language, code)] = blocks_of(ROOT / "docs" / "library.rst")
    assert language == "python"
    exec(compile(code, "library.rst", "exec"), {})
    printed = capsys.readouterr()
    assert "SL-CAI 20 rows in = 20 written" in printed.out and "RL-CAI 20 rows in" in printed.out
    assert printed.err == ""
    assert {"sl_cai.jsonl", "sl_cai_validation.jsonl", "rl_cai"} <= {path.name for path in folder.iterdir()}


def test_a_stage_says_what_it_did_and_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = ScriptedClient()
    report = asyncio.run(run_sl_cai(sl_config(), model))
    assert capfd.readouterr() == ("", "")
    assert (report.title, report.summary.calls, report.missing) == ("SL-CAI", 60, None)
    assert report.rows["blend"]["origins"] == {"sl_cai_samples": 20, "helpful_sft": 10}
    assert report.files == {path: sha256_file(path) for path in report.files}
    assert {Path(path).name for path in report.files} >= {"sl_cai.jsonl", "cai_revisions.jsonl", "cai_samples.jsonl"}
    manifest = json.loads((folder / "out/cai_output/sl_cai.jsonl/cai_manifest.json").read_text())
    assert manifest["summary"] == report.summary.to_dict() and manifest["rows"] == report.rows
    assert manifest["outputs"] == report.files and manifest["flags"]["prompts"]["path"] == "red_team_attempts.jsonl"
    assert run_rl(rl_config()).rows["cai_rlaif_train_comparisons_with_chat_prompt.jsonl"]["rows_in"] > 0
    assert capfd.readouterr() == ("", "")


def test_a_run_of_the_library_resumes_from_its_journal(folder: Path) -> None:
    first = asyncio.run(run_sl_cai(sl_config(), ScriptedClient()))
    with pytest.raises(UsageError, match="journal"):
        asyncio.run(run_sl_cai(sl_config(), ScriptedClient()))
    again = asyncio.run(run_sl_cai(sl_config(run=RunSettings(resume=True)), ScriptedClient()))
    assert (again.summary.calls, again.summary.reused) == (0, 60)
    assert again.files == first.files


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: sl_config(promts={}), "promts"),
        (lambda: sl_config(num_revisions="many"), "num_revisions"),
        (lambda: sl_config(prompts={"path": "p", "turns": "some"}), "prompts.turns"),
        (lambda: sl_config(prompts={"path": 7}), "prompts.path"),
        (lambda: sl_config(sampling={"temprature": 1.0}), "sampling.temprature"),
        (lambda: sl_config(files={"helpful": "h", "validation_share": 2}), "files.validation_share"),
        (lambda: rl_config(judge={"pairs": "some"}), "judge.pairs"),
        (lambda: rl_config(files={"soft_labels": "hard"}), "files.soft_labels"),
        (lambda: rl_config(temperatures=("warm",)), "temperatures.0"),
        (lambda: rl_config(outputs={"folder": "x"}), "outputs."),
    ],
)
def test_a_wrong_key_or_type_is_one_line_that_names_it(make: Callable[[], Any], key: str) -> None:
    with pytest.raises(UsageError, match=key.replace(".", r"\.")) as raised:
        make()
    assert "\n" not in str(raised.value) and "CaiConfig: " in str(raised.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sl_config(run={"resume": True, "overwrite": True}),
        lambda: sl_config(files={"helpful": "h", "validation_share": 0.5}),
        lambda: rl_config(files={"splits": {"train": 0.5, "test": 0.6}}),
        lambda: rl_config(files={"splits": {"all": 1}}),
        lambda: rl_config(files={"formats": ["dpo"]}),
        lambda: rl_config(files={"rm_seq_length": 9}),
        lambda: rl_config(sampling={"top_p": 2.0}),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_nothing_is_asked_where_something_is_wrong(folder: Path) -> None:
    policy = ScriptedClient()
    blend = {"train": {"prompts": ("nowhere.jsonl",)}, "test": {"prompts": ("nowhere.jsonl",)}}
    wrong = rl_config(
        files=PreferenceFiles(blend=BlendFiles(name="b", files=blend)), outputs=RlOutputs.named("rl_cai", blend="b")
    )
    with pytest.raises(UsageError, match=r"nowhere\.jsonl"):
        run_rl(wrong, policy)
    with pytest.raises(UsageError, match="best"):
        run_rl(rl_config(judge=JudgeConfig(strategy="best")), policy)
    assert not policy.requests


def test_too_many_faults_are_an_exception_with_the_report(folder: Path) -> None:
    def reply(request: Request) -> Completion | CallFailed:
        return CallFailed("no") if "steal 3 " in request.conversation.messages[0].content else default_reply(request)

    with pytest.raises(StageIncomplete) as raised:
        run_rl(rl_config(), ScriptedClient(reply))
    assert raised.value.report.summary.faults == 1
    assert len(list(read_jsonl("rl_cai/cai_comparisons.jsonl"))) == 20


def texts(path: str) -> list[str]:
    return [row["text"] for _, row in read_jsonl(path)]


@pytest.mark.parametrize("own", ["first", "last"])
def test_scripts_and_pipeline_share_every_option_of_the_preference_files(folder: Path, own: str) -> None:
    pytest.importorskip("sentencepiece")
    blend: dict[str, Any] = {}
    for split in ("train", "test"):
        asked = [Conversation.of_user(f"{split} {n} " + "far " * (n * 30)) for n in range(4)]
        write_jsonl(f"{split}_p.jsonl", map(prompt_row, asked))
        pairs = (comparison_rows(one, chosen="A", rejected="B") for one in asked)
        write_jsonl(f"{split}_c.jsonl", chain.from_iterable(pairs))
        blend[split] = {"prompts": (f"{split}_p.jsonl",), "comparisons": (f"{split}_c.jsonl",)}
    files = PreferenceFiles(
        blend=BlendFiles(name="hh", files=blend),
        own=own,  # pyright: ignore[reportArgumentType]
        ppo_prompts="all",
        soft_labels="repeat",
        label_copies=4,
        metadata=True,
        rm_seq_length=100,
        ppo_seq_length=200,
        tokenizer=packaged_files.TOKENIZER,
    )
    report = run_rl(rl_config(files=files, outputs=RlOutputs.named("rl_cai", blend="hh")))
    for split, kind, name in (("train", "comparisons", "rm-comparisons"), ("test", "prompts", "ppo-prompts")):
        path = f"rl_cai/blend_hh_with_cai_rlaif_{split}_{kind}_with_chat_prompt.jsonl"
        assert validate_file(path, name).written > 0
        counts = report.rows[f"hh_{split}_{kind}.jsonl"]
        assert counts["rows_in"] == 4 and 0 < counts["written"] < 4
        origins = report.rows[Path(path).name]["origins"]
        assert set(origins) == {f"hh_{split}_{kind}", "rl_cai_samples"}
        # Four copies of a pair, each of two rows, whether it was judged or blended in.
        assert origins[f"hh_{split}_{kind}"] == counts["written"] * (8 if kind == "comparisons" else 1)
    train, test = (texts(f"rl_cai/cai_rlaif_{split}_prompts_with_chat_prompt.jsonl") for split in ("train", "test"))
    assert len(train) == 16 and len(test) == 4 and not set(train) & set(test)
    made = report.rows["cai_rlaif_train_comparisons_with_chat_prompt.jsonl"]
    assert made["made"] == made["written"] * 4 * 2
    assert {row["dataset"] for _, row in read_jsonl("rl_cai/cai_rlaif_train_comparisons_with_chat_prompt.jsonl")} == {
        "rl_cai_samples"
    }


def test_sl_cai_learns_no_reply_of_a_transcript_and_rl_cai_has_it_as_context(folder: Path) -> None:
    asked = ["How do I steal a car?", "And a boat?", "And a plane?"]
    transcripts = [
        {"transcript": f"\n\nHuman: {asked[0]}"},
        {"transcript": f"\n\nHuman: {asked[0]}\n\nAssistant: With a hook.\n\nHuman: {asked[1]}"},
        {"transcript": f"\n\nHuman: {asked[2]}\n\nAssistant: With luck."},
    ]
    write_jsonl("transcripts.jsonl", transcripts)
    source = PromptSource(path="transcripts.jsonl", turns="all")
    report = asyncio.run(run_sl_cai(sl_config(prompts=source), ScriptedClient()))
    assert report.summary.to_dict()["balance"]["left_out"] == {"earlier replies, which SFT would learn, too": 1}
    assert "With a hook" not in Path("out/sl_cai.jsonl").read_text(encoding="utf-8")
    learned = sl_config(prompts=source, outputs=SlOutputs.named("all/sl_cai.jsonl"), learn_earlier_replies=True)
    assert asyncio.run(run_sl_cai(learned, ScriptedClient())).summary.counts.written == 3
    assert "With a hook" in Path("all/sl_cai.jsonl").read_text(encoding="utf-8")
    with pytest.raises(ValidationError, match="replies"):
        PromptSource.model_validate({"path": "transcripts.jsonl", "replies": False})
    run_rl(rl_config(prompts=source))
    assert "With a hook" in Path("rl_cai/cai_comparisons.jsonl").read_text(encoding="utf-8")


def test_the_scripts_have_what_the_pipeline_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sentencepiece")
    dry = ["--dry-run", "--tokenizer-model", str(packaged_files.TOKENIZER)]
    sl = ["--red-teaming-prompts-dataset-path", "red_team_attempts.jsonl", "--helpfulness-dataset-path"]
    assert sl_cai.main([*sl, "helpful_sft.jsonl", *dry, "--max-seq-length", "60", "--validation-share", "0.2"]) == 0
    assert sl_cai.main([*sl, "helpful_sft.jsonl", "--validation-share", "1"]) == 2
    assert "validation_share" in capsys.readouterr().err.splitlines()[-1]
    rl = ["--red-teaming-file-path", "red_team_attempts.jsonl", "--ppo-prompts", "all"]
    assert rl_cai.main([*rl, *dry, "--rm-seq-length", "90", "--ppo-seq-length", "90"]) == 0
    assert "_train_prompts_with_chat_prompt.jsonl: 16 rows" in capsys.readouterr().out
    assert rl_cai.main([*rl, "--rm-seq-length", "9"]) == 2
    assert "--tokenizer-model" in capsys.readouterr().err


def test_the_length_filter_and_the_validation_split_of_sft_files(folder: Path) -> None:
    pytest.importorskip("sentencepiece")
    files = SftFiles(
        helpful="helpful_sft.jsonl", seq_length=60, tokenizer=packaged_files.TOKENIZER, validation_share=0.25
    )
    outputs = SlOutputs.named("out/sl.jsonl", seq_length=60, validation=True)
    report = asyncio.run(run_sl_cai(sl_config(files=files, outputs=outputs), ScriptedClient()))
    assert outputs.validation is not None and outputs.without_long is not None
    parts = [[row for _, row in read_jsonl(path)] for path in (outputs.train, outputs.validation)]
    kept = [row for _, row in read_jsonl(outputs.without_long)]
    assert report.rows["length"]["written"] == len(kept) == len(parts[0]) + len(parts[1])
    assert report.rows["split"]["parts"] == {"train": len(parts[0]), "validation": len(parts[1])}
    assert 0 < len(parts[1]) < len(parts[0]) and len(kept) < 30 and not [row for row in parts[0] if row in parts[1]]
    assert not [path for path in outputs.revisions.parent.iterdir() if path.name.startswith(".blend_")]


def test_a_length_that_leaves_nothing_is_said_after_everything_is_saved(folder: Path) -> None:
    pytest.importorskip("sentencepiece")
    long = Conversation.of_user("How far?").with_turn(Role.ASSISTANT, "Far. " * 2000)
    write_jsonl("long.jsonl", [sft_row(long)])
    files = SftFiles(helpful="long.jsonl", seq_length=300, tokenizer=packaged_files.TOKENIZER)
    config = sl_config(files=files, outputs=SlOutputs.named("out/sl.jsonl", seq_length=300), sampling=Sampling())
    model = ScriptedClient(lambda request: f"{len(request.messages)} words " * 2000)
    with pytest.raises(StageIncomplete, match="300 leaves nothing") as raised:
        asyncio.run(run_sl_cai(config, model))
    assert raised.value.report.rows["length"]["written"] == 0
    assert len(list(read_jsonl("out/cai_output/sl.jsonl/cai_revisions.jsonl"))) == 20
