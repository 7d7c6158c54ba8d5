# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of files and of JSON values."""

import hashlib

import orjson

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files.reading import PathLike, open_stored


def sha256_file(path: PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open_stored(path) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_hash(obj: object, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of `obj` as JSON with sorted keys."""
    try:
        canonical = orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise CaiError(f"has no content hash: {error}") from error
    return hashlib.sha256(canonical).hexdigest()[:length]
