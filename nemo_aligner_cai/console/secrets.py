# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Finds secrets in command lines and settings, and hides those of the command line in process lists and messages.

A secret is recognized by the name before it, ``--ngc-api-key X``, ``--api-key=X``, a Hydra override
``logger.api_key=X``, ``{"password": "X"}``, ``?token=X``, as the user and password of a URL, or by the form of a
service's keys, ``ghp_X``.
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
    # At the beginning of a word, also of one in camel case.
    r"(?:(?<![a-z])|(?-i:(?<=[a-z])(?=[A-Z])))"
    r"(?:(?:api|access|account|auth|private|secret|subscription|encryption)[_-]?keys?"
    r"|(?:api|access|auth|bearer|hf|hub|refresh|secret|security|session)[_-]?token"
    r"|secret|passw(?:or)?ds?|passphrases?|credentials?|(?:amz|goog)[_-]signature"
    # Not bos_token and the like, which are words of a vocabulary; but GITHUB_TOKEN, a variable of the environment.
    r"|(?<![a-z])(?<![a-z][_-])token|(?-i:[A-Z0-9]+(?:_TOKEN|_PAT|_?PASSW(?:OR)?D)))"
)
_FLAG = re.compile(rf"--?[\w.-]*{_NAME}", re.IGNORECASE)
_PLURAL = re.compile(r"(?:key|token|passw(?:or)?d|passphrase)s$", re.IGNORECASE)
_ABBREVIATED = "--ngc-api-key"
"""The only secret flag of this package; argparse also accepts abbreviations of it."""
_VALUES = (
    # Not the paths of a mount, /run/secrets/token:/token.
    re.compile(rf"{_NAME}[\"']?\s*(?:=|:(?!/))\s*[\[\"']*(?P<value>[^\s\"',;&}}#]+)", re.IGNORECASE),
    re.compile(r"authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?(?P<value>[^\s\"']+)", re.IGNORECASE),
    # Not the name and tag of a container image, which a digest may follow.
    re.compile(r"://(?P<value>[^/?#\s]+)@(?!sha256:)"),
    re.compile(r"(?:^|=)(?P<value>[^/?#\s@:=]+:[^/?#\s]+)@(?!sha256:)"),
    re.compile(r"(?:^|=)bearer\s+(?P<value>\S+)$", re.IGNORECASE),
    re.compile(r"[?&]sig=(?P<value>[^\s\"'&#]+)"),
    # The keys of well-known services; a name with many hyphens, such as of a data set, can begin with sk-, too.
    re.compile(
        r"(?<![\w-])(?P<value>sk-(?=[\w-]{20})[\w-]*?[A-Za-z0-9]{16}[\w-]*|gh[opsu]_\w{20,}|github_pat_\w{20,}"
        r"|hf_[A-Za-z0-9]{20,}|nvapi-[\w-]{20,}|xox[bp]-[\w-]{10,}|AKIA[0-9A-Z]{16}(?![\w-])|glpat-[\w-]{20,})"
    ),
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
    yield from _secrets_of(tree, key, key)


def first_secret(tree: object) -> str | None:
    """Return the dotted key of the first secret in settings that will be recorded, None without one.

    All of them are redacted in later errors and logs.
    """
    found = list(secrets_in_settings(tree))
    for _, secret in found:
        hide_secret(secret)
    return found[0][0] if found else None


def _secrets_of(tree: object, key: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield the secrets of a tree at `key`, whose values are read as flags called `name`."""
    if isinstance(tree, Mapping):
        for part, value in cast(Mapping[object, object], tree).items():
            inner = f"{key}.{part}".removeprefix(".")
            # In a mapping called api_keys, each value is one.
            yield from _secrets_of(value, inner, name if _is_plural(name) else inner)
    elif isinstance(tree, list | tuple):
        words = [str(word) for word in cast(Sequence[object], tree)]
        yield from _values_in(words, key)
        for value in cast(Sequence[object], tree):
            yield from _secrets_of(value, key, name)
    elif isinstance(tree, str):
        yield from _values_in([f"--{name[:-1] if _is_plural(name) else name}={tree}"], key)
    elif tree is not None and not isinstance(tree, bool) and not _is_plural(name):
        yield from _values_in([f"--{name}={tree}"], key)


def _is_plural(name: str) -> bool:
    """True for a name of several secrets; numbers called so are counts."""
    return _PLURAL.search(name) is not None and _is_secret(f"--{name[:-1]}")


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
