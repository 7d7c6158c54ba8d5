# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Convert Anthropic HH-RLHF to prompts and comparisons in a chat template.

Input:  {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"}
Output: a line of the prompts file: {"text": "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"}
        two of the comparisons file:    {"text": "...<extra_id_1>Assistant\nA\n<extra_id_1>"}
                                        {"text": "...<extra_id_1>Assistant\nB\n<extra_id_1>"}

Rows are streamed, and dropped rows are counted by reason. Rows with unusual turns, which upstream drops, are kept if
their meaning is clear (see `nemo_aligner_cai.prompts.transcript`).
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
from nemo_aligner_cai.files.sources import HUB, DataFile, data_files, read_rows, require_splits, split_files
from nemo_aligner_cai.prompts.transcript import TranscriptError, alternating, split_turns, strip_run_on

SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
"""The folders of comparisons on the hub. Together they are the complete HH data set."""
SPLITS = ("train", "test")
HUB_NAME = "Anthropic/hh-rlhf"

_LINE_END = b'"}\n'
_NEXT = ("\n\nHuman", "\n\nAssistant")
_REPLY = "\n\nAssistant:"


def parse_pair(chosen: str, rejected: str) -> tuple[list[str], str, str]:
    """Split a row into the prompt's turns (as `split_turns` gives them), the chosen and the rejected reply.

    Raises:
        TranscriptError: The row cannot be parsed. The message is the reason for the counts.
    """
    prompt, good, bad = _parse_common(chosen, rejected) or _parse_each(chosen, rejected)
    if not (good and bad):
        raise TranscriptError("empty reply")
    if good == bad:
        raise TranscriptError("chosen and rejected are the same")
    return prompt, good, bad


def _parse_common(chosen: str, rejected: str) -> tuple[list[str], str, str] | None:
    # Nearly all rows have one prompt and two last replies. Parsing the prompt once doubles the speed.
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
    """Fast generation prompts: the template is rendered once per number of turns, and turns are inserted into it."""

    def __init__(self, template: ChatTemplate, system_message: str) -> None:
        self._template, self._system_message = template, system_message
        self._pieces: dict[int, list[str] | None] = {}

    def render(self, turns: list[str]) -> str:
        """Return the same text as the template for the conversation of these turns."""
        count = len(turns)
        if count not in self._pieces:
            self._pieces[count] = self._render_pieces(count)
        pieces = self._pieces[count]
        if pieces is None:
            return self._rendered(turns)
        parts = [""] * (2 * count + 1)
        parts[::2], parts[1::2] = pieces, turns
        return "".join(parts)

    def _render_pieces(self, count: int) -> list[str] | None:
        """The texts between the turns. None if the template does not insert each turn unchanged, once and in order."""
        turns = [f" \0{number}\0 " for number in range(count)]
        rest, pieces = self._rendered(turns), list[str]()
        for turn in turns:
            before, found, rest = rest.partition(turn)
            if not found or turn in rest:
                return None
            pieces.append(before)
        return [*pieces, rest]

    def _rendered(self, turns: list[str]) -> str:
        return self._template.generation_prompt(alternating(turns).with_system(self._system_message))


@dataclass(frozen=True)
class Outputs:
    """The output files of one split."""

    prompts: Path
    comparisons: Path

    @classmethod
    def named(cls, folder: PathLike, split: str, *, prefix: str | None, add_eos: bool) -> "Outputs":
        """Return the files under upstream's names."""
        start = f"{prefix}_{split}" if prefix else split
        end = "with_chat_prompt" if add_eos else "with_chat_prompt_no_extra_id_eos"
        return cls(*(Path(folder) / f"{start}_{what}_{end}.jsonl" for what in ("prompts", "comparisons")))

    def check(self, *, overwrite: bool) -> None:
        """Raise UsageError if a file cannot be written, or exists and `overwrite` is False."""
        for path in (self.prompts, self.comparisons):
            check_output(path, overwrite=overwrite)


def write_split(
    rows: Iterable[tuple[str, Row]],
    outputs: Outputs,
    *,
    template: ChatTemplate,
    add_eos: bool = True,
    policy: TokenPolicy = TokenPolicy.ESCAPE,
    system_message: str = "",
    overwrite: bool = False,
) -> RowCounts:
    """Write the prompts and comparisons of a split.

    Args:
        rows: ("file:line", row) with the keys ``chosen`` and ``rejected``.
        outputs: The files to write.
        template: The chat template.
        add_eos: True: a comparison ends as in SFT. False (upstream's --add-eos False): without the stop string.
        policy: How to treat texts that contain the template's tokens; those of the system message are escaped.
        system_message: The system message of all rows.
        overwrite: Replace existing files.

    Returns:
        The row counts: `written` counts comparisons, `made` their lines.

    Raises:
        FormatError: A row lacks the two transcripts, or `policy` refuses it.
        CaiError: No row can be used.
    """
    counts = RowCounts()
    prompts_of = _Prompts(template, template.escape(system_message))
    end = template.reply_end if add_eos else template.end_of_turn
    with ExitStack() as stack:
        prompts = stack.enter_context(atomic_writer(outputs.prompts, overwrite=overwrite))
        comparisons = stack.enter_context(atomic_writer(outputs.comparisons, overwrite=overwrite))
        for where, row in rows:
            counts.rows_in += 1
            chosen, rejected = row.get("chosen"), row.get("rejected")
            if not isinstance(chosen, str) or not isinstance(rejected, str):
                raise FormatError(f"{where}: the keys 'chosen' and 'rejected' must each have a transcript")
            start = row.get("prompt")
            if isinstance(start, str) and start.rstrip().endswith(_REPLY) and not chosen.startswith(start):
                # Copies of HH have a separate prompt, and replies without it.
                chosen, rejected = start + chosen, start + rejected
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
            # Concatenating JSON strings encodes the prompt once instead of three times.
            line = b'{"text":"' + _json_characters(prompts_of.render(prompt))
            prompts.write(line + _LINE_END)
            for reply in (good, bad):
                comparisons.write(line + _json_characters(reply + end) + _LINE_END)
            counts.written += 1
            counts.made += 2
        counts.check()
        counts.require_written(outputs.comparisons)
    return counts


def _json_characters(text: str) -> bytes:
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
    # The replies become further turns, so that the row is counted once.
    try:
        safe = guard(alternating([*prompt, good, bad]), template, policy=policy, counts=counts)
    except UsageError as error:
        raise FormatError(f"{where}: {error}") from error
    if safe is None:
        return None
    *prompt, good, bad = (message.content for message in safe.messages)
    return prompt, good, bad


def rows_of(files: Iterable[DataFile]) -> Iterator[tuple[str, Row]]:
    """Yield ("file:line", row) from data files."""
    for file in files:
        for line, row in read_rows(file):
            yield f"{file}:{line}", row


def hub_rows(subsets: Iterable[str], split: str) -> Iterator[tuple[str, Row]]:
    """Yield ("file:line", row) from the Hugging Face hub. Needs the extra [hf] and the network."""
    return rows_of(file for subset in subsets for file in data_files(f"{HUB}{HUB_NAME}/{subset}", split))


def local_files(source: PathLike, subsets: Iterable[str]) -> dict[str, list[Path]]:
    """The data files of each split in `source`.

    Args:
        source: A folder in the hub's layout (``<subset>/{train,test}.jsonl.gz``), the folder of one subset, or a file.
            A file belongs to the split "test" if its name contains this word, else to "train".
        subsets: The subsets to read from a folder that has several.

    Raises:
        UsageError: There are no files, a file is of no split, or a subset is missing.
    """
    source = Path(source)
    if not source.is_dir():
        return {"test" if "test" in source.name else "train": [require_file(source)]}
    wanted = list(subsets)
    present = [subset for subset in wanted if (source / subset).is_dir()]
    if present and len(present) < len(wanted):
        raise UsageError(f"{source}: has no folder {next(name for name in wanted if name not in present)!r}")
    folders = [source / subset for subset in present] or [source]
    found = {split: [file for folder in folders for file in split_files(folder, split)] for split in SPLITS}
    if not any(found.values()):
        raise UsageError(f"{source}: has no train.jsonl.gz or test.jsonl.gz, in it or in {', '.join(wanted)}")
    for folder in folders:
        require_splits(folder)
    return {split: files for split, files in found.items() if files}
