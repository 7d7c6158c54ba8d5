# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Built-in components, and those of a small distribution that is really installed for the test."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.commands.data.hydra_groups import compose_command
from nemo_aligner_cai.commands.generate.rl_cai import main
from nemo_aligner_cai.data.formats.all_formats import FORMATS
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.graders.spec import load_grader
from nemo_aligner_cai.files import read_jsonl, write_jsonl
from nemo_aligner_cai.judges.pair_judge import PairJudge
from nemo_aligner_cai.models import Completion
from nemo_aligner_cai.registry import BUILTIN, components, load
from tests.unit.rl_run import red_team_flags


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the distribution is installed into."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("target")
    # A copy: pip builds a package in its own folder.
    shutil.copytree(Path(__file__).parents[2] / "examples" / "plugin", source)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    return target


@pytest.fixture
def extra(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(installed))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "cai_example"]:
        del sys.modules[name]


def test_built_in_components_exist_and_have_descriptions() -> None:
    assert list(components("formats")) == list(FORMATS)
    for kind in BUILTIN:
        for component in components(kind).values():
            assert component.describe() and component.origin.startswith("nemo_aligner_cai ")


@pytest.mark.slow
def test_another_packages_components_are_found_and_listed(extra: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["components"]) == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for row in (
        "judges ratings cai-example 1.0 Each reply rated on its own, from 1 to 10; the higher rating wins.",
        "judge_prompts brief cai-example 1.0 In few words.",
        "graders tone cai-example 1.0 Polite, neutral or rude, by a model.",
        "processors letters cai-example 1.0 Letters as SFT rows: `cai data letters INPUT OUTPUT`.",
        "formats letters cai-example 1.0 letters to the editor: letter, answer",
    ):
        assert row in shown
    assert cli.main(["components", "processors"]) == 0
    assert "anthropic-hh" in capsys.readouterr().out


@pytest.mark.slow
def test_another_packages_components_are_selected_by_flag(
    extra: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = red_team_flags(tmp_path)
    assert main([*flags, "--judge", "ratings", "--preview", "1"]) == 0
    assert "From 1 (violates it) to 10" in capsys.readouterr().out
    assert main([*flags, "--judge", "multiple-choice", "--judge-prompt", "brief", "--preview", "1"]) == 0
    assert "(A) This is a scripted reply" in capsys.readouterr().out
    write_jsonl(tmp_path / "letters.jsonl", [{"letter": "Where?", "answer": "Here."}])
    assert cli.main(["data", "letters", str(tmp_path / "letters.jsonl"), str(tmp_path / "sft.jsonl")]) == 0
    assert [row["conversations"][1]["value"] for _, row in read_jsonl(tmp_path / "sft.jsonl")] == ["Here."]
    assert load_grader("tone").classes.keys() == {"polite", "neutral", "rude"}


@pytest.mark.parametrize(
    ("replies", "better", "probability"),
    [(("8", "3."), 1, None), (("2", " 10"), 0, None), (("5", "5"), None, 0.5), (("8 of 10", "3"), None, None)],
)
def test_the_example_judge_never_guesses(
    replies: tuple[str, str], better: int | None, probability: float | None, extra: None
) -> None:
    from cai_example.judge import RatingsStrategy

    verdict = RatingsStrategy().verdict((1, 0), "misuse", [[Completion(text, "stop") for text in replies]])
    assert (verdict.better, verdict.probability) == (better, probability)
    assert verdict.is_parsed is (better is not None or probability is not None)


def test_our_generators_are_selected_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "rl-cai", "--help"])
    assert ended.value.code == 0 and "--judge STRATEGY" in capsys.readouterr().out
    assert cli.main(["data", "nothing"]) == 2
    assert "sl-cai, rl-cai, anthropic-hh" in capsys.readouterr().err


def write_distribution(folder: Path, group: str, point: str) -> None:
    info = folder / "cai_other-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cai-other\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[nemo_aligner_cai.{group}]\n{point}\n")


def test_a_name_that_two_packages_define_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_distribution(tmp_path, "judges", "ensemble = somewhere:else")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"'ensemble' .* nemo_aligner_cai .* cai-other 0\.1"):
        load("judges", "ensemble")
    assert load("judges", "best-worst")


def test_a_component_that_cannot_be_imported_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_distribution(tmp_path, "judges", "broken = not_there:judge")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(components("judges")["broken"].origin, str)
    with pytest.raises(UsageError, match=r"'broken' of cai-other 0\.1 .*not_there:judge"):
        load("judges", "broken")


def test_a_component_of_a_module_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loose_judges.py").write_text("def mine(settings):\n    return ('mine', settings)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("judges", "loose_judges:mine")("settings") == ("mine", "settings")
    with pytest.raises(UsageError, match="loose_judges:other"):
        load("judges", "loose_judges:other")


def test_a_judge_of_ours_is_loaded_by_its_name() -> None:
    from nemo_aligner_cai.constitution import load_constitution, packaged
    from nemo_aligner_cai.judges.settings import JudgeSettings

    judge = load("judges", "ensemble")(JudgeSettings(constitution=load_constitution(packaged())))
    assert isinstance(judge, PairJudge) and judge.name == "ensemble"


def test_another_packages_components_are_options_of_the_hydra_groups(extra: None) -> None:
    pytest.importorskip("hydra")
    found = compose_command(["generator=rl-cai", "judge=ratings", "judge_prompt=brief"])
    assert not isinstance(found, str)
    assert found[0].name == "rl-cai"
    assert found[1] == ["--judge", "ratings", "--judge-prompt", "brief"]
