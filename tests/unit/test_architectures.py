# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of supported models in README and docs are those of the code."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # imports the training half


def test_the_tables_of_models_are_those_of_the_code(repo_root: Path) -> None:
    from nemo_aligner_cai.training.checkpoints.architectures import ARCHITECTURES, REFUSED

    page = (repo_root / "docs" / "compatibility.rst").read_text(encoding="utf-8")
    rows = re.findall(r"   \* - ``(\w+)``\n     - (.*)\n     - (yes|no)", page)
    supported = {kind: models for kind, models, answer in rows if answer == "yes"}
    assert supported == {kind: one.models for kind, one in ARCHITECTURES.items()}
    assert {kind for kind, _, answer in rows if answer == "no"} == REFUSED.keys()
    readme = (repo_root / "README.md").read_text(encoding="utf-8")
    table = {
        kind: (models, answer)
        for kind, models, answer in re.findall(r"\n\| (`.*`) \| ([^|]*) \| (yes|no)\b[^|]* \|", readme)
    }
    for kind, models in supported.items():
        assert table[f"`{kind}`"] == (models, "yes")
    (refused,) = (kinds for kinds, (_, answer) in table.items() if answer == "no")
    assert set(re.findall(r"`(\w+)`", refused)) == REFUSED.keys()
