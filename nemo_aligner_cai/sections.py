# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Typed configuration with pydantic, and errors of one line that name the key.

Input:  a YAML file, and ``key.key=value`` overrides
Output: a frozen pydantic model; an unknown key or a value of the wrong type is an error
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError, model_validator

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files.yaml_text import YamlError, parse_yaml, read_yaml

C = TypeVar("C", bound=BaseModel)


def _source(value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"Input should be a path or a name, got {type(value).__name__}")
    return os.fspath(cast("str | os.PathLike[str]", value))


Source = Annotated[str, PlainValidator(_source)]
"""A path or the name of a data set; unlike pydantic's `str`, it may be a file name that is not UTF-8."""


class SectionError(UsageError, ValueError):
    """A key of a section is unknown, missing or has a wrong value; a ValueError, so that outer sections report it."""

    def __init__(self, section: str, key: str, problem: str) -> None:
        super().__init__(": ".join(filter(None, (section, key, problem))))
        self.key, self.problem = key, problem


class Section(BaseModel):
    """A section of a configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        """Report an unknown key before a missing one, which may be the same key with the right spelling."""
        if isinstance(values, dict):
            for key in cast(dict[Any, Any], values):
                if key not in cls.model_fields:
                    close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(cls.model_fields)}"
                    raise SectionError("", str(key), f"unknown key; {hint}")
        return cast(Any, values)


class Config(Section):
    """A section that Python code creates; a wrong key or value raises a UsageError of one line."""

    if not TYPE_CHECKING:  # type checkers derive the arguments from the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise SectionError(type(self).__name__, *_first(error)) from error


def _first(error: ValidationError) -> tuple[str, str]:
    """The dotted key and the message of the first error."""
    first = error.errors()[0]
    key, inner = ".".join(map(str, first["loc"])), first.get("ctx", {}).get("error")
    if isinstance(inner, SectionError):
        return ".".join(filter(None, (key, inner.key))), inner.problem
    if first["type"] == "missing":
        return key, "missing"
    # A validator's ValueError, without pydantic's prefix.
    return key, str(inner) if isinstance(inner, ValueError) else first["msg"]


def first_problem(error: ValidationError) -> str:
    """The first error in one line, with its key."""
    return ": ".join(filter(None, _first(error)))


def load_config(path: Path, overrides: Sequence[str], schema: type[C]) -> C:
    """Read a configuration file and apply ``key.key=value`` overrides, whose values are YAML.

    Raises:
        UsageError: the file is not YAML, or a key or value does not match the schema; the message names the key.
    """
    tree: Any = read_yaml(path)
    if not isinstance(tree, dict):
        first, second = list(schema.model_fields)[:2]
        raise UsageError(f"{path}: needs keys such as {first!r} and {second!r}")
    for override in overrides:
        _apply(cast(dict[str, Any], tree), override)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{path}: {first_problem(error)}") from error


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UsageError(f"{override}: an override has the form KEY=VALUE")
    *parents, last = key.split(".")
    section: dict[str, Any] | None = tree
    for name in parents:
        inner: Any = section.get(name) if section else None
        section = cast(dict[str, Any], inner) if isinstance(inner, dict) else None
    if section is None or last not in section:
        raise UsageError(f"{override}: there is no key {key!r} in the configuration")
    try:
        section[last] = parse_yaml(text)
    except YamlError as error:
        raise UsageError(f"{override}: the value is wrong: {error}") from error
