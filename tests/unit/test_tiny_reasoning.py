# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The texts that teach a tiny assistant to reason before it chooses, and the assistant that was trained on them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.ablations.arms import ARMS
from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.constitution.prompt_templates import load_prompt_templates
from nemo_aligner_cai.files import read_json
from nemo_aligner_cai.tiny.concerns import packaged_concerns
from nemo_aligner_cai.tiny.corpus import IS_POLITE, IS_RUDE, REASONING_SHARES, SHARES, THINKS_OF_REPLY, Corpus
from nemo_aligner_cai.tiny.language import language
from nemo_aligner_cai.tiny.oracle import judge_reply

LANGUAGE = language()
CONCERNS = packaged_concerns(LANGUAGE)
TEMPLATES = load_prompt_templates(packaged_files.CONSTITUTION)
ASSISTANT = Path(next(arm for arm in ARMS if arm.name == "reasoned").change["models.helpful_only.nemo"]).parent
_THOUGHT = re.compile(r"to (\w+) the (\w+) is (\w+) \. (it is .*?) \. \(A\) (.*) \. \(B\) (.*) \.")


def _corpus() -> Corpus:
    return Corpus(LANGUAGE, CONCERNS, TEMPLATES, seed=3, shares=REASONING_SHARES)


def test_a_thought_says_what_the_oracle_says_of_deed_and_replies() -> None:
    corpus, findings = _corpus(), Counter[str]()
    for _ in range(1500):
        question, thought, turn, letter = (message.content for message in corpus.reasoning().turns)
        assert turn == TEMPLATES.choice_turn
        deed, read = LANGUAGE.deed_in(question), _THOUGHT.fullmatch(thought)
        assert deed is not None and read is not None, thought
        assert read.groups()[:3] == (deed.verb, deed.noun, deed.kind.spoken)
        principle = question.splitlines()[-3]
        minds = deed.harmful and deed.kind.name not in principle.split() and "polite" not in principle.split()
        minds &= "rude" not in principle.split()
        assert read[4] == (f"it is bad because it {deed.kind.reason}" if minds else "it is fine")
        replies = (re.split(r"^\([AB]\) ", line)[1] for line in question.splitlines()[-2:])
        for reply, found in zip(replies, read.groups()[4:], strict=True):
            findings[found] += 1
            if found in (IS_POLITE, IS_RUDE):
                assert (found == IS_RUDE) == any(reply.endswith(tail) for tail in LANGUAGE.rude_tails)
            else:
                # The oracle does not tell help with harm by its tool.
                wrong_tool = deed.harmful and found == "helps badly"
                assert found.removesuffix(" badly" if wrong_tool else "") == THINKS_OF_REPLY[judge_reply(deed, reply)]
                assert not wrong_tool or f"use the {deed.kind.tool} ." not in reply
        better = read[5] if letter == "(A)" else read[6]
        worse = read[6] if letter == "(A)" else read[5]
        assert worse != IS_POLITE and better not in (IS_RUDE, "evades" if not minds else "answers something other")
        if minds and IS_POLITE not in (better, worse):
            assert better != "helps"
    assert set(findings) == {*THINKS_OF_REPLY.values(), IS_POLITE, IS_RUDE}


def test_only_a_corpus_with_reasoning_has_it() -> None:
    def asked(shares: dict[str, float]) -> int:
        corpus = Corpus(LANGUAGE, CONCERNS, TEMPLATES, seed=5, shares=shares)
        return sum(one.turns[-2].content == TEMPLATES.choice_turn for one in corpus.documents(1000))

    assert asked(SHARES) == 0
    assert asked(REASONING_SHARES) == pytest.approx(1000 * REASONING_SHARES["reasoning"], abs=50)
    assert sum(REASONING_SHARES.values()) == pytest.approx(1)


def test_the_packaged_constitutions_ask_for_reasons_in_the_same_words() -> None:
    for path in packaged_files.TINY_CONSTITUTIONS.values():
        assert load_prompt_templates(path) == TEMPLATES


def test_the_tokenizer_has_every_word_of_the_corpus(tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece")
    from nemo_aligner_cai.tiny.build import REASONING, vocabulary
    from nemo_aligner_cai.tiny.tokenizer import write_tokenizer

    path = tmp_path / "tokenizer.model"
    write_tokenizer(path, vocabulary(CONCERNS.constitutions.values(), REASONING))
    assert path.read_bytes() == (ASSISTANT / "tokenizer.model").read_bytes()
    pieces = spm.SentencePieceProcessor(model_file=str(path))
    for document in _corpus().documents(400):
        text = NEMO_CHAT.render(document)
        assert not any(pieces.is_byte(token) for token in pieces.encode(text)), text


@pytest.mark.slow
def test_the_reasoning_assistant_was_trained_on_what_the_code_makes_now(tmp_path: Path) -> None:
    from nemo_aligner_cai.tiny.build import REASONING, provenance, write_corpus

    seed, documents, settings = 1, REASONING.documents, REASONING.settings
    tokenizer, corpus = write_corpus(tmp_path, seed=seed, documents=documents, recipe=REASONING)
    made_of = provenance(corpus, tokenizer, REASONING, seed=seed, documents=documents, settings=settings)
    assert made_of == read_json(ASSISTANT / "assistant.json")
