# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import json
import re
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.commands import constitution as command
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.constitution import Principle, load_constitution, packaged
from nemo_aligner_cai.data.tokenizer import load_tokenizer
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
        ("", r":1: .*critique: .*revision: "),
        ("a\n", r":1: .*critique: "),
        ("name: x\n", ":1: "),
        ("principles: []\n", ":1: "),
        ("principles:\n- {id: a}\n", ":2: principle 'a' needs 'critique' and 'revision', or 'judge'"),
        ("principles:\n- {id: a, critique: C}\n", ":2: principle 'a' needs .*revision: "),
        (f"principles:\n{PRINCIPLE}- id: b\n  crtique: C\n", ":4: .*'crtique'.*known: id, critique, revision, judge"),
        (f"principles:\n{PRINCIPLE}{PRINCIPLE}", "'a'"),
        ("principles:\n- id: a\n  id: b\n", ":3: .*'id'"),
        ("principles:\n- {name: a, critique: C, critic: C, revision: R}\n", ":2: .*'critic'"),
        ("principles:\n- {id: a, judge: [x]}\n", ":2: .*'judge'"),
        ("principles:\n- {id: a, judge: ''}\n", ":2: .*'judge'"),
        ("other: 1\nprinciples: [x]\n", ":1: .*'other'"),
        ("principles:\n- {id: a, judge: J}\n- {id: b, judge: J}\n- {id: a, judge: K}\n", ":4: .*'a'"),
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


BOTH, JUDGING = [("kind", "C", "R", None)], [("judge0", "", "", "Be kind?"), ("judge1", "", "", "Be brief?")]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("lines.txt", "Be kind?\n\n2. Be brief?\n", JUDGING),
        ("list.yaml", "- Be kind?\n- Be brief?\n", JUDGING),
        ("list.json", '["Be kind?", "Be brief?"]', JUDGING),
        ("icai.json", '{"constitution": "1. Be kind?", "principles": ["Be kind?", "Be brief?"]}', JUDGING),
        ("icai.json", '{"constitution": "1. Be kind?\\n2. Be brief?"}', JUDGING),
        ("lc.json", '{"kind": {"critique_request": "C", "revision_request": "R", "name": "kind"}}', BOTH),
        ("lc.yaml", "principles:\n- {name: kind, critique_request: C, revision_request: R}\n", BOTH),
        ("lc.yaml", "kind: {critique_request: C, revision_request: R}\n", BOTH),
        (
            "swarm.json",
            '{"constitutions": [{"critic": "C", "revision": "R"}], "system_chats": [[]]}',
            [("principle1", "C", "R", None)],
        ),
        ("short.yaml", "principles:\n- {critique: C, revision: R}\n", [("principle1", "C", "R", None)]),
        (
            "many.json",
            '{"a": {"prompt": ["CritiqueRequest: C\\n\\nCritique:", "D"], "edit_request": "R"}}',
            [("a.1", "C", "R", None), ("a.2", "D", "R", None)],
        ),
    ],
)
def test_d4_constitutions_of_other_projects_are_read(tmp_path: Path, name: str, text: str, expected: list[Any]):
    principles = load_constitution(write(tmp_path, text, name)).principles
    assert principles == tuple(Principle(*one) for one in expected)


def test_d4_llm_swarms_chats_are_few_shots(tmp_path: Path):
    chat = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    (shot,) = read_few_shots(write(tmp_path, json.dumps({"constitutions": [], "system_chats": [chat]}), "s.json"))
    assert shot.to_messages() == chat


@pytest.mark.parametrize(
    "document", ['{"a": {"prompt": []}}', '{"a": 1}', "[1]", "7", "{", '{"a": {"prompt": ["x"], "edit_request": 1}}']
)
def test_other_json_is_refused(tmp_path: Path, document: str):
    with pytest.raises(UsageError):
        load_constitution(write(tmp_path, document, "i.json"))


SENTENCE = re.compile(r"[^.?!]+")


def sentences(*texts: str) -> set[str]:
    """Sentences of five words and more, without case and punctuation."""
    found = (" ".join(re.findall(r"[\w']+", part.casefold())) for text in texts for part in SENTENCE.findall(text))
    return {sentence for sentence in found if len(sentence.split()) >= 5}


