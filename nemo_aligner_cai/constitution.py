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
"""A constitution: the principles by which answers are critiqued, revised and judged.

Input, our YAML (or Anthropic's published JSON files, told apart by their content):

    name: harmlessness
    principles:
      - id: misuse
        critique: Does any sentence ...
        revision: Rewrite ...
        judge: Which answer ...     # optional

Output: Constitution(principles=(Principle("misuse", "Does any sentence ...", "Rewrite ...", "Which answer ..."),))
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import yaml

from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, read_json, read_text

_FOLDER = Path(__file__).parent / "constitutions"


@dataclass(frozen=True)
class Principle:
    """One rule, as the requests that a model is given.

    `critique_request` and `revision_request` are "" for a rule that only judges, `judge_request` is None for one that
    never does.
    """

    id: str
    critique_request: str
    revision_request: str
    judge_request: str | None = None

    @property
    def requests(self) -> dict[str, str]:
        """The requests that there are, under the keys of our YAML."""
        forms = {"critique": self.critique_request, "revision": self.revision_request, "judge": self.judge_request}
        return {form: text for form, text in forms.items() if text}


@dataclass(frozen=True)
class Constitution:
    """Principles in the order of their file; at least one."""

    principles: tuple[Principle, ...]
    name: str

    @cached_property
    def for_revision(self) -> tuple[Principle, ...]:
        """The principles that can critique and revise (SL-CAI)."""
        return tuple(p for p in self.principles if p.critique_request and p.revision_request)

    @cached_property
    def for_judging(self) -> tuple[Principle, ...]:
        """The principles that can choose between two answers (RL-CAI)."""
        return tuple(p for p in self.principles if p.judge_request)


def packaged(name: str = "harmlessness.yaml") -> Path:
    """The path of a file that comes with the package; the ending .yaml may be left out.

    Raises:
        UsageError: there is no such file; the message names those there are.
    """
    for candidate in (name, f"{name}.yaml"):
        if "/" not in name and (_FOLDER / candidate).is_file():
            return _FOLDER / candidate
    there_are = sorted(path.name for path in _FOLDER.iterdir() if path.suffix in (".yaml", ".json"))
    raise UsageError(f"{name}: no such file in the package; it has {', '.join(there_are)}")


def load_constitution(path: PathLike) -> Constitution:
    """Read a constitution.

    Args:
        path: our YAML; Anthropic's CritiqueRevisionInstructions.json (an object of ``{"prompt": [text],
            "edit_request": text}``) or RLMadisonInstructions.json (a list of judge requests), whose markers such as
            "CritiqueRequest:" and "Options:" are removed, since the steps put their own.

    Raises:
        UsageError, FormatError: with the line and key, and what is expected there.
    """
    path = Path(path)
    if path.suffix == ".json":
        document = read_json(path)
        principles = (
            _anthropic_judging(path, cast(list[Any], document))
            if isinstance(document, list)
            else _anthropic(path, document)
        )
        constitution = Constitution(tuple(principles), path.stem)
    else:
        constitution = _read_yaml(path)
    if not constitution.principles:
        raise UsageError(f"{path}: has no principles")
    twice = [name for name, count in Counter(p.id for p in constitution.principles).items() if count > 1]
    if twice:
        raise UsageError(f"{path}: the id {twice[0]!r} is given to more than one principle")
    return constitution


def _anthropic(path: Path, document: Any) -> Iterator[Principle]:
    entries = cast(dict[str, Any], document) if isinstance(document, dict) else {}
    for key, entry in entries.items():
        entry = cast(dict[str, Any], entry) if isinstance(entry, dict) else {}
        match entry:
            case {"prompt": [str(critique)] | str(critique), "edit_request": str(revision)}:
                yield Principle(
                    id=key,
                    critique_request=_between("CritiqueRequest:", critique, "Critique:"),
                    revision_request=_between("RevisionRequest:", revision, "Revision:"),
                )
            case _:
                raise UsageError(f'{path}: key {key!r}: needs "prompt": [one text] and "edit_request": text')


def _anthropic_judging(path: Path, document: list[Any]) -> Iterator[Principle]:
    for position, text in enumerate(document):
        if not isinstance(text, str):
            raise UsageError(f"{path}: item {position}: a judge request must be a text")
        yield Principle(f"judge{position}", "", "", _between("", text, "Options:"))


def _between(prefix: str, text: str, suffix: str) -> str:
    return text.strip().removeprefix(prefix).removesuffix(suffix).strip()


_KEYS = {"id": True, "critique": False, "revision": False, "judge": False}


def _read_yaml(path: Path) -> Constitution:
    # Composed, not loaded, so that every message can name the line.
    try:
        root = cast(yaml.Node | None, yaml.compose(read_text(path), Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise FormatError.at(path, mark.line + 1 if mark else 1, f"not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise FormatError.at(path, 1, f"not YAML: {error}") from error
    top = _mapping(path, root, ("name", "description", "principles", "wording"))
    listed = top.get("principles")
    if not isinstance(listed, yaml.SequenceNode):
        raise FormatError.at(path, 1, "needs the key 'principles' with a list of principles")
    name = _text(path, top["name"]) if "name" in top else path.stem
    return Constitution(tuple(_principle(path, node) for node in cast(list[yaml.Node], listed.value)), name)


def _principle(path: Path, node: yaml.Node) -> Principle:
    entry = _mapping(path, node, tuple(_KEYS))
    texts = {key: _text(path, value) for key, value in entry.items()}
    line = node.start_mark.line + 1
    if "id" not in texts:
        raise FormatError.at(path, line, "a principle needs an 'id'")
    if ("critique" in texts) != ("revision" in texts):
        raise FormatError.at(path, line, f"principle {texts['id']!r} needs both 'critique' and 'revision', or neither")
    if not ("critique" in texts or "judge" in texts):
        raise FormatError.at(path, line, f"principle {texts['id']!r} needs 'critique' and 'revision', or 'judge'")
    return Principle(texts["id"], texts.get("critique", ""), texts.get("revision", ""), texts.get("judge"))


def _mapping(path: Path, node: yaml.Node | None, known: tuple[str, ...]) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1 if node else 1
        raise FormatError.at(path, line, f"needs the keys {', '.join(known)} here")
    entries: dict[str, yaml.Node] = {}
    for key, value in cast(list[tuple[yaml.Node, yaml.Node]], node.value):
        name = str(key.value)
        if name not in known:
            raise FormatError.at(path, key.start_mark.line + 1, f"unknown key {name!r}; known: {', '.join(known)}")
        if name in entries:
            raise FormatError.at(path, key.start_mark.line + 1, f"the key {name!r} is given twice")
        entries[name] = value
    return entries


def _text(path: Path, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not str(node.value).strip():
        raise FormatError.at(path, node.start_mark.line + 1, "a text is needed here")
    return str(node.value).strip()
