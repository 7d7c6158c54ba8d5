# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The versions that the pages name, from the files that decide them.

Output: `|torch|` is the tested version, `|torch accepted|` what setup.py accepts; `|data pythons|`, `|nemo_image|`
"""

import re
from pathlib import Path


def version_substitutions(root: Path) -> str:
    """Return the substitutions as RST, for a checkout."""
    setup = (root / "setup.py").read_text(encoding="utf-8")
    nemo = re.search(r"^NEMO = \[\n(.*?)^\]$", setup, re.MULTILINE | re.DOTALL)
    assert nemo is not None
    accepted = dict(re.findall(r'^    "([\w-]+)([<>=][^";]*)', nemo[1], re.MULTILINE))
    # Of two pins of a package, the one for newer versions of Python is the second.
    pinned = (root / "constraints" / "cpu.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w-]+)==([^\s;]+)", pinned, re.MULTILINE))
    image = re.search(r"^ARG NEMO_IMAGE=(\S+)$", (root / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert image is not None
    texts = {f"{name} accepted": f"``{specifier}``" for name, specifier in accepted.items()}
    pins = {re.sub("[-_.]+", "-", name): version for name, version in pins.items()}
    texts |= {name: pins[found] for name in accepted if (found := name.replace("_", "-")) in pins}
    texts["nemo_image"] = f"``{image[1]}``"
    texts["data pythons"] = ", ".join(re.findall(r"Python :: (3\.\d+)", setup))
    return "\n".join(f".. |{name}| replace:: {text}" for name, text in sorted(texts.items())) + "\n"
