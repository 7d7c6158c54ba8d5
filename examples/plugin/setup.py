# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""An example of a package that adds components to nemo_aligner_cai; docs/extending.rst explains it."""

from setuptools import setup

setup(
    name="cai-example",
    version="1.0",
    packages=["cai_example"],
    package_data={"cai_example": ["*.yaml"]},
    entry_points={
        "nemo_aligner_cai.judges": ["ratings = cai_example.judge:ratings"],
        "nemo_aligner_cai.judge_prompts": ["brief = cai_example.judge:BRIEF"],
        "nemo_aligner_cai.graders": ["tone = cai_example.grader:tone"],
        "nemo_aligner_cai.formats": ["letters = cai_example.letters:Letters"],
        "nemo_aligner_cai.processors": ["letters = cai_example.processor"],
    },
)
