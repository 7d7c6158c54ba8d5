# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.formats.files import read_records, validate_file
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly, Rated, record_id, record_prompt_id
from nemo_aligner_cai.data.split import (
    assign_splits,
    parse_splits,
    share_and_rest,
    split_counts,
    split_file,
)
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import RowCounts, write_jsonl
from tests.unit.nemo_rows import comparison_rows, prompt_row


def test_shares_that_add_up_in_decimals_are_accepted():
    for text in ("{'train': 0.8, 'test': 0.2}", "{'a': 0.7, 'b': 0.2, 'c': 0.1}", "{'a': 0.6, 'b': 0.3, 'c': 0.1}"):
        assert sum(parse_splits(text).values()) == 1
    assert parse_splits({"all": 1}) == {"all": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'a': 0.5, 'b': 0.4}", "--splits: .*0.9"),
        ("{'a': 1.5, 'b': -0.5}", "--splits: .*'b'.*-0.5"),
        ("{'a': 'x'}", "--splits: .*'x'"),
        ("{'a': 'nan'}", "--splits: .*nan"),
        ("{}", "--splits .*'train': 0.8"),
        ("[0.8, 0.2]", "--splits .*'train': 0.8"),
        ("{'a': ", "--splits .*'train': 0.8"),
        ("__import__('os')", "--splits .*'train': 0.8"),
    ],
)
def test_other_shares_are_refused(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        parse_splits(text)


@given(total=st.integers(3, 2000), cents=st.tuples(st.integers(1, 98), st.integers(1, 98)))
def test_counts_are_exact_to_less_than_one_and_none_is_empty(total: int, cents: tuple[int, int]):
    first, second = cents
    if first + second > 99:
        return
    shares = {"a": first / 100, "b": second / 100, "c": (100 - first - second) / 100}
    splits = parse_splits(shares)
    counts = split_counts(total, splits)
    assert sum(counts.values()) == total
    assert all(count >= 1 for count in counts.values())
    if all(share * total >= 1 for share in splits.values()):
        assert all(abs(counts[name] - splits[name] * total) < 1 for name in splits)


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_share_and_the_rest_are_all(share: float):
    one, rest = share_and_rest(share)
    assert float(one) == share and one + rest == 1 and rest > 0


def test_fewer_prompts_than_splits_is_an_error_and_not_an_empty_file():
    with pytest.raises(UsageError, match=r"1 prompts .*train, test"):
        assign_splits(["a"], parse_splits("{'train': 0.5, 'test': 0.5}"), seed=1)


def test_splits_depend_on_the_seed_and_not_on_the_order():
    splits = parse_splits("{'train': 0.8, 'test': 0.2}")
    ids = [f"id{i}" for i in range(100)]
    assigned = assign_splits(ids, splits, seed=1)
    assert Counter(assigned[name] for name in ids) == {"train": 80, "test": 20}
    assert assign_splits(reversed(ids), splits, seed=1) == assigned
    assert assign_splits(ids, splits, seed=2) != assigned


def test_no_prompt_is_in_two_splits():
    items = [(f"prompt{i % 30}", i) for i in range(100)]
    assigned = assign_splits((prompt for prompt, _ in items), parse_splits("{'train': 0.7, 'test': 0.3}"), seed=3)
    parts = {name: [item for item in items if assigned[item[0]] == name] for name in ("train", "test")}
    train, test = ({prompt for prompt, _ in parts[name]} for name in ("train", "test"))
    assert train.isdisjoint(test)
    assert (len(train), len(test)) == (21, 9)
    assert sorted(parts["train"] + parts["test"]) == sorted(items)


def test_records_of_one_prompt_share_its_id():
    prompt = Conversation.of_user("Q")
    ids = {
        record_prompt_id(record)
        for record in (
            PromptOnly(prompt, "x"),
            Comparison(prompt, "A", "B"),
            Chat(Conversation.from_messages([*prompt.to_messages(), {"role": "assistant", "content": "A"}])),
        )
    }
    assert len(ids) == 1


def test_a_file_is_split_by_prompt_with_its_pairs_and_loses_no_row(tmp_path: Path):
    source = comparisons(tmp_path / "pairs.jsonl", 20)
    source.write_bytes(source.read_bytes() * 3)
    targets = {name: tmp_path / f"{name}.jsonl.gz" for name in ("train", "test")}
    options = {"splits": parse_splits({"train": 0.8, "test": 0.2}), "seed": 1, "format_name": "rm-comparisons"}
    counts = RowCounts()
    assert split_file(source, targets, counts=counts, **options) == {"train": 96, "test": 24}
    counts.check()
    read = {name: list(read_records(target, counts=RowCounts())) for name, target in targets.items()}
    prompts = {name: {record_prompt_id(record) for record in records} for name, records in read.items()}
    assert prompts["train"].isdisjoint(prompts["test"]) and len(prompts["test"]) == 4
    assert Counter(read["train"] + read["test"]) == Counter(read_records(source, counts=RowCounts()))
    with pytest.raises(UsageError, match="already exists"):
        split_file(source, targets, counts=RowCounts(), **options)
    with pytest.raises(UsageError, match=r"train.*train, test"):
        split_file(source, {"train": tmp_path / "x"}, counts=RowCounts(), **options)
    with pytest.raises(UsageError, match="verl"):
        split_file(source, targets, counts=RowCounts(), **{**options, "format_name": "verl"})


def test_a_records_id_depends_on_its_verdict_and_not_on_its_dataset():
    good, bad = (Rated(Conversation.of_user("1"), "A", is_good, "x") for is_good in (True, False))
    assert record_id(good) != record_id(bad) and record_id(good) == record_id(replace(good, dataset="y"))


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path):
    for folder in ("cai", "hh"):
        (tmp_path / folder).mkdir()
        comparisons(tmp_path / folder / "train.jsonl", 2)
    sources = [tmp_path / "cai" / "train.jsonl", tmp_path / "hh" / "train.jsonl"]
    assert blend_files(sources, tmp_path / "out.jsonl", seed=1).rows == {"cai/train": 4, "hh/train": 4}


