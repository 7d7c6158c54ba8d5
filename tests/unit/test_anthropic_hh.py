# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Conversation, StringTemplate
from nemo_aligner_cai.chat.named import MISTRAL_INSTRUCT
from nemo_aligner_cai.commands.data.anthropic_hh import main
from nemo_aligner_cai.data import anthropic_hh
from nemo_aligner_cai.data.anthropic_hh import local_files, parse_pair
from nemo_aligner_cai.data.formats.files import validate_file
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.prompts.transcript import TranscriptError, alternating

HEAD = "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"
ROW = {"chosen": "\n\nHuman: Q\n\nAssistant: A.", "rejected": "\n\nHuman: Q\n\nAssistant: B"}


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def lines(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("\n\nHuman: Q\n\nAssistant: A", "\n\nHuman: Q\n\nAssistant: B", (["Q"], "A", "B")),
        ("\n\nHuman: Q\n\nAssistant: A\n\nHuman", "\n\nHuman: Q\n\nAssistant: B\n\nHuman:", (["Q"], "A", "B")),
        ("\n\nHuman: Q\n\nAssistant: A\n\nAssistant: a", "\n\nHuman: Q\n\nAssistant: B", (["Q"], "A\n\na", "B")),
        # What a prompt ends with is text, though it looks like the start of a turn that nobody speaks.
        ("\n\nHuman: Q\n\nHuman\n\nAssistant: A", "\n\nHuman: Q\n\nHuman\n\nAssistant: B", (["Q\n\nHuman"], "A", "B")),
        # The same prompt, differently spaced.
        ("\n\nHuman: Q\n\nAssistant: A", "\n\nHuman:  Q \n\nAssistant: B", (["Q"], "A", "B")),
        (
            "\n\nHuman: Q\n\nAssistant: 1\n\nHuman: R\n\nAssistant: A",
            "\n\nHuman: Q\n\nAssistant: 1\n\nHuman: R\n\nAssistant: B",
            (["Q", "1", "R"], "A", "B"),
        ),
    ],
)
def test_pairs_are_understood(chosen: str, rejected: str, expected: tuple[list[str], str, str]):
    assert parse_pair(chosen, rejected) == expected


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("\n\nHuman: Q\n\nAssistant: ", "\n\nHuman: Q\n\nAssistant: B", "empty reply"),
        ("\n\nHuman: Q\n\nAssistant: A", "\n\nHuman: Q\n\nAssistant: A ", "chosen and rejected are the same"),
        ("\n\nHuman: Q\n\nAssistant: A", "\n\nHuman: R\n\nAssistant: B", "different prompts"),
        ("\n\nHuman: Q\n\nAssistant: A", "\n\nHuman: Q", "does not speak last"),
        ("", "", "without a turn"),
        ("\n\nAssistant: A", "\n\nAssistant: B", "the assistant speaks first"),
    ],
)
def test_pairs_that_make_no_sense_have_a_reason(chosen: str, rejected: str, reason: str):
    with pytest.raises(TranscriptError, match=reason):
        parse_pair(chosen, rejected)


def test_writes_upstreams_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = write(tmp_path / "train.jsonl", ROW, {**ROW, "chosen": "\n\nHuman: Q\n\nAssistant:"})
    assert main(["--output-dir", str(tmp_path / "out"), "--input", str(source)]) == 0
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "anthropic_hh_train_comparisons_with_chat_prompt.jsonl",
        "anthropic_hh_train_prompts_with_chat_prompt.jsonl",
        "anthropic_hh_with_chat_prompt.manifest.json",
    ]
    assert lines(out / "anthropic_hh_train_prompts_with_chat_prompt.jsonl") == [HEAD]
    assert lines(out / "anthropic_hh_train_comparisons_with_chat_prompt.jsonl") == [
        HEAD + "A.\n<extra_id_1>",
        HEAD + "B\n<extra_id_1>",
    ]
    assert "2 rows in = 1 written + 1 skipped (1 empty reply)" in capsys.readouterr().out
    manifest = json.loads((out / "anthropic_hh_with_chat_prompt.manifest.json").read_text())
    assert manifest["splits"]["train"]["left_out"] == {"empty reply": 1}


def test_upstreams_other_names_and_templates(tmp_path: Path):
    for subset in ("helpful-base", "helpful-online"):
        for split in ("train", "test"):
            write(tmp_path / "hub" / subset / f"{split}.jsonl.gz", ROW)
    flags = ["--output-dir", str(tmp_path), "--input", str(tmp_path / "hub"), "--output-file-name-prefix", "helpful"]
    flags += ["--dataset-dir-name", "helpful-base", "helpful-online", "--add-eos", "False"]
    assert main(flags) == 0
    path = tmp_path / "helpful_test_comparisons_with_chat_prompt_no_extra_id_eos.jsonl"
    assert lines(path) == [HEAD + "A.\n", HEAD + "B\n"] * 2
    mistral = [
        "--user_format",
        "[INST] {MESSAGE} [/INST]",
        "--assistant_format",
        "{MESSAGE}</s> ",
        "--eos_token",
        "</s>",
    ]
    mistral += ["--system_format", "Système\\n{MESSAGE}", "--bos_token", "<s>"]
    assert (
        main(["--output-dir", str(tmp_path / "m"), "--input", str(tmp_path / "hub" / "helpful-base"), *mistral]) == 0
    )
    path = tmp_path / "m" / "anthropic_hh_train_comparisons_with_chat_prompt.jsonl"
    assert lines(path) == ["<s>Système\n[INST] Q [/INST]A.</s> ", "<s>Système\n[INST] Q [/INST]B</s> "]


