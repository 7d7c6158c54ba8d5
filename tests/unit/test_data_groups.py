# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Generators, processors, judges and judge prompts chosen by Hydra groups."""

from pathlib import Path

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.data import anthropic_hh
from nemo_aligner_cai.commands.data.hydra_groups import compose_command
from nemo_aligner_cai.commands.generate import rl_cai, sl_cai
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.registry import components
from tests.unit.rl_run import red_team_flags

pytest.importorskip("hydra")


def composed(*words: str) -> list[str]:
    found = compose_command(words)
    assert not isinstance(found, str)
    return found[1]


def test_groups_and_keys_say_what_flags_say(tmp_path: Path) -> None:
    flags = red_team_flags(tmp_path)
    named = dict(zip(flags[::2], flags[1::2], strict=True))
    keys = [f"flags.{flag[2:].replace('-', '_')}={value}" for flag, value in named.items()]
    by_groups = [*keys, "judge=multiple-choice", "judge_prompt=paper", "flags.both_orders=false"]
    by_groups += ["flags.temperatures=[0.5,1.5]", "flags.legacy_eot=true", "flags.splits={train: 0.5, test: 0.5}"]
    by_flags = [*flags, "--judge", "multiple-choice", "--judge-prompt", "paper", "--no-both-orders"]
    by_flags += ["--temperatures", "0.5", "1.5", "--legacy-eot", "--splits", "{'train': 0.5, 'test': 0.5}"]
    parser = rl_cai.build_parser()
    assert parser.parse_args(composed("generator=rl-cai", *by_groups)) == parser.parse_args(by_flags)


@pytest.mark.parametrize("name", list(components("judges")))
def test_every_judge_is_an_option(name: str) -> None:
    words = composed("generator=rl-cai", f"judge={name}", "flags.red_teaming_file_path=red.jsonl")
    assert rl_cai.build_parser().parse_args(words).judge == name


@pytest.mark.parametrize(
    ("maker", "module"),
    [("generator=sl-cai", sl_cai), ("generator=rl-cai", rl_cai), ("processor=anthropic-hh", anthropic_hh)],
)
def test_every_flag_but_the_api_key_is_a_key(maker: str, module: object) -> None:
    shown = compose_command([maker, "--cfg", "job"])
    assert isinstance(shown, str)
    parser: Parser = module.build_parser()  # pyright: ignore[reportAttributeAccessIssue]
    dests = {action.dest for action in parser.flags} - {"help", "judge", "judge_prompt"}
    absent = {dest for dest in dests if f"  {dest}: null\n" not in shown}
    assert absent == ({"ngc_api_key"} if maker == "generator=rl-cai" else set())


def test_a_configuration_of_ones_own_is_composed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "defaults: [cai_data, {override generator: sl-cai}, _self_]\nflags: {num_examples: 3, keep_unrevised: true}\n"
    )
    (tmp_path / "mine.yaml").write_text(text)
    words = composed("--config-dir", str(tmp_path), "--config-name", "mine", "flags.seed=7")
    assert sorted(words) == sorted(["--num-examples", "3", "--keep-unrevised", "--seed", "7"])
    assert cli.main(["data", "--config-dir", str(tmp_path), "--config-name=mine", "--cfg", "job"]) == 0
    assert "name: sl-cai" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generator=rl_cai"], "rl_cai"),
        (["judge=multiple-choice"], "generator=NAME"),
        (["generator=rl-cai", "processor=anthropic-hh"], "generator=NAME"),
        (["generator=rl-cai", "flags.pears=all"], "pears"),
        (["generator=rl-cai", "flags.legacy_eot=maybe"], "flags.legacy_eot=maybe"),
        (["generator=rl-cai", "flags.ngc_api_key=secret"], "ngc_api_key"),
    ],
)
def test_mistakes_are_one_error(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compose_command(words)


def test_what_is_composed_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = red_team_flags(tmp_path)
    keys = [f"flags.{key[2:].replace('-', '_')}={value}" for key, value in zip(flags[::2], flags[1::2], strict=True)]
    assert cli.main(["data", "generator=rl-cai", "judge=multiple-choice", *keys, "flags.plan=true"]) == 0
    assert "20" in capsys.readouterr().out
    assert cli.main(["data", "generator=rl-cai", "--cfg", "job"]) == 0
    assert "name: rl-cai" in capsys.readouterr().out
    assert cli.main(["data"]) == 2
