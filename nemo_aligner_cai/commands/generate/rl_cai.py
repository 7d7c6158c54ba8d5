# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""RL-CAI preferences, split, and blended with human ones: examples/nlp/cai/generate_rl_cai_dataset.py.

Input:  red-team prompts, a policy (the SL-CAI model), a judge and a constitution
Output, in --output-dir:
    {prefix}_{split}_{prompts,comparisons}_with_chat_prompt.jsonl   for PPO and the reward model
    blend_{name}_with_{prefix}_{split}_...jsonl                     the same, blended with the files of --blend-with
    cai_candidate_dataset.json, cai_preference_dataset.json         candidates and preferences in upstream's format
    cai_comparisons.jsonl, .journal.jsonl, .left_out.jsonl, cai_manifest.json
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.commands.common.flag_types import COUNT, SEED, TEMPERATURE, Number, file_prefix
from nemo_aligner_cai.commands.common.parser import Parser, recorded_flags
from nemo_aligner_cai.commands.common.shared_flags import NEMO_TEMPLATE_FLAGS
from nemo_aligner_cai.commands.generate import (
    clients,
    display,
    flags,
    judge_flags,
    ray_shards,
    shard_flags,
    store_flags,
)
from nemo_aligner_cai.commands.generate.script import run_script
from nemo_aligner_cai.data.split import NAME, NAME_FORM, Splits, parse_mapping, parse_splits
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import require_file
from nemo_aligner_cai.models import RetryPolicy
from nemo_aligner_cai.models.running import run_and_close
from nemo_aligner_cai.stages.report import StageReport
from nemo_aligner_cai.stages.rl_cai import UPSTREAM_TEMPERATURES, RlCaiConfig, RlCaiStage
from nemo_aligner_cai.stages.rl_outputs import DEFAULT_PREFIX, KINDS, BlendFiles, Kind, PreferenceFiles, RlOutputs

GENERATOR = "rl-cai"
"""The generator's name in the registry."""


def build_parser() -> Parser:
    """Build the parser, with upstream's flags and defaults."""
    parser = Parser(
        prog="cai data rl-cai",
        description="Let a model answer red-team prompts repeatedly, and a judge choose by a constitution: RL-CAI.",
    )
    parser.examples = (
        "cai data rl-cai --red-teaming-file-path red_team_attempts.jsonl --output-dir rl_cai --dry-run",
        "cai data rl-cai --red-teaming-file-path red_team_attempts.jsonl --model-url http://localhost:8000/v1 "
        "--model sl-cai --judge multiple-choice --judge-url http://localhost:8001/v1 --judge-model judge "
        "--output-dir rl_cai",
    )
    parser.add_argument("--batch-size", type=COUNT, default=128, help="prompts per request to NeMo's server")
    parser.add_argument("--seed", type=SEED, default=1234, help="seed of all random choices")
    parser.add_argument("--output-dir", default=".", metavar="DIR", help="the folder of all files")
    parser.add_argument(
        "--output-filename-prefix",
        type=file_prefix,
        default=DEFAULT_PREFIX,
        metavar="PREFIX",
        help="the beginning of the names of the trainers' files",
    )
    parser.add_argument("--splits", default="{'train': 0.8, 'test': 0.2}", help="share of the prompts in each split")
    parser.add_argument("--shuffle", choices=["True", "False"], default="True", help="shuffle the rows of each split")
    parser.add_argument("--red-teaming-file-path", required=True, metavar="FILE", help="the red-team prompts")
    parser.add_argument(
        "--blend-with",
        help="{'name': NAME, SPLIT: {'prompts': [FILES], 'comparisons': [FILES]}, ...} with every split",
    )
    parser.add_argument("--legacy-eot", action="store_true", help="end comparisons like upstream's script")
    flags.add_prompt_flags(parser)
    _add_output_flags(parser)
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
    flags.add_template_flags(parser, NEMO_TEMPLATE_FLAGS)
    flags.add_run_flags(parser)
    shard_flags.add_shard_flags(parser)
    store_flags.add_store_flags(parser)
    parser.effect("batch_size", when=flags.on_nemo_server, otherwise=flags.WITH_MODEL_URL, accepted=True)
    parser.effect(
        "temperature",
        when=lambda args: args.num_responses is not None,
        otherwise="on candidates without --num-responses N; --temperatures sets the temperature of each candidate",
    )
    return parser


