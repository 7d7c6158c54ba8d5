# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The forms of constitution files: YAML, JSON and text, of this package and of other projects, as entries.

Input, one of:
    principles: [{id: kind, critique: ..., revision: ..., judge: ...}]     this package; `id` may be missing
    principles: [{name: kind, critique_request: ..., revision_request: ...}]  LangChain
    {"constitutions": [{"critic": ..., "revision": ...}], "system_chats": ...}   llm-swarm; its chats are few-shots
    {"kind": {"prompt": ["CritiqueRequest: ..."], "edit_request": "RevisionRequest: ..."}}   Anthropic's instructions
    ["Choose the response that ...", ...], or one to a line of a .txt file     Collective CAI, RLMadisonInstructions
    {"principles": ["Select the response that ..."], "constitution": "1. ..."}   inverse-cai
Output: Entry(line, {"id": ..., "critique": ..., "revision": ..., "judge": ...})
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import read_json, read_lines, read_text

EXAMPLE = (
    'a constitution is for example: principles: [{critique: "Say what is unkind in the answer.", '
    'revision: "Rewrite the answer kindly.", judge: "Which answer is kinder?"}]'
)
_NAMES = {
    "id": "id",
    "name": "id",
    "critique": "critique",
    "critique_request": "critique",
    "critic": "critique",
    "prompt": "critique",
    "revision": "revision",
    "revision_request": "revision",
    "edit_request": "revision",
    "judge": "judge",
    "judge_request": "judge",
}
"""A key of a principle -> what it is."""
_LISTS = ("principles", "constitutions", "constitution")
_BESIDE = ("name", "description", "wording", "system_chats", "system_chat", *_LISTS)
_NUMBER = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+")
_AROUND = {"critique": ("CritiqueRequest:", "Critique:"), "revision": ("RevisionRequest:", "Revision:")}
"""The markers of Anthropic's files, which the steps put themselves."""


@dataclass(frozen=True)
class Entry:
    """One principle: its texts by ``id``, ``critique``, ``revision`` and ``judge``, and its line, 0 if unknown."""

    line: int
    texts: dict[str, str]


class _Map(dict[str, Any]):
    """A mapping that knows its lines."""

    line = 0

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


def read_entries(path: Path) -> tuple[str, list[Entry]]:
    """The name of a constitution and its principles; their texts are not empty, their ids may be missing.

    Raises:
        UsageError, FormatError: with the line and key, and an example.
    """
    match path.suffix:
        case ".json":
            document = _located(read_json(path))
        case ".txt":
            document = [line.decode("utf-8", "replace") for _, line in read_lines(path) if line.strip()]
        case _:
            document = _yaml_document(path)
    name = path.stem
    if isinstance(document, _Map) and isinstance(document.get("name"), str):
        name = str(document["name"]).strip() or name
    listed = _listed(path, document)
    if isinstance(listed, _Map):
        items = listed.items()
        return name, [entry for key, value in items for entry in _entries(path, value, listed.lines[key], key)]
    numbered = enumerate(cast(list[Any], listed))
    return name, [entry for number, value in numbered for entry in _entries(path, value, 0, "", number)]


def _listed(path: Path, document: Any) -> Any:
    """What holds the principles: a list, or a mapping of names to principles."""
    if isinstance(document, _Map):
        key = next((key for key in _LISTS if document.get(key)), None)
        if key is not None:
            for other in document:
                if other not in _BESIDE:
                    raise FormatError.at(
                        path, document.lines[other], f"unknown key {other!r}; known: {', '.join(_BESIDE)}"
                    )
            found = document[key]
            document = found
            if key == "constitution" and isinstance(found, str):
                document = [line for line in found.splitlines() if line.strip()]
        elif not document or not all(isinstance(value, _Map) for value in document.values()):
            document = None
    if not isinstance(document, (list, _Map)) or not document:
        raise FormatError.at(path, 1, f"has no principles; {EXAMPLE}")
    return cast(Any, document)


def _entries(path: Path, value: Any, line: int, key: str, number: int = 0) -> Iterator[Entry]:
    """The principles of an item: of several critique requests, one each."""
    where = f"principle {key!r}" if key else f"principle {number + 1}"
    if isinstance(value, str):
        text = _NUMBER.sub("", value).strip().removesuffix("Options:").strip()
        if not text:
            raise _error(path, line, f"{where}: a text is needed")
        yield Entry(line, {"id": key or f"judge{number}", "judge": text})
        return
    if not isinstance(value, _Map):
        raise _error(path, line, f"{where}: a text or keys are needed; {EXAMPLE}")
    line = value.line or line
    texts: dict[str, list[str]] = {"id": [key]} if key else {}
    for name, found in value.items():
        at = value.lines[name] or line
        if name not in _NAMES:
            known = "id, critique, revision, judge"
            raise _error(path, at, f"{where}: unknown key {name!r}; known: {known}; {EXAMPLE}")
        if _NAMES[name] in texts and not (key and name == "name"):
            raise _error(path, at, f"{where}: {_NAMES[name]!r} is given by two keys")
        texts[_NAMES[name]] = _texts(path, at, f"{where}: key {name!r}", found, _NAMES[name])
    if "id" not in texts:
        texts["id"] = [f"principle{number + 1}"]
    critiques = texts.get("critique", [])
    for position, critique in enumerate(critiques or [""], start=1):
        one = {name: parts[0] for name, parts in texts.items()}
        if critique:
            one["critique"] = critique
        if len(critiques) > 1:
            one["id"] += f".{position}"
        yield Entry(line, one)


def _texts(path: Path, line: int, where: str, value: Any, part: str) -> list[str]:
    """A text, or several ways to ask for a critique."""
    found: list[Any] = cast(list[Any], value) if isinstance(value, list) and part == "critique" else [value]
    before, after = _AROUND.get(part, ("", ""))
    texts = [item.strip().removeprefix(before).removesuffix(after).strip() for item in found if isinstance(item, str)]
    if not texts or len(texts) < len(found) or not all(texts):
        raise _error(path, line, f"{where}: a text is needed")
    return texts


def _error(path: Path, line: int, message: str) -> UsageError:
    return FormatError.at(path, line, message) if line else UsageError(f"{path}: {message}")


def _located(value: Any) -> Any:
    if isinstance(value, dict):
        found = _Map()
        for key, item in cast(dict[str, Any], value).items():
            found[key] = _located(item)
            found.lines[key] = 0
        return found
    return [_located(item) for item in cast(Iterable[Any], value)] if isinstance(value, list) else value


def _yaml_document(path: Path) -> Any:
    # Composed, not loaded, so that every message can name the line.
    try:
        root = cast(yaml.Node | None, yaml.compose(read_text(path), Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise FormatError.at(path, mark.line + 1 if mark else 1, f"not YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise FormatError.at(path, 1, f"not YAML: {error}") from error
    return _of_node(path, root)


def _of_node(path: Path, node: yaml.Node | None) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_of_node(path, item) for item in cast(list[yaml.Node], node.value)]
    if not isinstance(node, yaml.MappingNode):
        return None if node is None else str(node.value)
    found = _Map()
    found.line = node.start_mark.line + 1
    for key, value in cast(list[tuple[yaml.Node, yaml.Node]], node.value):
        name, line = str(key.value), key.start_mark.line + 1
        if name in found:
            raise FormatError.at(path, line, f"the key {name!r} is given twice")
        found[name], found.lines[name] = _of_node(path, value), line
    return found
