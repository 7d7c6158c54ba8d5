# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What examples/nlp/cai/generate_sl_cai_dataset.py does: SL-CAI data, blended with helpfulness data and filtered.

Input:  red-team prompts, few-shots, critique and revision instructions, helpfulness SFT data
Output: OUT.jsonl                                      what SFT trains on: blended, shuffled, nothing over-long
        OUT.summary.jsonl                              what went into it
        removed_long_dialogs/...                       with --max-seq-length: the same rows under upstream's name
        and in cai_output/OUT.jsonl/, so that several outputs can be in one folder:
        cai_samples.jsonl                              the SL-CAI rows alone
        cai_critique_revision_samples.json             each prompt's answer, critique and revision
        cai_revisions.jsonl, .journal.jsonl, .left_out.jsonl, cai_manifest.json
"""

import argparse
import asyncio
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai.commands import generate_flags as flags
from nemo_aligner_cai.commands import generate_run
from nemo_aligner_cai.commands.flag_types import COUNT, SEED, Parser, never
from nemo_aligner_cai.commands.generate_manifest import Manifest, Place, generation_facts
from nemo_aligner_cai.constitution import load_constitution, packaged
from nemo_aligner_cai.conversation import TEMPLATE_FLAGS, ChatTemplate, StringTemplate, template_from_flags
from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.formats import convert_file, detect_format, validate_file
from nemo_aligner_cai.data.formats_nemo import SftChat
from nemo_aligner_cai.data.length import EMPTY_SYSTEM_MERGED, filter_file, merges_empty_system
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer, tokenizer_path
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import Balance, read_jsonl, require_file, write_json, write_jsonl
from nemo_aligner_cai.generate.json_list import write_json_list
from nemo_aligner_cai.generate.resuming import adopt
from nemo_aligner_cai.generate.revisions import Revising, fresh_records, generate_revisions
from nemo_aligner_cai.generate.stage import left_out_path
from nemo_aligner_cai.generate.summary import Summary
from nemo_aligner_cai.generate.wording import load_wording
from nemo_aligner_cai.models import ModelClient
from nemo_aligner_cai.prompts import read_few_shots

NO_SHOTS = "none"
"""What --few-shots takes for no examples."""
_DATA_SUFFIX = re.compile(r"(\.(jsonl|json|csv|txt|parquet))?(\.gz)?$")


def build_parser() -> Parser:
    """Upstream's flags and defaults, and what only this package has."""
    parser = Parser(
        description="Let a helpful-only model answer red-team prompts, critique its answers and revise them (SL-CAI)."
    )
    parser.add_argument(
        "--max-seq-length", type=COUNT, help="leave out dialogues with more tokens (needs a tokenizer)"
    )
    parser.add_argument("--batch_size", type=COUNT, default=32, help="prompts per request to NeMo's server")
    parser.add_argument("--tokenizer-model", help="a SentencePiece .model file, or a Hugging Face tokenizer's folder")
    parser.add_argument("--tokenizer-library", help="accepted as upstream has it; the file tells")
    parser.add_argument("--num-examples", type=int, default=-1, help="prompts to use; -1 (default) uses all")
    parser.add_argument(
        "--save-to-file-interval",
        type=COUNT,
        default=1,
        help="accepted as upstream has it; every call is saved at once",
    )
    parser.add_argument("--red-teaming-prompts-dataset-path", required=True)
    parser.add_argument(
        "--few-shot-prompts-dataset-path",
        "--few-shots",
        metavar="FILE",
        default=str(packaged("few_shots.json")),
        help=f"examples of answer, critique and revision; {NO_SHOTS!r} for none (default: packaged)",
    )
    parser.add_argument(
        "--critique-revision-instructions-path",
        "--constitution",
        metavar="FILE",
        default=str(packaged()),
        help="a constitution with critique and revision requests (default: packaged)",
    )
    parser.add_argument("--output-filepath", default="cai_revisions_aligner_chat_template.jsonl")
    parser.add_argument("--seed", type=SEED, default=1234)
    parser.add_argument(
        "--helpfulness-dataset-path",
        metavar="FILE",
        help="conversations to blend with, in any format that `cai convert` reads; not needed by --preview and --plan",
    )
    parser.add_argument("--num-revisions", type=COUNT, default=1, help="rounds of critique and revision (default: 1)")
    parser.add_argument(
        "--keep-unrevised", action="store_true", help="keep answers that the revision leaves as they are"
    )
    flags.add_inference_flags(
        parser,
        {"top_k": 1, "top_p": 0.9, "repetition_penalty": 1.2, "greedy": "True", "end_strings": None},
    )
    group = flags.add_template_flags(
        parser, {name: None for name in TEMPLATE_FLAGS} | {"response_extract_pattern": "[/INST]"}
    )
    group.add_argument(
        "--apply_chat_template",
        choices=["True", "False"],
        default="False",
        help="False: the server's tokenizer renders the messages; True: the flags of this group do",
    )
    flags.add_prompt_column_flag(parser)
    flags.add_run_flags(parser)
    parser.effect("tokenizer_library", when=never, otherwise="here: the file tells", accepted=True)
    parser.effect("save_to_file_interval", when=never, otherwise="here: every call is saved at once", accepted=True)
    parser.effect(
        "tokenizer_model", when=lambda args: args.max_seq_length is not None, otherwise="without --max-seq-length"
    )
    parser.effect(
        "batch_size",
        "response_extract_pattern",
        when=lambda args: not args.model_url,
        otherwise=flags.WITH_MODEL_URL,
        accepted=True,
    )
    parser.effect(
        "chat_template",
        "apply_chat_template",
        when=lambda args: not args.model_url,
        otherwise="with --model-url: that server renders the messages",
    )
    parser.effect(
        *(name for name in TEMPLATE_FLAGS if name != "response_extract_pattern"),
        when=lambda args: args.apply_chat_template == "True" and not args.model_url,
        otherwise="where the server renders the messages; give --apply_chat_template True for NeMo's server",
    )
    return parser