def _add_output_flags(parser: Parser) -> None:
    group = parser.add_group("candidates")
    group.add_argument("--num-responses", type=COUNT, metavar="N", help="N samples at --temperature")
    group.add_argument(
        "--temperatures",
        type=TEMPERATURE,
        nargs="+",
        metavar="T",
        help="one sample each (default: 0.01 0.51 1.01 1.51)",
    )
    group = parser.add_group("labels")
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
    group = parser.add_group("lengths", "drop rows that trainers would cut or skip; needs --tokenizer-model")
    group.add_argument("--rm-seq-length", type=COUNT, metavar="N", help="the reward model's: longer pairs are dropped")
    group.add_argument(
        "--ppo-seq-length", type=COUNT, metavar="N", help="PPO's: prompts that leave no room for a reply are dropped"
    )
    group.add_argument(
        "--ppo-response-length",
        type=COUNT,
        metavar="N",
        help="the reply's part of --ppo-seq-length: model.ppo.length_params.max_length (default: half)",
    )
    group.add_argument("--tokenizer-model", help="SentencePiece .model file or Hugging Face tokenizer folder")
    parser.add_argument(
        "--ppo-prompts",
        choices=["with-pairs", "all"],
        default="with-pairs",
        help="PPO's prompts: those with a pair, or all",
    )
    parser.effect(
        "tokenizer_model",
        when=lambda args: args.rm_seq_length is not None or args.ppo_seq_length is not None,
        otherwise="without --rm-seq-length and --ppo-seq-length",
    )
    parser.effect(
        "ppo_response_length", when=lambda args: args.ppo_seq_length is not None, otherwise="without --ppo-seq-length"
    )
    parser.effect(
        "label_copies", when=lambda args: args.soft_labels == "repeat", otherwise="without --soft-labels repeat"
    )


def generate(args: argparse.Namespace) -> StageReport | None:
    """Check all inputs and settings, then sample, judge, split and blend; None if the flags only ask to look."""
    with tempfile.TemporaryDirectory() as scratch:
        stage = RlCaiStage(config_of(args, Path(scratch) if args.dry_run else Path(args.output_dir)))
        template = stage.config.files.template
        if args.preview is not None:
            asked = clients.judge_template(args) or NEMO_CHAT
            templates = template if flags.on_nemo_server(args) else None, asked if args.judge_port else None
            display.show_preview(
                stage.records(args.preview), lambda *models: stage.pipeline(*models).steps(), *templates
            )
            return None
        needs_key = shard_flags.makes_calls(args)
        policy = clients.model_client(args, template, batch_size=args.batch_size, needs_key=needs_key)
        key = clients.judge_key(args)
        judge = clients.judge_client(args, key, RetryPolicy(timeout=args.request_timeout))
        steps = stage.pipeline(policy, judge).steps()
        if args.plan:
            display.show_stage_plan(stage, steps)
            return None
        if args.ray:
            ray_shards.make_calls(stage, args, GENERATOR)
        else:
            stage.begin()

        async def generate() -> Summary:
            if shard_flags.makes_calls(args):
                await clients.probe_judge(args, key, stage.judge)
            return await stage.generate(policy, judge)

        return stage.finish(run_and_close(generate(), policy, judge), policy, judge)


def config_of(args: argparse.Namespace, folder: Path) -> RlCaiConfig:
    """Build the stage's configuration, with its outputs in a folder."""
    files = _preference_files(args)
    outputs = RlOutputs.named(
        folder,
        prefix=args.output_filename_prefix,
        splits=list(files.splits),
        blend=files.blend and files.blend.name,
        formats=args.formats,
    )
    return RlCaiConfig(
        prompts=flags.prompt_source(args, args.red_teaming_file_path),
        sampling=flags.sampling_of(args),
        temperatures=_temperatures(args),
        judge=judge_flags.judge_config(args),
        files=files,
        outputs=outputs,
        run=shard_flags.run_settings(args, outputs.journal),
        record=recorded_flags(args),
    )


def _preference_files(args: argparse.Namespace) -> PreferenceFiles:
    splits = parse_splits(args.splits)
    shuffle = args.shuffle == "True"
    return PreferenceFiles(
        splits=splits,
        shuffle=shuffle,
        consecutive=not shuffle,
        soft_labels=args.soft_labels,
        label_copies=args.label_copies,
        formats=tuple(args.formats),
        blend=parse_blend(args.blend_with, splits) if args.blend_with else None,
        ppo_prompts=args.ppo_prompts,
        rm_seq_length=args.rm_seq_length,
        ppo_seq_length=args.ppo_seq_length,
        ppo_response_length=args.ppo_response_length,
        tokenizer=Path(args.tokenizer_model) if args.tokenizer_model else None,
        template=flags.template_of(args),
        legacy_eot=args.legacy_eot,
    )


def parse_blend(text: str, splits: Splits) -> BlendFiles:
    """Parse the value of --blend-with; raises UsageError if it is malformed or a file is missing."""
    form = "{'name': NAME, SPLIT: {'prompts': [FILES], 'comparisons': [FILES]}, ...}"
    entries = parse_mapping("--blend-with", text, form)
    name = entries.pop("name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(f"--blend-with needs a 'name', which becomes part of the file names: {NAME_FORM}")
    if set(entries) != set(splits):
        raise UsageError(f"--blend-with needs the splits {', '.join(splits)}, got {', '.join(entries) or 'none'}")
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
        raise UsageError("--temperatures sets the number of samples: remove --num-responses")
    if args.temperatures:
        return tuple(args.temperatures)
    if args.num_responses is not None:
        return (args.temperature,) * args.num_responses
    return UPSTREAM_TEMPERATURES


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    return run_script(generate, build_parser(), argv, GENERATOR)
