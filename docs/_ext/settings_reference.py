# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The directive ``settings``: every key of a configuration, from its pydantic model.

Input:  .. settings:: nemo_aligner_cai.pipeline.config:RunConfig
Output: a table for each section: key, type, default, meaning

A key's meaning is its entry under "Attributes:" in the docstring of its class, or the comment behind it in the source.
"""

import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator

from docutils import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)
_COMMENT = re.compile(r"^    (\w+):[^\n#]*  # (.*)$", re.MULTILINE)


class Settings(SphinxDirective):
    """Inserts the reference of a configuration."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the generated text in place of the directive."""
        module, _, name = self.arguments[0].partition(":")
        model = getattr(importlib.import_module(module), name)
        return self.parse_text_to_nodes("\n".join(_Page().section((model,), "")), allow_section_headings=True)


class _Page:
    """What is on the page so far."""

    def __init__(self) -> None:
        self.sections: dict[tuple[type[BaseModel], ...], str] = {}

    def section(self, kinds: tuple[type[BaseModel], ...], key: str) -> Iterator[str]:
        """Yield the RST of a section, in each of its kinds, and of the sections in it."""
        if key:
            yield from (key, "-" * len(key), "")
        if first := self.sections.get(kinds):
            yield from (f"Its keys are those of `{first}`.", "")
            return
        self.sections[kinds] = key
        inner: dict[str, tuple[type[BaseModel], ...]] = {}
        for kind in kinds:
            yield from (f"As {_summary(kind)}:", "") if len(kinds) > 1 else ()
            yield from _table(kind)
            for name, field in kind.model_fields.items():
                if found := tuple(_models(field.annotation)):
                    inner[f"{key}.{name}".lstrip(".")] = found
        for name, found in inner.items():
            yield from self.section(found, name)


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 22 22 20 36", "")
    meanings = _meanings(model)
    rows = [("key", "type", "default", "meaning")] + [
        (f"`{name}`", _type(field), _default(field), " ".join(meanings.get(name, "").split()))
        for name, field in model.model_fields.items()
    ]
    for first, *others in rows:
        yield from (f"   * - {first}", *(f"     - {cell}".rstrip() for cell in others))
    yield ""


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """The models in a type: itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for part in typing.get_args(annotation):
            yield from _models(part)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= dict(_COMMENT.findall(inspect.getsource(base)))
            found |= dict(_ATTRIBUTE.findall(inspect.getdoc(base) or ""))
    return {name: text.replace("*", "\\*").replace("|", "\\|") for name, text in found.items()}


def _summary(model: type[BaseModel]) -> str:
    return f"{model.__name__} ({(inspect.getdoc(model) or '').splitlines()[0].rstrip('.')})"


def _type(field: FieldInfo) -> str:
    if list(_models(field.annotation)):
        return "section"
    text = inspect.formatannotation(field.annotation) if field.annotation is not None else ""
    # What constrains a value is in its meaning, or is said by the error.
    text = re.sub(r"Annotated\[(\w+), .*?\)\]", r"\1", text)
    text = re.sub(r"(?:typing\.)?Optional\[(.*)\]", r"\1 | None", text)
    return (
        re.sub(r"\b(?:\w+\.)+(?=\w)", "", text).replace("|", "or").replace("NoneType", "null").replace("None", "null")
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own defaults"
    shown = (
        {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    )
    text = shown or str(list(value) if isinstance(value, tuple) else value)
    return f"``{text}``" if text.strip() else "empty"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("settings", Settings)
    return {"version": "1", "parallel_read_safe": True}
