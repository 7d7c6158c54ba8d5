# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reader of constitution files: YAML, JSON and text, of this package and of other projects.

Input, one of:
    principles: [{id: kind, critique: ..., revision: ..., judge: ...}]     this package; `id` is optional
    principles: [{name: kind, critique_request: ..., revision_request: ...}]  LangChain
    {"constitutions": [{"critic": ..., "revision": ...}], "system_chats": ...}   llm-swarm; its chats are few-shots
    {"kind": {"prompt": ["CritiqueRequest: ..."], "edit_request": "RevisionRequest: ..."}}   Anthropic's instructions
    ["Choose the response that ...", ...], or one per line of a .txt file     Collective CAI, RLMadisonInstructions
    {"principles": ["Select the response that ..."], "constitution": "1. ..."}   inverse-cai
Output: Constitution((Principle("kind", "Does any sentence ...", "Rewrite ...", "Which answer ..."),), "harmlessness")
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from nemo_aligner_cai.constitution.constitution import Constitution, Principle
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, read_text, read_unique_json
from nemo_aligner_cai.files.yaml_text import YamlMapping, read_yaml

_EXAMPLE = (
    'an example is: principles: [{critique: "Say what is unkind in the answer.", '
    'revision: "Rewrite the answer kindly.", judge: "Which answer is kinder?"}]'
)
_LISTS = ("principles", "constitutions", "constitution")
_OTHER_KEYS = ("name", "description", "wording", "system_chats", "system_chat", *_LISTS)
_NUMBERING = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+")


def _text(prefix: str = "", suffix: str = "") -> AfterValidator:
    """Strip white space and the given markers; an empty text is an error."""

    def strip(value: str) -> str:
        text = value.strip().removeprefix(prefix).removesuffix(suffix).strip()
        if not text:
            raise ValueError("a text is needed")
        return text

    return AfterValidator(strip)


def _as_list(value: Any) -> Any:
    return cast(Any, value) if isinstance(value, list) else [value]


class _Item(BaseModel):
    """A principle in any of the spellings; several critique requests are as many principles.

    The steps add the markers of Anthropic's files themselves.
    """

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, _text()] = Field("", validation_alias=AliasChoices("id", "name"))
    critique: Annotated[
        list[Annotated[str, _text("CritiqueRequest:", "Critique:")]], BeforeValidator(_as_list), Field(min_length=1)
    ] = Field([], validation_alias=AliasChoices("critique", "critique_request", "critic", "prompt"))
    revision: Annotated[str, _text("RevisionRequest:", "Revision:")] = Field(
        "", validation_alias=AliasChoices("revision", "revision_request", "edit_request")
    )
    judge: Annotated[str, _text(suffix="Options:")] = Field(
        "", validation_alias=AliasChoices("judge", "judge_request")
    )


def load_constitution(path: PathLike) -> Constitution:
    """Read a constitution in one of the forms above.

    Raises:
        UsageError, FormatError: with the line and key, and what is expected there.
    """
    path = Path(path)
    match path.suffix:
        case ".json":
            document = read_unique_json(path)
        case ".txt":
            document = [line for line in read_text(path).split("\n") if line.strip()]
        case _:
            document = read_yaml(path, as_text=True)
    name = cast(dict[str, Any], document).get("name") if isinstance(document, dict) else None
    listed = _listed(path, document)
    items = listed.items() if isinstance(listed, dict) else [("", value) for value in listed]
    principles: dict[str, Principle] = {}
    for number, (key, value) in enumerate(items):
        line = value.line if isinstance(value, YamlMapping) else _line(listed, key)
        for principle in _principles(path, value, key, number, line):
            if principle.id in principles:
                raise _error(path, line, f"the id {principle.id!r} is given to more than one principle")
            principles[principle.id] = principle
    return Constitution(tuple(principles.values()), (name.strip() if isinstance(name, str) else "") or path.stem)


def _listed(path: Path, document: Any) -> list[Any] | dict[str, Any]:
    """The principles in a document: a list, or a mapping of names to principles."""
    listed = document
    if isinstance(document, dict):
        mapping = cast(dict[str, Any], document)
        key = next((key for key in _LISTS if mapping.get(key)), None)
        if key is not None:
            if unknown := next((other for other in mapping if other not in _OTHER_KEYS), None):
                message = f"unknown key {unknown!r}; known: {', '.join(_OTHER_KEYS)}"
                raise _error(path, _line(mapping, unknown), message)
            listed = mapping[key]
            if key == "constitution" and isinstance(listed, str):
                listed = [line for line in listed.splitlines() if line.strip()]
        elif not all(isinstance(value, dict) for value in mapping.values()):
            listed = None
    if not isinstance(listed, list | dict) or not listed:
        raise FormatError.at(path, 1, f"has no principles; {_EXAMPLE}")
    return cast("list[Any] | dict[str, Any]", listed)


def _principles(path: Path, value: Any, key: str, number: int, line: int) -> Iterator[Principle]:
    """The principles of an item: of several critique requests, one each."""
    where = f"principle {key!r}" if key else f"principle {number + 1}"
    if isinstance(value, str):
        value = {"id": key or f"judge{number}", "judge": _NUMBERING.sub("", value)}
    if not isinstance(value, dict):
        raise _error(path, line, f"{where}: a text or keys are needed; {_EXAMPLE}")
    mapping = cast(dict[str, Any], value)
    try:
        item = _Item.model_validate({name: given for name, given in mapping.items() if given is not None})
    except ValidationError as error:
        first = error.errors()[0]
        wrong = str(first["loc"][0])
        problem = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            problem = f"unknown, or given under another name too; known: {', '.join(_Item.model_fields)}; {_EXAMPLE}"
        raise _error(path, _line(mapping, wrong) or line, f"{where}: key {wrong!r}: {problem}") from error
    name = item.id or key or f"principle{number + 1}"
    if bool(item.critique) != bool(item.revision) or not (item.critique or item.judge):
        problem = "needs 'critique' and 'revision', or 'judge', or all of them"
        raise _error(path, line, f"principle {name!r} {problem}; {_EXAMPLE}")
    for position, critique in enumerate(item.critique or [""], start=1):
        one = f"{name}.{position}" if len(item.critique) > 1 else name
        yield Principle(one, critique, item.revision, item.judge or None)


def _line(value: object, key: str) -> int:
    """The line of a key; 0 if it is unknown, as in JSON."""
    return value.lines.get(key, 0) if isinstance(value, YamlMapping) else 0


def _error(path: Path, line: int, message: str) -> UsageError:
    return FormatError.at(path, line, message) if line else UsageError(f"{path}: {message}")
