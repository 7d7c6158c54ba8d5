# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Built-in components, and those of a small distribution that is really installed for the test."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.commands.data.hydra_groups import compose_command
from nemo_aligner_cai.commands.generate.rl_cai import main
from nemo_aligner_cai.data.formats.files import FORMATS, format_named
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.pair_judge import PairJudge
from nemo_aligner_cai.registry import BUILTIN, components, load
from tests.unit.rl_run import red_team_flags

MODULE = '''
"""Data from nowhere."""
import sys
from nemo_aligner_cai.data.formats.other_trainers import Messages
from nemo_aligner_cai.judges.multiple_choice import multiple_choice


def stern(settings):
    """Multiple choice, stern."""
    return multiple_choice(settings)


BRIEF = {"description": "In few words.", "judge_question": "{principle} (A) {a} (B) {b}"}


class Letters(Messages):
    name = "letters"
    description = "letters to the editor"


def main(argv):
    sys.stdout.write(f"made with {argv}\\n")
    return 3
'''

SETUP = """
from setuptools import setup
setup(
    name="cai-extra",
    version="1.2",
    py_modules=["cai_extra"],
    entry_points={
        "nemo_aligner_cai.judges": ["stern = cai_extra:stern"],
        "nemo_aligner_cai.judge_prompts": ["brief = cai_extra:BRIEF"],
        "nemo_aligner_cai.generators": ["nowhere = cai_extra"],
        "nemo_aligner_cai.formats": ["letters = cai_extra:Letters"],
    },
)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the distribution is installed into."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    (source / "cai_extra.py").write_text(MODULE)
    (source / "setup.py").write_text(SETUP)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    return target


@pytest.fixture
def extra(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(installed))
    yield
    sys.modules.pop("cai_extra", None)


def test_built_in_components_exist_and_have_descriptions() -> None:
    assert list(components("judges")) == ["best-worst", "multiple-choice", "chain-of-thought", "ensemble"]
    assert list(components("formats")) == list(FORMATS)
    for kind in BUILTIN:
        for component in components(kind).values():
            assert component.describe() and component.origin.startswith("nemo_aligner_cai ")


@pytest.mark.slow
def test_another_packages_components_are_found_and_listed(extra: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["components"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in (
        ["judges", "stern", "cai-extra", "1.2", "Multiple", "choice,", "stern."],
        ["judge_prompts", "brief", "cai-extra", "1.2", "In", "few", "words."],
        ["generators", "nowhere", "cai-extra", "1.2", "Data", "from", "nowhere."],
        ["formats", "letters", "cai-extra", "1.2", "letters", "to", "the", "editor"],
    ):
        assert row in shown
    assert cli.main(["components", "processors"]) == 0
    assert "anthropic-hh" in capsys.readouterr().out


@pytest.mark.slow
def test_another_packages_components_are_selected_by_flag(
    extra: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*red_team_flags(tmp_path), "--judge", "stern", "--judge-prompt", "brief"]
    assert main([*flags, "--dry-run"]) == 0
    assert main([*flags, "--preview", "1"]) == 0
    assert "? (A) This is a scripted reply" in capsys.readouterr().out
    assert cli.main(["data", "nowhere", "--deep", "5"]) == 3
    assert "made with ['--deep', '5']" in capsys.readouterr().out
    assert format_named("letters").name == "letters"


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


def test_a_judge_of_ours_is_loaded_by_its_name() -> None:
    from nemo_aligner_cai.constitution import load_constitution, packaged
    from nemo_aligner_cai.judges.settings import JudgeSettings

    judge = load("judges", "ensemble")(JudgeSettings(constitution=load_constitution(packaged())))
    assert isinstance(judge, PairJudge) and judge.name == "ensemble"


def test_another_packages_components_are_options_of_the_hydra_groups(extra: None) -> None:
    pytest.importorskip("hydra")
    for words in (["generator=nowhere", "+flags.from_where=there"], ["generator=rl-cai", "judge_prompt=brief"]):
        found = compose_command([*words, "judge=stern"])
        assert not isinstance(found, str)
        assert found[0].name == words[0].removeprefix("generator=")
        assert found[1][:2] == ["--judge", "stern"]
        assert found[1][2:] in (["--from-where", "there"], ["--judge-prompt", "brief"])
