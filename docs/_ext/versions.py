# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The versions that the pages name, from the files that decide them.

Output: `|torch|` is the tested version, `|torch accepted|` what setup.py accepts; `|data pythons|`,
`|training pythons|`, `|nemo_image|`
"""

import re
from pathlib import Path


def version_substitutions(root: Path) -> str:
    """Return the substitutions as RST, for a checkout."""
    setup = (root / "setup.py").read_text(encoding="utf-8")
    nemo = re.search(r"^NEMO = \[\n(.*?)^\]$", setup, re.MULTILINE | re.DOTALL)
    assert nemo is not None
    accepted = dict(re.findall(r'^    "([\w-]+)([<>=][^";]*)', nemo[1], re.MULTILINE))
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", _newest_pins(root).read_text(encoding="utf-8"), re.MULTILINE))
    image = re.search(r"^ARG NEMO_IMAGE=(\S+)$", (root / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert image is not None
    texts = {f"{name} accepted": f"``{specifier}``" for name, specifier in accepted.items()}
    pins = {re.sub("[-_.]+", "-", name): version for name, version in pins.items()}
    texts |= {name: pins[found] for name in accepted if (found := name.replace("_", "-")) in pins}
    texts["nemo_image"] = f"``{image[1]}``"
    texts["data pythons"] = ", ".join(re.findall(r"Python :: (3\.\d+)", setup))
    texts["training pythons"] = ", ".join(f"3.{minor}" for minor in _training_minors(root))
    return "\n".join(f".. |{name}| replace:: {text}" for name, text in sorted(texts.items())) + "\n"


def _training_minors(root: Path) -> list[int]:
    found = (re.fullmatch(r"cpu-py3(\d+)\.txt", path.name) for path in (root / "constraints").iterdir())
    return sorted(int(name[1]) for name in found if name)


def _newest_pins(root: Path) -> Path:
    return root / "constraints" / f"cpu-py3{_training_minors(root)[-1]}.txt"
