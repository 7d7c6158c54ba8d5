# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
# PyYAML's types are partial.
r"""The package's only reader of YAML: plain data of bounded size, and one error with its line for everything else.

Input:  "run:\n  seed: 7\n"
Output: {"run": {"seed": 7}}

YAML allows more than a settings file needs, and libraries differ in it. Here a key that is given twice, a key that is
not a text (`yes:`, `1:`), a tag (`!!python/...`), a number that Python cannot read, deep nesting and aliases that
expand to very much are errors. A date stays the text that was written.
"""

import re
from collections.abc import Iterator
from typing import Any, cast

import yaml
from yaml.reader import ReaderError

from nemo_aligner_cai.errors import FormatError
from nemo_aligner_cai.files.reading import PathLike, read_text

MAX_DEPTH = 100
"""The most levels of a document, which is what JSON files may have."""
MAX_NODES = 1_000_000
"""The most values of a document, where each alias counts as often as it is used."""
_SHOWN = 300
"""Characters of an error message."""
_HALF = re.compile("[\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"
_PLAIN = tuple(_TAG + name for name in ("null", "bool", "int", "float", "str"))
_NULL, _STR, _MERGE, _MAP, _SEQ = (_TAG + name for name in ("null", "str", "merge", "map", "seq"))


class YamlError(ValueError):
    """A text that is not YAML, or more than a settings file needs. `line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        # It may have a tag, a key or an alias of the text, which can be megabytes long.
        super().__init__(problem if len(problem) <= _SHOWN else f"{problem[:_SHOWN]}...")
        self.line = line


class YamlMapping(dict[str, Any]):
    """A mapping with its line and the lines of its keys."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


def read_yaml(path: PathLike, *, as_text: bool = False) -> Any:
    """Read a YAML file; see `parse_yaml`. Raises FormatError, with the line; UsageError if it cannot be read."""
    try:
        return parse_yaml(read_text(path), as_text=as_text)
    except YamlError as error:
        raise FormatError.at(path, error.line, str(error)) from error


def parse_yaml(text: str, *, as_text: bool = False) -> Any:
    """Parse one document: dict, list, str, int, float, bool or None.

    Args:
        text: the document.
        as_text: keep all values and keys as the texts that were written, such as "yes", "1.0" and "", except for
            ``null`` and ``~``, which are None; return mappings as YamlMapping.

    Raises:
        YamlError: it is not YAML, or not plain data of bounded size.
    """
    try:
        loader = _Loader(text)
        try:
            root = cast(yaml.Node | None, loader.get_single_node())
            return None if root is None else _value(loader, root, as_text)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ": ".join(filter(None, (error.context, error.problem)))
        raise YamlError(mark.line + 1 if mark else 1, f"not YAML: {problem}") from error
    except ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise YamlError(line, f"not YAML: the character {chr(error.character)!r} is not allowed") from error


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with bounds, and without dates."""

    # Characters that a value may begin with -> the types that it may have.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()  # pyright: ignore
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._measured: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        line = event.start_mark.line + 1
        is_alias = isinstance(event, yaml.AliasEvent)
        before = self._nodes
        self._depth += 1
        self._check(line, self._depth, self._nodes + 1)
        node = cast("yaml.Node | None", super().compose_node(parent, index))
        if is_alias:
            if id(node) not in self._measured:
                raise YamlError(line, f"the alias *{event.anchor} is within what it stands for")
            levels, nodes = self._measured[id(node)]
        else:
            inner = [self._measured[id(child)][0] for child in _children(node)]
            levels, nodes = 1 + max(inner, default=0), self._nodes - before + 1
            self._measured[id(node)] = levels, nodes
        self._depth -= 1
        self._nodes = before + nodes
        self._check(line, self._depth + levels, self._nodes)
        return node

    def _check(self, line: int, depth: int, nodes: int) -> None:
        if depth > MAX_DEPTH:
            raise YamlError(line, f"is nested more than {MAX_DEPTH} levels deep")
        if nodes > MAX_NODES:
            raise YamlError(line, f"has more than {MAX_NODES:,} values, aliases included")


def _children(node: yaml.Node | None) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from cast("list[yaml.Node]", node.value)
    elif isinstance(node, yaml.MappingNode):
        for pair in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            yield from pair


def _value(loader: _Loader, node: yaml.Node, as_text: bool) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        if _HALF.search(str(node.value)):
            raise YamlError(line, "half of a surrogate pair, which is not a character")
        if as_text:
            # An empty value may be a forgotten text, which its reader refuses; null and ~ are deliberate.
            return None if node.tag == _NULL and node.value else str(node.value)
        if node.tag not in _PLAIN:
            raise YamlError(line, f"{node.tag.replace(_TAG, '!!')} is not a type of settings files")
        try:
            return loader.construct_object(node)
        except (ValueError, OverflowError, KeyError) as error:
            raise YamlError(line, f"{str(node.value)[:40]!r} is not a value: {error}") from error
    if node.tag not in (_MAP, _SEQ):
        raise YamlError(line, f"{node.tag.replace(_TAG, '!!')} is not a type of settings files")
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, as_text) for item in _children(node)]
    return _mapping(loader, cast(yaml.MappingNode, node), as_text)


def _mapping(loader: _Loader, node: yaml.MappingNode, as_text: bool) -> dict[str, Any]:
    mapping = YamlMapping(node.start_mark.line + 1)
    pairs = cast("list[tuple[yaml.Node, yaml.Node]]", node.value)
    merged = [] if as_text else [value for key, value in pairs if key.tag == _MERGE]
    for value in merged:
        for source in _children(value) if isinstance(value, yaml.SequenceNode) else (value,):
            if not isinstance(source, yaml.MappingNode):
                raise YamlError(source.start_mark.line + 1, "<< needs a mapping, or a list of mappings")
            for name, inherited in _mapping(loader, source, as_text).items():
                mapping.setdefault(name, inherited)
                mapping.lines.setdefault(name, source.start_mark.line + 1)
    own = set[str]()
    for key, value in pairs:
        line = key.start_mark.line + 1
        if key.tag == _MERGE and not as_text:
            continue
        if not isinstance(key, yaml.ScalarNode) or (key.tag != _STR and not as_text):
            shown = repr(str(key.value)[:40]) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise YamlError(line, f"the key {shown} is not a text; put it in quotes")
        name = str(key.value)
        if name in own:
            raise YamlError(line, f"the key {name!r} is given twice")
        own.add(name)
        mapping[name], mapping.lines[name] = _value(loader, value, as_text), line
    # OmegaConf accepts no subclass of dict.
    return mapping if as_text else dict(mapping)
