# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Queue of requests for NeMo's generation, which runs one batch at a time.

Requests share a batch if they have the same sampling and no seed: NeMo draws a whole batch with one seed. Lengths and
free memory are checked before a batch starts.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from nemo_aligner_cai.training.serving.calls import GenerateCall
from nemo_aligner_cai.training.serving.memory import context_length, fits
from nemo_aligner_cai.training.serving.messages import MOST_ROWS
from nemo_aligner_cai.training.serving.request_body import RequestError
from nemo_aligner_cai.training.serving.strategy import BatchRules, BatchState, RowStrategy, Scored

_log = logging.getLogger(__name__)
_SEED_BITS = 0xFFFFFF
"""NeMo broadcasts the seed in single precision, which holds 24 bits."""
_MOST_PROBS = 1 << 24
"""Probabilities in an answer with `all_probs`."""
_CHARACTERS_PER_TOKEN = 256
"""No tokenizer has longer tokens: longer texts are refused without tokenizing them."""
_TEXT_END = "<|endoftext|>"
"""NeMo's name of the end-of-text token."""


@dataclass(frozen=True)
class SamplingSettings:
    """Sampling settings; only rows with equal ones share a batch."""

    greedy: bool
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_tokens: int = 0
    penalty: float = 1.0
    logprobs: int | None = None
    echo: bool = False


@dataclass(frozen=True)
class Row:
    """One reply to generate: the prompt's token ids, the most new tokens, and the stop strings."""

    prompt: tuple[int, ...]
    limit: int
    stops: tuple[str, ...]


@dataclass
class GeneratedRow:
    """A generated row.

    Attributes:
        tokens: after the prompt, without the token that ended the row.
        ended: a token ended the row before its limit.
        count: generated tokens, including the one that ended the row.
        scored: recorded tokens by their position in the row.
    """

    tokens: list[int]
    ended: bool
    count: int
    scored: dict[int, Scored]


@dataclass
class _Job:
    rows: Sequence[Row]
    sampling: SamplingSettings
    seed: int | None
    progress: Callable[[int, Sequence[int]], None] | None
    cancelled: threading.Event = field(default_factory=threading.Event)
    result: Future[list[GeneratedRow]] = field(default_factory=Future[list[GeneratedRow]])


@dataclass
class _NemoJob:
    """A call of NeMo's own `/generate`."""

    work: Callable[[], dict[str, Any]]
    result: Future[dict[str, Any]] = field(default_factory=Future[dict[str, Any]])


