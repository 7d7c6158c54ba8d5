# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Typed configuration with pydantic, and errors of one line that name the key.

Input:  a YAML file, and ``key.key=value`` overrides
Output: a frozen pydantic model; an unknown key or a value of the wrong type is an error
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError, model_validator

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files.yaml_text import YamlError, parse_yaml, read_yaml

C = TypeVar("C", bound=BaseModel)
_SHOWN = 100
"""Characters of an unknown key in an error message."""


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
                    raise SectionError("", str(key)[:_SHOWN], f"unknown key; {hint}")
        return cast(Any, values)


class LenientModel(BaseModel):
    """A record of which some keys are read, and the others ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


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
        _apply(cast(dict[str, Any], tree), override, schema, path)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{path}: {first_problem(error)}") from error
    except UsageError as error:
        # Of a class that is no section: pydantic passes on all errors but ValueErrors.
        raise UsageError(f"{path}: {error}") from error


def meant(key: str, known: Collection[str]) -> str | None:
    """The known dotted key that an unknown one stands for, most likely; None if none is close.

    It may be known without its first parts (`sft.trainer.devices`), at another place (`trainer.max_steps` for
    `trainer.sft.max_steps`), or in another spelling.
    """
    parts = key.split(".")
    for start in range(1, len(parts)):
        if (rest := ".".join(parts[start:])) in known:
            return rest
    elsewhere = [one for one in sorted(known) if one.rpartition(".")[2] == parts[-1]]
    close = difflib.get_close_matches(key, elsewhere, n=1, cutoff=0) or difflib.get_close_matches(
        key, sorted(known), n=1
    )
    return close[0] if close else None


def _apply(tree: dict[str, Any], override: str, schema: type[BaseModel], path: Path) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UsageError(f"{override}: an override has the form KEY=VALUE")
    if key[:1] in ("+", "~"):
        raise UsageError(f"{override}: only the overrides of trainers have + and ~; write KEY=VALUE")
    *parents, last = key.split(".")
    section: dict[str, Any] | None = tree
    for name in parents:
        inner: Any = section.get(name) if section is not None else None
        section = cast(dict[str, Any], inner) if isinstance(inner, dict) else None
    known = {*_keys_of(schema), *_keys_in(tree)}
    # A key of a section that the file has, which the file leaves at its default, may be set, too.
    if section is None or key not in known:
        found = meant(key, known - {key})
        hint = f"; did you mean {found}?" if found else ""
        if key in known:
            hint = f"; it has no section {'.'.join(parents)}, which {parents[0]}={{...}} gives as a whole"
        raise UsageError(f"{override}: there is no key {key!r} in the configuration {path}{hint}")
    try:
        section[last] = parse_yaml(text)
    except YamlError as error:
        raise UsageError(f"{override}: the value is wrong: {error}") from error


def _keys_of(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a schema and of its sections."""
    for name, field in schema.model_fields.items():
        yield f"{prefix}{name}"
        for section in _sections_in(field.annotation):
            yield from _keys_of(section, f"{prefix}{name}.")


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated):
        for part in get_args(annotation):
            yield from _sections_in(part)


def choices(annotation: Any) -> Iterator[str]:
    """The words of all closed sets (`Literal`) in a type; of a schema, those of its fields and sections."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from choices(field.annotation)
    elif get_origin(annotation) is Literal:
        yield from filter(lambda one: isinstance(one, str), get_args(annotation))
    else:
        for part in get_args(annotation):
            yield from choices(part)


def _keys_in(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a file."""
    for name, value in tree.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _keys_in(cast(dict[str, Any], value), f"{prefix}{name}.")
