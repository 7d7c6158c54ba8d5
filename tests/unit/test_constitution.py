# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
import argparse
import json
from pathlib import Path

import pytest

from nemo_aligner_cai.commands import constitution as command
from nemo_aligner_cai.constitution import Principle, load_constitution, packaged
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.prompts import read_few_shots

PRINCIPLE = "- {id: a, critique: C, revision: R, judge: J}\n"


def write(tmp_path: Path, text: str, name: str = "own.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_packaged_constitution_is_complete():
    constitution = load_constitution(packaged())
    assert constitution.name == "harmlessness"
    assert len(constitution.principles) >= 16
    assert len(constitution.for_revision) == len(constitution.for_judging) == len(constitution.principles)
    texts = [
        text for p in constitution.principles for text in (p.critique_request, p.revision_request, p.judge_request)
    ]
    assert len(set(texts)) == len(texts)
    assert all(text and text[0].isupper() and text[-1] in ".?" and "\n" not in text for text in texts)


def test_every_packaged_file_loads():
    folder = packaged().parent
    loaded = {path.name: load_constitution(path).name for path in folder.glob("*.yaml")}
    assert loaded == {"harmlessness.yaml": "harmlessness", "library_desk.yaml": "library-desk"}
    assert len(read_few_shots(packaged("few_shots.json"))) == 3
    assert packaged("library_desk") == packaged("library_desk.yaml")


def test_a_file_that_is_not_packaged_is_refused_with_those_that_are():
    for name in ("nowhere", "../constitution.py"):
        with pytest.raises(UsageError, match=r"few_shots.json, harmlessness.yaml, library_desk.yaml"):
            packaged(name)


def test_reads_our_yaml(tmp_path: Path):
    path = write(
        tmp_path,
        "name: mine\nprinciples:\n- {id: a, critique: C, revision: R}\n- id: b\n  judge: >-\n    Which\n    one?\n",
    )
    constitution = load_constitution(path)
    assert constitution.principles == (Principle("a", "C", "R", None), Principle("b", "", "", "Which one?"))
    assert [p.id for p in constitution.for_revision] == ["a"]
    assert [p.id for p in constitution.for_judging] == ["b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: needs the keys"),
        ("- a\n", ":1: needs the keys"),
        ("name: x\n", ":1: needs the key 'principles'"),
        ("principles: []\n", "has no principles"),
        ("principles:\n- {id: a}\n", ":2: principle 'a' needs 'critique' and 'revision', or 'judge'"),
        ("principles:\n- {id: a, critique: C}\n", ":2: principle 'a' needs both"),
        ("principles:\n- {critique: C, revision: R}\n", ":2: a principle needs an 'id'"),
        (f"principles:\n{PRINCIPLE}- id: b\n  crtique: C\n", ":4: unknown key 'crtique'"),
        (f"principles:\n{PRINCIPLE}{PRINCIPLE}", "the id 'a' is given to more than one"),
        ("principles:\n- id: a\n  id: b\n", ":3: the key 'id' is given twice"),
        ("principles:\n- {id: a, judge: [x]}\n", ":2: a text is needed"),
        ("principles:\n- {id: a, judge: ''}\n", ":2: a text is needed"),
        ("principles: [\n", "not YAML"),
        ("a: \x07\n", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str):
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=message) as raised:
        load_constitution(path)
    assert str(raised.value).startswith(str(path))


def test_reads_the_form_of_anthropics_instructions(tmp_path: Path):
    document = {
        "harmful0": {
            "prompt": ["\n\nCritiqueRequest: Say what is wrong.\n\nCritique:"],
            "edit_request": "\n\nRevisionRequest: Put it right.\n\nRevision:",
        }
    }
    path = write(tmp_path, json.dumps(document), "i.json")
    assert load_constitution(path).principles == (Principle("harmful0", "Say what is wrong.", "Put it right."),)
    judging = write(tmp_path, json.dumps(["\nWhich is better? Options:"]), "j.json")
    assert load_constitution(judging).principles == (Principle("judge0", "", "", "Which is better?"),)


@pytest.mark.parametrize(
    "document", ['{"a": {"prompt": []}}', '{"a": 1}', "[1]", "7", "{", '{"a": {"prompt": ["x"], "edit_request": 1}}']
)
def test_other_json_is_refused(tmp_path: Path, document: str):
    with pytest.raises(UsageError):
        load_constitution(write(tmp_path, document, "i.json"))


def test_reads_anthropics_published_files(shared_data: Path):
    folder = shared_data / "cai_paper" / "prompts"
    critiques = load_constitution(folder / "CritiqueRevisionInstructions.json")
    assert [p.id for p in critiques.principles] == [f"harmful{i}" for i in range(16)]
    assert not any("Request:" in p.critique_request + p.revision_request for p in critiques.principles)
    assert len(load_constitution(folder / "RLMadisonInstructions.json").for_judging) == 16
    # Ours are our own.
    theirs = {p.critique_request for p in critiques.principles} | {p.revision_request for p in critiques.principles}
    ours = load_constitution(packaged()).principles
    assert theirs.isdisjoint({p.critique_request for p in ours} | {p.revision_request for p in ours})


def test_the_command_lists_principles_and_refuses_wrong_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["constitution", "check", str(packaged())])
    assert args.run(args) == 0
    out = capsys.readouterr().out
    assert "18 principles, 18 of them critique and revise, 18 judge" in out
    assert "no-evasion  [revise, judge]" in out
    args = parser.parse_args(["constitution", "check", str(write(tmp_path, "principles: 1\n"))])
    with pytest.raises(FormatError):
        args.run(args)
