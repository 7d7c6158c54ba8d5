# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a run file of Weights & Biases holds, by its own reader."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def _records(stored: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(stored))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        yield record


def _items(items: Any) -> dict[str, Any]:
    found = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
    return {key: value for key, value in found.items() if not key.startswith("_")}


def summary(stored: Path) -> dict[str, Any]:
    """The last value of each key of the summary."""
    return {key: value for record in _records(stored) for key, value in _items(record.summary.update).items()}


def history(stored: Path) -> list[dict[str, Any]]:
    """The logged rows."""
    return [row for record in _records(stored) if (row := _items(record.history.item))]
