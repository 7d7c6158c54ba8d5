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
"""How a command ends: with an exit code and, where something is wrong, one line about it."""

import logging
import os
import sys
from collections.abc import Callable

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.printable import PrintableFormatter, error_line


def exit_code(work: Callable[[], int], name: str) -> int:
    """What `work` returns, or the exit code of the error it ends with, which is shown as one line after `name`.

    0 done, 1 failed, 2 usage, 130 interrupted. What is no `CaiError` and no error of the system, such as a full disk,
    is a defect of this program and goes through.

    File names and data are in every script, and terminals and locales are not: what standard output cannot show, it
    shows as an escape, as standard error does.
    """
    if (reconfigure := getattr(sys.stdout, "reconfigure", None)) is not None:
        reconfigure(errors="backslashreplace")
    try:
        return work()
    except CaiError as error:
        sys.stderr.write(error_line(name, error))
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        sys.stderr.write(error_line(name, error))
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
        return 130


def log_to_stderr() -> None:
    """Show log lines on standard error, where they can do nothing to a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
