# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Finds secrets in command lines and settings, and hides those of the command line in process lists and messages.

A secret is recognized by the name before it, ``--ngc-api-key X``, ``--api-key=X``, a Hydra override
``logger.api_key=X``, ``{"password": "X"}``, ``?token=X``, or as the user and password of a URL.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from nemo_aligner_cai.console.printable import hide_secret

_PROCESS = Path("/proc/self")
_ARG_START, _ARG_END = 45, 46
"""The fields of /proc/self/stat with the command line's addresses, after the program's name (48 and 49 in proc(5))."""
_NAME = (
    r"(?:(?:api|access|auth|private|secret|encryption)[_-]?key"
    r"|(?:api|access|auth|bearer|hf|hub|refresh|secret|session)[_-]?token"
    r"|secret|passw(?:or)?d|passphrase|credentials?"
    # Not bos_token and the like, which are words of a vocabulary; but GITHUB_TOKEN, a variable of the environment.
    r"|(?<![a-z])(?<![a-z][_-])token|(?-i:[A-Z0-9]+_TOKEN))"
)
_FLAG = re.compile(rf"--?(?:[\w.-]*[_.-])?{_NAME}", re.IGNORECASE)
_ABBREVIATED = "--ngc-api-key"
"""The only secret flag of this package; argparse also accepts abbreviations of it."""
_VALUES = (
    # Not the paths of a mount, /run/secrets/token:/token.
    re.compile(rf"(?<![a-z]){_NAME}[\"']?\s*(?:=|:(?!/))\s*[\"']?(?P<value>[^\s\"',;&}}#]+)", re.IGNORECASE),
    re.compile(r"authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?(?P<value>[^\s\"']+)", re.IGNORECASE),
    # Not the name and tag of a container image, which a digest may follow.
    re.compile(r"://(?P<value>[^/?#\s]+)@(?!sha256:)"),
    re.compile(r"(?:^|=)(?P<value>[^/?#\s@:=]+:[^/?#\s]+)@(?!sha256:)"),
)

_READ = re.compile(r"\$\{?\w*$")
"""The text before a variable's name where a shell reads it: ``${HF_TOKEN:?not set}``, ``[[ "$HF_TOKEN" == "" ]]``."""
_SWITCHES = ("true", "false", "null", "none")


def hide_secrets(argv: Sequence[str] = ()) -> None:
    """Overwrite the secrets in this process's command line, as `ps` shows it, and redact them in errors and logs.

    Call it before slow imports: until then, the secrets are visible. Only Linux lets a process overwrite its command
    line; on other systems, process lists continue to show them.

    Args:
        argv: the words of a command line that is not the process's own.
    """
    _redact(argv)
    _redact(sys.argv)
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
        return  # a system without these files, or without permission to write them


def secrets_in(words: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Yield (word, start, end) of each secret in a command line."""
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
                if not _READ.search(word[: found.start()]):
                    yield (number, *found.span("value"))


def secrets_in_settings(tree: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, secret) of each secret in nested settings.

    Each value is read as a flag named by its key, and each list also as a command line. Not secrets are switches such
    as ``use_auth_token=true``, what a shell or OmegaConf replaces, such as ``$KEY``, ``${oc.env:KEY}`` and
    ``$(cat FILE)``, and a user without a password before a host, which registries of containers
    need.
    """
    if isinstance(tree, Mapping):
        for name, value in cast(Mapping[object, object], tree).items():
            yield from secrets_in_settings(value, f"{key}.{name}".removeprefix("."))
    elif isinstance(tree, list | tuple):
        words = [str(word) for word in cast(Sequence[object], tree)]
        yield from _values_in(words, key)
        for value in cast(Sequence[object], tree):
            yield from secrets_in_settings(value, key)
    elif tree is not None and not isinstance(tree, bool):
        yield from _values_in([f"--{key}={tree}"], key)


def _values_in(words: Sequence[str], key: str) -> Iterator[tuple[str, str]]:
    for number, start, end in secrets_in(words):
        value = words[number][start:end]
        is_user = words[number][end:].startswith("@") and ":" not in value
        if value and not value.startswith(("$", "`")) and value.lower() not in _SWITCHES and not is_user:
            yield key, value


def _is_secret(flag: str) -> bool:
    abbreviated = len(flag) > len("--") and _ABBREVIATED.startswith(flag)
    return abbreviated or _FLAG.fullmatch(flag) is not None


def _redact(words: Sequence[str]) -> None:
    for number, start, end in secrets_in(words):
        hide_secret(words[number][start:end])
        # Messages about a login contain the password alone.
        hide_secret(words[number][start:end].partition(":")[2])


def _masked(words: list[bytes]) -> list[bytes]:
    texts = [word.decode("utf-8", "surrogateescape") for word in words]
    for number, start, end in secrets_in(texts):
        first, last = (len(texts[number][:place].encode("utf-8", "surrogateescape")) for place in (start, end))
        # The same number of bytes, so that the other words keep their positions.
        words[number] = words[number][:first] + b"*" * (last - first) + words[number][last:]
    return words
