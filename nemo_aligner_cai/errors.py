# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The package's exceptions.

A message is one line: what is wrong, where (file and line, flag or key), and the fix. The command line prints it
without a traceback and exits with the error's `exit_code`.
"""

EXIT_CODES = {
    0: "done",
    1: "the work failed, or a check found something wrong",
    2: "the command, a setting or an input is wrong; nothing was started",
    130: "interrupted",
}
"""The exit codes of every program of this package."""


class CaiError(Exception):
    """A failure during the work."""

    exit_code = 1


class UsageError(CaiError):
    """A wrong flag, key, input or output path, found before any work starts."""

    exit_code = 2


class NotHere(UsageError):
    """A file, package, program or secret is missing on this machine; another machine may have it.

    Attributes:
        what: its path or name.
    """

    def __init__(self, message: str, what: object) -> None:
        super().__init__(message)
        self.what = str(what)


class FormatError(UsageError):
    """A row of a data file does not have its format. The message starts with ``path:line:``.

    Attributes:
        line: the row's, from 1; None if the error is that of a whole file.
    """

    line: int | None = None

    @classmethod
    def at(cls, path: object, line: int, message: str) -> "FormatError":
        """Create the error of one row; `line` counts from 1."""
        error = cls(f"{path}:{line}: {message}")
        error.line = line
        return error


class NotJsonError(FormatError):
    """A line is not JSON or has a key twice, so that it cannot be dropped as a row of a format can."""


class NotUtf8Error(FormatError):
    """The bytes of a file are not UTF-8 text, in whichever format its rows are."""


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, followed by those of its causes that it does not include."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = " ".join(str(cause).split())
        if text and not any(text in earlier for earlier in texts):
            texts.append(text)
        cause = cause.__cause__
    return ": ".join(texts) or type(error).__name__
