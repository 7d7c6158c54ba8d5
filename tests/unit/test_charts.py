# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Charts of differences: their labels, and charts as files of their own."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.ablations.page import svg_file
from nemo_aligner_cai.report.charts.points import Shift, shifts

SVG = "{http://www.w3.org/2000/svg}"


def _labels(rows: list[Shift]) -> dict[str, ElementTree.Element]:
    root = ElementTree.fromstring(svg_file(shifts(rows, "points")))
    assert root.tag == f"{SVG}svg" and root.get("viewBox", "").startswith("0 0 440 ")
    return {element.text or "": element for element in root.iter(f"{SVG}text") if element.get("class") == "label"}


@pytest.mark.parametrize(("longest", "above"), [("harm", False), ("a label of more than thirty characters", True)])
def test_labels_are_whole_and_above_their_rows_if_one_is_too_long(longest: str, above: bool) -> None:
    labels = _labels([Shift("help", 0.1, 0.05, 0.15), Shift(longest, -0.2, None, None)])
    assert list(labels) == ["help", longest]
    assert {label.get("text-anchor") for label in labels.values()} == ({"start"} if above else {"end"})
    xs = {float(label.get("x", "")) for label in labels.values()}
    assert xs == {0.0} if above else min(xs) > 6.2 * len(longest)


def test_text_in_a_file_of_a_chart_is_escaped() -> None:
    assert list(_labels([Shift("<script>&", 0.1, 0.0, 0.2)])) == ["<script>&"]
