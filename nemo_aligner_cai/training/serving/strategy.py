# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""NeMo's text generation with rules per row, and with the model's own log-probabilities.

NeMo 2.2.1 stops all rows of a batch by the same strings, only if a token ends with one, and also finds them in the
prompt; shorter rows continue beyond their limit. Its log-probabilities are divided by the temperature in single
precision, and its repetition penalty divides negative logits too, and has no effect in most calls. This strategy
corrects that in the hooks of NeMo's strategy. Without `rules` it behaves like NeMo's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from megatron.core import parallel_state, tensor_parallel
from nemo.collections.nlp.modules.common.text_generation_strategy import GPTModelTextGenerationStrategy


@dataclass(frozen=True)
class BatchRules:
    """The rules of one batch; the same on all ranks.

    Attributes:
        starts: tokens of each row's prompt.
        limits: the most new tokens of each row.
        stops: stop strings of each row.
        min_tokens: new tokens of each row before a stop string ends it.
        penalty: divides positive logits of tokens that are in the row, and multiplies negative ones; 1 is off.
        logprobs: top tokens to record per position; None for no recording.
        echo: record the prompt's tokens too.
    """

    starts: tuple[int, ...]
    limits: tuple[int, ...]
    stops: tuple[tuple[str, ...], ...]
    min_tokens: int = 0
    penalty: float = 1.0
    logprobs: int | None = None
    echo: bool = False


@dataclass(frozen=True)
class Scored:
    """A token's log-probability, and the top tokens at its position with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass
class BatchState:
    """The state of a batch, on the rank that responds to requests.

    Attributes:
        progress: called with a row's number and its new tokens.
        cancelled: rows without a waiting client; only used with a single rank.
        lengths: new tokens of each row that has ended.
        scored: recorded tokens by (row, position).
    """

    progress: Callable[[int, Sequence[int]], None]
    cancelled: set[int] = field(default_factory=set[int])
    lengths: dict[int, int] = field(default_factory=dict[int, int])
    scored: dict[tuple[int, int], Scored] = field(default_factory=dict[tuple[int, int], Scored])


class RowStrategy(GPTModelTextGenerationStrategy):
    """NeMo's strategy for GPT models, with rules per row."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.rules: BatchRules | None = None
        self.state: BatchState | None = None
        self._logprobs: torch.Tensor | None = None
        self._done: set[int] = set()
        self._seen: torch.Tensor | None = None

    def begin(self, rules: BatchRules | None, state: BatchState | None = None) -> None:
        """Set the rules of the next batch; None for NeMo's behavior."""
        self.rules, self.state = rules, state
        self._logprobs, self._done = None, set()

    def prepare_batch_at_step(
        self, tokens: torch.Tensor, maxlen: int, micro_batch_size: int, step: int, context_length: int, *more: Any
    ) -> Any:
        """Keep the tokens so far for the repetition penalty."""
        self._seen = tokens[:, :context_length]
        return super().prepare_batch_at_step(tokens, maxlen, micro_batch_size, step, context_length, *more)

    def forward_step(self, batch: Any, tensor_shape: Any) -> Any:
        """Record the log-probabilities of the unchanged logits, then apply the penalty."""
        output = super().forward_step(batch, tensor_shape)
        rules = self.rules
        if rules is None or not parallel_state.is_pipeline_last_stage():
            return output
        logits = output[0]["logits"]
        if rules.logprobs is not None:
            if rules.echo and logits.size(1) > 1:
                self._record_prompt(self._log_softmax(logits[:, :-1]))
            self._logprobs = self._log_softmax(logits[:, -1])
        if rules.penalty != 1.0:
            _penalize(logits[:, -1], self._seen, rules.penalty)
        return output

    def post_process(self, tokens: torch.Tensor, new_tokens: torch.Tensor, context_length: int) -> None:
        """Record the log-probability of each row's new token."""
        if self.rules is None or self._logprobs is None:
            return
        for row, token in enumerate(new_tokens.tolist()):
            if row not in self._done and (self.rules.echo or context_length >= self.rules.starts[row]):
                self._record(row, context_length, token, self._logprobs[row])

    def end_of_generation_condition(
        self, tokens: torch.Tensor, prev: torch.Tensor, eod_id: int, end_strings: list[str]
    ) -> torch.Tensor:
        """A mask of the rows that end with this token."""
        rules = self.rules
        if rules is None:
            return super().end_of_generation_condition(tokens, prev, eod_id, end_strings)
        ends = torch.zeros_like(prev, dtype=torch.bool)
        rows = tokens.tolist()
        for row, ids in enumerate(rows):
            if row in self._done or len(ids) <= rules.starts[row]:
                continue
            generated = ids[rules.starts[row] :]
            if self.state is not None:
                self.state.progress(row, generated)
            if self._ends(row, generated, eod_id):
                self._done.add(row)
                ends[row] = True
                if self.state is not None:
                    self.state.lengths[row] = len(generated)
        return ends

    def end_tokens(self, eod_id: int, stops: Sequence[str]) -> set[int]:
        """The end-of-text token, and tokens that equal a stop string."""
        return self._get_end_of_generation_tokens_and_strings(eod_id, list(stops))[0]

    def _ends(self, row: int, generated: list[int], eod_id: int) -> bool:
        assert self.rules is not None, "only called with rules"
        if len(generated) >= self.rules.limits[row] or (self.state is not None and row in self.state.cancelled):
            return True
        stops = self.rules.stops[row]
        if len(generated) <= self.rules.min_tokens:
            return False
        if generated[-1] in self.end_tokens(eod_id, stops):
            return True
        # A new match ends in the last token, so the last few tokens contain it.
        last = generated[-max(map(len, stops), default=0) - 4 :]
        text = self.model.tokenizer.ids_to_text(last) if stops else ""
        return any(stop in text for stop in stops)

    def _log_softmax(self, logits: torch.Tensor) -> torch.Tensor:
        whole = tensor_parallel.gather_from_tensor_model_parallel_region(logits)
        # Without the padding of the vocabulary.
        return torch.log_softmax(whole[..., : self.model.tokenizer.vocab_size].float(), dim=-1)

    def _record_prompt(self, logprobs: torch.Tensor) -> None:
        assert self._seen is not None, "set before each step"
        for row, ids in enumerate(self._seen.tolist()):
            for place in range(1, len(ids)):
                self._record(row, place, ids[place], logprobs[row, place - 1])

    def _record(self, row: int, place: int, token: int, logprobs: torch.Tensor) -> None:
        assert self.rules is not None and self.rules.logprobs is not None, "only called to record"
        if self.state is None:
            return
        values, ids = torch.topk(logprobs, min(self.rules.logprobs, logprobs.size(-1)))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        self.state.scored[row, place] = Scored(token, logprobs[token].item(), top)


def _penalize(logits: torch.Tensor, seen: torch.Tensor | None, penalty: float) -> None:
    """Penalize the tokens that a row has, in place; `logits` has this rank's part of the vocabulary."""
    assert seen is not None, "set before each step"
    width = logits.size(-1)
    local = seen - width * parallel_state.get_tensor_model_parallel_rank()
    for row, ids in enumerate(local):
        mine = torch.unique(ids[(ids >= 0) & (ids < width)])
        values = logits[row, mine]
        logits[row, mine] = torch.where(values > 0, values / penalty, values * penalty)
