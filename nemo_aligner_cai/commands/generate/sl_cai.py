# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""SL-CAI data, blended with helpfulness data and filtered: examples/nlp/cai/generate_sl_cai_dataset.py.

Input:  red-team prompts, few-shot examples, critique and revision requests, helpfulness SFT data
Output: OUT.jsonl                                      SFT training data: blended, shuffled, without over-long rows
        OUT_validation.jsonl                           with --validation-share: held-out prompts, for validation
        OUT.summary.jsonl                              counts of its rows
        removed_long_dialogs/...                       with --max-seq-length: the same rows under upstream's name
        and in cai_output/OUT.jsonl/, so that one folder can hold several outputs:
        cai_samples.jsonl                              the SL-CAI rows without the helpfulness data
        cai_critique_revision_samples.json             each prompt's answer, critique and revision
        cai_revisions.jsonl, .journal.jsonl, .left_out.jsonl, cai_manifest.json
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nemo_aligner_cai.chat import TEMPLATE_FLAGS, ChatTemplate, template_from_flags
from nemo_aligner_cai.commands.common.flag_types import COUNT, SEED, SHARE
from nemo_aligner_cai.commands.common.parser import Parser, never, recorded_flags
from nemo_aligner_cai.commands.generate import clients, display, flags, ray_shards, shard_flags, store_flags
from nemo_aligner_cai.commands.generate.script import run_script
from nemo_aligner_cai.constitution import packaged
from nemo_aligner_cai.models.running import run_and_close
from nemo_aligner_cai.stages.report import StageReport
from nemo_aligner_cai.stages.sft_files import SftFiles, SlOutputs
from nemo_aligner_cai.stages.sl_cai import SlCaiConfig, SlCaiStage

GENERATOR = "sl-cai"
"""The generator's name in the registry."""
NO_EXAMPLES = "none"
"""The value of --few-shots for no examples."""


def build_parser() -> Parser:
    """Build the parser, with upstream's flags and defaults."""
    parser = Parser(
        prog="cai data sl-cai",
        description="Let a helpful-only model answer red-team prompts, critique its answers and revise them: SL-CAI.",
    )
    parser.examples = (
        "cai data sl-cai --red-teaming-prompts-dataset-path red_team_attempts.jsonl --preview 1",
        "cai data sl-cai --red-teaming-prompts-dataset-path red_team_attempts.jsonl "
        "--helpfulness-dataset-path helpful_sft.jsonl --model-url http://localhost:8000/v1 --model helpful-only "
        "--output-filepath sl_cai.jsonl",
    )
    parser.add_argument(
        "--max-seq-length", type=COUNT, help="drop longer dialogues, in tokens; needs --tokenizer-model"
    )
    parser.add_argument(
        "--validation-share",
        type=SHARE,
        metavar="SHARE",
        help="share of the prompts held out in OUT_validation.jsonl to validate SFT (default: none)",
    )
    parser.add_argument("--batch_size", type=COUNT, default=32, help="prompts per request to NeMo's server")
    parser.add_argument("--tokenizer-model", help="SentencePiece .model file or Hugging Face tokenizer folder")
    parser.add_argument("--tokenizer-library", help="accepted for compatibility; detected from --tokenizer-model")
    parser.add_argument(
        "--save-to-file-interval",
        type=COUNT,
        default=1,
        help="accepted for compatibility; every call is saved at once",
    )
    parser.add_argument(
        "--red-teaming-prompts-dataset-path", required=True, metavar="FILE", help="the red-team prompts"
    )
    parser.add_argument(
        "--few-shot-prompts-dataset-path",
        "--few-shots",
        metavar="FILE",
        default=str(packaged("few_shots.json")),
        help=f"few-shot examples of answer, critique and revision; {NO_EXAMPLES!r} for none (default: packaged)",
    )
    parser.add_argument(
        "--critique-revision-instructions-path",
        "--constitution",
        metavar="FILE",
        default=str(packaged()),
        help="a constitution with critique and revision requests (default: packaged)",
    )
    parser.add_argument(
        "--output-filepath",
        default="cai_revisions_aligner_chat_template.jsonl",
        metavar="OUT.jsonl",
        help="the SFT file to write; the other outputs are next to it",
    )
    parser.add_argument("--seed", type=SEED, default=1234, help="seed of all random choices")
    parser.add_argument(
        "--helpfulness-dataset-path",
        metavar="FILE",
        help="conversations to blend with, in any format that `cai convert` reads; optional with --preview and --plan",
    )
    parser.add_argument("--num-revisions", type=COUNT, default=1, help="number of critiques and revisions per answer")
    parser.add_argument("--keep-unrevised", action="store_true", help="keep answers that the revision does not change")
    parser.add_argument(
        "--learn-earlier-replies",
        action="store_true",
        help="with --turns all, use prompts that have earlier replies, which SFT learns like the revision; without it "
        "they are skipped and counted",
    )
    parser.effect("learn_earlier_replies", when=lambda args: args.turns == "all", otherwise="without --turns all")
    # Not --critique: that is an abbreviation of upstream's --critique-revision-instructions-path.
    parser.add_argument(
        "--no-critique",
        action="store_true",
        help="revise answers without a critique; few-shots must have none either",
    )
    flags.add_prompt_flags(parser)
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
        help="True: render the messages with this group's flags; False: the server's tokenizer renders them",
    )
    flags.add_run_flags(parser)
    shard_flags.add_shard_flags(parser)
    store_flags.add_store_flags(parser)
    _declare_effects(parser)
    return parser


