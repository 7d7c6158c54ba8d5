# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
"""The parsers of untrusted text, each as a function of bytes.

A target returns if the parser gives a result that satisfies the target's invariant, or one of the project's own
errors. Every other exception is a fault, and so is more than `SECONDS` of CPU time.
"""

import asyncio
import math
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType

from yarl import URL

from nemo_aligner_cai.chat import CONTROL_TOKENS, JUDGED_TOKENS, NEMO_CHAT, Conversation
from nemo_aligner_cai.chat.huggingface import added_tokens, load_template
from nemo_aligner_cai.constitution import load_constitution
from nemo_aligner_cai.constitution.prompt_templates import load_prompt_templates
from nemo_aligner_cai.data.formats.all_formats import detect_format
from nemo_aligner_cai.data.formats.files import read_records
from nemo_aligner_cai.data.prompt_files import read_prompts
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.journal_entries import read_entries
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.evaluation.graders.parsing import grade_by_strings, grade_by_text
from nemo_aligner_cai.evaluation.graders.spec import Grader, load_grader, read_grader
from nemo_aligner_cai.evaluation.replies.saved_completions import read_saved_completions
from nemo_aligner_cai.evaluation.results import read_evaluation
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.judges.few_shot import read_few_shot_file
from nemo_aligner_cai.judges.parse import parse_best_worst, parse_choice
from nemo_aligner_cai.models import NemoServerClient, Request, Sampling, openai
from nemo_aligner_cai.models.http.retry import RetryableError
from nemo_aligner_cai.models.responses import decode, retry_after
from nemo_aligner_cai.models.scoring.choice_scores import ImplausibleError, choice_logprobs
from nemo_aligner_cai.models.served import _context_of, _described, _select_entry
from nemo_aligner_cai.models.thinking import strip_reasoning
from nemo_aligner_cai.pipeline.config import load_run_config
from nemo_aligner_cai.prompts.transcript import TranscriptError, parse_transcript
from nemo_aligner_cai.training.checkpoints.architectures import context_length, read_settings
from nemo_aligner_cai.training.checkpoints.hf_config import Shape, model_settings
from nemo_aligner_cai.training.metrics.files import read_metrics
from nemo_aligner_cai.training.serving.calls import ChatCall, CompletionCall, GenerateCall
from nemo_aligner_cai.training.serving.request_body import Limits, RequestError, read_body

SECONDS = 10
"""CPU time that one input may take: parsers of these sizes need milliseconds."""
CORPUS = Path(__file__).parent / "corpus"
_ERRORS = (CaiError, TranscriptError, RetryableError, ImplausibleError)
_CHOICES = ("(A)", "(B)")
_ASKED = Request(Conversation.of_user("Hi"), Sampling(max_tokens=8))
_BATCHES = ([_ASKED], [Request(Conversation.of_user("Hi"), Sampling(), choices=_CHOICES)])
"""Requests of one batch each: for a reply, and for the log-probabilities of two choices."""
_LIMITS = Limits(300, ("assistant",))
_GRADERS = ("harmbench", "or-bench", "strongreject", "xstest", "xstest-strings", "engagement")


def _text(data: bytes) -> str:
    # What comes from a server or from JSON is Unicode.
    return data.decode("utf-8", "replace")


@contextmanager
def _file(data: bytes, name: str) -> Generator[Path, None, None]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield path


def choice(data: bytes) -> None:
    text = _text(data)
    found = parse_choice(text, _CHOICES)
    assert found is None or _CHOICES[found] in text


def best_worst(data: bytes) -> None:
    text = _text(data)
    best, worst, explanation = parse_best_worst(text, 4)
    explanation.encode()
    if best is not None and worst is not None:
        assert 0 <= best < 4 and 0 <= worst < 4 and best != worst and text.lstrip().startswith(("{", "```"))
    else:
        assert best is None and worst is None


@cache
def _graders() -> tuple[Grader, ...]:
    return tuple(map(load_grader, _GRADERS))


def grades(data: bytes) -> None:
    text = _text(data)
    for grader in _graders():
        grade = grade_by_strings(grader, text) if grader.parser == "strings" else grade_by_text(grader, text)
        assert grade.label is None or grade.label in grader.classes
        assert grade.score is None or 0 <= grade.score <= 1


def reasoning(data: bytes) -> None:
    text = _text(data)
    answer = strip_reasoning(text)
    assert answer is None or answer in text
    quoted = f"It says: {JUDGED_TOKENS.escape(text)}"
    assert strip_reasoning(quoted) == quoted


def chat(data: bytes) -> None:
    text = _text(data)
    escaped = CONTROL_TOKENS.escape(text)
    assert not CONTROL_TOKENS.found_in(escaped)
    assert not NEMO_CHAT.contains_template_token(NEMO_CHAT.escape(text))


def transcript(data: bytes) -> None:
    conversation = parse_transcript(_text(data))
    assert conversation.turns and all(turn.content for turn in conversation.turns[:-1])


def _read_data(data: bytes, ending: str) -> None:
    with _file(data, f"a.{ending}") as path:
        for read in (
            lambda counts: detect_format(path),
            lambda counts: list(read_records(path, None, counts=counts)),
            lambda counts: list(read_prompts(path, counts=counts)),
        ):
            counts = RowCounts()
            with suppress(CaiError):
                read(counts)
                counts.check()


