# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai.conversation import Conversation
from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.dedup import drop_duplicates
from nemo_aligner_cai.data.formats import comparison_rows, prompt_row, validate_file
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly
from nemo_aligner_cai.data.split import assign_splits, parse_splits, record_prompt_id, split_counts, split_items
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import Balance, write_jsonl


def test_shares_that_add_up_in_decimals_are_accepted():
    for text in ("{'train': 0.8, 'test': 0.2}", "{'a': 0.7, 'b': 0.2, 'c': 0.1}", "{'a': 0.6, 'b': 0.3, 'c': 0.1}"):
        assert sum(parse_splits(text).values()) == 1
    assert parse_splits({"all": 1}) == {"all": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'a': 0.5, 'b': 0.4}", "they add up to 0.9"),
        ("{'a': 1.5, 'b': -0.5}", "share of 'b' must be positive"),
        ("{'a': 'x'}", "must be a number"),
        ("{'a': 'nan'}", "must be positive"),
        ("{}", "must look like"),
        ("[0.8, 0.2]", "must look like"),
        ("{'a': ", "must look like"),
        ("__import__('os')", "must look like"),
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


def test_fewer_prompts_than_splits_is_an_error_and_not_an_empty_file():
    with pytest.raises(UsageError, match="1 prompts cannot be split into train, test"):
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
    parts = split_items(items, parse_splits("{'train': 0.7, 'test': 0.3}"), seed=3, prompt_id=lambda item: item[0])
    train, test = ({prompt for prompt, _ in parts[name]} for name in ("train", "test"))
    assert train.isdisjoint(test)
    assert (len(train), len(test)) == (21, 9)
    assert sorted(parts["train"] + parts["test"]) == sorted(items)
    assert parts["train"] == [item for item in items if item[0] in train]


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


def test_duplicates_are_dropped_and_counted():
    balance = Balance()
    assert list(drop_duplicates("abcab", key=str, balance=balance, reason="twice")) == ["a", "b", "c"]
    balance.check()
    assert balance.left_out == {"twice": 2}


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


def test_blends_that_would_mix_or_lose_are_refused(tmp_path: Path):
    pairs = comparisons(tmp_path / "pairs.jsonl", 2)
    write_jsonl(tmp_path / "prompts.jsonl", [prompt_row(Conversation.of_user("Q"))])
    write_jsonl(tmp_path / "packed.jsonl.gz", [prompt_row(Conversation.of_user("Q"))])
    odd = tmp_path / "odd.jsonl"
    odd.write_bytes(b"".join(pairs.read_bytes().splitlines(keepends=True)[:3]))
    target = tmp_path / "out.jsonl"
    for sources, message in (
        ([], "nothing to blend"),
        ([pairs, tmp_path / "prompts.jsonl"], "different formats"),
        ([tmp_path / "packed.jsonl.gz"], "packed with gzip"),
    ):
        with pytest.raises(UsageError, match=message):
            blend_files(sources, target, seed=1)
    with pytest.raises(FormatError, match="odd number of rows"):
        blend_files([pairs, odd], target, seed=1)
    with pytest.raises(UsageError, match="one of the files to blend"):
        blend_files([pairs], pairs, seed=1, overwrite=True)
    assert not target.exists()