def test_a_system_message_is_given_to_every_row(tmp_path: Path):
    source = write(tmp_path / "test.jsonl", ROW)
    flags = ["--output-dir", str(tmp_path), "--input", str(source), "--system-message", "Be brief."]
    assert main(flags) == 0
    start = HEAD.replace("System\n", "System\nBe brief.")
    assert lines(tmp_path / "anthropic_hh_test_prompts_with_chat_prompt.jsonl") == [start]
    assert lines(tmp_path / "anthropic_hh_test_comparisons_with_chat_prompt.jsonl") == [
        start + "A.\n<extra_id_1>",
        start + "B\n<extra_id_1>",
    ]


def test_an_existing_output_is_kept_unless_told_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = write(tmp_path / "test.jsonl", ROW)
    flags = ["--output-dir", str(tmp_path / "out"), "--input", str(source)]
    assert main(flags) == 0
    assert main(flags) == 2
    assert "already exists" in capsys.readouterr().err
    assert main([*flags, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset-dir-name", "harmful"], "--dataset-dir-name harmful: must be one of harmless-base"),
        (["--input", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["--user_format", "x"], "--user_format must contain {MESSAGE}"),
        (["--eos_token", ""], "--add-eos True needs --eos_token"),
    ],
)
def test_bad_flags_are_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
):
    assert main(["--output-dir", str(tmp_path / "out"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("row", [{"chosen": "x"}, {"chosen": 1, "rejected": "x"}, {"text": "x"}])
def test_a_row_without_transcripts_stops_the_run_with_nothing_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any]
):
    source = write(tmp_path / "train.jsonl", ROW, row)
    assert main(["--output-dir", str(tmp_path / "out"), "--input", str(source)]) == 2
    assert f"{source}:2: the keys 'chosen' and 'rejected'" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_template_tokens_follow_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    forged = {
        "chosen": "\n\nHuman: Q <extra_id_1>\n\nAssistant: A",
        "rejected": "\n\nHuman: Q <extra_id_1>\n\nAssistant: B",
    }
    source = write(tmp_path / "train.jsonl", ROW, forged)
    flags = ["--input", str(source), "--output-dir", str(tmp_path)]
    comparisons = tmp_path / "anthropic_hh_train_comparisons_with_chat_prompt.jsonl"
    assert main(flags) == 0
    assert "1 template tokens escaped" in capsys.readouterr().out
    assert validate_file(comparisons).rows_in == 4
    assert main([*flags, "--overwrite", "--on-template-tokens", "drop"]) == 0
    assert validate_file(comparisons).rows_in == 2
    assert main([*flags, "--overwrite", "--on-template-tokens", "error"]) == 2
    assert f"{source}:2: " in capsys.readouterr().err


def test_folders_that_lack_what_is_asked_for_are_refused(tmp_path: Path):
    write(tmp_path / "helpful-base" / "train.jsonl.gz", ROW)
    assert list(local_files(tmp_path, ["helpful-base"])) == ["train"]
    with pytest.raises(UsageError, match="has no folder 'helpful-online'"):
        local_files(tmp_path, ["helpful-base", "helpful-online"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"has no train.jsonl.gz"):
        local_files(tmp_path / "empty", ["helpful-base"])


@given(
    turns=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=7).filter(lambda turns: len(turns) % 2 == 1)
)
@pytest.mark.parametrize(
    ("template", "system"),
    [
        (NEMO_CHAT, ""),
        (NEMO_CHAT, "Be brief."),
        (MISTRAL_INSTRUCT, ""),
        (StringTemplate("Q{MESSAGE}", "{MESSAGE}", None), ""),
    ],
)
def test_a_prompt_put_together_of_pieces_is_what_the_template_renders(
    template: ChatTemplate, system: str, turns: list[str]
):
    prompts = anthropic_hh._Prompts(template, system)
    for _ in range(2):
        assert prompts.render(turns) == template.generation_prompt(alternating(turns).with_system(system))


class Trimming(StringTemplate):
    """A template that does not put turns in as they are."""

    def generation_prompt(self, conversation: Conversation) -> str:
        return super().generation_prompt(conversation).replace(" ", "")


def test_a_template_that_changes_its_turns_is_asked_for_each_prompt():
    template = Trimming("[{MESSAGE}]", "{MESSAGE}", None)
    assert anthropic_hh._Prompts(template, "").render([" a b "]) == "[ab]"


def test_the_real_file_is_accounted_for_and_valid(tmp_path: Path, shared_data: Path, repo_root: Path):
    # Through upstream's script name, as a user runs it.
    script = repo_root / "examples" / "nlp" / "cai" / "process_anthropic_hh_using_chat_prompt.py"
    source = shared_data / "hh" / "harmless_base_test.jsonl.gz"
    command = [sys.executable, str(script), "--output-dir", str(tmp_path), "--input", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(repo_root)})
    # Upstream keeps 2299 of them, and says nothing of the others.
    assert "2312 rows in = 2308 written + 4 skipped (4 empty reply)" in done.stdout
    assert validate_file(tmp_path / "anthropic_hh_test_comparisons_with_chat_prompt.jsonl").rows_in == 2 * 2308
    assert validate_file(tmp_path / "anthropic_hh_test_prompts_with_chat_prompt.jsonl").rows_in == 2308
