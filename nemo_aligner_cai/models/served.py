# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Which model a server has, asked of its ``/v1/models``.

Input:  {"data": [{"id": "sl_cai", "root": "/models/sl_cai.nemo", "fingerprint": "sha256:5f..."}]}
Output: {"fingerprint": "sha256:5f..."} from `cai serve`, {"id": ..., "root": ...} from vLLM and others, None from
        NeMo's own server, which does not tell

The name that requests carry does not tell models apart: NeMo's server has none, and one name can be given to another
model later.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import aiohttp
import orjson
from yarl import URL

from nemo_aligner_cai.models.exchange import proxy_of

_MOST_BYTES = 1 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=60.0, connect=5.0)
"""A server that has just started may still be hashing its model."""
FINGERPRINT = "fingerprint"
"""The key of a hash of the model's files. Without it, only names and paths are compared."""
_NAMES = ("id", "root")


@runtime_checkable
class TellsModel(Protocol):
    """A client whose server can be asked for its model."""

    name: str

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `ModelClient`."""
        ...

    async def served_model(self) -> Mapping[str, str] | None:
        """What the server says of its model; None where it says nothing, or is not there."""
        ...


async def ask_for_model(urls: Sequence[str], name: str | None, key: str | None = None) -> dict[str, str] | None:
    """What the first of equal servers that answers says of a model.

    Args:
        urls: their ``/v1/models``.
        name: the model's name there; None where there is only one.
        key: the API key.

    Returns:
        The fingerprint, or the name and path; None where none of them says anything.
    """
    # Not packed: a small answer could unpack to one that fills the memory.
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
    async with aiohttp.ClientSession(
        timeout=_TIMEOUT, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        for url in urls:
            if (found := _model_of(await _get(session, url), name)) is not None:
                return found
    return None


async def _get(session: aiohttp.ClientSession, url: str) -> Any:
    """The JSON at an address; None where there is none."""
    try:
        async with session.get(url, allow_redirects=False, proxy=proxy_of(URL(url))) as response:
            if response.status != 200:
                return None
            payload = bytearray()
            async for piece in response.content.iter_any():
                payload += piece
                if len(payload) > _MOST_BYTES:
                    return None
        return orjson.loads(payload)
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError):
        return None


def _model_of(answer: Any, name: str | None) -> dict[str, str] | None:
    listed = cast(dict[str, Any], answer).get("data") if isinstance(answer, dict) else None
    entries = [cast(dict[str, Any], one) for one in cast(list[Any], listed or []) if isinstance(one, dict)]
    fitting = [one for one in entries if name is None or one.get("id") == name]
    if len(fitting) != 1:
        return None
    if isinstance(fingerprint := fitting[0].get(FINGERPRINT), str):
        return {FINGERPRINT: fingerprint}
    said = {key: value for key in _NAMES if isinstance(value := fitting[0].get(key), str)}
    return said or None