def comparisons(path: Path, count: int, dataset: str | None = None) -> Path:
    rows = [
        row
        for i in range(count)
        for row in comparison_rows(
            Conversation.of_user(f"{path.stem}{i}"), chosen="good", rejected="bad", dataset=dataset
        )
    ]
    write_jsonl(path, rows)
    return path


def test_pairs_stay_pairs_and_rows_say_where_they_come_from(tmp_path: Path):
    sources = [comparisons(tmp_path / "cai.jsonl", 30, "rl_cai"), comparisons(tmp_path / "hh.jsonl", 20)]
    target = tmp_path / "blend.jsonl"
    blend = blend_files(sources, target, seed=1)
    assert (blend.format, blend.rows) == ("rm-comparisons", {"rl_cai": 60, "hh": 40})
    assert validate_file(target).rows_in == 100
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert Counter(row["dataset"] for row in rows) == {"rl_cai": 60, "hh": 40}
    assert all("good" in row["text"] for row in rows[::2])
    origins = [row["dataset"] for row in rows]
    assert origins != sorted(origins) and origins != sorted(origins, reverse=True)
    written = Counter(row["text"] for row in rows)
    assert written == Counter(
        json.loads(line)["text"] for source in sources for line in source.read_text().splitlines()
    )


def test_the_order_depends_on_the_seed_alone(tmp_path: Path):
    sources = [comparisons(tmp_path / "a.jsonl", 30), comparisons(tmp_path / "b.jsonl", 20)]
    for name, seed in (("1", 7), ("2", 7), ("3", 8)):
        blend_files(sources, tmp_path / name, seed=seed)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert (tmp_path / "1").read_bytes() != (tmp_path / "3").read_bytes()


def test_weights_are_shares_and_nothing_stands_twice(tmp_path: Path):
    sources = [comparisons(tmp_path / "a.jsonl", 30), comparisons(tmp_path / "b.jsonl", 20)]
    target = tmp_path / "out.jsonl"
    blend = blend_files(sources, target, seed=1, weights=[0.3, 0.7])
    # 20 / 0.7 pairs at most, of which 0.3 are from a: 9 of its 30.
    assert (blend.rows, blend.skipped) == ({"a": 18, "b": 40}, 42)
    assert str(blend).startswith("58 rows of rm-comparisons (")
    assert str(blend).endswith("), 42 skipped by weight")
    rows = [json.loads(line)["text"] for line in target.read_text().splitlines()]
    assert len(set(rows)) == 58
    assert all("good" in text for text in rows[::2])
    again = tmp_path / "again.jsonl"
    blend_files(sources, again, seed=1, weights=[3, 7])
    assert again.read_bytes() == target.read_bytes()
    blend_files(sources, again, seed=2, weights=[3, 7], overwrite=True)
    assert {json.loads(line)["text"] for line in again.read_text().splitlines()} != set(rows)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, 0], [1, -1], [1, float("inf")], [1, float("nan")]])
def test_other_weights_are_refused(weights: list[float], tmp_path: Path):
    sources = [comparisons(tmp_path / "a.jsonl", 3), comparisons(tmp_path / "b.jsonl", 2)]
    with pytest.raises(UsageError, match=r"positive weight .* 2 files"):
        blend_files(sources, tmp_path / "out.jsonl", seed=1, weights=weights)
    with pytest.raises(UsageError, match=r"a\.jsonl: "):
        blend_files(sources, tmp_path / "out.jsonl", seed=1, weights=[0.01, 1])


def test_blends_that_would_mix_or_lose_are_refused(tmp_path: Path):
    pairs = comparisons(tmp_path / "pairs.jsonl", 2)
    write_jsonl(tmp_path / "prompts.jsonl", [prompt_row(Conversation.of_user("Q"))])
    write_jsonl(tmp_path / "packed.jsonl.gz", [prompt_row(Conversation.of_user("Q"))])
    odd = tmp_path / "odd.jsonl"
    odd.write_bytes(b"".join(pairs.read_bytes().splitlines(keepends=True)[:3]))
    target = tmp_path / "out.jsonl"
    for sources, message in (
        ([], "blend"),
        ([pairs, tmp_path / "prompts.jsonl"], "rm-comparisons.*ppo-prompts"),
        ([tmp_path / "packed.jsonl.gz"], "packed.jsonl.gz: .*gzip"),
    ):
        with pytest.raises(UsageError, match=message):
            blend_files(sources, target, seed=1)
    with pytest.raises(FormatError, match=r"odd.jsonl:3: "):
        blend_files([pairs, odd], target, seed=1)
    with pytest.raises(UsageError, match=r"pairs.jsonl: "):
        blend_files([pairs], pairs, seed=1, overwrite=True)
    assert not target.exists()
