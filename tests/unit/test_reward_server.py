# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of a served reward model: `cai accuracy --reward-server` on a server that speaks Triton's protocol."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.cli import main
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.known_answers.reward_server import RewardServer
from nemo_aligner_cai.files import read_jsonl, write_jsonl

Reward = Callable[[str], float]
PAIRS = [{"prompt": f"question {n}", "chosen": "no" * (1 + n % 5), "rejected": "yes" * (1 + n % 3)} for n in range(45)]


@contextmanager
def served(
    reward: Reward, *, model: str = "critic_infer", outputs: tuple[str, ...] = ("values", "rewards")
) -> Iterator[tuple[int, list[list[str]]]]:
    """A reward model: yields its port, and the texts of each request."""
    asked: list[list[str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"outputs": [{"name": name} for name in outputs]} if self.path.endswith(model) else None)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            [sentences] = body["inputs"]
            assert self.path == f"/v2/models/{model}/infer" and body["outputs"] == [{"name": "rewards"}]
            assert (sentences["name"], sentences["datatype"]) == ("sentences", "BYTES")
            assert sentences["shape"] == [len(sentences["data"]), 1]
            asked.append(sentences["data"])
            self._answer({"outputs": [{"name": "rewards", "data": [reward(text) for text in sentences["data"]]}]})

        def _answer(self, answer: Any) -> None:
            payload = json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.server_address[1], asked
        server.shutdown()


@pytest.mark.parametrize("model", ["reward_model", "critic_infer"])
def test_pairs_are_scored_and_measured(tmp_path: Path, model: str) -> None:
    file, scores, figures = (tmp_path / name for name in ("pairs.jsonl", "scores.jsonl", "figures.json"))
    write_jsonl(file, PAIRS)
    command = ["accuracy", str(file), "--scores", str(scores), "--json", str(figures)]
    with served(lambda text: -len(text) / 10, model=model) as (port, asked):
        assert main([*command, "--reward-server", f"127.0.0.1:{port}"]) == 0
    texts = [text for request in asked for text in request]
    assert len(texts) == 2 * len(PAIRS) and max(map(len, asked)) == 64
    prompt = Conversation.of_user("question 0")
    assert texts[0] == NEMO_CHAT.render(prompt.with_turn(Role.ASSISTANT, "no"))
    rows = [row for _, row in read_jsonl(scores)]
    assert [(row["chosen"], row["rejected"]) for row in rows] == [(one["chosen"], one["rejected"]) for one in PAIRS]
    assert [row["chosen_score"] for row in rows] == [-len(text) / 10 for text in texts[::2]]
    # The shorter reply has the higher reward, so the longer one is never preferred.
    found = json.loads(figures.read_text())
    shorter = sum(len(one["chosen"]) < len(one["rejected"]) for one in PAIRS) / len(PAIRS)
    assert found["accuracy"]["value"] == shorter
    assert found["length"]["longer_preferred"]["value"] == 0
    assert main(["accuracy", str(scores), "--json", str(figures), "--overwrite"]) == 0, "the scores can be read again"


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"outputs": ("values",)}, 2, "no reward model"),
        ({"model": "other"}, 2, "no reward model"),
        ({"reward": lambda text: float("nan")}, 1, "rewards"),
    ],
)
def test_a_server_without_rewards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: dict[str, Any], code: int, said: str
) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    command = ["accuracy", str(tmp_path / "pairs.jsonl"), "--scores", str(tmp_path / "scores.jsonl")]
    with served(**{"reward": lambda text: 0.0, **given}) as (port, _):
        assert main([*command, "--reward-server", f"127.0.0.1:{port}"]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "scores.jsonl").exists()


def test_a_server_that_fails(tmp_path: Path) -> None:
    with served(lambda text: 0.0) as (port, _):
        server = RewardServer("127.0.0.1", port)
    with pytest.raises(CaiError, match=f"127.0.0.1:{port}"):
        server.scores(["text"])


@pytest.mark.parametrize(
    "flags",
    [
        ["--reward-server", "127.0.0.1:1"],
        ["--scores", "scores.jsonl"],
        ["--reward-server", "127.0.0.1", "--scores", "scores.jsonl"],
    ],
)
def test_flags_that_do_not_belong_together(tmp_path: Path, flags: list[str]) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    assert main(["accuracy", str(tmp_path / "pairs.jsonl"), *flags]) == 2


def test_rows_that_are_no_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "question"}])
    command = ["accuracy", str(tmp_path / "prompts.jsonl"), "--scores", str(tmp_path / "scores.jsonl")]
    with served(lambda text: 0.0) as (port, _):
        assert main([*command, "--reward-server", f"127.0.0.1:{port}"]) == 2
    assert "prompts.jsonl:1" in capsys.readouterr().err
