# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What examples/nlp/cai/generate_rl_cai_dataset.py does: RL-CAI preferences, split, and blended with human ones.

Input:  red-team prompts, a policy (the SL-CAI model), a judge and a constitution
Output, in --output-dir:
    {prefix}_{split}_{prompts,comparisons}_with_chat_prompt.jsonl   for PPO and the reward model
    blend_{name}_with_{prefix}_{split}_...jsonl                     the same with --blend-with's files
    cai_candidate_dataset.json, cai_preference_dataset.json         candidates and preferences, in upstream's form
    cai_comparisons.jsonl, .journal.jsonl, .left_out.jsonl, cai_manifest.json
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.commands.common.flag_types import (
    COUNT,
    SEED,
    TEMPERATURE,
    Number,
    Parser,
    file_prefix,
    record_of,
)
from nemo_aligner_cai.commands.generate import generate_flags as flags
from nemo_aligner_cai.commands.generate import generate_run, judge_flags
from nemo_aligner_cai.data.split import NAME, NAME_FORM, Splits, parse_mapping, parse_splits
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import require_file
from nemo_aligner_cai.models import RetryPolicy
from nemo_aligner_cai.stages.rl_cai import UPSTREAM_TEMPERATURES, RlCaiConfig, RlCaiStage
from nemo_aligner_cai.stages.rl_outputs import DEFAULT_PREFIX, KINDS, BlendFiles, Kind, PreferenceFiles, RlOutputs


