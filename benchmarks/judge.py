# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""How full a judge's server is kept, and whether policy and judge work at the same time.

Two drivers put the same questions, two orders of each pair, to a stand-in of their own whose prefix cache is cold. The
bodies are the same to the byte, so the model writes the same tokens:

    ours         `generate_comparisons` with journal and outputs; the candidates cost no time
    closed loop  as many workers as slots; each takes the next pair in one order and makes its calls

Chain of thought writes a reasoning and then a choice, in a quarter of the time that a real server takes. Multiple
choice writes a choice alone: a call is ten times shorter, and takes its real time.

Then one run samples from a first stand-in and judges on a second one, with about as many tokens to write on each.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from benchmarks.slots import Job, Tally
from benchmarks.standin import standin
from benchmarks.standin.replies import words
from benchmarks.table import Figure, show
from benchmarks.workload import SAMPLING, SEED, constitution, prompts
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.engine.seeds import derive_seed
from nemo_aligner_cai.judges.base import Answer, Judge, JudgeInput
from nemo_aligner_cai.judges.chain_of_thought import chain_of_thought
from nemo_aligner_cai.judges.multiple_choice import multiple_choice
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.judges.steps import PreferenceSample
from nemo_aligner_cai.models import Completion, ModelClient, OpenAIClient, Request, ScriptedClient
from nemo_aligner_cai.models.scoring.choice_scorer import CONTINUE, PROBE, scoring_body
from nemo_aligner_cai.models.scoring.choice_scores import choice_logprobs
from nemo_aligner_cai.stages.comparisons import ComparisonPipeline, generate_comparisons

RATIO = 0.92
OVERLAP = 0.9
_TEMPERATURES = (1.0, 1.0)
_CANDIDATE_TOKENS = 120


STRATEGIES = {"chain of thought": (chain_of_thought, 0.25), "multiple choice": (multiple_choice, 1.0)}
"""What is measured, and the part of a real server's times that its server takes (a decode step of 20 ms)."""


def judge(strategy: str, *, both_orders: bool = True) -> Judge:
    """A strategy that is measured."""
    make, _ = STRATEGIES[strategy]
    return make(JudgeSettings(constitution=constitution(), seed=SEED, pairs="one", both_orders=both_orders))


def server_options(slots: int, strategy: str) -> tuple[str, ...]:
    """The stand-in's."""
    return ("--slots", str(slots), "--time-scale", str(STRATEGIES[strategy][1]))


def candidate(request: Request) -> str:
    """A response that costs no time; each seed has its own."""
    return words(blake2b(str(request.sampling.seed).encode(), digest_size=16).digest(), _CANDIDATE_TOKENS)


async def ours(policy: ModelClient, judge_url: str, job: Job, strategy: str) -> None:
    """This package."""
    judge_model = OpenAIClient(judge_url, "standin", concurrency=job.slots)
    try:
        with tempfile.TemporaryDirectory() as folder:
            await generate_comparisons(
                prompts(job.rows, first=job.first),
                ComparisonPipeline(policy, judge_model, judge(strategy), SAMPLING, _TEMPERATURES, SEED),
                out_path=Path(folder, "comparisons.jsonl"),
                journal_path=Path(folder, "comparisons.journal.jsonl"),
                run=RunSettings(seed=SEED),
            )
    finally:
        await policy.close()
        await judge_model.close()


def free_policy(slots: int) -> ScriptedClient:
    """A policy that answers at once."""
    return ScriptedClient(candidate, concurrency=slots, remember=False)


def cases(job: Job) -> Iterator[JudgeInput]:
    """Each pair in each order, as a case of its own."""
    client = ScriptedClient()
    sample = ComparisonPipeline(client, client, judge("multiple choice"), SAMPLING, _TEMPERATURES, SEED).steps()[0]
    for prompt in prompts(job.rows, first=job.first):
        record = PreferenceSample(prompt)
        asked = [
            request.scheduled(seed=derive_seed(SEED, record.id, sample.name, number), priority=0)
            for number, request in enumerate(sample.requests(record))
        ]
        record = sample.absorb(record, [Completion(candidate(request), "stop") for request in asked])
        yield record.judge_input
        yield replace(record.judge_input, candidates=record.judge_input.candidates[::-1])


