# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reading verdicts out of a judge's answer. Strict: what is not exactly an answer is no verdict.

A judge may quote candidates, and candidates may contain anything. So an answer counts only where it stands alone (a
choice) or at the very beginning (best and worst): nothing is searched for within a text.
"""

import ast
import json
import re
from collections.abc import Sequence
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict

_OBJECT = re.compile(r"\s*(?:```\w*\s*)?(\{)")
_NUMBER = re.compile(r"\s*#?([0-9]{1,4})\s*")


class ChoiceAnswer(BaseModel):
    """What a judge is made to write by a server with structured output: one of the choices."""

    model_config = ConfigDict(extra="forbid", strict=True)
    choice: str


class BestWorstAnswer(BaseModel):
    """Likewise: the best and the worst of the numbered candidates, and why."""

    model_config = ConfigDict(extra="forbid", strict=True)
    chosen: int
    rejected: int
    explanation: str


def choice_schema(choices: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of an answer that is one of the choices."""
    return _with_values(ChoiceAnswer, {"choice": list(choices)})


def best_worst_schema(count: int) -> dict[str, Any]:
    """The JSON schema of an answer that names two of `count` candidates."""
    numbers = list(range(1, count + 1))
    return _with_values(BestWorstAnswer, {"chosen": numbers, "rejected": numbers})


def _with_values(model: type[BaseModel], values: dict[str, list[Any]]) -> dict[str, Any]:
    schema = model.model_json_schema()
    for key, allowed in values.items():
        schema["properties"][key]["enum"] = allowed
    return schema


def parse_choice(text: str, choices: tuple[str, str]) -> Literal[0, 1] | None:
    """The number of the choice that a judge's whole answer is; None where it is anything else.

    White space around it and a full stop after it are no part of an answer. The object of `choice_schema` is one too.
    """
    answer = text.strip().removesuffix(".")
    if answer.startswith("{"):
        try:
            answer = ChoiceAnswer.model_validate(json.loads(answer, object_pairs_hook=_once)).choice
        except (ValueError, RecursionError):
            return None
    return 0 if answer == choices[0] else 1 if answer == choices[1] else None


def parse_best_worst(text: str, count: int) -> tuple[int | None, int | None, str]:
    """(best, worst, explanation) with 0-based positions out of a judge's answer; (None, None, "") where it is unclear.

    The answer has to begin with the object (a code fence may stand before it): further down, it may quote candidates.
    JSON and Python's way of writing a dict are understood, since judges mix them up.
    """
    start = _OBJECT.match(text)
    if start is None:
        return None, None, ""
    body = text[start.start(1) :]
    values, length = _object(body)
    best, worst = (_position(values.get(key), count) for key in ("chosen", "rejected"))
    if best is None or worst is None or best == worst:
        return None, None, ""
    below = body[length:].strip().removeprefix("```").strip()
    within = values.get("explanation")
    explanation = within if isinstance(within, str) and not below else below
    return (best, worst, explanation) if _is_text(explanation) else (None, None, "")


def _object(body: str) -> tuple[dict[str, Any], int]:
    """The JSON object or Python dict at the start of a text, and its length; ({}, 0) where there is none."""
    try:
        values, length = json.JSONDecoder(object_pairs_hook=_once).raw_decode(body)
    except (ValueError, RecursionError):
        length = body.find("}") + 1
        try:
            values = _python_dict(body[:length])
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return {}, 0
    return (cast(dict[str, Any], values), length) if isinstance(values, dict) else ({}, 0)


def _python_dict(body: str) -> dict[Any, Any]:
    """The dict that a text spells in Python. Raises what `ast.literal_eval` raises."""
    tree = ast.parse(body, mode="eval").body
    if not isinstance(tree, ast.Dict):
        raise ValueError("not a dict")
    names = [ast.literal_eval(key) for key in tree.keys if key is not None]
    return _once(list(zip(names, map(ast.literal_eval, tree.values), strict=True)))


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    # JSON and Python let the last of two equal keys win; an answer that names two best ones names none.
    values = dict(pairs)
    return values if len(values) == len(pairs) else {}


def _position(value: Any, count: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        value = int(match[1]) if match else 0
    return value - 1 if 1 <= value <= count else None


def _is_text(text: str) -> bool:
    """Whether it can be written: half of a surrogate pair, which JSON can spell, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
