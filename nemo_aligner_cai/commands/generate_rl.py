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
"""What examples/nlp/cai/generate_rl_cai_dataset.py does: RL-CAI preferences, split, and blended with human ones.

Input:  red-team prompts, a policy (the SL-CAI model), a judge and a constitution
Output, in --output-dir:
    {prefix}_{split}_{prompts,comparisons}_with_chat_prompt.jsonl   for PPO and the reward model
    blend_{name}_with_{prefix}_{split}_...jsonl                     the same with --blend-with's files
    cai_candidate_dataset.json, cai_preference_dataset.json         candidates and preferences, in upstream's form
    cai_comparisons.jsonl, .journal.jsonl, .left_out.jsonl, cai_manifest.json
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_aligner_cai.commands import generate_flags as flags
from nemo_aligner_cai.commands import generate_run, judge_flags
from nemo_aligner_cai.commands.flag_types import COUNT, SEED, TEMPERATURE, Number, Parser, file_prefix
from nemo_aligner_cai.commands.generate_manifest import Manifest, generation_facts
from nemo_aligner_cai.commands.generate_outputs import DEFAULT_PREFIX, Blending, PreferenceFiles
from nemo_aligner_cai.conversation import NEMO_CHAT
from nemo_aligner_cai.data.judged_row import JudgedRow, read_judged
from nemo_aligner_cai.data.split import parse_splits, split_counts
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import Balance
from nemo_aligner_cai.generate.comparisons import Comparing, generate_comparisons
from nemo_aligner_cai.generate.contest import Contest
from nemo_aligner_cai.generate.json_list import write_json_list
from nemo_aligner_cai.generate.judge import position_line, unparsed_line
from nemo_aligner_cai.generate.resuming import adopt
from nemo_aligner_cai.generate.summary import Summary
from nemo_aligner_cai.models import ModelClient, Patience

UPSTREAM_TEMPERATURES = (0.01, 0.51, 1.01, 1.51)


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
    if args.num_examples == 0 or args.num_examples < -1:
        raise UsageError(f"--num-examples must be positive, or -1 for all, it is {args.num_examples}")
    limit = None if args.num_examples == -1 else args.num_examples
    splits = parse_splits(args.splits)
    blending = Blending.parse(args.blend_with, splits) if args.blend_with else None
    template = flags.template_of(args)
    sampling, temperatures = flags.sampling_of(args), _temperatures(args)
    judge = judge_flags.judge_of(args)
    source = args.red_teaming_file_path

    def comparing(policy: ModelClient, judge_model: ModelClient) -> Comparing:
        return Comparing(policy, judge_model, judge, sampling, temperatures, args.seed, template)

    if args.preview is not None:
        records = [Contest(prompt) for prompt in flags.first_prompts(args, source)]
        of_policy = None if args.model_url else template
        of_judge = NEMO_CHAT if args.judge_port else None
        generate_run.show_preview(records, lambda *clients: comparing(*clients).steps(), of_policy, of_judge)
        return 0
    options = flags.options_of(args, flags.count_prompts(args, source, limit))
    split_counts(options.total or 0, splits)
    with tempfile.TemporaryDirectory() as scratch:
        files = PreferenceFiles(
            Path(scratch) if args.dry_run else Path(args.output_dir),
            args.output_filename_prefix,
            splits,
            blending,
            template,
            args.legacy_eot,
            args.soft_labels,
            args.label_copies,
            tuple(args.formats),
        )
        policy = flags.model_client(args, template, batch_size=args.batch_size)
        key = judge_flags.judge_key(args)
        judge_model = judge_flags.judge_client(args, key, Patience(timeout=args.request_timeout))
        read = Balance()
        prompts = flags.prompts_of(args, source, limit, balance=read, template=template)
        steps = comparing(policy, judge_model).steps()
        if args.resume:
            adopt(files.old_journal, files.journal)
        if args.plan:
            journal = None if args.overwrite else files.journal
            generate_run.show_plan(map(Contest, prompts), steps, seed=args.seed, journal_path=journal)
            return 0
        blended = blending.paths if blending else []
        inputs = generate_run.input_files(
            source, args.sys_prompt_constitution_file_path, args.judge_few_shot_path, *blended
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

        async def generate() -> Summary:
            try:
                if not args.dry_run:
                    await judge_flags.probe_judge(args, key, judge)
                return await generate_comparisons(
                    prompts,
                    policy,
                    judge_model,
                    judge,
                    sampling=sampling,
                    temperatures=temperatures,
                    out_path=files.comparisons,
                    journal_path=files.journal,
                    template=template,
                    options=options,
                    read=read,
                )
            finally:
                await policy.close()
                await judge_model.close()

        summary = asyncio.run(generate())
        manifest.announce(files.outputs)
        write_json_list(files.candidate_dataset, _candidates(files.comparisons), overwrite=True)
        write_json_list(files.preference_dataset, _preferences(files.comparisons), overwrite=True)
        enough = summary.balance.written >= len(splits)
        lines = [position_line(summary.facts)]
        verdicts = (verdict for row in read_judged(files.comparisons) for verdict in row.verdicts)
        if (unparsed := unparsed_line(summary.facts, verdicts)) is not None:
            lines.append(unparsed)
        lines += manifest.remove_stale(files.outputs if enough else files.raw, files.outputs)
        lines += files.write(shuffle=args.shuffle == "True", seed=args.seed) if enough else []
        manifest.write(files.outputs, **generation_facts(summary, policy=policy, judge=judge_model))
    if args.dry_run:
        lines.append("dry run: nothing was kept")
    elif enough:
        lines.append(f"written: {files.folder}")
    generate_run.show_summary("RL-CAI", summary, lines)
    summary.check(options.max_dropped)
    if not enough:
        raise CaiError(
            f"{summary.balance.written} prompts with a pair cannot be split into {', '.join(splits)}; every split "
            f"needs one at least. All that was generated is in {files.folder}"
        )
    return 0


def _temperatures(args: argparse.Namespace) -> tuple[float, ...]:
    if args.temperatures and args.num_responses:
        raise UsageError("--temperatures gives one sample each: leave out --num-responses")
    if args.temperatures:
        return tuple(args.temperatures)
    if args.num_responses is not None:
        return (args.temperature,) * args.num_responses
    return UPSTREAM_TEMPERATURES


def _candidates(comparisons: Path) -> Iterator[Mapping[str, Any]]:
    for row in read_judged(comparisons):
        yield {"prompt": row.prompt.messages[-1].content} | _responses(row)


def _responses(row: JudgedRow) -> dict[str, str]:
    return {one.key: one.text for one in sorted(row.candidates, key=lambda one: one.key)}


def _preferences(comparisons: Path) -> Iterator[Mapping[str, Any]]:
    for row in read_judged(comparisons):
        for pair in row.pairs:
            yield {
                "prompt": row.prompt.messages[-1].content,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "raw": {
                    "chosen_response_key": pair.chosen_key,
                    "rejected_response_key": pair.rejected_key,
                    "explanation": pair.explanation,
                    "probability": pair.probability,
                    "principle": pair.principle,
                    "all_responses": _responses(row),
                },
            }


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    return flags.run_script(run, build_parser(), argv)
