# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Hiding a secret that was given on the command line from lists of processes."""

import sys
from pathlib import Path

_PROCESS = Path("/proc/self")
_ARG_START, _ARG_END = 45, 46
"""Places of the command line's bounds in /proc/self/stat, after the program's name (proc(5): fields 48 and 49)."""


def hide_argument(secret: str) -> bool:
    """Overwrite a secret in this process's command line, as `ps` shows it, with asterisks.

    The bytes belong to this process, which Linux lets it write to. It was visible until now, and elsewhere it stays.

    Returns:
        Whether it is hidden; False where the system has no such files.
    """
    if not sys.platform.startswith("linux") or not secret:
        return False
    try:
        fields = (_PROCESS / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        with (_PROCESS / "mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            shown = memory.read(end - start)
            memory.seek(start)
            memory.write(shown.replace(secret.encode(), b"*" * len(secret.encode())))
    except (OSError, IndexError, ValueError):
        return False
    return secret.encode() in shown
