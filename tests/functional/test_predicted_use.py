# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai validate` says how many records each trainer will use; the trainers' own dataset classes do as it says.

Each file has records that are too long, in its middle and at its end. A record is used if the class gives out its own
tokens, all of them. (Records at which a tokenizer merges letters over the end of a prompt: `test_template_ids.py`.)
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.cli import main
from nemo_aligner_cai.data.formats.all_formats import FORMATS
from nemo_aligner_cai.data.formats.files import write_records
from nemo_aligner_cai.data.length import LIMITS, filter_file, predict_use, texts_of
from nemo_aligner_cai.data.length_report import UseReport
from nemo_aligner_cai.data.records import Chat, Comparison, Kind, PromptOnly, Rated, Record, Scored
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.files import read_jsonl
from tests.functional import world

SEQ_LENGTH = 64
# Words of the made-up world of the tests, so that a text has about as many tokens as words.
WORD = "door "


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    world.build(folder)
    return folder / "tokenizer.model"


@pytest.fixture(scope="module")
def theirs(tokenizer_file: Path) -> Any:
    from nemo_aligner_cai.training.cpu.install import install_patches

    install_patches()
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    return get_nmt_tokenizer(library="sentencepiece", tokenizer_model=str(tokenizer_file))


def made(kind: Kind) -> list[Record]:
    """Twelve records around the trainers' limits: replies, or prompts, of 1 to 100 words."""
    records: list[Record] = []
    for number, words in enumerate((1, 4, 100, 8, 12, 16, 20, 24, 100, 28, 40, 100)):
        asked = Conversation.of_user(f"how do i open {number}")
        reply, other = (WORD * words).strip(), "no"
        whole = asked.with_turn(Role.ASSISTANT, reply)
        made_of: dict[Kind, Record] = {
            Chat: Chat(whole, "test"),
            Comparison: Comparison(asked, reply, other) if number % 2 else Comparison(asked, other, reply),
            PromptOnly: PromptOnly(Conversation.of_user((WORD * words).strip())),
            Rated: Rated(asked, reply, number % 2 == 0),
            Scored: Scored(whole, (float(number % 5), *[-100.0] * 8)),
        }
        records.append(made_of[kind])
    return records


def built(name: str, path: Path, tokenizer: Any) -> Any:
    from nemo_aligner.data.nlp import builders
    from omegaconf import OmegaConf

    if name == "sft":
        cfg = OmegaConf.create(
            {"file_path": str(path), "max_seq_length": SEQ_LENGTH, "min_seq_length": 1, "memmap_workers": 1}
        )
        return builders.build_sft_dataset(cfg, tokenizer, num_samples=None, is_chat=True, special_tokens=None)
    prefix = OmegaConf.create({split: [str(path)] for split in ("train", "validation", "test")})
    build = getattr(builders, f"build_train_valid_test_{name}_datasets")
    train, _, _ = build(
        cfg=OmegaConf.create({"data": {"data_impl": "jsonl", "splits_string": None}}),
        data_prefix=prefix,
        data_impl="jsonl",
        splits_string=None,
        train_valid_test_num_samples=[-1, -1, -1],
        seq_length=SEQ_LENGTH,
        seed=1,
        tokenizer=tokenizer,
    )
    return train


Uses = Callable[[Any, int, list[list[int]]], bool]


def sft_uses(dataset: Any, index: int, own: list[list[int]]) -> bool:
    batch = dataset.collate_fn([dataset[index]])
    return batch["tokens"][0].tolist()[: len(own[0]) - 1] == own[0][:-1]


def rm_uses(dataset: Any, index: int, own: list[list[int]]) -> bool:
    item = dataset[index]
    return [item[side][: item[f"{side}_length"]].tolist() for side in ("chosen", "rejected")] == own


def rlhf_uses(dataset: Any, index: int, own: list[list[int]]) -> bool:
    item = dataset[index]
    assert item["loss_multiplier"] == (item["text"].tolist() == own[0])
    return bool(item["loss_multiplier"])


