# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts per second on NeMo's real text-generation server, against upstream's way of asking it.

The server works on one batch at a time, under a lock. Both drivers take the same prompts through answer, critique and
revision with the tiny assistant, in turns (A B A B), on the same server:

    ours      `generate_revisions` with journal and outputs
    upstream  one request at a time, each on a connection of its own; all answers of a batch, then all critiques, then
              all revisions; after each batch the whole result is written again
"""

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.table import Figure, show
from benchmarks.workload import CALLS, SEED, revise
from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.constitution import load_constitution
from nemo_aligner_cai.constitution.prompt_templates import load_prompt_templates
from nemo_aligner_cai.engine.engine import SkipRecord, Step
from nemo_aligner_cai.engine.seeds import derive_seed
from nemo_aligner_cai.models import Completion, NemoServerClient, Sampling, ScriptedClient
from nemo_aligner_cai.packaged_files import CONSTITUTION, MODEL
from nemo_aligner_cai.pipeline.serving.servers import HOST, ask
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.stages.revisions import RevisionPipeline, RevisionSample
from nemo_aligner_cai.tiny.data import TRAIN
from nemo_aligner_cai.tiny.language import language
from nemo_aligner_cai.training.config import quoted
from nemo_aligner_cai.training.launch import jobs

RATIO = 1.2
_SAMPLING = Sampling(temperature=1.0, max_tokens=40)
"""That of the quickstart."""
_SEED_BITS = 0xFFFFFF
_DUE = 0.98
"""Share of all calls that a run has to make: an empty answer ends its prompt's chain, for both drivers."""


@dataclass
class Runs:
    """One driver's runs: seconds of each, and what its requests took."""

    seconds: list[float] = field(default_factory=list[float])
    requests: list[float] = field(default_factory=list[float])

    def rate(self, rows: int) -> float:
        """Prompts per second, of all runs together."""
        return rows * len(self.seconds) / sum(self.seconds)


def ours(port: int, prompts: Sequence[Prompt], batch: int) -> None:
    """This package."""
    client = NemoServerClient(HOST, port, model="tiny", batch_size=batch)
    with tempfile.TemporaryDirectory() as folder:
        work = revise(
            prompts,
            client,
            Path(folder),
            sampling=_SAMPLING,
            principles=load_constitution(CONSTITUTION),
            wording=load_prompt_templates(CONSTITUTION),
        )
        summary = ask(work)
    if summary.failed or summary.calls < _DUE * CALLS * len(prompts):
        raise RuntimeError(f"{CALLS * len(prompts)} calls were due, {summary.calls} answered, {summary.failed} failed")


