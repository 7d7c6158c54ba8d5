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
import subprocess
import sys

import pytest

SHOW = """
import sys
from pathlib import Path
from nemo_aligner_cai.commands.process_list import hide_argument

secret = sys.argv[1]
print(hide_argument(secret), sys.argv[1] == secret, hide_argument("z" * 9))
print(Path("/proc/self/cmdline").read_bytes().split(bytes(1))[-4:-1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process lists are hidden on Linux only")
def test_a_secret_argument_disappears_from_the_process_list_and_stays_known_to_the_program() -> None:
    command = [sys.executable, "-c", SHOW, "nvapi-geheim-é", "--key=nvapi-geheim-é", "rest"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    stars = b"*" * len("nvapi-geheim-é".encode())
    assert shown == ["True True False", repr([stars, b"--key=" + stars, b"rest"])]


def test_an_empty_secret_hides_nothing() -> None:
    from nemo_aligner_cai.commands.process_list import hide_argument

    assert hide_argument("") is False
