# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of pairs by a reward model that is served: NeMo-Aligner's reward server, or PPO's critic if it holds both.

Input:  Comparison(prompt, chosen="No, because ...", rejected="Take a ...")
Output: {"prompt": [...], "chosen": "No, because ...", "rejected": "Take a ...", "chosen_score": 5.6,
         "rejected_score": -1.3}, which `reward_scores` reads

The requests are JSON of KServe's inference protocol, version 2: POST http://HOST:PORT/v2/models/NAME/infer.
"""

import http.client
import math
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.data.formats.all_formats import FORMATS
from nemo_aligner_cai.data.formats.files import read_groups
from nemo_aligner_cai.data.records import Comparison
from nemo_aligner_cai.errors import CaiError, FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row, RowCounts

_MODELS = ("reward_model", "critic_infer")
"""Names of the models with rewards, in upstream's two servers."""
_PAIRS = 32
"""Pairs in one request."""
_TIMEOUT_S = 600.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RewardServer:
    """A reward model at an address."""

    def __init__(self, host: str, port: int) -> None:
        """Find the server's model; raises UsageError if none of its models gives rewards."""
        self._address = address = f"{host}:{port}"
        self._url = next((url for url in self._urls() if self._has_rewards(url)), None)
        if self._url is None:
            raise UsageError(f"{address}: no reward model answers there; its name would be {' or '.join(_MODELS)}")

    def _urls(self) -> Iterator[str]:
        return (f"http://{self._address}/v2/models/{name}" for name in _MODELS)

    def _has_rewards(self, url: str) -> bool:
        try:
            return any(output["name"] == "rewards" for output in _answer(url)["outputs"])
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return False

    def scores(self, texts: Sequence[str]) -> list[float]:
        """Return the reward of each text.

        Raises:
            CaiError: the server fails, or its answer has another number of rewards, or one that is not finite.
        """
        body = {
            "inputs": [{"name": "sentences", "shape": [len(texts), 1], "datatype": "BYTES", "data": list(texts)}],
            "outputs": [{"name": "rewards"}],
        }
        try:
            [output] = _answer(f"{self._url}/infer", orjson.dumps(body))["outputs"]
            scores = [float(score) for score in output["data"]]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise CaiError(f"the reward model at {self._address} gave no rewards: {error}") from error
        if len(scores) != len(texts) or not all(map(math.isfinite, scores)):
            raise CaiError(f"the reward model at {self._address} gave {len(scores)} rewards for {len(texts)} texts")
        return scores


def read_pairs(path: PathLike) -> Iterator[Comparison]:
    """Read pairs of a chosen and a rejected reply in any format of `data.formats`.

    Raises:
        UsageError: the file cannot be read, or holds other rows.
        FormatError: a row is invalid.
    """
    for group in read_groups(path, counts=RowCounts()):
        if not isinstance(group.record, Comparison):
            raise FormatError.at(group.file, group.line, "not a pair of a chosen and a rejected reply")
        yield group.record


def scored_pairs(pairs: Iterable[Comparison], server: RewardServer) -> Iterator[Row]:
    """Yield each pair with its scores. Its texts are rendered with NeMo's chat template."""
    batch: list[Comparison] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == _PAIRS:
            yield from _scored(batch, server)
            batch = []
    if batch:
        yield from _scored(batch, server)


def _scored(pairs: Sequence[Comparison], server: RewardServer) -> Iterator[Row]:
    texts = [row["text"] for pair in pairs for row in FORMATS["rm-comparisons"].write(pair, NEMO_CHAT)]
    scores = iter(server.scores(texts))
    for pair in pairs:
        replies = {"prompt": pair.prompt.to_messages(), "chosen": pair.chosen, "rejected": pair.rejected}
        yield replies | {"chosen_score": next(scores), "rejected_score": next(scores)}


def _answer(url: str, body: bytes | None = None) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
        return orjson.loads(answer.read())
