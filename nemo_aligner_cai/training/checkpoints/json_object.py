# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The JSON files of a Hugging Face folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import read_json


def read_json_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; raises UsageError if it has something else."""
    content: object = read_json(file)
    if not isinstance(content, dict):
        raise UsageError(f"{file}: a JSON object is needed")
    return cast(dict[str, Any], content)


def write_json_object(file: Path, content: Mapping[str, Any]) -> None:
    """Write an object, indented, with non-ASCII characters unescaped."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
