# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Secrets on a command line: kept out of process lists, and out of this process's errors and logs.

A value counts as a secret by the name before it, in any spelling: ``--ngc-api-key X``, ``--api-key=X``, a Hydra
override ``logger.api_key=X``, ``{"password": "X"}``, ``?token=X``, and as the user and password of an address.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from nemo_aligner_cai.console.printable import hide_secret

_PROCESS = Path("/proc/self")
_ARG_START, _ARG_END = 45, 46
"""Places of the command line's bounds in /proc/self/stat, after the program's name (proc(5): fields 48 and 49)."""
_NAME = (
    r"(?:(?:api|access|auth|private|secret|encryption)[_-]?key"
    r"|(?:api|access|auth|bearer|hf|hub|refresh|secret|session)[_-]?token"
    r"|secret|passw(?:or)?d|passphrase|credentials?"
    # Not bos_token and its like, which are words of a vocabulary.
    r"|(?<![a-z])(?<![a-z][_-])token)"
)
_FLAG = re.compile(rf"--?(?:[\w.-]*[_.-])?{_NAME}", re.IGNORECASE)
_ABBREVIATED = "--ngc-api-key"
"""The one secret flag of our own, which argparse also takes in any shorter form."""
_VALUES = (
    re.compile(rf"(?<![a-z]){_NAME}[\"']?\s*[:=]\s*[\"']?(?P<value>[^\s\"',;&}}#]+)", re.IGNORECASE),
    re.compile(r"authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?(?P<value>[^\s\"']+)", re.IGNORECASE),
    re.compile(r"://(?P<value>[^/?#\s]+)@"),
    re.compile(r"(?:^|=)(?P<value>[^/?#\s@:=]+:[^/?#\s]+)@"),
)


def hide_secrets(argv: Sequence[str] = ()) -> None:
    """Overwrite the secrets of this process's command line, as `ps` shows it, and redact them in errors and logs.

    Call it first, before imports that take their time: until then they are visible. The bytes belong to this process,
    which Linux lets it write to; elsewhere process lists go on showing them.

    Args:
        argv: the words of a command line that this process was not started with.
    """
    _remember(argv)
    _remember(sys.argv)
    if not sys.platform.startswith("linux"):
        return
    try:
        fields = (_PROCESS / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        with (_PROCESS / "mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            shown = memory.read(end - start)
            hidden = b"\0".join(_masked(shown.split(b"\0")))
            if hidden != shown:
                memory.seek(start)
                memory.write(hidden)
    except (OSError, IndexError, ValueError):
        return  # a system without these files, or one that lets nobody write there


def secrets_in(words: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Find the secrets of a command line: (word, start, end) of each."""
    expected = False
    for number, word in enumerate(words):
        if expected and not word.startswith("--"):
            yield number, 0, len(word)
            expected = False
            continue
        name, equals, _ = word.partition("=")
        secret = _is_secret(name)
        expected = secret and not equals
        if secret:
            if equals:
                yield number, len(name) + 1, len(word)
            continue
        for pattern in _VALUES:
            for found in pattern.finditer(word):
                yield (number, *found.span("value"))


def _is_secret(flag: str) -> bool:
    abbreviated = len(flag) > len("--") and _ABBREVIATED.startswith(flag)
    return abbreviated or _FLAG.fullmatch(flag) is not None


def _remember(words: Sequence[str]) -> None:
    for number, start, end in secrets_in(words):
        hide_secret(words[number][start:end])
        # The password alone stands in messages about a login, too.
        hide_secret(words[number][start:end].partition(":")[2])


def _masked(words: list[bytes]) -> list[bytes]:
    texts = [word.decode("utf-8", "surrogateescape") for word in words]
    for number, start, end in secrets_in(texts):
        first, last = (len(texts[number][:place].encode("utf-8", "surrogateescape")) for place in (start, end))
        # As many bytes as before, so that the other words keep their places.
        words[number] = words[number][:first] + b"*" * (last - first) + words[number][last:]
    return words