def _declare_effects(parser: Parser) -> None:
    parser.effect("tokenizer_library", when=never, otherwise="here: the tokenizer's file determines it", accepted=True)
    parser.effect("save_to_file_interval", when=never, otherwise="here: every call is saved at once", accepted=True)
    parser.effect(
        "tokenizer_model", when=lambda args: args.max_seq_length is not None, otherwise="without --max-seq-length"
    )
    parser.effect(
        "batch_size",
        "response_extract_pattern",
        when=flags.on_nemo_server,
        otherwise=flags.WITH_MODEL_URL,
        accepted=True,
    )
    parser.effect(
        "chat_template",
        "apply_chat_template",
        when=flags.on_nemo_server,
        otherwise="with --model-url or --endpoints-dir: that server renders the messages",
    )
    parser.effect(
        *(name for name in TEMPLATE_FLAGS if name != "response_extract_pattern"),
        when=lambda args: args.apply_chat_template == "True" and flags.on_nemo_server(args),
        otherwise="if the server renders the messages; on NeMo's server, give --apply_chat_template True",
    )


def generate(args: argparse.Namespace) -> StageReport | None:
    """Check all inputs and settings, then generate, blend and filter; None if the flags only ask to look."""
    template, server_template = _template(args)
    with tempfile.TemporaryDirectory() as scratch, SlCaiStage(config_of(args, Path(scratch))) as stage:
        if args.preview is not None:
            rendered = None if not flags.on_nemo_server(args) or server_template else template
            display.show_preview(
                stage.records(args.preview), lambda *models: stage.pipeline(*models).steps(), rendered
            )
            return None
        client = clients.model_client(
            args,
            template,
            batch_size=args.batch_size,
            server_template=server_template,
            needs_key=shard_flags.makes_calls(args),
        )
        steps = stage.pipeline(client).steps()
        if args.plan:
            display.show_stage_plan(stage, steps)
            return None
        if args.ray:
            ray_shards.make_calls(stage, args, GENERATOR)
        else:
            stage.begin()
        return stage.finish(run_and_close(stage.generate(client), client), client)


def config_of(args: argparse.Namespace, scratch: Path) -> SlCaiConfig:
    """Build the stage's configuration; the outputs of a dry run are in `scratch`."""
    out = scratch / "out.jsonl" if args.dry_run else Path(args.output_filepath)
    few_shots = args.few_shot_prompts_dataset_path
    outputs = SlOutputs.named(out, seq_length=args.max_seq_length, validation=args.validation_share is not None)
    return SlCaiConfig(
        prompts=flags.prompt_source(args, args.red_teaming_prompts_dataset_path),
        constitution=Path(args.critique_revision_instructions_path),
        few_shots=None if few_shots == NO_EXAMPLES else Path(few_shots),
        sampling=flags.sampling_of(args),
        num_revisions=args.num_revisions,
        keep_unrevised=args.keep_unrevised,
        learn_earlier_replies=args.learn_earlier_replies,
        critique=not args.no_critique,
        files=SftFiles(
            helpful=args.helpfulness_dataset_path,
            seq_length=args.max_seq_length,
            tokenizer=Path(args.tokenizer_model) if args.tokenizer_model else None,
            validation_share=args.validation_share,
        ),
        outputs=outputs,
        run=shard_flags.run_settings(args, outputs.journal),
        record=recorded_flags(args),
    )


def _template(args: argparse.Namespace) -> tuple[ChatTemplate, bool]:
    """Return the template, and whether the server renders; the template then only extracts replies."""
    if args.chat_template or args.apply_chat_template == "True":
        return flags.template_of(args), False
    bare = template_from_flags({"response_extract_pattern": args.response_extract_pattern})
    # The server puts the pattern once per user turn.
    user_format = bare.user_format + (bare.response_extract_pattern or "")
    return replace(bare, user_format=user_format, system_format="{MESSAGE}"), flags.on_nemo_server(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    return run_script(generate, build_parser(), argv, GENERATOR)