def test_reads_anthropics_published_files_and_takes_no_sentence_from_them(shared_data: Path):
    folder = shared_data / "cai_paper" / "prompts"
    critiques = load_constitution(folder / "CritiqueRevisionInstructions.json")
    assert [p.id for p in critiques.principles] == [f"harmful{i}" for i in range(16)]
    assert not any("Request:" in p.critique_request + p.revision_request for p in critiques.principles)
    judging = load_constitution(folder / "RLMadisonInstructions.json")
    assert len(judging.for_judging) == 16
    examples = read_few_shots(folder / "CritiqueRevisionFewShotPrompts.json")
    published = sentences(
        *(text for p in (*critiques.principles, *judging.principles) for text in p.requests.values()),
        *(turn.content for example in examples for turn in example.turns),
    )
    packaged_sentences = sentences(
        *(
            text
            for path in packaged().parent.glob("*.yaml")
            for p in load_constitution(path).principles
            for text in p.requests.values()
        ),
        *(turn.content for shot in read_few_shots(packaged("few_shots.json")) for turn in shot.turns),
    )
    assert len(published) > 100 and len(packaged_sentences) > 100
    assert published.isdisjoint(packaged_sentences)


def check(*args: object) -> int:
    parser = Parser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(["check", *map(str, args)]))


def test_the_packaged_files_are_complete_and_give_no_finding(capsys: pytest.CaptureFixture[str]):
    for name, count in (("harmlessness", 18), ("library_desk", 6)):
        assert check(packaged(name), "--few-shots", packaged("few_shots.json")) == 0
        out = capsys.readouterr().out
        assert f"{count} principles, {count} of them for revision, {count} for judging" in out
        assert "5 examples, " in out and " words" in out
        assert "warning" not in out


def test_one_packaged_example_finds_nothing_wrong_and_keeps_the_answer():
    shots = read_few_shots(packaged("few_shots.json"))
    kept = [shot for shot in shots if shot.turns[1].content == shot.turns[5].content]
    assert len(kept) == 1 and "I find no such step" in kept[0].turns[3].content


def test_the_check_says_how_long_each_request_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path, "principles:\n- {id: one, critique: a b c, revision: a b}\n- {id: two, judge: a b c d e}\n")
    assert check(path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split("  ")[0] == "principle" and lines[1].count(", words") == 3
    assert lines[2].split() == ["one", "3", "2", "-"] and lines[3].split() == ["two", "-", "-", "5"]
    tokenizer = Path(command.__file__).parents[1] / "tiny" / "tokenizer.model"
    assert check(path, "--tokenizer", tokenizer) == 0
    lines = capsys.readouterr().out.splitlines()
    exact = [len(ids) for ids in load_tokenizer(tokenizer).encode(["a b c", "a b"])]
    assert lines[1].count(", tokens") == 3
    assert lines[2].split() == ["one", *map(str, exact), "-"]


CRITIQUE = "Does any sentence of your last answer help somebody to hurt others in any way."


@pytest.mark.parametrize(
    ("principles", "finding"),
    [
        ("- {id: a, critique: C, revision: R}", "no judge request"),
        ("- {id: a, judge: J}", "no critique and revision request"),
        (
            f"- {{id: a, critique: {CRITIQUE}, revision: R, judge: J}}\n"
            f"- {{id: b, critique: {CRITIQUE.upper()}, revision: X, judge: K}}",
            "the critique request of 'a' and the critique request of 'b' are identical",
        ),
        (
            f"- {{id: a, critique: {CRITIQUE}, revision: R, judge: J}}\n"
            f"- {{id: b, critique: C, revision: {CRITIQUE.replace('somebody', 'anyone')}, judge: K}}",
            "the critique request of 'a' and the revision request of 'b' are similar (93%",
        ),
        (
            "- {id: a, critique: 'C <extra_id_1>', revision: R, judge: J}",
            "the critique request of 'a' contains one of the chat template's tokens",
        ),
    ],
)
def test_what_is_doubtful_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], principles: str, finding: str
):
    assert check(write(tmp_path, f"principles:\n{principles}\n")) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1 and finding in warnings[0]


def test_doubtful_examples_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def turn(role: str, content: str = "x") -> dict[str, str]:
        return {"role": role, "content": content}

    pair = [turn("User"), turn("Assistant")]
    samples = [pair * 3, pair, [turn("User"), *pair * 3], [*pair * 2, turn("User", "<extra_id_2>"), turn("Assistant")]]
    path = write(tmp_path, json.dumps({"samples": samples}), "shots.json")
    assert check(packaged(), "--few-shots", path) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 3
    assert "example 2 has 1 replies" in warnings[0]
    assert "example 3 " in warnings[1]
    assert "example 4 contains one of the chat template's tokens" in warnings[2]


