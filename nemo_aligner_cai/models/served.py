# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The model that a server reports on ``/v1/models``.

Input:  {"data": [{"id": "sl_cai", "root": "/models/sl_cai.nemo", "fingerprint": "sha256:5f..."}]}
Output: {"fingerprint": "sha256:5f..."} from `cai serve`; {"id": ..., "root": ...} from vLLM and others; None from
        NeMo's own server, which does not report it

The model name in requests does not identify a model: NeMo's server has none, and a name can be reused.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import aiohttp
import orjson
from yarl import URL

from nemo_aligner_cai.models.base import ModelClient
from nemo_aligner_cai.models.http.exchange import proxy_of

T = TypeVar("T")
_MAX_BYTES = 1 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=60.0, connect=5.0)
"""A server that has just started may still be hashing its model."""
FINGERPRINT = "fingerprint"
"""Key of a hash of the model's files. Without it, only names and paths are compared."""


@runtime_checkable
class ReportsModel(ModelClient, Protocol):
    """A client whose server may report its model and the model's context."""

    async def served_model(self) -> Mapping[str, str] | None:
        """Return the server's model, or None if the server does not report it or is not reachable."""
        ...

    async def context_length(self) -> int | None:
        """Return the most tokens of prompt and reply together, or None if the server does not report it."""
        ...


async def fetch_served_model(urls: Sequence[str], name: str | None, key: str | None = None) -> dict[str, str] | None:
    """Return the model reported by the first of several equivalent servers.

    Args:
        urls: their ``/v1/models`` endpoints.
        name: the model's name on the server; None if it serves only one model.
        key: the API key.

    Returns:
        The fingerprint, or else the name and path; None if no server reports the model.
    """
    return await _fetch(urls, name, key, _described)


async def fetch_context_length(urls: Sequence[str], name: str | None, key: str | None = None) -> int | None:
    """Return the most tokens of prompt and reply that the first of several servers reports (`max_model_len`)."""
    return await _fetch(urls, name, key, _context_of)


async def _fetch(
    urls: Sequence[str], name: str | None, key: str | None, read: Callable[[Mapping[str, Any]], T | None]
) -> T | None:
    """Return what `read` finds in the model's entry of the first server that has it."""
    # Uncompressed, because a small compressed response could fill the memory.
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
    async with aiohttp.ClientSession(
        timeout=_TIMEOUT, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        for url in urls:
            entry = _select_entry(await _get_json(session, url), name)
            if entry is not None and (found := read(entry)) is not None:
                return found
    return None


async def _get_json(session: aiohttp.ClientSession, url: str) -> Any:
    """Return the decoded response, or None if there is none."""
    try:
        async with session.get(url, allow_redirects=False, proxy=proxy_of(URL(url))) as response:
            if response.status != 200:
                return None
            payload = bytearray()
            async for piece in response.content.iter_any():
                payload += piece
                if len(payload) > _MAX_BYTES:
                    return None
        return orjson.loads(payload)
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError):
        return None


def _select_entry(response: Any, name: str | None) -> dict[str, Any] | None:
    listed: Any = cast(dict[str, Any], response).get("data") if isinstance(response, dict) else None
    listed = cast(list[Any], listed) if isinstance(listed, list) else []
    entries = [cast(dict[str, Any], entry) for entry in listed if isinstance(entry, dict)]
    matching = [entry for entry in entries if name is None or entry.get("id") == name]
    return matching[0] if len(matching) == 1 else None


def _described(entry: Mapping[str, Any]) -> dict[str, str] | None:
    if isinstance(fingerprint := entry.get(FINGERPRINT), str):
        return {FINGERPRINT: fingerprint}
    return {key: value for key in ("id", "root") if isinstance(value := entry.get(key), str)} or None


def _context_of(entry: Mapping[str, Any]) -> int | None:
    length = entry.get("max_model_len")
    return length if isinstance(length, int) and length > 0 else None
