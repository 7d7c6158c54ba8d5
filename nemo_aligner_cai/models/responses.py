# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the responses of model servers: JSON of limited size, excerpts for messages, Retry-After."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
from yarl import URL

from nemo_aligner_cai.files.json_items import MAX_VALUES, has_too_many_values
from nemo_aligner_cai.models.http.retry import RetryableError

EXCERPT_CHARS = 300
"""Characters of a response that messages show."""


def decode(url: URL, payload: bytes) -> Any:
    """Decode a response; raises RetryableError if it is not JSON or has too many values."""
    try:
        if has_too_many_values(payload):
            raise RetryableError("malformed answer", f"{url}: more than {MAX_VALUES:,} values")
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise RetryableError("malformed answer", f"{url}: {error}: {excerpt(payload)}") from None


def excerpt(payload: bytes) -> str:
    """Return the beginning of a response as text on one line."""
    return " ".join(payload[: 4 * EXCERPT_CHARS].decode("utf-8", "replace")[:EXCERPT_CHARS].split())


def retry_after(value: str | None) -> float | None:
    """Convert a Retry-After header, in seconds or as a date, to seconds."""
    if not value:
        return None
    try:
        seconds = float(value)
        return seconds if seconds >= 0.0 else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