def json_lines(data: bytes) -> None:
    _read_data(data, "jsonl")


def csv(data: bytes) -> None:
    _read_data(data, "csv")


def journal(data: bytes) -> None:
    with _file(data, "a.journal.jsonl") as path:
        opened = Journal.open(path, resume=True)
        asyncio.run(opened.close())
        kept = path.read_bytes()
        assert data.startswith(kept) and kept[-1:] in (b"", b"\n")
        keys = [entry["key"] for _, _, entry in read_entries(path) if entry and entry.get("kind") == "call"]
        again = Journal.open(path, resume=True)
        for key in keys:
            found = again.lookup(key)
            assert found is None or isinstance(found.text, str)
        asyncio.run(again.close())
        assert path.read_bytes() == kept


def constitution(data: bytes) -> None:
    with _file(data, "a.yaml") as path:
        with suppress(CaiError):
            assert load_constitution(path).principles
        load_prompt_templates(path)


def constitution_json(data: bytes) -> None:
    with _file(data, "a.json") as path:
        assert load_constitution(path).principles


def grader_file(data: bytes) -> None:
    with _file(data, "a.yaml") as path:
        assert len(read_grader(path).classes) >= 2


def reply(data: bytes) -> None:
    completion = openai._parse(decode(URL("http://127.0.0.1/v1"), data), 16)
    assert isinstance(completion.text, str) and completion.finish_reason in ("stop", "length")


def scores(data: bytes) -> None:
    found = choice_logprobs(decode(URL("http://127.0.0.1/v1"), data), _CHOICES, "(")
    assert found is None or all(math.isfinite(found[name]) for name in _CHOICES)


@cache
def _nemo_clients() -> tuple[NemoServerClient, ...]:
    return NemoServerClient(), NemoServerClient(server_template=True)


def generated(data: bytes) -> None:
    response = decode(URL("http://127.0.0.1/generate"), data)
    for client in _nemo_clients():
        for batch in _BATCHES:
            with suppress(RetryableError):
                (completion,) = client._parse(response, batch)
                assert isinstance(completion.text, str) and completion.finish_reason in ("stop", "length", "choices")
                assert all(map(math.isfinite, (completion.choice_logprobs or {}).values()))


def serve(data: bytes) -> None:
    for call in (ChatCall, CompletionCall, GenerateCall):
        try:
            call.parse(read_body(data), _LIMITS)
        except RequestError as error:
            assert error.status in (400, 404) and len(str(error)) < 500
            assert error.body()["error"]["message"] == str(error)


def served(data: bytes) -> None:
    entry = _select_entry(decode(URL("http://127.0.0.1/v1"), data), "m")
    if entry is None:
        return
    assert (_context_of(entry) or 1) > 0
    found = _described(entry)
    assert found is None or all(isinstance(value, str) for value in found.values())


def retry_header(data: bytes) -> None:
    seconds = retry_after(data.decode("latin-1"))
    assert seconds is None or seconds >= 0


def few_shots(data: bytes) -> None:
    with _file(data, "a.json") as path:
        read_few_shot_file(path)


def completions(data: bytes) -> None:
    for name in ("a.json", "a.jsonl"):
        with _file(data, name) as path, suppress(CaiError):
            read_saved_completions(path, model="m")


def evaluation(data: bytes) -> None:
    with _file(data, "evaluation.json") as path:
        read_evaluation(path)


def run_config(data: bytes) -> None:
    with _file(data, "run.yaml") as path:
        try:
            config = load_run_config(path)
        except UsageError as error:
            assert str(error).startswith(str(path))
            return
        assert config.trainers and config.pairs_seq_length > 1


def hf_config(data: bytes) -> None:
    with _file(data, "config.json") as path:
        with suppress(UsageError):
            assert (context_length(path.parent) or 1) > 0
        settings = read_settings(path.parent)
        wanted = model_settings(settings, str(path))
        assert all(math.isfinite(value) for value in wanted.values() if isinstance(value, int | float))
        assert all(width > 0 for width in Shape.of(settings).widths)


def metrics(data: bytes) -> None:
    with _file(data, "metrics.jsonl") as path:
        assert all(isinstance(row, dict) for row in read_metrics(path.parent))


def tokenizer(data: bytes) -> None:
    with _file(data, "tokenizer_config.json") as path:
        with suppress(CaiError):
            added_tokens(path.parent)
        load_template(path.parent)


def jinja(data: bytes) -> None:
    with _file(data, "chat_template.jinja") as path:
        load_template(path)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(choice, best_worst, grades, reasoning, chat, transcript),
        *(json_lines, csv, journal, constitution, constitution_json, grader_file),
        *(reply, scores, generated, serve, served, retry_header),
        *(few_shots, completions, evaluation, run_config, metrics, tokenizer, jinja, hf_config),
    )
}


def corpus(name: str) -> Iterator[Path]:
    """The stored inputs of a target."""
    yield from sorted((CORPUS / name).iterdir())


def run(name: str, data: bytes) -> None:
    """Give an input to a target; raises what is a fault."""

    def over(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"more than {SECONDS} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        TARGETS[name](data)
    except _ERRORS as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, "an error is one line that can be read"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
