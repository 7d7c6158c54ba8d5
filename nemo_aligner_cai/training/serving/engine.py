# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Queue of requests before NeMo's generation: one batch at a time, with the rows of several requests where they fit.

Requests are generated together if they are drawn in the same way and none of them has a seed: NeMo draws a whole batch
with one. Everything is checked against the model's length and the free memory before a batch starts.
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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nemo_aligner_cai.training.serving.calls import MOST_ROWS, GenerateCall
from nemo_aligner_cai.training.serving.fields import RequestError
from nemo_aligner_cai.training.serving.strategy import RowStrategy, Rules, Scored, Watch

_log = logging.getLogger(__name__)
_SEED_BITS = 0xFFFFFF
"""NeMo sends the seed to the other ranks in single precision, which holds 24 bits."""
_MOST_PROBS = 1 << 24
"""Numbers in an answer with `all_probs`."""
_CHARACTERS_PER_TOKEN = 256
"""No tokenizer has longer tokens: a longer text cannot fit, and is not tokenized to find that out."""
_LOGITS_COPIES = 3
_SHARE_OF_MEMORY = 0.8
_TEXT_END = "<|endoftext|>"
"""NeMo's name for the token that ends a text."""


@dataclass(frozen=True)
class Draw:
    """How tokens are drawn; rows that differ in it cannot be generated together."""

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
    """One reply to generate: the prompt's token ids, the most tokens after them, and what ends it."""

    prompt: tuple[int, ...]
    limit: int
    stops: tuple[str, ...]


@dataclass
class Generated:
    """What became of a row: the tokens after the prompt up to one that ends it, which is left out.

    `count` includes that token. `scored` has the recorded tokens by their place in the whole row.
    """

    tokens: list[int]
    ended: bool
    count: int
    scored: dict[int, Scored]


@dataclass
class _Job:
    rows: Sequence[Row]
    draw: Draw
    seed: int | None
    progress: Callable[[int, Sequence[int]], None] | None
    cancelled: threading.Event = field(default_factory=threading.Event)
    result: Future[list[Generated]] = field(default_factory=Future[list[Generated]])


@dataclass
class _Plain:
    """A call of NeMo's own `/generate`."""

    work: Callable[[], dict[str, Any]]
    result: Future[dict[str, Any]] = field(default_factory=Future[dict[str, Any]])


