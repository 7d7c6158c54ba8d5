# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a run's configuration that the docs show are accepted, in place of those of mistral_7b.yaml."""

from pathlib import Path
from typing import Any

import yaml

from nemo_aligner_cai.pipeline.config import RunConfig
from tests.documented import blocks_of


def test_every_part_of_a_configuration_is_accepted(repo_root: Path) -> None:
    whole: dict[str, Any] = yaml.safe_load(
        (repo_root / "examples/nlp/cai/mistral_7b.yaml").read_text(encoding="utf-8")
    )
    pages = [page for page in sorted((repo_root / "docs").rglob("*.rst")) if "generated" not in page.parts]
    shown = [(page.name, yaml.safe_load(block)) for page in pages for _, block in blocks_of(page, "yaml")]
    parts = [(name, part) for name, part in shown if part.keys() <= RunConfig.model_fields.keys()]
    assert len(parts) >= 12
    for name, part in parts:
        sections = {key: {**whole.get(key, {}), **section} for key, section in part.items()}
        assert RunConfig.model_validate(whole | sections), name
