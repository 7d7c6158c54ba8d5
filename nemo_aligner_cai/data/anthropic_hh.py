# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Anthropic HH-RLHF -> prompts and comparisons in a chat template.

Input:  {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"}
Output: a line of the prompts file: {"text": "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"}
        two of the comparisons file:    {"text": "...<extra_id_1>Assistant\nA\n<extra_id_1>"}
                                        {"text": "...<extra_id_1>Assistant\nB\n<extra_id_1>"}

Rows stream: memory does not grow with the file. A row that is not kept is counted under its reason. Rows with unusual
turns, which upstream drops, are kept where they can be understood (see `nemo_aligner_cai.prompts.transcript`).
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson

from nemo_aligner_cai.chat import ChatTemplate, TokenPolicy, guard
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row, RowCounts, atomic_writer, require_file
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.files.sources import HUB, DataFile, data_files, read_rows, split_files
from nemo_aligner_cai.prompts.transcript import TranscriptError, alternating, split_turns, strip_run_on

SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
"""The folders of comparisons on the hub; together they are the whole of HH."""
SPLITS = ("train", "test")
HUB_NAME = "Anthropic/hh-rlhf"

_LINE_END = b'"}\n'
_NEXT = ("\n\nHuman", "\n\nAssistant")
_REPLY = "\n\nAssistant:"


def parse_pair(chosen: str, rejected: str) -> tuple[list[str], str, str]:
    """The prompt's turns (the user's first, as `split_turns` gives them), the chosen and the rejected reply of a row.

    Raises:
        TranscriptError: the row cannot be understood; the message is the reason to count it under.
    """
    prompt, good, bad = _parse_common(chosen, rejected) or _parse_each(chosen, rejected)
    if not (good and bad):
        raise TranscriptError("empty reply")
    if good == bad:
        raise TranscriptError("chosen and rejected are the same")
    return prompt, good, bad


def _parse_common(chosen: str, rejected: str) -> tuple[list[str], str, str] | None:
    # Nearly all rows are one prompt with two last replies: then the prompt is parsed once, for twice the speed.
    start, marker, good = chosen.rpartition(_REPLY)
    if not marker or not rejected.startswith(start + marker):
        return None
    bad = rejected[len(start) + len(marker) :]
    if _NEXT[0] in good or _NEXT[0] in bad or _NEXT[1] in good or _NEXT[1] in bad:
        return None
    try:
        prompt = split_turns(start)
    except TranscriptError:
        return None
    return (prompt, good.strip(), bad.strip()) if len(prompt) % 2 else None


def _parse_each(chosen: str, rejected: str) -> tuple[list[str], str, str]:
    good, bad = (split_turns(strip_run_on(text)) for text in (chosen, rejected))
    if len(good) % 2 or len(bad) % 2:
        raise TranscriptError("the assistant does not speak last")
    if good[:-1] != bad[:-1]:
        raise TranscriptError("chosen and rejected have different prompts")
    return good[:-1], good[-1], bad[-1]


class _Prompts:
    """The generation prompts of a template, put together of the pieces that it puts around its turns.

    The pieces are what the template itself renders, once for each number of turns, around texts that stand for turns.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._pieces: dict[int, list[str] | None] = {}

    def render(self, turns: list[str]) -> str:
        """As the template renders the conversation of these turns."""
        count = len(turns)
        if count not in self._pieces:
            self._pieces[count] = self._around(count)
        pieces = self._pieces[count]
        if pieces is None:
            return self._template.generation_prompt(alternating(turns))
        parts = [""] * (2 * count + 1)
        parts[::2], parts[1::2] = pieces, turns
        return "".join(parts)

    def _around(self, count: int) -> list[str] | None:
        """None for a template that does not put every turn in as it is, once, and in order."""
        turns = [f" \0{number}\0 " for number in range(count)]
        rest, pieces = self._template.generation_prompt(alternating(turns)), list[str]()
        for turn in turns:
            before, found, rest = rest.partition(turn)
            if not found or turn in rest:
                return None
            pieces.append(before)
        return [*pieces, rest]


@dataclass(frozen=True)
class Outputs:
    """The two files of a split."""

    prompts: Path
    comparisons: Path

    @classmethod
    def named(cls, folder: PathLike, split: str, *, prefix: str | None, add_eos: bool) -> "Outputs":
        """Under the names that upstream gives them."""
        start = f"{prefix}_{split}" if prefix else split
        end = "with_chat_prompt" if add_eos else "with_chat_prompt_no_extra_id_eos"
        return cls(*(Path(folder) / f"{start}_{what}_{end}.jsonl" for what in ("prompts", "comparisons")))

    def check(self, *, overwrite: bool) -> None:
        """Raises UsageError when one cannot be written, or exists and must not be replaced."""
        for path in (self.prompts, self.comparisons):
            check_output(path, overwrite=overwrite)


def write_split(
    rows: Iterable[tuple[str, Row]],
    outputs: Outputs,
    *,
    template: ChatTemplate,
    add_eos: bool = True,
    policy: TokenPolicy = TokenPolicy.ESCAPE,
    overwrite: bool = False,
) -> RowCounts:
    """Write the prompts and comparisons of a split, both in one step.

    Args:
        rows: ("file:line", row) with the keys ``chosen`` and ``rejected``.
        outputs: where to.
        template: of the texts.
        add_eos: whether a comparison ends as SFT ends it, or (upstream's --add-eos False) without the stop string.
        policy: what to do with texts that contain the template's tokens.
        overwrite: whether existing files may be replaced.

    Returns:
        Where the rows went; "written" counts comparisons, "made" their lines.

    Raises:
        FormatError: a row lacks the two transcripts, or `policy` refuses it.
        CaiError: no row can be used.
    """
    counts = RowCounts()
    prompts_of = _Prompts(template)
    end = template.reply_end if add_eos else template.end_of_turn
    with ExitStack() as stack:
        prompts = stack.enter_context(atomic_writer(outputs.prompts, overwrite=overwrite))
        comparisons = stack.enter_context(atomic_writer(outputs.comparisons, overwrite=overwrite))
        for where, row in rows:
            counts.rows_in += 1
            chosen, rejected = row.get("chosen"), row.get("rejected")
            if not isinstance(chosen, str) or not isinstance(rejected, str):
                raise FormatError(f"{where}: needs the keys 'chosen' and 'rejected' with a transcript each")
            asked = row.get("prompt")
            if isinstance(asked, str) and asked.rstrip().endswith(_REPLY) and not chosen.startswith(asked):
                # Copies of HH have the replies alone beside their prompt.
                chosen, rejected = asked + chosen, asked + rejected
            try:
                prompt, good, bad = parse_pair(chosen, rejected)
            except TranscriptError as reason:
                counts.skip(str(reason))
                continue
            if template.contains_template_token("\n".join([*prompt, good, bad])):
                safe = _guard(where, prompt, good, bad, template=template, policy=policy, counts=counts)
                if safe is None:
                    continue
                prompt, good, bad = safe
            # The parts of a JSON string can be written one by one: so a prompt's text is, and not three times.
            start = b'{"text":"' + _inner(prompts_of.render(prompt))
            prompts.write(start + _LINE_END)
            comparisons.write(start + _inner(good + end) + _LINE_END + start + _inner(bad + end) + _LINE_END)
            counts.written += 1
            counts.made += 2
        counts.check()
        counts.require_written(outputs.comparisons)
    return counts


def _inner(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]


def _guard(
    where: str,
    prompt: list[str],
    good: str,
    bad: str,
    *,
    template: ChatTemplate,
    policy: TokenPolicy,
    counts: RowCounts,
) -> tuple[list[str], str, str] | None:
    # The two replies as further turns, so that the row counts once.
    try:
        safe = guard(alternating([*prompt, good, bad]), template, policy=policy, counts=counts)
    except UsageError as error:
        raise FormatError(f"{where}: {error}") from error
    if safe is None:
        return None
    *prompt, good, bad = (message.content for message in safe.messages)
    return prompt, good, bad


def rows_of(files: Iterable[DataFile]) -> Iterator[tuple[str, Row]]:
    """("file:line", row) of data files, one after the other."""
    for file in files:
        for line, row in read_rows(file):
            yield f"{file}:{line}", row


def hub_rows(subsets: Iterable[str], split: str) -> Iterator[tuple[str, Row]]:
    """The same from the Hugging Face hub; needs the extra [hf] and the network."""
    return rows_of(file for subset in subsets for file in data_files(f"{HUB}{HUB_NAME}/{subset}", split))


def local_files(source: PathLike, subsets: Iterable[str]) -> dict[str, list[Path]]:
    """The data files of each split that `source` has.

    Args:
        source: a folder in the hub's layout (``<subset>/{train,test}.jsonl.gz``), the folder of one subset, or a
            file, which belongs to the split that its name mentions ("train" where it mentions none).
        subsets: those to read of a folder that has several.

    Raises:
        UsageError: nothing there, or a subset is missing.
    """
    source = Path(source)
    if not source.is_dir():
        return {"test" if "test" in source.name else "train": [require_file(source)]}
    wanted = list(subsets)
    there = [subset for subset in wanted if (source / subset).is_dir()]
    if there and len(there) < len(wanted):
        raise UsageError(f"{source}: has no folder {next(name for name in wanted if name not in there)!r}")
    folders = [source / subset for subset in there] or [source]
    found = {split: [file for folder in folders for file in split_files(folder, split)] for split in SPLITS}
    if not any(found.values()):
        raise UsageError(f"{source}: has no train.jsonl.gz or test.jsonl.gz, in it or in {', '.join(wanted)}")
    return {split: files for split, files in found.items() if files}