_WITHOUT_LONG = "removed_long_dialogs"


@dataclass(frozen=True)
class _Files:
    """Where everything goes."""

    out: Path
    seq_length: int | None
    """What dialogues are filtered by, None where they are not."""

    @property
    def old_folder(self) -> Path:
        """Where earlier versions had what is in `folder` now, of whatever output."""
        return self.out.parent / "cai_output"

    @property
    def folder(self) -> Path:
        return self.old_folder / self.out.name

    @property
    def revisions(self) -> Path:
        return self.folder / "cai_revisions.jsonl"

    @property
    def journal(self) -> Path:
        return self.folder / "cai_revisions.journal.jsonl"

    @property
    def samples(self) -> Path:
        return self.folder / "cai_samples.jsonl"

    @property
    def steps(self) -> Path:
        return self.folder / "cai_critique_revision_samples.json"

    @property
    def old_journal(self) -> Path:
        return self.old_folder / self.journal.name

    @property
    def place(self) -> Place:
        name = "cai_manifest.json"
        folders = (self.out.parent, self.folder, self.old_folder, self.out.parent / _WITHOUT_LONG)
        return Place(self.folder / name, self.revisions.name, "output_filepath", folders, self.old_folder / name)

    @property
    def summary(self) -> Path:
        # Only the name's own ending changes, whatever the folders are called.
        known = self.out.suffix in (".json", ".jsonl")
        return self.out.with_suffix(f".summary{self.out.suffix}") if known else Path(f"{self.out}.summary.json")

    @property
    def blended(self) -> Path:
        return self.out if self.seq_length is None else self.folder / "cai_blended.jsonl"

    @property
    def without_long(self) -> Path:
        name = f"{self.out.stem}_remove_long_dialogs_max_seq_{self.seq_length}{self.out.suffix}"
        return self.out.parent / _WITHOUT_LONG / name

    @property
    def statistics(self) -> Path:
        return self.without_long.with_name(f"{self.out.stem}_remove_long_dialogs_statistics.json")

    @property
    def raw(self) -> list[Path]:
        """What is written of every run, but for the journal and the manifest."""
        return [self.revisions, left_out_path(self.revisions), self.samples, self.steps]

    @property
    def outputs(self) -> list[Path]:
        """Every file but the journal and the manifest."""
        filtered = [] if self.seq_length is None else [self.blended, self.without_long, self.statistics]
        return [self.out, self.summary, *filtered, *self.raw]


