# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Files that we write, read by the library `datasets` and by TRL's own functions.

TRL's rules for columns (https://huggingface.co/docs/trl/dataset_formats) are checked as it documents them, and by its
own code, which comes with the extra `dev`.
"""

from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, Role
from nemo_aligner_cai.data.formats.all_formats import FORMATS
from nemo_aligner_cai.data.formats.files import convert_file, write_records
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly
from nemo_aligner_cai.files import Row, read_jsonl
from tests.unit.record_strategies import held_by_all

WRITTEN = [name for name, format in FORMATS.items() if not format.read_only]
# The columns that TRL looks at; a data set must have one of these sets of them, and may have others.
TRL_COLUMNS = {"prompt", "chosen", "rejected", "completion", "messages", "label"}
TRL_FORMATS: dict[str, set[str]] = {
    "messages": {"messages"},
    "trl-preference": {"prompt", "chosen", "rejected"},
    "trl-preference-implicit": {"chosen", "rejected"},
    "trl-unpaired": {"prompt", "completion", "label"},
    "trl-prompts": {"prompt"},
}
TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}<extra_id_0>System\n{{ messages[0]['content'] }}\n"
    "{% else %}<extra_id_0>System\n\n{% endif %}"
    "{% for message in messages if message['role'] != 'system' %}"
    "<extra_id_1>{{ message['role'] | capitalize }}\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<extra_id_1>Assistant\n{% endif %}"
)


def written(tmp_path: Path, name: str) -> Path:
    path = tmp_path / f"rows{FORMATS[name].suffix}"
    write_records(path, held_by_all(FORMATS[name].kind), name)
    return path


def said(value: Any) -> Any:
    """A row as it was written: `datasets` gives every row every key, and nothing for a key that it lacks."""
    if isinstance(value, dict):
        return {key: said(item) for key, item in value.items() if item is not None}
    return [said(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_the_library_datasets_reads_what_we_wrote(name: str, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    path = written(tmp_path, name)
    kind = {".jsonl": "json"}.get(path.suffix, path.suffix[1:])
    read = datasets.load_dataset(kind, data_files=str(path), cache_dir=str(tmp_path / "cache"), split="train")
    expected = [row for record in held_by_all(FORMATS[name].kind) for row in FORMATS[name].write(record, NEMO_CHAT)]
    assert [said(row) for row in read] == [said(row) for row in expected]


@pytest.mark.parametrize("name", TRL_FORMATS)
def test_the_columns_are_those_that_trl_asks_for(name: str, tmp_path: Path):
    for _, row in read_jsonl(written(tmp_path, name)):
        assert set(row) & TRL_COLUMNS == TRL_FORMATS[name]
        for key in TRL_FORMATS[name] - {"label"}:
            assert all(set(message) == {"role", "content"} for message in row[key])
        assert isinstance(row.get("label", True), bool)


@pytest.mark.slow
def test_trl_makes_the_texts_that_sft_teaches_and_the_rows_that_we_convert(tmp_path: Path):
    data_utils = pytest.importorskip("trl.data_utils", reason="TRL comes with the extra dev")
    datasets, tokenizers = pytest.importorskip("datasets"), pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 0}, unk_token="x"))
    )
    tokenizer.chat_template = TEMPLATE
    paths: dict[str, Path] = {}
    for name in TRL_FORMATS:
        folder = tmp_path / name
        folder.mkdir()
        paths[name] = written(folder, name)

    def rendered(name: str) -> list[Row]:
        rows = [row for _, row in read_jsonl(paths[name])]
        assert all(data_utils.is_conversational(row) for row in rows)
        return [data_utils.apply_chat_template(data_utils.maybe_extract_prompt(row), tokenizer) for row in rows]

    end = NEMO_CHAT.tokens.turn_start
    for record, row in zip(held_by_all(Chat), rendered("messages"), strict=True):
        assert isinstance(record, Chat)
        assert row["text"] + end == NEMO_CHAT.render(record.conversation)
    for name in ("trl-preference", "trl-preference-implicit"):
        for record, row in zip(held_by_all(Comparison), rendered(name), strict=True):
            assert isinstance(record, Comparison)
            assert row["prompt"] == NEMO_CHAT.generation_prompt(record.prompt)
            for key in ("chosen", "rejected"):
                whole = NEMO_CHAT.render(record.prompt.with_turn(Role.ASSISTANT, getattr(record, key)))
                assert row["prompt"] + row[key] + end == whole
    for record, row in zip(held_by_all(PromptOnly), rendered("trl-prompts"), strict=True):
        assert isinstance(record, PromptOnly)
        assert row["prompt"] == NEMO_CHAT.generation_prompt(record.prompt)
    # Its way from pairs to single replies is ours.
    pairs = datasets.Dataset.from_list([row for _, row in read_jsonl(paths["trl-preference"])])
    theirs = data_utils.unpair_preference_dataset(pairs.select_columns(["prompt", "chosen", "rejected"]))
    convert_file(paths["trl-preference"], tmp_path / "unpaired.jsonl", to="trl-unpaired")
    ours = [row for _, row in read_jsonl(tmp_path / "unpaired.jsonl")]
    chosen_first = sorted(ours, key=lambda row: not row["label"])
    assert list(theirs) == [{key: row[key] for key in TRL_FORMATS["trl-unpaired"]} for row in chosen_first]