async def closed_loop(url: str, job: Job, strategy: str) -> None:
    """Workers without anything between them: no journal, no retries, nothing counted."""
    one_order = judge(strategy, both_orders=False)
    everything = cases(job)

    async def ask(session: aiohttp.ClientSession, request: Request) -> Completion:
        body: dict[str, Any] = {"model": "standin"}
        if request.choices:
            body |= scoring_body(CONTINUE, request)
        else:
            body |= {"messages": request.messages, "max_tokens": request.sampling.max_tokens, "temperature": 0.0}
        async with session.post(f"{url}/chat/completions", data=orjson.dumps(body)) as response:
            said = orjson.loads(await response.read())["choices"][0]
        scores = choice_logprobs(said["logprobs"], request.choices, "(") if request.choices else None
        return Completion(said["message"]["content"], said["finish_reason"], choice_logprobs=scores)

    async def work(session: aiohttp.ClientSession) -> None:
        for case in everything:
            told: list[list[Answer]] = []
            while asked := one_order.questions(case, told):
                told.append([Answer(question, await ask(session, question.request)) for question in asked])

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        # The client asks it once, to find out how the server scores choices.
        await ask(session, PROBE)
        await asyncio.gather(*[work(session) for _ in range(job.slots)])


def throughput(args: argparse.Namespace, strategy: str) -> list[Figure]:
    """Ours against the closed loop."""
    tallies = {"ours": Tally(), "closed loop": Tally()}
    for number in range(args.repeats):
        job = Job(number * args.rows, args.rows, args.slots)
        for name in tallies:
            with standin(*server_options(args.slots, strategy)) as server:
                if name == "ours":
                    asyncio.run(ours(free_policy(args.slots), server.url, job, strategy))
                else:
                    asyncio.run(closed_loop(server.url, job, strategy))
                tallies[name] = tallies[name].plus(server.stats())
    mine, theirs = tallies["ours"], tallies["closed loop"]
    if (mine.prompt_tokens, mine.written_tokens) != (theirs.prompt_tokens, theirs.written_tokens):
        raise RuntimeError(f"the drivers did not send the same requests: {tallies}")
    ratio = theirs.makespan / mine.makespan
    return [
        Figure(f"{strategy}: ours against the closed loop", f"{ratio:.1%}", f">= {RATIO:.0%}", ratio >= RATIO),
        *(
            Figure(f"{strategy}, {name}: slots in use", f"{tally.busy / (args.slots * tally.makespan):.1%}")
            for name, tally in tallies.items()
        ),
        Figure(f"{strategy}, ours: verdicts", f"{2 * args.repeats * args.rows / mine.makespan:,.0f}/s"),
    ]


def overlap(args: argparse.Namespace, strategy: str = "chain of thought") -> list[Figure]:
    """Both at once: the share of the shorter one's time in which the other one works too."""
    job = Job(0, args.rows, args.slots)
    options = server_options(args.slots, strategy)
    with standin(*options) as policy, standin(*options) as judge_server:
        started = time.monotonic()
        client = OpenAIClient(policy.url, "standin", concurrency=args.slots)
        asyncio.run(ours(client, judge_server.url, job, strategy))
        seconds = time.monotonic() - started
        spans = {"policy": policy.stats(), "judge": judge_server.stats()}
    makespans = [stats["makespan"] for stats in spans.values()]
    share = (sum(makespans) - seconds) / min(makespans)
    return [
        Figure("policy and judge at work at the same time", f"{share:.1%}", f">= {OVERLAP:.0%}", share >= OVERLAP),
        *(Figure(f"both: slots of the {name} in use", f"{stats['utilization']:.1%}") for name, stats in spans.items()),
    ]


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge", description="How busy a judge is kept.")
    parser.add_argument("--rows", type=int, default=768, help="prompts, two verdicts each (default: 768)")
    parser.add_argument("--slots", type=int, default=64, help="of a server, and requests in flight (default: 64)")
    parser.add_argument("--repeats", type=int, default=2, help="rounds, each with other prompts (default: 2)")
    args = parser.parse_args()
    figures = [figure for strategy in STRATEGIES for figure in throughput(args, strategy)]
    figures += overlap(args)
    notes = [
        f"{args.repeats} x {args.rows} prompts, one pair each in both orders, {args.slots} slots",
        "decode step 5 ms (multiple choice: 20 ms), reasonings log-normal: median 120 tokens, sigma 0.8, at most 1024",
    ]
    return show("A judge's server", figures, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