def test_the_preview_is_what_generation_sends(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = (
        "principles:\n- {id: a, critique: Say C, revision: Do R, judge: Which J}\n- {id: b, judge: Which K}\n"
        "wording: {critique_turn: '>> {critique}', choices: ['(1)', '(2)']}\n"
    )
    path = write(tmp_path, text)
    shots = write(
        tmp_path, json.dumps([[{"role": "user", "content": "Q"}, {"role": "gpt", "content": "\x1b[31m"}]]), "s"
    )
    assert check(path, "--preview", "a", "--few-shots", shots) == 0
    out = capsys.readouterr().out
    before = "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n\\x1b[31m\n"
    asked = f"{before}<extra_id_1>User\n(the user's prompt)\n<extra_id_1>Assistant\n(the model's answer)\n"
    critique = f"{asked}<extra_id_1>User\n>> Say C\n<extra_id_1>Assistant\n"
    assert f"{critique}\na: revision" in out
    assert f"{critique}(the model's critique)\n<extra_id_1>User\nDo R\n<extra_id_1>Assistant\n" in out
    assert "Which J" in out and "(1) | (2)" in out and "Which K" not in out
    assert check(path, "--preview") == 0
    assert "Which K" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"'c'.* a, b$"):
        check(path, "--preview", "c")


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path):
    with pytest.raises(FormatError, match=":1: "):
        check(write(tmp_path, "principles: 1\n"))
    with pytest.raises(UsageError, match=r"critique_turn.*x"):
        check(write(tmp_path, f"principles:\n{PRINCIPLE}wording: {{critique_turn: '{{x}}'}}\n"))
    with pytest.raises(UsageError, match="few-shot"):
        check(packaged(), "--few-shots", write(tmp_path, "{}", "shots.json"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "principles:\n- {id: a, critique: C, revision: R, judge: null}\n- {id: ~, critique: ~, judge: J}\n",
            "a.yaml",
        ),
        ('{"principles": [{"id": "a", "critique": "C", "revision": "R", "judge": null}, {"judge": "J"}]}', "a.json"),
    ],
)
def test_null_is_no_request_and_not_the_word_null(tmp_path: Path, text: str, name: str):
    constitution = load_constitution(write(tmp_path, text, name))
    assert constitution.principles == (Principle("a", "C", "R", None), Principle("principle2", "", "", "J"))


@pytest.mark.parametrize(
    ("content", "name", "line"),
    [
        (b"Choose well.\nChoose the na\xefve one.\n", "a.txt", ":2: "),
        ("Choose well.\nChoose kindly.\n".encode("utf-16-le"), "a.txt", ":1: "),
        (b'{"kind": {"judge": "A"}, "mild": {"judge": "B"}, "kind": {"judge": "C"}}', "a.json", "'kind'"),
        (b'[[{"role": "user", "content": "A", "content": "B"}]]', "shots.json", "'content'"),
        (b'["Preface.\\n\\nHuman: A\\n\\nAssistant: B"]', "shots.json", "'Preface.'"),
    ],
)
def test_no_principle_or_example_is_lost_or_changed_in_reading(tmp_path: Path, content: bytes, name: str, line: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"{path}.*{line}"):
        (read_few_shots if name == "shots.json" else load_constitution)(path)


@pytest.mark.parametrize(
    ("key", "template", "missing"),
    [
        ("critique_turn", "Criticize.", "critique"),
        ("revision_turn", "Rewrite.", "revision"),
        ("turn", "{speaker}:", "text"),
        ("judge_question", "Which? (A) {a} (B) {b}", "principle"),
        ("judge_reasoning", "{conversation} (A) {a} (B) {b}", "principle"),
        ("best_worst_system", "Answer in JSON.", "principles"),
        ("best_worst_option", "#{number}", "text"),
        ("best_worst_question", "{conversation}", "options"),
    ],
)
def test_a_template_without_what_it_asks_about_is_refused(tmp_path: Path, key: str, template: str, missing: str):
    path = write(tmp_path, f"principles:\n{PRINCIPLE}wording: {{{key}: {template!r}}}\n")
    with pytest.raises(UsageError, match=rf"{path}: wording: {key}: .*\{{{missing}\}}"):
        check(path)