def run(args: argparse.Namespace) -> int:
    """Check everything that can be wrong, then generate, blend and filter."""
    if args.num_examples == 0 or args.num_examples < -1:
        raise UsageError(f"--num-examples must be positive, or -1 for all, it is {args.num_examples}")
    limit = None if args.num_examples == -1 else args.num_examples
    tokenizer = _tokenizer(args)
    template, server_template = _template(args)
    instructions = require_file(args.critique_revision_instructions_path)
    constitution, wording = load_constitution(instructions), load_wording(instructions)
    shots_path = None if args.few_shot_prompts_dataset_path == NO_SHOTS else args.few_shot_prompts_dataset_path
    shots = read_few_shots(shots_path) if shots_path else ()
    sampling = flags.sampling_of(args)
    source = args.red_teaming_prompts_dataset_path

    def revising(client: ModelClient) -> Revising:
        return Revising(
            client, constitution, shots, wording, sampling, args.seed, args.num_revisions, args.keep_unrevised
        )

    if args.preview is not None:
        records = fresh_records(flags.first_prompts(args, source))
        rendered = None if args.model_url or server_template else template
        generate_run.show_preview(records, lambda *clients: revising(*clients).steps(), rendered)
        return 0
    if args.helpfulness_dataset_path is None and not args.plan:
        raise UsageError(
            "--helpfulness-dataset-path: name the conversations to blend with; only --preview and --plan need none"
        )
    if tokenizer is not None and not args.system_message:
        _require_system(args, tokenizer)
    options = flags.options_of(args, flags.count_prompts(args, source, limit))
    with tempfile.TemporaryDirectory() as scratch:
        helpful, lines = _helpful(args, Path(scratch) / "helpful")
        out = Path(scratch) / "out.jsonl" if args.dry_run else Path(args.output_filepath)
        files = _Files(out, args.max_seq_length)
        client = flags.model_client(args, template, batch_size=args.batch_size, server_template=server_template)
        read = Balance()
        prompts = flags.prompts_of(args, source, limit, balance=read)
        if args.resume:
            adopt(files.old_journal, files.journal)
        if args.plan:
            journal = None if args.overwrite else files.journal
            steps = revising(client).steps()
            generate_run.show_plan(fresh_records(prompts), steps, seed=args.seed, journal_path=journal)
            return 0
        inputs = generate_run.input_files(
            *(source, shots_path, instructions, args.helpfulness_dataset_path),
            tokenizer_path(args.tokenizer_model) if tokenizer is not None else None,
        )
        generate_run.check_files(
            inputs,
            files.outputs,
            journal=files.journal,
            manifest=files.place.path,
            resume=args.resume,
            overwrite=args.overwrite,
        )
        manifest = Manifest.begin(files.place, args, inputs)
        revising(client)

        async def generate() -> Summary:
            try:
                return await generate_revisions(
                    prompts,
                    client,
                    constitution,
                    few_shots=shots,
                    wording=wording,
                    sampling=sampling,
                    out_path=files.revisions,
                    journal_path=files.journal,
                    sft_path=files.samples,
                    num_revisions=args.num_revisions,
                    keep_unrevised=args.keep_unrevised,
                    options=options,
                    read=read,
                )
            finally:
                await client.close()

        summary = asyncio.run(generate())
        manifest.announce(files.outputs)
        write_json_list(files.steps, _steps(files.revisions), overwrite=True)
        blended, made = _finish(args, files, tokenizer, helpful) if summary.balance.written else ([], False)
        lines += blended
        lines += manifest.remove_stale(files.outputs if made else files.raw, files.outputs)
        manifest.write(files.outputs, **generation_facts(summary, **{"helpful-only": client}))
    if args.dry_run:
        lines.append("dry run: nothing was kept")
    elif made:
        lines.append(f"written: {files.out}")
    generate_run.show_summary("SL-CAI", summary, lines)
    summary.check(options.max_dropped)
    if not made:
        raise CaiError(f"--max-seq-length {args.max_seq_length} leaves nothing to train on")
    return 0


def _tokenizer(args: argparse.Namespace) -> Tokenizer | None:
    if args.max_seq_length is None:
        return None
    if not args.tokenizer_model:
        raise UsageError("--max-seq-length needs --tokenizer-model, the model's own tokenizer")
    return load_tokenizer(args.tokenizer_model)


