# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What tests of generate_rl_cai_dataset.py have in common: its input, a policy and judges that are functions."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemo_aligner_cai.commands.generate.rl_cai import main
from nemo_aligner_cai.models.scoring.choice_scorer import PROBE_TEXT
from tests.unit.fake_servers import FakeNemo, FakeOpenAI, FakeServer


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def policy(prompt: str, rng: random.Random | None) -> str:
    return f"thought number {rng.randrange(10**6) if rng else 0} of them."


def numbers_in(text: str) -> list[int]:
    """The numbers of the candidates in a judge's question, in their order."""
    return [int(line.split("thought number ")[1].split()[0]) for line in text.splitlines() if "thought number" in line]


def judge(body: dict[str, Any]) -> str:
    """Prefers the higher number, and says so as upstream's prompt asks."""
    numbers = numbers_in(body["messages"][-1]["content"])
    if not numbers:
        return "Hello."
    best, worst = numbers.index(max(numbers)) + 1, numbers.index(min(numbers)) + 1
    return f'{{"chosen": {best}, "rejected": {worst}}}\nBecause it is higher.'


def _contents(body: dict[str, Any]) -> list[str]:
    return [message["content"] for message in reversed(body["messages"])]


def scoring_judge(p: float = 0.9, *, logprobs: bool = True) -> Callable[[dict[str, Any]], Any]:
    """A server that prefers the higher number with probability `p`; without log-probabilities it says so each time."""

    def reply(body: dict[str, Any]) -> Any:
        numbers = next((some for some in map(numbers_in, _contents(body)) if some), [])
        first = p if numbers[:1] > numbers[1:2] else 1 - p
        if not (body.get("logprobs") and logprobs):
            return "(A)" if first > 0.5 else "(B)"
        scores = [{"token": f"({x})", "logprob": math.log(q)} for x, q in (("A", first), ("B", 1 - first))]
        token = max(scores, key=lambda score: score["logprob"]) | {"top_logprobs": scores}
        return {
            "message": {"content": token["token"]},
            "finish_reason": "stop",
            "logprobs": {"content": [token]},
        }

    return reply


def red_team_flags(folder: Path, prompts: int = 20) -> list[str]:
    """Flags of a run on so many red-team prompts, with its output under `folder`."""
    red = folder / "red.jsonl"
    transcripts = [f"\n\nHuman: bad thing {n} 中文\n\nAssistant: So." for n in range(prompts)]
    red.write_text("".join(json.dumps({"transcript": text}) + "\n" for text in transcripts))
    return ["--batch-size", "8", "--red-teaming-file-path", str(red), "--output-dir", str(folder / "out")]


def questions_to(server: FakeServer) -> list[dict[str, Any]]:
    """What a judge was asked, but for the questions by which a client finds out how the server can be asked."""
    return [body for body in server.bodies if body["messages"][0]["content"] != PROBE_TEXT]


def run(flags: list[str], server: FakeNemo, judge_server: FakeOpenAI | None, *more: str) -> int:
    """The command's exit code, with these servers as policy and judge."""
    where = ["--ngc-url", f"http://127.0.0.1:{judge_server.port}/v1/chat/completions"] if judge_server else []
    return main([*flags, "--host", "127.0.0.1", "--port", str(server.port), *where, *more])