class Engine:
    """Runs generation in a thread."""

    def __init__(
        self, model: Any, strategy: RowStrategy, announce: Callable[[BatchRules | None], None], length: int | None
    ) -> None:
        """Start the thread.

        Args:
            model: a MegatronGPTModel in evaluation mode.
            strategy: the generation strategy of the model.
            announce: announces a batch to the other ranks.
            length: the most tokens of prompt and reply together; None for the model's context length.
        """
        self._model = model
        self._strategy = strategy
        self._announce = announce
        self._alone = torch.distributed.get_world_size() == 1
        self._waiting: deque[_Job | _NemoJob] = deque()
        self._changed = threading.Condition()
        self.positions = length or context_length(model.cfg)
        self.bos = int(model.tokenizer.bos_id)
        self.vocabulary = int(model.tokenizer.vocab_size)
        threading.Thread(target=self._run, name="generation", daemon=True).start()

    def tokenize(self, text: str, where: str) -> list[int]:
        """The token ids of a text; raises RequestError if it is empty or too long."""
        self.check_text(text, where)
        ids: list[int] = list(self._model.tokenizer.text_to_ids(text))
        self.check_prompt(ids, where)
        return ids

    def check_text(self, text: str, where: str) -> None:
        """Raise RequestError for a text that is certainly too long."""
        if len(text) > _CHARACTERS_PER_TOKEN * self.positions:
            raise self._too_long(where, f"{len(text)} characters")

    def check_prompt(self, ids: Sequence[int], where: str) -> None:
        """Raise RequestError for a prompt without tokens, or with more tokens than positions."""
        if not ids:
            raise RequestError(400, f"{where} is empty: there is no token to begin with", param=where)
        if len(ids) > self.positions:
            raise self._too_long(where, f"{len(ids)} tokens")

    def room(self, prompt: Sequence[int]) -> int:
        """The most tokens after a prompt. The last one needs no position."""
        return self.positions + 1 - len(prompt)

    def _too_long(self, where: str, length: str) -> RequestError:
        message = f"{where} has {length}, and the model's length is {self.positions} tokens"
        return RequestError(400, message, param=where, code="context_length_exceeded")

    def generate(self, rows: Sequence[Row], sampling: SamplingSettings, seed: int | None) -> list[GeneratedRow]:
        """Generate rows, possibly in a batch with other requests; raises RequestError."""
        return self._enqueue(rows, sampling, seed).result.result()

    def stream(
        self, rows: Sequence[Row], sampling: SamplingSettings, seed: int | None
    ) -> Iterator[tuple[int, list[int]] | list[GeneratedRow]]:
        """Generate rows; yields (row, tokens so far), and at the end the result of `generate`."""
        updates: queue.SimpleQueue[tuple[int, list[int]] | None] = queue.SimpleQueue()
        job = self._enqueue(rows, sampling, seed, lambda row, ids: updates.put((row, list(ids))))
        job.result.add_done_callback(lambda _: updates.put(None))

        def steps() -> Iterator[tuple[int, list[int]] | list[GeneratedRow]]:
            try:
                while (step := updates.get()) is not None:
                    yield step
                yield job.result.result()
            finally:
                # The client has disconnected, or has received everything.
                job.cancelled.set()

        return steps()

    def nemo_generate(
        self, call: GenerateCall, prompts: Sequence[Sequence[int]], stops: Sequence[str]
    ) -> dict[str, Any]:
        """NeMo's own response to a request of `/generate`; raises RequestError.

        Args:
            call: the request.
            prompts: its sentences as token ids.
            stops: strings that end a sentence.
        """
        longest = max(map(len, prompts))
        tokens = min(call.tokens_to_generate, self.positions + 1 - longest)
        total = longest + tokens
        if call.all_probs and len(prompts) * total * self._model.padded_vocab_size > _MOST_PROBS:
            raise RequestError(
                413,
                f"all_probs: {len(prompts)} sentences of {total} tokens have more than {_MOST_PROBS} probabilities; "
                "send fewer sentences",
                param="all_probs",
            )
        self._check_memory(len(prompts), total, call.compute_logprob)

        def work() -> dict[str, Any]:
            return self._nemo(
                prompts,
                tokens,
                None,
                None,
                all_probs=call.all_probs,
                temperature=call.temperature,
                top_k=call.top_k,
                top_p=call.top_p,
                greedy=call.greedy,
                compute_logprob=call.compute_logprob,
                repetition_penalty=call.repetition_penalty,
                end_strings=list(stops),
                min_tokens_to_generate=min(call.min_tokens_to_generate, tokens),
                random_seed=_seed(call.random_seed, call.greedy),
            )

        job = _NemoJob(work)
        self._submit(job)
        return job.result.result()

    def _enqueue(
        self,
        rows: Sequence[Row],
        sampling: SamplingSettings,
        seed: int | None,
        progress: Callable[[int, Sequence[int]], None] | None = None,
    ) -> _Job:
        length = max(len(row.prompt) + row.limit for row in rows)
        self._check_memory(len(rows), length, sampling.logprobs is not None)
        job = _Job(rows, sampling, None if sampling.greedy else seed, progress)
        self._submit(job)
        return job

    def _submit(self, job: _Job | _NemoJob) -> None:
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                jobs = self._next()
            try:
                if isinstance(jobs, _NemoJob):
                    jobs.result.set_result(jobs.work())
                else:
                    self._batch(jobs)
            except Exception as error:
                # Any error of NeMo or torch fails these requests only; the thread continues with the next ones.
                for job in [jobs] if isinstance(jobs, _NemoJob) else jobs:
                    if not job.result.done():
                        job.result.set_exception(error)

    def _next(self) -> _NemoJob | list[_Job]:
        """The oldest request, with others that can share its batch."""
        first = self._waiting.popleft()
        if isinstance(first, _NemoJob):
            return first
        jobs, rows = [first], len(first.rows)
        if first.seed is not None:
            return jobs
        for job in list(self._waiting):
            if isinstance(job, _NemoJob) or job.seed is not None or job.sampling != first.sampling:
                continue
            if rows + len(job.rows) > MOST_ROWS:
                continue
            total = [len(row.prompt) + row.limit for one in (*jobs, job) for row in one.rows]
            if not fits(self._model, len(total), max(total), logprobs=first.sampling.logprobs is not None):
                break
            jobs.append(job)
            rows += len(job.rows)
            self._waiting.remove(job)
        return jobs

    def _batch(self, jobs: Sequence[_Job]) -> None:
        jobs = [job for job in jobs if not job.cancelled.is_set()]
        if not jobs:
            return
        owners = [(job, place) for job in jobs for place in range(len(job.rows))]
        rows = [row for job in jobs for row in job.rows]
        sampling = jobs[0].sampling

        def progress(number: int, tokens: Sequence[int]) -> None:
            job, place = owners[number]
            if self._alone and job.cancelled.is_set():
                state.cancelled.add(number)
            elif job.progress is not None:
                job.progress(place, tokens)

        state = BatchState(progress)
        rules = BatchRules(
            starts=tuple(len(row.prompt) for row in rows),
            limits=tuple(row.limit for row in rows),
            stops=tuple(row.stops for row in rows),
            min_tokens=sampling.min_tokens,
            penalty=sampling.penalty,
            logprobs=sampling.logprobs,
            echo=sampling.echo,
        )
        prompts = [row.prompt for row in rows]
        longest = max(map(len, prompts))
        output = self._nemo(
            prompts,
            max(start + limit for start, limit in zip(rules.starts, rules.limits, strict=True)) - longest,
            rules,
            state,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            greedy=sampling.greedy,
            end_strings=[_TEXT_END],
            min_tokens_to_generate=sampling.min_tokens,
            random_seed=_seed(jobs[0].seed, sampling.greedy),
        )
        done = [
            self._generated(row, ids, sampling, state.lengths.get(number))
            for number, (row, ids) in enumerate(zip(rows, output["token_ids"], strict=True))
        ]
        for (number, place), scored in state.scored.items():
            done[number].scored[place] = scored
        start = 0
        for job in jobs:
            job.result.set_result(done[start : start + len(job.rows)])
            start += len(job.rows)

    def _generated(self, row: Row, ids: Sequence[int], sampling: SamplingSettings, length: int | None) -> GeneratedRow:
        # Only the rank of the last layers knows the row's length; padding follows it.
        tokens = list(ids[len(row.prompt) :][: row.limit if length is None else length])
        rest, ended = self.up_to_end(tokens[sampling.min_tokens :], row.stops)
        tokens = tokens[: sampling.min_tokens] + rest
        return GeneratedRow(tokens, ended, len(tokens) + ended, {})

    def up_to_end(self, tokens: Sequence[int], stops: Sequence[str]) -> tuple[list[int], bool]:
        """The tokens before the first end token, and True if there is one."""
        ends = self._strategy.end_tokens(self._model.tokenizer.eos_id, stops)
        place = next((place for place, token in enumerate(tokens) if token in ends), None)
        return list(tokens[:place]), place is not None

    def _nemo(
        self,
        prompts: Sequence[Sequence[int]],
        tokens: int,
        rules: BatchRules | None,
        state: BatchState | None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Call NeMo's `generate` on all ranks."""
        from nemo.collections.nlp.modules.common.text_generation_utils import generate

        width = max(map(len, prompts)) + tokens
        padding = self._model.tokenizer.eos_id
        padded = [[*prompt, *[padding] * (width - len(prompt))] for prompt in prompts]
        inputs = (
            torch.tensor(padded, dtype=torch.long, device=torch.cuda.current_device()),
            torch.tensor([len(prompt) for prompt in prompts], dtype=torch.long, device=torch.cuda.current_device()),
        )
        self._announce(rules)
        self._strategy.begin(rules, state)
        try:
            return generate(self._model, inputs, tokens_to_generate=tokens, strategy=self._strategy, **settings)
        except torch.OutOfMemoryError as error:
            _log.error("out of memory for %d sentences of %d tokens", len(prompts), width)
            raise RequestError(
                413, f"{len(prompts)} sentences of {width} tokens do not fit into the memory of the device"
            ) from error

    def _check_memory(self, rows: int, length: int, logprobs: bool) -> None:
        if not fits(self._model, rows, length, logprobs=logprobs):
            message = f"{rows} sentences of up to {length} tokens do not fit into the free memory; send fewer"
            raise RequestError(413, message)


def _seed(seed: int | None, greedy: bool) -> int | None:
    """NeMo's seed. Without a new random one, a request would continue from the previous request's seed."""
    if seed is None:
        return None if greedy else secrets.randbits(24)
    if 0 <= seed <= _SEED_BITS:
        return seed
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:3], "big")
