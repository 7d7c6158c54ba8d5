# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Step 1: red-team prompts and helpfulness data, of real data sets or of the tiny world.

Every writer returns the row counts of its input files: rows in = rows written + rows skipped, by reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.data import anthropic_hh
from nemo_aligner_cai.data.formats.files import convert_file
from nemo_aligner_cai.data.formats.nemo import SftChat
from nemo_aligner_cai.data.prompt_files import read_prompts
from nemo_aligner_cai.data.split import assign_splits, share_and_rest
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts, write_jsonl
from nemo_aligner_cai.files.object_stores import download
from nemo_aligner_cai.files.sources import DataFile, data_files
from nemo_aligner_cai.pipeline.layout import DATA, HELPFUL_PREFERENCES, HELPFUL_SFT, MEASURED, RL_PROMPTS, SL_PROMPTS
from nemo_aligner_cai.pipeline.sections.data import HH, Data, HelpfulPreferences, HelpfulSft, RedTeam
from nemo_aligner_cai.pipeline.step_cache import Step
from nemo_aligner_cai.pipeline.steps.context import RunContext
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.stages.rl_outputs import KINDS
from nemo_aligner_cai.tiny.data import Sizes, write_data
from nemo_aligner_cai.tiny.language import language

RowCountsByFile = dict[str, dict[str, Any]]


def data_step(run: RunContext) -> Step:
    """The step that generates the tiny world's files, and reads prompts and preferences of real data sets."""
    data = run.config.data

    def work(folder: Path) -> Mapping[str, Any]:
        loaded = load_tokenizer(run.files.tokenizer)
        return {"balances": _write_data_files(data, folder, tokenizer=loaded, seed=run.config.seed)}

    measured = (MEASURED,) if data.tiny else ()
    return Step(
        DATA,
        "Step 1: prompts and helpfulness data",
        reads=(run.files.tokenizer_source, *data.files),
        makes=(SL_PROMPTS, RL_PROMPTS, HELPFUL_SFT, *measured, *HELPFUL_PREFERENCES),
        settings=run.settings(data.model_dump(mode="json", exclude_defaults=True)),
        work=work,
    )


def _write_data_files(data: Data, folder: Path, *, tokenizer: Tokenizer, seed: int) -> RowCountsByFile:
    """Write all files of the step into its folder, the tiny world's and those of real data sets."""
    data = _with_copies(data, folder)
    if data.tiny is not None:
        sizes = Sizes(**data.tiny.model_dump(exclude={"measured_split"}))
        write_data(folder, language(), sizes, seed=seed, measured=data.tiny.measured_split)
    own = RedTeam(
        path=str(folder / "red_team_attempts.jsonl"), turns=data.red_team_turns or "first", limit=data.red_team_limit
    )
    pairs = data.helpful_preferences or HelpfulPreferences(path=str(folder / "helpful-base"))
    return (
        _red_team_prompts(data, data.red_team or own, folder, tokenizer=tokenizer, seed=seed)
        | _helpful_conversations(data.helpful_sft, folder / HELPFUL_SFT, data.system_message)
        | _helpful_preferences(pairs, folder, data.system_message)
    )


def _with_copies(data: Data, folder: Path) -> Data:
    """Copy what is in object stores into the step's folder."""
    copies = {
        name: source.model_copy(update={"path": str(download(source.path, folder / "cai_inputs"))})
        for name, source in data.sources.items()
        if source.path is not None and source.is_object
    }
    return data.model_copy(update=copies)


def _red_team_prompts(
    data: Data, source: RedTeam, folder: Path, *, tokenizer: Tokenizer, seed: int
) -> RowCountsByFile:
    """Read red-team prompts and split them between SL-CAI and RL-CAI.

    Args:
        data: the share of each stage, and the number of tokens, with NeMo's chat template, beyond which a prompt is
            skipped.
        source: the prompts.
        folder: gets ``sl_prompts.jsonl`` and ``rl_prompts.jsonl``.
        tokenizer: the model's.
        seed: of the split.
    """
    targets, share = (folder / SL_PROMPTS, folder / RL_PROMPTS), data.sl_share
    max_tokens, settings = data.max_prompt_tokens, source.model_dump(exclude={"path", "hf"})
    counts = RowCounts()
    kept = list(_short(read_prompts(source.source, counts=counts, **settings), max_tokens, tokenizer, counts))
    if len(kept) < len(targets):
        raise UsageError(f"{source.source}: {len(kept)} usable prompts, SL-CAI and RL-CAI need one each ({counts})")
    names = [str(number) for number in range(len(targets))]
    shares = dict(zip(names, share_and_rest(share), strict=True))
    assigned = assign_splits((prompt.id for prompt in kept), shares, seed=seed)
    for name, target in zip(names, targets, strict=True):
        rows = ({"messages": prompt.conversation.to_messages()} for prompt in kept if assigned[prompt.id] == name)
        write_jsonl(target, rows, overwrite=True)
    counts.check()
    return {Path(source.source).name: counts.to_dict()}


def _short(prompts: Iterable[Prompt], max_tokens: int, tokenizer: Tokenizer, counts: RowCounts) -> Iterator[Prompt]:
    for prompt in prompts:
        if len(tokenizer.encode([NEMO_CHAT.generation_prompt(prompt.conversation)])[0]) > max_tokens:
            counts.written -= 1
            counts.skip(f"longer than {max_tokens} tokens")
        else:
            yield prompt


def _helpful_conversations(source: HelpfulSft | None, target: Path, system_message: str) -> RowCountsByFile:
    """Convert helpful conversations to SFT's format; without a source, the tiny world's file is there already."""
    if source is None:
        return {}
    counts = convert_file(
        source.source,
        target,
        to=SftChat.name,
        source_format=source.format,
        system_message=system_message,
        overwrite=True,
    )
    return {Path(source.source).name: counts.to_dict()}


def _helpful_preferences(source: HelpfulPreferences, target: Path, system_message: str) -> RowCountsByFile:
    """Convert the splits of human preferences to prompts and comparisons, with upstream's file names.

    Raises:
        UsageError: a split is missing.
    """
    counts: RowCountsByFile = {}
    for split in anthropic_hh.SPLITS:
        outputs = anthropic_hh.Outputs.named(target, split, prefix="helpful", add_eos=True)
        if source.format == HH:
            rows = anthropic_hh.rows_of(hh_files(source, split))
            written = anthropic_hh.write_split(
                rows, outputs, template=NEMO_CHAT, system_message=system_message, overwrite=True
            )
        else:
            convert = partial(
                convert_file,
                source.source,
                source_format=source.format,
                split=split,
                system_message=system_message,
                overwrite=True,
            )
            convert(outputs.prompts, to=KINDS["prompts"])
            written = convert(outputs.comparisons, to=KINDS["comparisons"])
        counts[f"{split}.jsonl.gz"] = written.to_dict()
    return counts


def hh_files(source: HelpfulPreferences, split: str) -> Sequence[DataFile]:
    """The files of a split of HH. Raises UsageError: the source has none."""
    if source.path is None:
        return [file for subset in source.subsets for file in data_files(f"{source.source}/{subset}", split)]
    files = anthropic_hh.local_files(source.path, source.subsets).get(split)
    if not files:
        raise UsageError(f"{source.path}: no file of the split {split!r}; reward model and PPO need train and test")
    return files
