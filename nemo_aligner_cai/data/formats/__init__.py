# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Data formats: one module for each family of trainers or data sets, and the table of all formats.

cai.py              the raw files of the generation stages
nemo.py             what NeMo-Aligner's trainers read
other_trainers.py   other trainers' formats, and published data sets that can be written too
published.py        published instructions, preferences and labels; read only
rankings.py         published rankings, prompt columns and message trees; read only
tabular.py          parquet and CSV
base.py             the base class of all formats; fields.py: that of formats whose keys map to parts of a record
all_formats.py      all formats by name, and detection
files.py            reading, validating, writing and converting files; writers.py: their writers
row_values.py       typed access to the values of a row
unread_columns.py   columns that a format does not read: carried, refused or listed
record_guard.py     keeps the texts of a record from forging turns
"""
