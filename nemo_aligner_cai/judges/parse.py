# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Asks for options by letters, and parses verdicts strictly from a judge's answer.

A judge may quote candidates, and candidates may contain anything. An answer therefore counts only if it is the whole
text (a choice) or its very beginning (best and worst); nothing is searched for within a text.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, cast

BARE_TOKENS, OBJECT_TOKENS = 8, 32
"""Token limits of an answer that `parse_choice` accepts: a bare choice, or a choice in a JSON object."""
_OBJECT = re.compile(r"\s*(?:```\w*\s*)?(\{)")
_NUMBER = re.compile(r"\s*#?([0-9]{1,4})\s*")


def letters(count: int) -> tuple[str, ...]:
    """Return the names of up to 26 options: "(A)", "(B)", ..."""
    return tuple(f"({letter})" for letter in ascii_uppercase[:count])


def letter_instruction(letters: Sequence[str]) -> str:
    """Return the sentence that asks for one of the letters."""
    return f"Answer with {', '.join(letters[:-1])} or {letters[-1]}, and nothing else."


def most_likely(scores: Mapping[str, float], letters: Sequence[str]) -> int | None:
    """Return the index of the letter with the highest score; None if two letters have it."""
    best = max(scores.values())
    likely = [position for position, letter in enumerate(letters) if scores[letter] == best]
    return likely[0] if len(likely) == 1 else None


def choice_schema(choices: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of an answer that is one of the choices."""
    description = "What a judge is made to write by a server with structured output: one of the choices."
    return _schema("ChoiceAnswer", description, {"choice": {"type": "string", "enum": list(choices)}})


def best_worst_schema(count: int) -> dict[str, Any]:
    """Return the JSON schema of an answer that names two of `count` candidates."""
    number = {"type": "integer", "enum": list(range(1, count + 1))}
    properties = {"chosen": number, "rejected": number, "explanation": {"type": "string"}}
    return _schema(
        "BestWorstAnswer", "Likewise: the best and the worst of the numbered candidates, and why.", properties
    )


def _schema(title: str, description: str, properties: dict[str, dict[str, Any]]) -> dict[str, Any]:
    # The journal key includes the schema, with its description: a change would repeat the paid calls of old journals.
    return {
        "additionalProperties": False,
        "description": description,
        "properties": {name: {"title": name.title(), **values} for name, values in properties.items()},
        "required": list(properties),
        "title": title,
        "type": "object",
    }


def parse_choice(text: str, choices: Sequence[str]) -> int | None:
    """Return the index of the choice if it is the judge's whole answer, else None.

    Surrounding white space and a final period are ignored. The JSON object of `choice_schema` is accepted too.
    """
    answer: Any = text.strip().removesuffix(".")
    if answer.startswith("{"):
        try:
            values: Any = json.loads(answer, object_pairs_hook=_unique)
        except (ValueError, RecursionError):
            return None
        answer = values["choice"] if values.keys() == {"choice"} else None
    return choices.index(answer) if answer in choices else None


def parse_best_worst(text: str, count: int) -> tuple[int | None, int | None, str]:
    """Return (best, worst, explanation) with 0-based indices, or (None, None, "") if the answer is ambiguous.

    The answer must begin with the object, optionally in a code fence: further down, it may quote candidates. Python
    dict literals are accepted as well as JSON, since judges mix them up.
    """
    start = _OBJECT.match(text)
    if start is None:
        return None, None, ""
    body = text[start.start(1) :]
    values, length = _object(body)
    best, worst = (_index(values.get(key), count) for key in ("chosen", "rejected"))
    if best is None or worst is None or best == worst:
        return None, None, ""
    below = body[length:].strip().removeprefix("```").strip()
    within = values.get("explanation")
    explanation = within if isinstance(within, str) and not below else below
    return (best, worst, explanation) if _is_encodable(explanation) else (None, None, "")


def _object(body: str) -> tuple[dict[str, Any], int]:
    """Return the JSON object or Python dict at the start of a text, and its length; ({}, 0) if there is none."""
    try:
        values, length = json.JSONDecoder(object_pairs_hook=_unique).raw_decode(body)
    except (ValueError, RecursionError):
        length = body.find("}") + 1
        try:
            values = _python_dict(body[:length])
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return {}, 0
    return cast(dict[str, Any], values), length


def _python_dict(body: str) -> dict[Any, Any]:
    """Evaluate a Python dict literal. Raises the errors of `ast.literal_eval`."""
    tree = ast.parse(body, mode="eval").body
    if not isinstance(tree, ast.Dict):
        raise ValueError("not a dict")
    names = [ast.literal_eval(key) for key in tree.keys if key is not None]
    return _unique(list(zip(names, map(ast.literal_eval, tree.values), strict=True)))


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    # JSON and Python keep the last of two equal keys; an answer that names two best candidates is ambiguous.
    values = dict(pairs)
    return values if len(values) == len(pairs) else {}


def _index(value: Any, count: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        value = int(match[1]) if match else 0
    return value - 1 if 1 <= value <= count else None


def _is_encodable(text: str) -> bool:
    # JSON can spell half of a surrogate pair, which UTF-8 cannot.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
