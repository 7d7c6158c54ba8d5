# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What examples/nlp/cai/generate_sl_cai_dataset.py does: SL-CAI data, blended with helpfulness data and filtered.

Input:  red-team prompts, few-shots, critique and revision instructions, helpfulness SFT data
Output: OUT.jsonl                                      what SFT trains on: blended, shuffled, nothing over-long
        OUT_validation.jsonl                           with --validation-share: held-out prompts, for validation
        OUT.summary.jsonl                              what went into it
        removed_long_dialogs/...                       with --max-seq-length: the same rows under upstream's name
        and in cai_output/OUT.jsonl/, so that several outputs can be in one folder:
        cai_samples.jsonl                              the SL-CAI rows alone
        cai_critique_revision_samples.json             each prompt's answer, critique and revision
        cai_revisions.jsonl, .journal.jsonl, .left_out.jsonl, cai_manifest.json
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nemo_aligner_cai.chat import TEMPLATE_FLAGS, ChatTemplate, StringTemplate, template_from_flags
from nemo_aligner_cai.commands.common.flag_types import COUNT, SEED, SHARE, Parser, never, record_of
from nemo_aligner_cai.commands.generate import generate_flags as flags
from nemo_aligner_cai.commands.generate import generate_run
from nemo_aligner_cai.constitution import packaged
from nemo_aligner_cai.stages.sft_files import SftFiles, SlOutputs
from nemo_aligner_cai.stages.sl_cai import SlCaiConfig, SlCaiStage

NO_SHOTS = "none"
"""What --few-shots takes for no examples."""


def build_parser() -> Parser:
    """Upstream's flags and defaults, and what only this package has."""
    parser = Parser(
        description="Let a helpful-only model answer red-team prompts, critique its answers and revise them (SL-CAI)."
    )
    parser.add_argument(
        "--max-seq-length", type=COUNT, help="leave out dialogues with more tokens (needs a tokenizer)"
    )
    parser.add_argument(
        "--validation-share",
        type=SHARE,
        metavar="SHARE",
        help="of the prompts, held out in OUT_validation.jsonl to validate SFT (default: none)",
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


def run(args: argparse.Namespace) -> int:
    """Check everything that can be wrong, then generate, blend and filter."""
    template, server_template = _template(args)
    with tempfile.TemporaryDirectory() as scratch, SlCaiStage(config_of(args, Path(scratch))) as stage:
        if args.preview is not None:
            rendered = None if args.model_url or server_template else template
            generate_run.show_preview(stage.records(args.preview), stage.steps, rendered)
            return 0
        client = flags.model_client(args, template, batch_size=args.batch_size, server_template=server_template)
        stage.steps(client)
        if args.plan:
            stage.check_inputs()
            stage.adopt_journal()
            journal = None if args.overwrite else stage.config.outputs.journal
            generate_run.show_plan(stage.records(), stage.steps(client), seed=args.seed, journal_path=journal)
            return 0
        stage.begin()
        summary = generate_run.run_and_close(stage.generate(client), client)
        report = stage.finish(summary, client)
    generate_run.show_report(report, args.output_filepath, dry_run=args.dry_run)
    return 0


def config_of(args: argparse.Namespace, scratch: Path) -> SlCaiConfig:
    """The configuration that the flags describe; the outputs of a dry run are in `scratch`."""
    out = scratch / "out.jsonl" if args.dry_run else Path(args.output_filepath)
    shots = args.few_shot_prompts_dataset_path
    return SlCaiConfig(
        prompts=flags.prompt_source(args, args.red_teaming_prompts_dataset_path),
        constitution=Path(args.critique_revision_instructions_path),
        few_shots=None if shots == NO_SHOTS else Path(shots),
        sampling=flags.sampling_of(args),
        num_revisions=args.num_revisions,
        keep_unrevised=args.keep_unrevised,
        files=SftFiles(
            helpful=args.helpfulness_dataset_path,
            seq_length=args.max_seq_length,
            tokenizer=Path(args.tokenizer_model) if args.tokenizer_model else None,
            validation_share=args.validation_share,
        ),
        outputs=SlOutputs.named(out, seq_length=args.max_seq_length, validation=args.validation_share is not None),
        run=flags.run_settings(args),
        record=record_of(args),
    )


def _template(args: argparse.Namespace) -> tuple[ChatTemplate, bool]:
    """The template, and whether the server renders: then it only has to find replies."""
    if args.chat_template or args.apply_chat_template == "True":
        return flags.template_of(args), False
    pattern = template_from_flags({"response_extract_pattern": args.response_extract_pattern}).response_extract_pattern
    # One header per user turn, wherever the server puts it.
    return StringTemplate(
        "{MESSAGE}" + (pattern or ""), "{MESSAGE}", system_format="{MESSAGE}", response_extract_pattern=pattern
    ), not args.model_url


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    return flags.run_script(run, build_parser(), argv)
