# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A rehearsal of a run's first records without a model, before the first call.

Input:  the first records, the steps, the context of each server, and the sequence lengths of the trainers
Output: UsageError if none of the records can give a row; a warning with the counts if some cannot

The records pass the steps with short scripted replies, so a request is hardly longer here than in the run. A record
that fails here fails there, too; one that a step drops because of a reply's content proves nothing, and passes.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Generic, TypeVar

from nemo_aligner_cai.data.length import drop_long
from nemo_aligner_cai.data.records import Record
from nemo_aligner_cai.data.tokenizer import Tokenizer
from nemo_aligner_cai.engine.engine import HasId, SkipRecord, Step
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.models.base import Completion, ModelClient, Request
from nemo_aligner_cai.models.scripted import default_reply
from nemo_aligner_cai.models.served import ReportsModel

_log = logging.getLogger(__name__)
REHEARSED = 500
"""The records of a rehearsal: enough to be representative, in a fraction of a second."""
_BYTES_PER_TOKEN = 6
"""More than any tokenizer reaches on ordinary text, so that the number of tokens is rather underestimated."""

R = TypeVar("R", bound=HasId)


@dataclass(frozen=True)
class RowLimit(Generic[R]):
    """The sequence length of a trainer.

    Attributes:
        setting: the flag and the key that set it.
        format_name: the format of the trainer's rows.
        seq_length: the length in tokens.
        tokenizer: the trained model's.
        record_of: returns the training record of a record that has passed the steps.
        response_length: the part of PPO's sequence that is reserved for the reply; None for half of it.
    """

    setting: str
    format_name: str
    seq_length: int
    tokenizer: Tokenizer
    record_of: Callable[[R], Record]
    response_length: int | None = None


async def rehearse(records: Sequence[R], steps: Sequence[Step[R]], limits: Sequence[RowLimit[R]] = ()) -> None:
    """Rehearse the first records of a run.

    Raises:
        UsageError: no request of a step fits its server's context, every reply would be cut, or no row fits a
            trainer's sequence length. Nothing was sent but the question for the context.
    """
    contexts = {id(step.client): await _context_of(step.client) for step in steps}
    failures, warnings, passed = Counter[str](), Counter[str](), list[R]()
    for record in records:
        rehearsal = _Rehearsal(contexts)
        # A copy: records may keep what belongs to their replies.
        rehearsed, failure = rehearsal.run(deepcopy(record), steps)
        warnings.update(rehearsal.warnings)
        if failure is None:
            passed.append(rehearsed)
        else:
            failures[failure] += 1
    _report(failures, len(records), "of the first {} prompts can give no row")
    for message, count in warnings.items():
        _log.warning("%d of the first %d prompts: %s", count, len(records), message)
    for limit in limits:
        counts = RowCounts()
        for _ in drop_long(
            map(limit.record_of, passed),
            limit.format_name,
            tokenizer=limit.tokenizer,
            seq_length=limit.seq_length,
            response_length=limit.response_length,
            counts=counts,
        ):
            pass
        reasons = {f"{limit.setting}={limit.seq_length}: {why}": rows for why, rows in counts.skipped.items()}
        _report(Counter(reasons), len(passed), "of the first {} prompts give no training row, even with a short reply")


def _report(failures: Counter[str], count: int, what: str) -> None:
    """Log the failures, or raise UsageError if they are all there is."""
    if not failures:
        return
    reasons = "; ".join(f"{rows} {reason}" if len(failures) > 1 else reason for reason, rows in failures.items())
    if failures.total() == count:
        raise UsageError(f"all {what.format(count)}: {reasons}")
    _log.warning("%d %s: %s", failures.total(), what.format(count), reasons)


async def _context_of(client: ModelClient) -> int | None:
    return await client.context_length() if isinstance(client, ReportsModel) else None


class _Rehearsal:
    """One record's way through the steps.

    Attributes:
        warnings: requests whose reply may be refused or cut.
    """

    def __init__(self, contexts: Mapping[int, int | None]) -> None:
        self.warnings = set[str]()
        self._contexts = contexts

    def run(self, record: R, steps: Sequence[Step[R]]) -> tuple[R, str | None]:
        """Return the record as far as it came, and the reason if it cannot come further."""
        for step in steps:
            requests = step.requests(record)
            if (too_long := self._too_long(step, requests)) is not None:
                return record, too_long
            cut = [request.sampling for request in requests if _is_cut(request)]
            try:
                record = step.absorb(record, [_reply(*numbered) for numbered in enumerate(requests)])
            except SkipRecord as skipped:
                if not cut:
                    return record if skipped.record is None else skipped.record, None
                lengths = f"max_tokens={cut[0].max_tokens}, min_tokens={cut[0].min_tokens}"
                return record, f"step {step.name}: every reply is cut ({lengths}): {skipped.reason}"
        return record, None

    def _too_long(self, step: Step[R], requests: Sequence[Request]) -> str | None:
        context = self._contexts[id(step.client)]
        if context is None or not requests:
            return None
        longest = max(requests, key=_least_tokens)
        tokens, reply = _least_tokens(longest), 0 if longest.choices else longest.sampling.max_tokens
        where = f"the context of {step.client.name}, {context} tokens"
        fix = "use fewer or shorter few-shot examples, or a longer context of the server (max_model_len)"
        if tokens >= context:
            return f"step {step.name}: the messages, about {_rounded(tokens)} tokens, do not fit {where}; {fix}"
        if tokens + reply > context:
            self.warnings.add(
                f"step {step.name}: the messages and a reply of max_tokens={reply} do not fit {where}: some servers "
                f"refuse such requests, others cut the reply; {fix}, or a smaller max_tokens"
            )
        return None


def _least_tokens(request: Request) -> int:
    size = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in request.conversation.messages)
    return size // _BYTES_PER_TOKEN


def _rounded(tokens: int) -> int:
    """Round to two digits, so that records with nearly the same length have the same reason."""
    digits = max(len(str(tokens)) - 2, 0)
    return round(tokens, -digits)


def _is_cut(request: Request) -> bool:
    """True if no reply can end before `max_tokens`: its end is a token, too, and not one of the first `min_tokens`."""
    return not request.choices and request.sampling.max_tokens <= max(request.sampling.min_tokens, 1)


def _reply(number: int, request: Request) -> Completion:
    # A seed makes the replies to equal requests differ.
    made = default_reply(request.scheduled(seed=number if request.is_random else None, priority=0))
    return Completion(made.text, "length") if _is_cut(request) else made