class Engine:
    """Generates on the model, in a thread of its own."""

    def __init__(
        self, model: Any, strategy: RowStrategy, announce: Callable[[Rules | None], None], length: int | None
    ) -> None:
        """Start the thread.

        Args:
            model: a MegatronGPTModel in evaluation mode.
            strategy: generates on it.
            announce: tells the other ranks that a batch is coming.
            length: the most tokens of a prompt and its reply together; None for the model's own length.
        """
        self._model = model
        self._strategy = strategy
        self._announce = announce
        self._alone = torch.distributed.get_world_size() == 1
        self._waiting: deque[_Job | _Plain] = deque()
        self._changed = threading.Condition()
        self.positions = length or _own_length(model.cfg)
        self.bos = int(model.tokenizer.bos_id)
        self.vocabulary = int(model.tokenizer.vocab_size)
        threading.Thread(target=self._run, name="generation", daemon=True).start()

    def tokenize(self, text: str, where: str) -> list[int]:
        """The ids of a text; raises RequestError if it has none, or cannot fit."""
        self.check_text(text, where)
        ids: list[int] = list(self._model.tokenizer.text_to_ids(text))
        self.check_prompt(ids, where)
        return ids

    def check_text(self, text: str, where: str) -> None:
        """Raise RequestError for a text that is too long to be worth tokenizing."""
        if len(text) > _CHARACTERS_PER_TOKEN * self.positions:
            raise self._too_long(where, f"{len(text)} characters")

    def check_prompt(self, ids: Sequence[int], where: str) -> None:
        """Raise RequestError for a prompt without tokens, or with more than the model has positions for."""
        if not ids:
            raise RequestError(400, f"{where} is empty: there is no token to begin with", param=where)
        if len(ids) > self.positions:
            raise self._too_long(where, f"{len(ids)} tokens")

    def room(self, prompt: Sequence[int]) -> int:
        """The most tokens after a prompt. The last one needs no position: nothing follows it."""
        return self.positions + 1 - len(prompt)

    def _too_long(self, where: str, length: str) -> RequestError:
        message = f"{where} has {length}, and the model's length is {self.positions} tokens"
        return RequestError(400, message, param=where, code="context_length_exceeded")

    def generate(self, rows: Sequence[Row], draw: Draw, seed: int | None) -> list[Generated]:
        """Generate rows, together with those of other requests where they fit; raises RequestError."""
        self._check_memory(len(rows), max(len(row.prompt) + row.limit for row in rows), draw.logprobs is not None)
        return self._submit(_Job(rows, draw, None if draw.greedy else seed, None)).result()

    def stream(
        self, rows: Sequence[Row], draw: Draw, seed: int | None
    ) -> Iterator[tuple[int, list[int]] | list[Generated]]:
        """Generate rows; gives each row's tokens so far as they come, and in the end what `generate` gives."""
        self._check_memory(len(rows), max(len(row.prompt) + row.limit for row in rows), draw.logprobs is not None)
        news: queue.SimpleQueue[tuple[int, list[int]] | None] = queue.SimpleQueue()
        job = _Job(rows, draw, None if draw.greedy else seed, lambda row, ids: news.put((row, list(ids))))
        job.result.add_done_callback(lambda _: news.put(None))
        self._submit(job)

        def steps() -> Iterator[tuple[int, list[int]] | list[Generated]]:
            try:
                while (step := news.get()) is not None:
                    yield step
                yield job.result.result()
            finally:
                # The client is gone, or has everything.
                job.cancelled.set()

        return steps()

    def plain(self, call: GenerateCall, prompts: Sequence[Sequence[int]], stops: Sequence[str]) -> dict[str, Any]:
        """NeMo's own answer to a request of `/generate`; raises RequestError.

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
                min_tokens_to_generate=min(call.min_tokens, tokens),
                random_seed=_seed(call.seed, call.greedy),
            )

        job = _Plain(work)
        self._submit(job)
        return job.result.result()

    def _submit(self, job: Any) -> Future[Any]:
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return job.result

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                jobs = self._next()
            try:
                if isinstance(jobs, _Plain):
                    jobs.result.set_result(jobs.work())
                else:
                    self._batch(jobs)
            except Exception as error:
                # Whatever NeMo or torch raise is these requests' answer; the thread lives for the next ones.
                for job in [jobs] if isinstance(jobs, _Plain) else jobs:
                    if not job.result.done():
                        job.result.set_exception(error)

    def _next(self) -> _Plain | list[_Job]:
        """The request that has waited longest, with others that can be generated along with it."""
        first = self._waiting.popleft()
        if isinstance(first, _Plain):
            return first
        jobs, rows = [first], len(first.rows)
        for job in list(self._waiting):
            together = isinstance(job, _Job) and job.draw == first.draw and job.seed is None and first.seed is None
            if not isinstance(job, _Job) or not together or rows + len(job.rows) > MOST_ROWS:
                continue
            total = [len(row.prompt) + row.limit for one in (*jobs, job) for row in one.rows]
            if not self._fits(len(total), max(total), first.draw.logprobs is not None):
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
        draw = jobs[0].draw

        def progress(number: int, tokens: Sequence[int]) -> None:
            job, place = owners[number]
            if self._alone and job.cancelled.is_set():
                watch.cancelled.add(number)
            elif job.progress is not None:
                job.progress(place, tokens)

        watch = Watch(progress)
        rules = Rules(
            starts=tuple(len(row.prompt) for row in rows),
            limits=tuple(row.limit for row in rows),
            stops=tuple(row.stops for row in rows),
            min_tokens=draw.min_tokens,
            penalty=draw.penalty,
            logprobs=draw.logprobs,
            echo=draw.echo,
        )
        prompts = [row.prompt for row in rows]
        longest = max(map(len, prompts))
        output = self._nemo(
            prompts,
            max(start + limit for start, limit in zip(rules.starts, rules.limits, strict=True)) - longest,
            rules,
            watch,
            temperature=draw.temperature,
            top_k=draw.top_k,
            top_p=draw.top_p,
            greedy=draw.greedy,
            end_strings=[_TEXT_END],
            min_tokens_to_generate=draw.min_tokens,
            random_seed=_seed(jobs[0].seed, draw.greedy),
        )
        done = [
            self._generated(row, ids, draw, watch.lengths.get(number))
            for number, (row, ids) in enumerate(zip(rows, output["token_ids"], strict=True))
        ]
        for (number, place), scored in watch.scored.items():
            done[number].scored[place] = scored
        start = 0
        for job in jobs:
            job.result.set_result(done[start : start + len(job.rows)])
            start += len(job.rows)

    def _generated(self, row: Row, ids: Sequence[int], draw: Draw, length: int | None) -> Generated:
        # The row's length is known where this rank has the last layers; what follows is padding.
        tokens = list(ids[len(row.prompt) :][: row.limit if length is None else length])
        rest, ended = self.up_to_end(tokens[draw.min_tokens :], row.stops)
        tokens = tokens[: draw.min_tokens] + rest
        return Generated(tokens, ended, len(tokens) + ended, {})

    def up_to_end(self, tokens: Sequence[int], stops: Sequence[str]) -> tuple[list[int], bool]:
        """The tokens before the first one that ends a text, and whether there is one."""
        ends = self._strategy.end_tokens(self._model.tokenizer.eos_id, stops)
        place = next((place for place, token in enumerate(tokens) if token in ends), None)
        return list(tokens[:place]), place is not None

    def _nemo(
        self, prompts: Sequence[Sequence[int]], tokens: int, rules: Rules | None, watch: Watch | None, **settings: Any
    ) -> dict[str, Any]:
        """One call of NeMo's `generate`, on all ranks."""
        from nemo.collections.nlp.modules.common.text_generation_utils import generate

        width = max(map(len, prompts)) + tokens
        padding = self._model.tokenizer.eos_id
        padded = [[*prompt, *[padding] * (width - len(prompt))] for prompt in prompts]
        inputs = (
            torch.tensor(padded, dtype=torch.long, device=torch.cuda.current_device()),
            torch.tensor([len(prompt) for prompt in prompts], dtype=torch.long, device=torch.cuda.current_device()),
        )
        self._announce(rules)
        self._strategy.begin(rules, watch)
        try:
            return generate(self._model, inputs, tokens_to_generate=tokens, strategy=self._strategy, **settings)
        except torch.OutOfMemoryError as error:
            _log.error("out of memory for %d sentences of %d tokens", len(prompts), width)
            raise RequestError(
                413, f"{len(prompts)} sentences of {width} tokens do not fit into the memory of the device"
            ) from error

    def _check_memory(self, rows: int, length: int, logprobs: bool) -> None:
        if not self._fits(rows, length, logprobs):
            raise RequestError(
                413,
                f"{rows} sentences of up to {length} tokens do not fit into the free memory; send fewer",
            )

    def _fits(self, rows: int, length: int, logprobs: bool) -> bool:
        """Whether the logits of all positions and the cached keys and values fit into the free memory."""
        cfg = self._model.cfg
        logits = rows * length * self._model.padded_vocab_size * 4 * (_LOGITS_COPIES if logprobs else 1)
        size = cfg.get("kv_channels") or cfg.hidden_size // cfg.num_attention_heads
        heads = cfg.get("num_query_groups") or cfg.num_attention_heads
        cache = rows * length * cfg.num_layers * 2 * heads * size * 4
        return logits + cache <= _SHARE_OF_MEMORY * _free_memory()


def _own_length(cfg: Any) -> int:
    length = int(cfg.encoder_seq_length)
    if cfg.get("position_embedding_type", "learned_absolute") == "learned_absolute":
        return length
    # SFT may have been told to use shorter sequences than the model was made for.
    return max(length, int(cfg.get("max_position_embeddings") or 0))


def _seed(seed: int | None, greedy: bool) -> int | None:
    """NeMo's seed. A request without one gets a new one: else it would go on from the seed of the request before."""
    if seed is None:
        return None if greedy else secrets.randbits(24)
    if 0 <= seed <= _SEED_BITS:
        return seed
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:3], "big")


def _free_memory() -> int:
    """Bytes that can still be had on the device, or on this machine within the limit of its control group."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    import psutil

    free = psutil.virtual_memory().available
    folder = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        # "max", which is no number, means that there is no limit.
        free = min(free, int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text()))
    return free