def _require_system(args: argparse.Namespace, tokenizer: Tokenizer) -> None:
    """Raises UsageError if SFT would stop at every prompt without a system message, before any is paid for."""
    prompts = flags.prompts_of(args, args.red_teaming_prompts_dataset_path, None, balance=Balance())
    if merges_empty_system(tokenizer) and any(not prompt.conversation.system for prompt in prompts):
        raise UsageError(f"--tokenizer-model {args.tokenizer_model}: {EMPTY_SYSTEM_MERGED}")


def _template(args: argparse.Namespace) -> tuple[ChatTemplate, bool]:
    """The template, and whether the server renders: then it only has to find replies."""
    if args.chat_template or args.apply_chat_template == "True":
        return flags.template_of(args), False
    pattern = template_from_flags({"response_extract_pattern": args.response_extract_pattern}).response_extract_pattern
    # One header per user turn, wherever the server puts it.
    return StringTemplate(
        "{MESSAGE}" + (pattern or ""), "{MESSAGE}", system_format="{MESSAGE}", response_extract_pattern=pattern
    ), not args.model_url


def _helpful(args: argparse.Namespace, folder: Path) -> tuple[Path, list[str]]:
    """The helpfulness data as rows for SFT, and lines for people; another format's is converted into a folder.

    Raises:
        UsageError, FormatError: a row is wrong, before anything is paid for.
    """
    given = args.helpfulness_dataset_path
    if given is None:
        return folder, []
    name = detect_format(given)
    if name == SftChat.name and not args.system_message:
        validate_file(given, name)
        return Path(given), []
    # Under its own name, which the rows get as their data set's.
    folder.mkdir()
    source = folder / f"{_DATA_SUFFIX.sub('', Path(given).name)}.jsonl"
    balance = convert_file(given, source, to=SftChat.name, system_message=args.system_message)
    return source, [] if name == SftChat.name else [f"{given}: read as {name}; {balance}"]


def _finish(
    args: argparse.Namespace, files: _Files, tokenizer: Tokenizer | None, helpful: Path
) -> tuple[list[str], bool]:
    """Blend, filter and say what went in; returns lines for people, and whether anything is left to train on."""
    sources = [helpful, files.samples]
    blend = blend_files(sources, files.blended, seed=args.seed, format_name=SftChat.name, overwrite=True)
    lines = [f"blended: {blend}"]
    summary: dict[str, Any] = {
        "input_files": [args.helpfulness_dataset_path, str(files.samples)],
        "output_file": str(files.out),
        "prompt_template": "chat",
        "rows": blend.rows,
    }
    if tokenizer is not None:
        kept, length = files.without_long, args.max_seq_length
        use = filter_file(files.blended, kept, "sft-chat", tokenizer=tokenizer, seq_length=length, overwrite=True)
        lines.append(f"length: {use}")
        if not use.used:
            return lines, False
        # What the filter leaves is what training gets: the file that the user named.
        write_jsonl(files.out, (row for _, row in read_jsonl(kept)), overwrite=True)
        files.blended.unlink()
        statistics = {
            "output_file": str(kept),
            "num_removed_ids": len(use.too_long),
            "removed_ids": [number - 1 for number in use.too_long],
            "length_statistics": {str(tokens): count for tokens, count in sorted(use.lengths.items())},
        }
        write_json(files.statistics, statistics, overwrite=True)
        summary["removed_long_dialogs"] = len(use.too_long)
    write_json(files.summary, summary, overwrite=True)
    return lines, True


def _steps(revisions: Path) -> Iterator[dict[str, str]]:
    """Upstream's rows; of several rounds the last one, whose revision is trained on."""
    for _, row in read_jsonl(revisions):
        last = row["rounds"][-1]
        yield {
            "initial_prompt": row["prompt"][-1]["content"],
            "initial_response": row["response"] if len(row["rounds"]) == 1 else row["rounds"][-2]["revision"],
            "critique_prompt": last["critique_request"],
            "critique_response": row["critique"],
            "revision_prompt": last["revision_request"],
            "revision_response": row["revision"],
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    return flags.run_script(run, build_parser(), argv)
