# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
import ast
from pathlib import Path

import pytest
import yaml

from nemo_aligner_cai.constitution import load_constitution
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files.yaml_text import MAX_NODES, YamlError, YamlMapping, parse_yaml, read_yaml
from nemo_aligner_cai.sections import Config, load_config

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 300))


def test_every_yaml_of_the_repository_is_what_pyyaml_reads(repo_root: Path) -> None:
    folders = ("nemo_aligner_cai", "examples")
    paths = [path for folder in folders for path in (repo_root / folder).rglob("*.yaml")]
    assert len(paths) > 50
    for path in paths:
        assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 2024-01-31", {"a": "2024-01-31"}),
        ("a: 2024-99-99", {"a": "2024-99-99"}),
        ("b: &b {x: 1, y: 1}\na: {y: 2, <<: *b}", {"b": {"x": 1, "y": 1}, "a": {"x": 1, "y": 2}}),
        ("b: &b [1]\na: [*b, *b]", {"b": [1], "a": [[1], [1]]}),
        ("a: [~, yes, 1.5, .inf, 1e5, '1']", {"a": [None, True, 1.5, float("inf"), "1e5", "1"]}),
    ],
)
def test_plain_data(text: str, value: object) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 1\na: 2", 3),
        ("a: 1\nyes: 2", 2),
        ("a: 1\n1: 2", 2),
        ("a: {[1]: 2}", 1),
        ("a:\n- !!python/object:os.system x", 2),
        ("a: !!set {x}", 1),
        ("a: 1\nb: 0x_", 2),
        ("a: !!bool x", 1),
        ("a: " + "9" * 5000, 1),
        ("a: &a [*a]", 1),
        ("a: *b", 1),
        ("a: 1\nb: \x00", 2),
        ('a: 1\nb: "\\ud800"', 2),
        ("a: [1,\n", 2),
        ("a: 1\n---\nb: 1", 2),
        ("<<: 1", 1),
        ("[" * 3000, 1),
        (BOMB, 6),
        (CHAIN, 99),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_everything_else_is_an_error_with_its_line(text: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert caught.value.line == line and "\n" not in str(caught.value) and len(str(caught.value)) < 200
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=rf"{path}:{line}: "):
        read_yaml(path)


def test_values_kept_as_text_have_lines() -> None:
    found = parse_yaml("a: yes\n1: {b: 1.0, c: null, d: ~, e: 'null', f: }\n", as_text=True)
    assert found == {"a": "yes", "1": {"b": "1.0", "c": None, "d": None, "e": "null", "f": ""}}
    assert isinstance(found, YamlMapping) and (found.line, found.lines) == (1, {"a": 1, "1": 2})


def test_a_mapping_of_values_is_a_plain_dict() -> None:
    """OmegaConf accepts nothing else."""
    found = parse_yaml("a: {b: 1}")
    assert type(found) is dict and type(found["a"]) is dict


class _Settings(Config):
    seed: int = 1
    name: str = ""


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2", "seed: [" + "[" * 3000, "name: 0b_", f"seed: 1\n{BOMB}"])
def test_a_configuration_and_a_constitution_are_read_with_these_rules(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError):
        load_config(path, (), _Settings)
    with pytest.raises(UsageError):
        load_constitution(path)


def test_no_other_module_parses_yaml(repo_root: Path) -> None:
    """Apart from trusted files: the tiny world's own lexicon, and trainers' configurations, which OmegaConf reads."""
    parsers = {
        path.relative_to(repo_root / "nemo_aligner_cai").as_posix()
        for path in (repo_root / "nemo_aligner_cai").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "yaml"
        and node.attr in ("safe_load", "load", "compose", "full_load", "unsafe_load")
    }
    assert parsers == {"tiny/language.py"}


def test_the_bound_is_far_above_any_settings_file() -> None:
    assert len(parse_yaml("[" + "x, " * 20_000 + "x]")) == 20_001 < MAX_NODES
