# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a user changes in the requests to an OpenAI-compatible server, since services differ in what they accept.

Input:  {"model": "m", "messages": [...], "max_tokens": 5, "seed": 7}, omitted {"seed": None, "max_tokens":
        "max_completion_tokens"}, extra {"chat_template_kwargs": {"enable_thinking": False}}
Output: {"model": "m", "messages": [...], "max_completion_tokens": 5, "chat_template_kwargs": {...}}
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nemo_aligner_cai.errors import UsageError

_OF_SOME = ("logprobs", "top_logprobs", "response_format")
"""Keys of some requests only: an extra value takes their place where they are sent."""
_SENT = (
    *("max_tokens", "temperature", "top_p", "top_k", "seed", "min_tokens", "repetition_penalty", "stop"),
    *_OF_SOME,
)
_FIXED = ("model", "messages", "prompt", "n", "stream")


@dataclass(frozen=True)
class BodyChanges:
    """Changes to each request.

    Attributes:
        extra: keys with values that are sent too, or in place of this program's own.
        omitted: this program's keys that are not sent, or are sent under the other name that is given.
    """

    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    omitted: Mapping[str, str | None] = field(default_factory=dict[str, str | None])

    def __post_init__(self) -> None:
        """Raises UsageError for keys that cannot be changed."""
        for key in self.extra:
            if key in _FIXED:
                raise UsageError(f"the key {key!r} of a request cannot be set: the program sets it")
        for key, name in self.omitted.items():
            if key not in _SENT:
                raise UsageError(f"the key {key!r} cannot be omitted; these can: {', '.join(_SENT)}")
            if name in (*_FIXED, *_SENT):
                raise UsageError(f"the key {key!r} cannot be sent as {name!r}, which is another key's name")

    @property
    def identity(self) -> dict[str, Any]:
        """Its part in journal keys; empty where nothing is changed, so that keys stay what they were."""
        changes = {"extra_body": dict(self.extra), "omitted": dict(sorted(self.omitted.items()))}
        return {name: change for name, change in changes.items() if change}

    def apply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body that is sent."""
        if not self.extra and not self.omitted:
            return dict(body)
        changed = {self.omitted.get(key, key): value for key, value in body.items()}
        sent = {key: value for key, value in changed.items() if key is not None}
        return sent | {key: value for key, value in self.extra.items() if key not in _OF_SOME or key in body}

    def advice(self, words: str, body: Mapping[str, Any]) -> str:
        """Which flag helps, where a server's words name a key of the body; "" where they do not."""
        named = re.search(rf"\b({'|'.join(_SENT)})\b", words)
        if named is None or named[1] not in body:
            return ""
        key = named[1]
        other = "max_completion_tokens"
        key += f"={other}" if key == "max_tokens" and other in words else ""
        return f"; --omit {key} {'renames it' if '=' in key else 'leaves it out'} (--judge-omit for the judge)"