def dpo_uses(dataset: Any, index: int, own: list[list[int]]) -> bool:
    item = dataset[index]
    sides = [item[side][: item[f"{side}_length"]].tolist() for side in ("chosen", "rejected")]
    assert item["ignore_example"] == (sides != [ids[:-1] for ids in own])
    return not item["ignore_example"]


def kto_uses(dataset: Any, index: int, own: list[list[int]]) -> bool:
    item = dataset[index]
    return bool((item["sample_labels"] != -100).any()) and item["sample_length"] == len(own[0])


def regression_uses(dataset: Any, index: int, own: list[list[int]]) -> bool:
    item = dataset[index]
    return bool(item["loss_mask"].any()) and item["inputs"][: item["lengths"]].tolist() == own[0]


TRAINERS: dict[str, tuple[str, Uses]] = {
    "sft-chat": ("sft", sft_uses),
    "rm-comparisons": ("rm", rm_uses),
    "ppo-prompts": ("rlhf", rlhf_uses),
    "dpo": ("dpo", dpo_uses),
    "kto": ("kto", kto_uses),
    "rm-regression": ("regression_rm", regression_uses),
}


def test_every_format_with_a_limit_is_tested():
    assert TRAINERS.keys() == LIMITS.keys()


@pytest.mark.parametrize("format_name", TRAINERS)
def test_a_trainers_dataset_uses_as_many_records_as_validate_says(
    format_name: str, tokenizer_file: Path, theirs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path, kept = tmp_path / "rows.jsonl", tmp_path / "kept.jsonl"
    records = made(FORMATS[format_name].kind)
    write_records(path, records, format_name)
    flags = ["--tokenizer", str(tokenizer_file), "--seq-length", str(SEQ_LENGTH)]
    assert main(["validate", str(path), *flags]) == 1
    said = capsys.readouterr().out
    found = re.search(r"(\d+) of (\d+) records are used", said)
    assert found is not None
    predicted, total = map(int, found.groups())
    assert 3 <= predicted < total == len(records)

    name, uses = TRAINERS[format_name]
    ours = load_tokenizer(tokenizer_file)
    dataset = built(name, path, theirs)
    assert len(dataset) == len(records)
    order = list(range(len(records)))
    if name == "kto":
        # The class shuffles its rows with the seed that it is given.
        numpy.random.default_rng(seed=1).shuffle(order)
    used: set[int] = set()
    stops: list[int] = []
    for index, number in enumerate(order):
        try:
            if uses(dataset, index, ours.encode(texts_of(records[number], format_name))):
                used.add(number + 1)
        except IndexError:
            stops.append(number + 1)
    use = predict_use(path, format_name, tokenizer=ours, seq_length=SEQ_LENGTH)
    assert used == set(range(1, len(records) + 1)) - use.skipped
    assert len(used) == predicted
    # The reward model looks for a pair to take instead, and runs past the end of its data.
    assert stops == use.stops
    assert bool(stops) == (name == "rm") == ("the trainer stops at record" in said)

    # What the filter leaves is used, all of it.
    filter_file(path, kept, format_name, kind=UseReport, tokenizer=ours, seq_length=SEQ_LENGTH)
    assert main(["validate", str(kept), *flags]) == 0
    assert f"{predicted} of {predicted} records are used" in capsys.readouterr().out
    rows = [row for _, row in read_jsonl(path)]
    group = FORMATS[format_name].group
    expected = [row for number in sorted(used) for row in rows[(number - 1) * group : number * group]]
    assert [row for _, row in read_jsonl(kept)] == expected
    dataset = built(name, kept, theirs)
    assert len(dataset) == predicted
    if name != "kto":
        own = [ours.encode(texts_of(records[number - 1], format_name)) for number in sorted(used)]
        assert all(uses(dataset, index, ids) for index, ids in enumerate(own))
