# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The few errors that the package raises on purpose.

Each message is complete on one line: what is wrong, where (file and line, flag or key), and the mend.
The command line prints it without a traceback and exits with the error's `exit_code`.
"""


class CaiError(Exception):
    """Something failed while the work was under way."""

    exit_code = 1


class UsageError(CaiError):
    """A bad flag, key, input or output path, found before any work starts."""

    exit_code = 2


class FormatError(UsageError):
    """A row of a data file is not what its format asks for. The message starts with ``path:line: ``."""

    @classmethod
    def at(cls, path: object, line: int, message: str) -> "FormatError":
        """The error for one row; `line` counts from 1."""
        return cls(f"{path}:{line}: {message}")
