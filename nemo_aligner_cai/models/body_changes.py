# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""User-defined changes to the requests of an OpenAI-compatible server: services differ in the keys they accept.

Input:  {"model": "m", "messages": [...], "max_tokens": 5, "seed": 7}, omitted {"seed": None, "max_tokens":
        "max_completion_tokens"}, extra {"chat_template_kwargs": {"enable_thinking": False}}
Output: {"model": "m", "messages": [...], "max_completion_tokens": 5, "chat_template_kwargs": {...}}
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nemo_aligner_cai.console.secrets import first_secret
from nemo_aligner_cai.errors import UsageError

_CONDITIONAL = ("logprobs", "top_logprobs", "response_format")
"""Keys of some requests only: an extra value replaces them, but is not added to other requests."""
_OMITTABLE = (
    *("max_tokens", "temperature", "top_p", "top_k", "seed", "min_tokens", "repetition_penalty", "stop"),
    *_CONDITIONAL,
)
_FIXED = ("model", "messages", "prompt", "n", "stream")


@dataclass(frozen=True)
class BodyChanges:
    """Changes to the body of each request.

    Attributes:
        extra: keys and values to add or to replace.
        omitted: keys to drop (None), or to rename.
    """

    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    omitted: Mapping[str, str | None] = field(default_factory=dict[str, str | None])

    def __post_init__(self) -> None:
        """Raises UsageError for keys that cannot be changed, and for a secret: journals show the changes."""
        if (secret := first_secret(self.extra)) is not None:
            raise UsageError(f"the key {secret!r} of a request contains a secret, which journals show; remove it")
        for key in self.extra:
            if key in _FIXED:
                raise UsageError(f"the key {key!r} of a request cannot be set")
        for key, name in self.omitted.items():
            if key not in _OMITTABLE:
                raise UsageError(f"the key {key!r} cannot be omitted; allowed keys: {', '.join(_OMITTABLE)}")
            if name in (*_FIXED, *_OMITTABLE):
                raise UsageError(f"the key {key!r} cannot be renamed to {name!r}, the name of another key")

    @property
    def identity(self) -> dict[str, Any]:
        """The changes' part of journal keys; empty without changes."""
        changes = {"extra_body": dict(self.extra), "omitted": dict(sorted(self.omitted.items()))}
        return {name: change for name, change in changes.items() if change}

    def apply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the changed body."""
        if not self.extra and not self.omitted:
            return dict(body)
        changed = {self.omitted.get(key, key): value for key, value in body.items()}
        sent = {key: value for key, value in changed.items() if key is not None}
        return sent | {key: value for key, value in self.extra.items() if key not in _CONDITIONAL or key in body}

    def advice(self, message: str, body: Mapping[str, Any]) -> str:
        """Return which flag to use if a server's message names a key of the body, else an empty string."""
        named = re.search(rf"\b({'|'.join(_OMITTABLE)})\b", message)
        if named is None or named[1] not in body:
            return ""
        key, new_name = named[1], "max_completion_tokens"
        if key == "max_tokens" and new_name in message:
            return f"; rename it with --omit {key}={new_name} (--judge-omit for the judge)"
        return f"; drop it with --omit {key} (--judge-omit for the judge)"