def build_parser() -> Parser:
    """Upstream's flags and defaults, and what only this package has."""
    parser = Parser(
        description="Let a model answer red-team prompts several times, and a judge choose by a constitution (RL-CAI)."
    )
    parser.add_argument("--batch-size", type=COUNT, default=128, help="prompts per request to NeMo's server")
    parser.add_argument("--seed", type=SEED, default=1234)
    parser.add_argument("--output-dir", default=".")
    parser.add_argument("--output-filename-prefix", type=file_prefix, default=DEFAULT_PREFIX)
    parser.add_argument("--splits", default="{'train': 0.8, 'test': 0.2}", help="share of the prompts in each split")
    parser.add_argument("--shuffle", choices=["True", "False"], default="True")
    parser.add_argument("--red-teaming-file-path", required=True)
    parser.add_argument(
        "--blend-with",
        help="{'name': NAME, SPLIT: {'prompts': [FILES], 'comparisons': [FILES]}, ...} with every split",
    )
    parser.add_argument("--num-examples", type=int, default=-1, help="prompts to use; -1 (default) uses all")
    parser.add_argument("--legacy-eot", action="store_true", help="end comparisons as upstream's script did")
    group = parser.add_argument_group("candidates")
    group.add_argument("--num-responses", type=COUNT, metavar="N", help="N samples at --temperature")
    group.add_argument(
        "--temperatures",
        type=TEMPERATURE,
        nargs="+",
        metavar="T",
        help="one sample each (default: 0.01 0.51 1.01 1.51)",
    )
    group = parser.add_argument_group("labels")
    group.add_argument(
        "--soft-labels",
        choices=["threshold", "repeat"],
        default="threshold",
        help="the reward model's hard pairs: each pair once, or --label-copies times in the judge's proportions",
    )
    group.add_argument(
        "--label-copies", type=Number(int, 2), default=10, metavar="N", help="with --soft-labels repeat"
    )
    group.add_argument(
        "--formats", nargs="+", default=[], metavar="FORMAT", help="write the pairs in these formats too, such as dpo"
    )
    group = parser.add_argument_group("lengths", "drop what trainers would cut or skip; needs --tokenizer-model")
    group.add_argument("--rm-seq-length", type=COUNT, metavar="N", help="the reward model's: longer pairs are dropped")
    group.add_argument("--ppo-seq-length", type=COUNT, metavar="N", help="PPO's: prompts may have half of it")
    group.add_argument("--tokenizer-model", help="a SentencePiece .model file, or a Hugging Face tokenizer's folder")
    parser.effect(
        "tokenizer_model",
        when=lambda args: args.rm_seq_length is not None or args.ppo_seq_length is not None,
        otherwise="without --rm-seq-length and --ppo-seq-length",
    )
    parser.add_argument(
        "--ppo-prompts",
        choices=["with-pairs", "all"],
        default="with-pairs",
        help="PPO's prompts: those that have a pair (default), or all",
    )
    judge_flags.add_server_flags(parser)
    judge_flags.add_strategy_flags(parser)
    flags.add_inference_flags(
        parser,
        {
            "top_k": 50,
            "top_p": 0.95,
            "repetition_penalty": 1.0,
            "greedy": "False",
            "end_strings": ["<extra_id_1>"],
        },
    )
    flags.add_template_flags(
        parser,
        {
            "user_format": r"<extra_id_1>User\n{MESSAGE}\n<extra_id_1>Assistant\n",
            "assistant_format": r"{MESSAGE}\n",
            "system_format": r"<extra_id_0>System\n{MESSAGE}\n",
            "system_default_message": "",
            "bos_token": None,
            "eos_token": "<extra_id_1>",
            "response_extract_pattern": r"<extra_id_1>Assistant\n",
        },
    )
    flags.add_prompt_column_flag(parser)
    flags.add_run_flags(parser)
    parser.effect("batch_size", when=lambda args: not args.model_url, otherwise=flags.WITH_MODEL_URL, accepted=True)
    parser.effect(
        "temperature",
        when=lambda args: args.num_responses is not None,
        otherwise="on candidates without --num-responses N; --temperatures gives each its own",
    )
    parser.effect(
        "label_copies", when=lambda args: args.soft_labels == "repeat", otherwise="without --soft-labels repeat"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Check everything that can be wrong, then sample, judge, split and blend."""
    with tempfile.TemporaryDirectory() as scratch:
        stage = RlCaiStage(config_of(args, Path(scratch) if args.dry_run else Path(args.output_dir)))
        template = stage.config.files.template
        if args.preview is not None:
            of_policy, of_judge = None if args.model_url else template, NEMO_CHAT if args.judge_port else None
            generate_run.show_preview(stage.records(args.preview), stage.steps, of_policy, of_judge)
            return 0
        policy = flags.model_client(args, template, batch_size=args.batch_size)
        key = judge_flags.judge_key(args)
        judge = judge_flags.judge_client(args, key, RetryPolicy(timeout=args.request_timeout))
        steps = stage.steps(policy, judge)
        if args.plan:
            stage.check_inputs()
            stage.adopt_journal()
            journal = None if args.overwrite else stage.config.outputs.journal
            generate_run.show_plan(stage.records(), steps, seed=args.seed, journal_path=journal)
            return 0
        stage.begin()

        async def generate() -> Summary:
            if not args.dry_run:
                await judge_flags.probe_judge(args, key, stage.judge)
            return await stage.generate(policy, judge)

        summary = generate_run.run_and_close(generate(), policy, judge)
        report = stage.finish(summary, policy, judge)
    generate_run.show_report(report, args.output_dir, dry_run=args.dry_run)
    return 0


def config_of(args: argparse.Namespace, folder: Path) -> RlCaiConfig:
    """The configuration that the flags describe, with its outputs in a folder."""
    splits = parse_splits(args.splits)
    blend = parse_blend(args.blend_with, splits) if args.blend_with else None
    shuffle = args.shuffle == "True"
    return RlCaiConfig(
        prompts=flags.prompt_source(args, args.red_teaming_file_path),
        sampling=flags.sampling_of(args),
        temperatures=_temperatures(args),
        judge=judge_flags.judge_config(args),
        files=PreferenceFiles(
            splits=splits,
            shuffle=shuffle,
            consecutive=not shuffle,
            soft_labels=args.soft_labels,
            label_copies=args.label_copies,
            formats=tuple(args.formats),
            blend=blend,
            ppo_prompts=args.ppo_prompts,
            rm_seq_length=args.rm_seq_length,
            ppo_seq_length=args.ppo_seq_length,
            tokenizer=Path(args.tokenizer_model) if args.tokenizer_model else None,
            template=flags.template_of(args),
            legacy_eot=args.legacy_eot,
        ),
        outputs=RlOutputs.named(
            folder,
            prefix=args.output_filename_prefix,
            splits=list(splits),
            blend=blend and blend.name,
            formats=args.formats,
        ),
        run=flags.run_settings(args),
        record=record_of(args),
    )


def parse_blend(text: str, splits: Splits) -> BlendFiles:
    """The files that --blend-with names; raises UsageError for anything else."""
    form = "{'name': NAME, SPLIT: {'prompts': [FILES], 'comparisons': [FILES]}, ...}"
    entries = parse_mapping("--blend-with", text, form)
    name = entries.pop("name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(f"--blend-with needs a 'name', which becomes part of the file names: {NAME_FORM}")
    if set(entries) != set(splits):
        raise UsageError(f"--blend-with needs the splits {', '.join(splits)}; it has {', '.join(entries) or 'none'}")
    files: dict[str, dict[Kind, tuple[str, ...]]] = {
        split: {kind: _files(entry, split, kind) for kind in KINDS} for split, entry in entries.items()
    }
    return BlendFiles(name=name, files=files)


def _files(entry: Any, split: str, kind: str) -> tuple[str, ...]:
    listed: Any = cast(dict[str, Any], entry).get(kind) if isinstance(entry, dict) else None
    if isinstance(listed, str):
        listed = [listed]
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in cast(list[Any], listed)):
        raise UsageError(f"--blend-with: {split!r} needs the key {kind!r} with a list of files")
    return tuple(str(require_file(item)) for item in cast(list[str], listed))


def _temperatures(args: argparse.Namespace) -> tuple[float, ...]:
    if args.temperatures and args.num_responses:
        raise UsageError("--temperatures gives one sample each: leave out --num-responses")
    if args.temperatures:
        return tuple(args.temperatures)
    if args.num_responses is not None:
        return (args.temperature,) * args.num_responses
    return UPSTREAM_TEMPERATURES


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    return flags.run_script(run, build_parser(), argv)
