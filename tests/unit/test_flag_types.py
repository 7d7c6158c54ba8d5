# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Flags that are wrong or contradict each other: one line that names the flag, before anything is sent or replaced."""

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai import cli
from nemo_aligner_cai.commands.common.flag_types import (
    COUNT,
    NOT_NEGATIVE,
    PORT,
    POSITIVE,
    SEED,
    SHARE,
    Number,
    file_prefix,
    host,
)
from nemo_aligner_cai.commands.generate import clients, rl_cai, sl_cai
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import NemoServerClient, RetryPolicy
from tests.unit.rl_run import red_team_flags

SECRET = "sk-verysecret"


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name in ("NGC_API_KEY", "NVIDIA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return red_team_flags(tmp_path)


@given(st.text(max_size=8) | st.sampled_from(["nan", "inf", "-inf", "1e999", "-0", "9" * 400, "9" * 5000, "1_0"]))
def test_whatever_a_number_is_given_it_is_finite_and_in_its_bounds(text: str) -> None:
    for kind in (COUNT, PORT, SHARE, POSITIVE, NOT_NEGATIVE, Number(float, 1.0)):
        try:
            value = kind(text)
        except argparse.ArgumentTypeError as error:
            assert "must be a" in str(error)
        else:
            assert kind.minimum <= value <= kind.maximum and value < 1 << 53 and (value > 0 or not kind.exclusive)


@pytest.mark.parametrize(
    "more",
    [
        ["--judge-concurrency", "0"],
        ["--requests-per-minute", "nan"],
        ["--requests-per-minute", "inf"],
        ["--judge-tokens-per-minute", "0"],
        ["--request-timeout", "nan"],
        ["--price-read", "-5"],
        ["--temperatures", "0.5", "-1"],
        ["--port", "99999"],
        ["--judge-port", "0"],
        ["--preview", "0"],
        ["--tokens_to_generate", "0"],
        ["--repetition_penalty", "0.5"],
        ["--concurrency", "-4"],
    ],
)
def test_a_number_out_of_bounds_is_an_error_that_names_its_flag(
    flags: list[str], more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "out" / "cai_comparisons.journal.jsonl"
    journal.parent.mkdir()
    journal.write_text('{"kind":"failure","step":"a","record":"b","reason":"c"}\n')
    assert rl_cai.main([*flags, *more, "--overwrite"]) == 2
    assert f"argument {more[0]}: must be a" in capsys.readouterr().err
    assert journal.read_text(), "nothing is thrown away for a bad flag"


@pytest.mark.parametrize(
    "more",
    [
        ["--splits", "{[]: 1}"],
        ["--splits", "{'': 1}"],
        ["--splits", "{1: 1}"],
        ["--splits", "{'a/b': 1}"],
        ["--splits", "{'../x': 1}"],
        ["--splits", "["],
        ["--splits", "(" * 5000],
        ["--blend-with", "{[]: 1}"],
        ["--blend-with", "{'name':'x', 1: {}}"],
        ["--blend-with", "{'name':'../x', 'train': {}, 'test': {}}"],
    ],
)
def test_bad_mappings_and_names_of_files_are_refused(
    flags: list[str], more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert rl_cai.main([*flags, *more]) == 2
    assert f"cai: {more[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--api-key-env", "HOME"], "--api-key-env has no effect without --model-url"),
        (["--requests-per-minute", "3"], "--requests-per-minute has no effect without --model-url"),
        (["--concurrency", "4"], "--concurrency has no effect without --model-url"),
        (["--judge-port", "1", "--judge-api-key-env", "HOME"], "--judge-api-key-env has no effect with --judge-port"),
        (["--judge-port", "1", "--judge-url", "http://h/v1"], "--ngc-url has no effect with --judge-port"),
        (["--judge-url", f"http://user:{SECRET}@h/v1"], "--api-key-env"),
        (["--api-key-env", SECRET], "argument --api-key-env: must be the name of an environment variable"),
        (["--judge-api-key-env", SECRET], "argument --judge-api-key-env: must be the name of an environment"),
    ],
)
def test_flags_that_would_say_nothing_or_hold_a_key_are_refused_without_repeating_it(
    flags: list[str], more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rl_cai.main([*flags, *more]) == 2
    said = capsys.readouterr()
    assert message in said.err and SECRET not in said.err + said.out
    assert not (tmp_path / "out").exists()


def test_a_key_with_a_line_end_is_refused_without_repeating_it(
    flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAI_KEY", f"{SECRET}\nmore")
    assert rl_cai.main([*flags, "--judge-url", "http://127.0.0.1:1", "--judge-api-key-env", "CAI_KEY"]) == 2
    said = capsys.readouterr().err
    assert "CAI_KEY: the API key" in said and SECRET not in said


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://integrate.api.nvidia.com/v1", True),
        ("https://nim.nvidia.com/v1", True),
        ("http://127.0.0.1:9/v1", False),
        ("https://nvidia.com.evil.example/v1", False),
        ("https://evilnvidia.com/v1", False),
    ],
)
def test_keys_for_nvidia_go_to_nvidia_alone(
    flags: list[str], url: str, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = rl_cai.build_parser().parse_args
    for name in ("NGC_API_KEY", "NVIDIA_API_KEY"):
        monkeypatch.setenv(name, SECRET)
        assert clients.judge_key(parse([*flags, "--judge-url", url])) == (SECRET if sent else None)
        monkeypatch.delenv(name)
    monkeypatch.setenv("CAI_KEY", SECRET)
    named = parse([*flags, "--judge-url", url, "--judge-api-key-env", "CAI_KEY"])
    assert clients.judge_key(named) == SECRET, "a key that is named goes where it is told to"


def test_a_plan_needs_no_key(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert rl_cai.main([*flags, "--plan"]) == 0
    assert "to be made" in capsys.readouterr().out


def test_the_judge_on_a_nemo_server_has_the_name_that_it_is_given(flags: list[str]) -> None:
    def client(*more: str) -> NemoServerClient:
        args = rl_cai.build_parser().parse_args([*flags, "--judge-port", "1", *more])
        judge = clients.judge_client(args, None, RetryPolicy())
        assert isinstance(judge, NemoServerClient)
        return judge

    named, other, unnamed = client("--judge-model", "a"), client("--judge-model", "b"), client()
    assert named.identity != other.identity, "after a change of judge nothing is reused"
    assert unnamed.identity["model"] == "judge"


@pytest.mark.parametrize(
    ("text", "value"),
    [("::1", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("node-3.cluster_a", "node-3.cluster_a")],
)
def test_b6_a_host_is_written_as_in_a_url(text: str, value: str) -> None:
    assert host(text) == value


@pytest.mark.parametrize("text", ["", "http://h", "h:5656", "h/x", "h h", "h\x1b", "me:geheim@h", "geheim@h", "h?"])
def test_b6_c4_what_is_no_host_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        host(text)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    "more", [["--end_strings", ""], ["--end_strings", "</s>", ""], ["--host", "me:geheim@h"], ["--judge-host", "a/b"]]
)
def test_b6_a_flag_that_no_server_takes_is_one_line_that_names_it(
    flags: list[str], more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert rl_cai.main([*flags, *more]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"cai: argument {more[0]}") and line.count("\n") == 1 and "geheim" not in line


def test_c4_a_key_in_place_of_its_variable_is_not_repeated(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--model-url", "http://localhost:1/v1", "--model", "m", "--api-key-env", "hf_geheim"]
    assert rl_cai.main([*flags, *more, "--judge-url", "http://localhost:1/v1"]) == 2
    assert "geheim" not in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", f"{2**53}", f"{2**64}", f"{10**26}", f"-{10**26}", "1" * 5000, "1.5", "nan"])
def test_b8_a_seed_that_cannot_be_recorded_is_refused(seed: str):
    with pytest.raises(argparse.ArgumentTypeError, match="between 0 and 9007199254740991"):
        SEED(seed)
    assert SEED("9007199254740991") == 2**53 - 1


@pytest.mark.parametrize(
    ("command", "most"),
    [
        (["data", "sl-cai"], 2**53 - 1),
        (["data", "rl-cai"], 2**53 - 1),
        (["judge-accuracy"], 2**53 - 1),
        (["data", "blend"], 2**53 - 1),
        (["tiny", "data"], 2**53 - 1),
        (["tiny", "build"], 2**32 - 1),
        (["run", "run.yaml"], 2**32 - 1),
        (["quickstart"], 2**32 - 1),
    ],
)
def test_b8_every_command_names_its_range_of_seeds(
    command: list[str], most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (-1, most + 1, 2**64):
        assert cli.main([*command, "--seed", str(seed)]) == 2
        said = capsys.readouterr().err
        assert "--seed" in said and f"between 0 and {most}" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("prefix", ["../x", "/tmp/x", "a/b", "x\n", "\udcff"])
def test_b2_a_prefix_is_a_name_and_not_a_path(prefix: str):
    with pytest.raises(argparse.ArgumentTypeError):
        file_prefix(prefix)
    assert file_prefix("my run.2") == "my run.2"


SL = ["--red-teaming-prompts-dataset-path", "r", "--helpfulness-dataset-path", "h"]
URL = ["--model-url", "http://h/v1"]


@pytest.mark.parametrize(
    "more",
    [
        ["--temperature", "0.7"],
        ["--greedy", "False", "--temperature", "0.7"],
        ["--top_p", "0.5"],
        ["--top_k", "40"],
        ["--repetition_penalty", "1.5"],
        ["--user_format", "{MESSAGE}"],
        ["--apply_chat_template", "True", *URL],
        ["--chat-template", "nemo", *URL],
        ["--user_format", "{MESSAGE}", "--apply_chat_template", "True", "--chat-template", "nemo"],
        ["--tokenizer-model", "t"],
        ["--api-key-env", "KEY"],
        ["--concurrency", "3"],
    ],
)
def test_d2_a_flag_without_effect_in_sl_cai_is_refused(more: list[str]) -> None:
    with pytest.raises(UsageError, match="no effect") as refused:
        sl_cai.build_parser().parse_args([*SL, *more])
    assert any(str(refused.value).startswith(f"{word} ") for word in more)


@pytest.mark.parametrize(
    "more",
    [
        ["--temperature", "0.7"],
        ["--temperatures", "0.5", "1", "--temperature", "0.7"],
        ["--num-responses", "4", "--temperature", "0.7", "--top_k", "1"],
        ["--label-copies", "4"],
        ["--judge-host", "h"],
        ["--judge-port", "1", "--judge-concurrency", "2"],
        ["--pairs", "all"],
        ["--judge-votes", "3"],
        ["--no-judge-logprobs"],
        ["--judge-clamp", "0.3", "0.7", "--judge", "multiple-choice"],
        ["--ensemble", "3", "--judge", "chain-of-thought"],
        ["--ensemble-of", "chain-of-thought"],
    ],
)
def test_d2_a_flag_without_effect_in_rl_cai_is_refused(more: list[str]) -> None:
    with pytest.raises(UsageError, match="no effect"):
        rl_cai.build_parser().parse_args(["--red-teaming-file-path", "r", *more])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--greedy", "False", "--temperature", "0.7", "--top_k", "0"], set[str]()),
        (["--temperature", "1.0", "--top_p", "0.9"], {"--temperature, --top_p"}),
        (["--temperature=1.0", "--tokenizer-lib", "x"], {"--temperature", "--tokenizer-library"}),
        ([*URL, *URL, "--port", "1", "--host", "h", "--batch_size", "4"], {"--port, --host", "--batch_size"}),
    ],
)
def test_d2_what_upstreams_command_lines_have_is_said_once(
    more: list[str], said: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        sl_cai.build_parser().parse_args([*SL, *more])
    assert {record.getMessage().partition(":")[0] for record in caplog.records} == said


def test_d2_judges_take_what_they_use_and_other_packages_take_all() -> None:
    for more in (
        ["--judge", "ensemble", "--ensemble-of", "chain-of-thought", "--judge-clamp", "0.3", "0.7"],
        ["--judge", "multiple-choice", "--pairs", "all", "--no-judge-logprobs"],
        ["--judge", "another", "--pairs", "all", "--ensemble", "3"],
        ["--num-responses", "4", "--temperature", "0.7"],
    ):
        rl_cai.build_parser().parse_args(["--red-teaming-file-path", "r", *more])