class Upstream:
    """Upstream's way. The steps are the package's, so that both ask the same; how they are sent is upstream's."""

    def __init__(self, port: int, took: list[float]) -> None:
        """`took` receives the seconds of each request."""
        self._port, self._took = port, took
        constitution, wording = load_constitution(CONSTITUTION), load_prompt_templates(CONSTITUTION)
        self._steps = RevisionPipeline(ScriptedClient(), constitution, (), wording, _SAMPLING, SEED).steps()

    def run(self, prompts: Sequence[Prompt], batch: int, result: Path) -> None:
        """Take the prompts through the steps, batch by batch."""
        done: list[RevisionSample] = []
        for start in range(0, len(prompts), batch):
            records = list(map(RevisionSample, prompts[start : start + batch]))
            for step in self._steps:
                records = self._take(step, records, derive_seed(SEED, start, step.name) & _SEED_BITS)
            done += records
            rows = [{"prompt": record.prompt.conversation.to_messages(), "revision": record.latest} for record in done]
            result.write_text(json.dumps(rows), encoding="utf-8")

    def _take(self, step: Step[RevisionSample], records: Sequence[RevisionSample], seed: int) -> list[RevisionSample]:
        requests = [step.requests(record)[0] for record in records]
        body = {
            "sentences": [NEMO_CHAT.generation_prompt(request.conversation) for request in requests],
            "tokens_to_generate": _SAMPLING.max_tokens,
            "min_tokens_to_generate": _SAMPLING.min_tokens,
            "temperature": _SAMPLING.temperature,
            "add_BOS": False,
            "top_k": _SAMPLING.top_k,
            "top_p": _SAMPLING.top_p,
            "greedy": False,
            "all_probs": False,
            "repetition_penalty": _SAMPLING.repetition_penalty,
            "end_strings": [*NEMO_CHAT.stop, "<|endoftext|>"],
            "random_seed": seed,
        }
        sentences = self._put(body)["sentences"]
        taken: list[RevisionSample] = []
        for record, request, sentence in zip(records, requests, sentences, strict=True):
            text = NEMO_CHAT.extract_reply(sentence, request.conversation)
            try:
                taken.append(step.absorb(record, [Completion(text, "stop")]))
            except SkipRecord:
                continue
        return taken

    def _put(self, body: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        connection = http.client.HTTPConnection(HOST, self._port, timeout=600)
        try:
            connection.request("PUT", "/generate", json.dumps(body), {"Content-Type": "application/json"})
            answer = json.load(connection.getresponse())
        finally:
            connection.close()
        self._took.append(time.monotonic() - started)
        return answer


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.nemo_lock", description="NeMo's server, under its lock."
    )
    parser.add_argument("--rows", type=int, default=320, help="prompts of a run (default: 320)")
    parser.add_argument("--batch", type=int, default=64, help="sentences per request (default: 64)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each driver, in turns (default: 3)")
    args = parser.parse_args()
    requests = language().distinct_requests(SEED, TRAIN, args.rows * args.rounds, harmful=True)
    prompts = [Prompt.of(request.conversation) for request in requests]
    port, mine, theirs = jobs.free_port(), Runs(), Runs()
    overrides = [f"gpt_model_file={quoted(MODEL)}", f"host={HOST}", f"port={port}"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        with jobs.server(
            "nemo_aligner_cai.training.inference_server", overrides, log, [f"http://{HOST}:{port}/health"]
        ):
            upstream = Upstream(port, theirs.requests)
            upstream.run(prompts[: args.batch], args.batch, Path(folder, "warm.json"))
            theirs.requests.clear()
            for start in range(0, len(prompts), args.rows):
                asked = prompts[start : start + args.rows]
                started = time.monotonic()
                ours(port, asked, args.batch)
                mine.seconds.append(time.monotonic() - started)
                started = time.monotonic()
                upstream.run(asked, args.batch, Path(folder, "upstream.json"))
                theirs.seconds.append(time.monotonic() - started)
    return show(
        "NeMo's /generate, one batch at a time", _figures(mine, theirs, args.rows, args.batch), notes=_notes(args)
    )


def _figures(mine: Runs, theirs: Runs, rows: int, batch: int) -> list[Figure]:
    ratio = mine.rate(rows) / theirs.rate(rows)
    by_round = ", ".join(f"{b / a:.2f}" for a, b in zip(mine.seconds, theirs.seconds, strict=True))
    batches = len(mine.seconds) * CALLS * -(-rows // batch)
    waiting = 1 - sum(theirs.requests) / sum(theirs.seconds)
    return [
        Figure("ours against upstream's way", f"{ratio:.2f} ({by_round})", f">= {RATIO}", ratio >= RATIO),
        Figure("ours", f"{mine.rate(rows):.1f} prompts/s"),
        Figure("upstream's way", f"{theirs.rate(rows):.1f} prompts/s"),
        Figure("ours: time per full batch", f"{1e3 * sum(mine.seconds) / batches:.0f} ms"),
        Figure("upstream's way: time of a request, median", f"{1e3 * statistics.median(theirs.requests):.0f} ms"),
        Figure("upstream's way: server without a request", f"{waiting:.1%} of the time"),
    ]


def _notes(args: argparse.Namespace) -> list[str]:
    return [
        f"{args.rounds} rounds of {args.rows} prompts x {CALLS} calls, batches of {args.batch}; tiny assistant, CPU",
        "the ratio's limit: only time that the server spends without work, or on sentences that are done, can be won",
    ]


if __name__ == "__main__":
    sys.exit(main())
