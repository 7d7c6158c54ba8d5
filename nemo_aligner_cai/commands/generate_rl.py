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
import json
import logging
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_aligner_cai.commands import generate_flags as flags
from nemo_aligner_cai.commands.generate_outputs import Blending, PreferenceFiles
from nemo_aligner_cai.constitution import load_constitution, packaged
from nemo_aligner_cai.conversation import TEMPLATE_FLAGS, Conversation, template_from_flags
from nemo_aligner_cai.data.split import parse_splits
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Balance, read_jsonl, read_text, require_file, write_json
from nemo_aligner_cai.generate import judge as judging
from nemo_aligner_cai.generate.comparisons import Comparing, Contest, generate_comparisons
from nemo_aligner_cai.generate.json_list import write_json_list
from nemo_aligner_cai.generate.judge import BestWorst, Judge, MultipleChoice
from nemo_aligner_cai.generate.wording import load_wording
from nemo_aligner_cai.models import (
    CallFailed,
    Completion,
    ModelClient,
    NemoServerClient,
    OpenAIClient,
    Patience,
    Request,
    Sampling,
    ScriptedClient,
    ServerRefused,
    key_from_environment,
)
from nemo_aligner_cai.prompts import read_prompts

_log = logging.getLogger(__name__)
UPSTREAM_TEMPERATURES = (0.01, 0.51, 1.01, 1.51)
_YAML_OR_JSON = (".yaml", ".yml", ".json")
_SCRIPTED = re.compile(r"scripted reply \(([0-9a-f]{12})\)")
_PROBE = Patience(timeout=60.0, attempts=2, outage=10.0)
"""A judge that does not answer at all is found within seconds, before anything is generated."""


def build_parser() -> argparse.ArgumentParser:
    """Upstream's flags and defaults, and what only this package has."""
    parser = argparse.ArgumentParser(
        description="Let a model answer red-team prompts several times, and a judge choose by a constitution (RL-CAI)."
    )
    parser.add_argument("--batch-size", type=int, default=128, help="prompts per request to NeMo's server")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--output-dir", default=".")
    parser.add_argument("--output-filename-prefix", default="cai_rlaif")
    parser.add_argument("--splits", default="{'train': 0.8, 'test': 0.2}", help="share of the prompts in each split")
    parser.add_argument("--shuffle", choices=["True", "False"], default="True")
    parser.add_argument("--red-teaming-file-path", required=True)
    parser.add_argument(
        "--sys-prompt-constitution-file-path",
        default=str(packaged()),
        help="a constitution (.yaml or .json), or a text file that is the judge's system prompt (default: packaged)",
    )
    parser.add_argument(
        "--blend-with",
        help="{'name': NAME, SPLIT: {'prompts': [FILES], 'comparisons': [FILES]}, ...} with every split",
    )
    parser.add_argument("--num-examples", type=int, default=-1, help="prompts to use; -1 (default) uses all")
    parser.add_argument("--legacy-eot", action="store_true", help="end comparisons as upstream's script did")
    group = parser.add_argument_group("candidates")
    group.add_argument("--num-responses", type=int, metavar="N", help="N samples at --temperature")
    group.add_argument(
        "--temperatures", type=float, nargs="+", metavar="T", help="one sample each (default: 0.01 0.51 1.01 1.51)"
    )
    _add_judge_flags(parser)
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
    flags.add_run_flags(parser)
    return parser


def _add_judge_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("NGC", "the judge: a hosted model, or any OpenAI-compatible server")
    group.add_argument("--ngc-api-key", help="visible to other users of the machine; better set NGC_API_KEY")
    group.add_argument("--judge-api-key-env", metavar="NAME", help="default: NGC_API_KEY, then NVIDIA_API_KEY")
    group.add_argument(
        "--ngc-url", "--judge-url", default="https://integrate.api.nvidia.com/v1/chat/completions", metavar="URL"
    )
    group.add_argument("--ngc-model", "--judge-model", default="mistralai/mixtral-8x7b-instruct-v0.1", metavar="NAME")
    group.add_argument("--judge-concurrency", type=int, default=32, help="judge requests in flight (default: 32)")
    group.add_argument("--judge-requests-per-minute", type=float, metavar="N", help="the judge service's quota")
    group.add_argument("--judge-port", type=int, help="the judge is a NeMo text-generation server on this port")
    group.add_argument("--judge-host", default="localhost", help="with --judge-port (default: localhost)")
    group.add_argument("--judge", choices=["best-worst", "multiple-choice"], default="best-worst")
    group.add_argument(
        "--both-orders",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask twice with the candidates in reverse order, and keep what both agree on",
    )
    group.add_argument("--pairs", choices=["one", "all", "best-worst"], default="best-worst", help="multiple-choice")
    group.add_argument("--margin", type=float, default=0.0, help="multiple-choice: least |2p - 1| of a kept pair")


def run(args: argparse.Namespace) -> int:
    """Check everything that can be wrong, then sample, judge, split and blend."""
    if args.num_examples == 0 or args.num_examples < -1:
        raise UsageError(f"--num-examples must be positive, or -1 for all, it is {args.num_examples}")
    if args.batch_size < 1:
        raise UsageError(f"--batch-size must be positive, it is {args.batch_size}")
    limit = None if args.num_examples == -1 else args.num_examples
    splits = parse_splits(args.splits)
    blending = Blending.parse(args.blend_with, splits) if args.blend_with else None
    template = template_from_flags({name: getattr(args, name) for name in TEMPLATE_FLAGS})
    sampling, temperatures = flags.sampling_of(args), _temperatures(args)
    judge = _judge(args)
    source = args.red_teaming_file_path

    def comparing(policy: ModelClient, judge_model: ModelClient) -> Comparing:
        return Comparing(policy, judge_model, judge, sampling, temperatures, args.seed)

    if args.preview is not None:
        records = [Contest(prompt) for prompt in flags.first_prompts(source, args.turns, args.preview)]
        shown = flags.preview(records, lambda client: comparing(client, client).steps(), template)
        sys.stdout.write(asyncio.run(shown))
        return 0
    options = flags.options_of(args, flags.count_prompts(source, args.turns, limit))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if args.dry_run else Path(args.output_dir)
        files = PreferenceFiles(folder, args.output_filename_prefix, splits, blending, template, args.legacy_eot)
        files.refuse_existing(overwrite=args.resume or args.overwrite)
        policy = flags.model_client(args, template, batch_size=args.batch_size)
        comparing(policy, policy)
        key = _key(args)
        judge_model = _judge_client(args, key, Patience(timeout=args.request_timeout))
        read = Balance()

        async def generate() -> Any:
            try:
                await _probe(_judge_client(args, key, _PROBE))
                return await generate_comparisons(
                    read_prompts(source, balance=read, turns=args.turns, limit=limit),
                    policy,
                    judge_model,
                    judge,
                    sampling=sampling,
                    temperatures=temperatures,
                    out_path=files.comparisons,
                    journal_path=files.journal,
                    options=options,
                    read=read,
                )
            finally:
                await policy.close()
                await judge_model.close()

        summary = asyncio.run(generate())
        write_json_list(files.candidate_dataset, _candidates(files.comparisons), overwrite=True)
        write_json_list(files.preference_dataset, _preferences(files.comparisons), overwrite=True)
        lines = [*summary.lines(), *files.write(shuffle=args.shuffle == "True", seed=args.seed)]
        flips = summary.rate(judging.FLIPS, judging.BOTH_ORDERS)
        if flips is not None:
            first = summary.rate(judging.FIRST, judging.VERDICTS) or 0.0
            lines.append(f"position flips: {flips:.1%}; verdicts for the first position: {first:.1%}")
        manifest = {"flags": flags.flags_for_manifest(args), "summary": summary.to_dict()}
        write_json(files.manifest, manifest, overwrite=True)
    if args.dry_run:
        lines.append("dry run: nothing was kept")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _temperatures(args: argparse.Namespace) -> tuple[float, ...]:
    if args.temperatures and args.num_responses:
        raise UsageError("--temperatures gives one sample each: leave out --num-responses")
    if args.temperatures:
        return tuple(args.temperatures)
    if args.num_responses is not None:
        return (args.temperature,) * args.num_responses
    return UPSTREAM_TEMPERATURES


def _judge(args: argparse.Namespace) -> Judge:
    path = require_file(args.sys_prompt_constitution_file_path)
    wording = load_wording(path)
    if path.suffix in _YAML_OR_JSON:
        constitution = load_constitution(path)
        if args.judge == "multiple-choice":
            return MultipleChoice(
                constitution,
                wording,
                seed=args.seed,
                pairs=args.pairs,
                both_orders=args.both_orders,
                margin=args.margin,
            )
        return BestWorst(wording.constitution(constitution), wording, both_orders=args.both_orders)
    if args.judge == "multiple-choice":
        raise UsageError(f"{path}: --judge multiple-choice needs a constitution with principles (.yaml or .json)")
    return BestWorst(read_text(path), wording, both_orders=args.both_orders)


def _key(args: argparse.Namespace) -> str | None:
    if args.dry_run or args.judge_port:
        return None
    if args.ngc_api_key:
        _log.warning("--ngc-api-key is visible in process lists and shell histories; set NGC_API_KEY instead")
        return str(args.ngc_api_key)
    if args.judge_api_key_env:
        return flags.named_key(args.judge_api_key_env)
    key = key_from_environment("NGC_API_KEY", "NVIDIA_API_KEY")
    if key is None and "api.nvidia.com" in args.ngc_url:
        raise UsageError(
            "the judge needs an API key: set NGC_API_KEY or NVIDIA_API_KEY, or name a variable with "
            "--judge-api-key-env"
        )
    return key


def _judge_client(args: argparse.Namespace, key: str | None, patience: Patience) -> ModelClient:
    if args.dry_run:
        return ScriptedClient(_dry_judge, name="judge")
    if args.judge_port:
        return NemoServerClient(args.judge_host, args.judge_port, model="judge", patience=patience)
    return OpenAIClient(
        args.ngc_url,
        args.ngc_model,
        key=key,
        concurrency=args.judge_concurrency,
        requests_per_minute=args.judge_requests_per_minute,
        patience=patience,
    )


def _dry_judge(request: Request) -> Completion:
    """Prefers the scripted candidate with the higher number, in whatever order it is shown them."""
    numbers = _SCRIPTED.findall(request.conversation.messages[-1].content)
    if request.choices:
        scores = dict(zip(request.choices, (0.0, -3.0) if numbers[:1] > numbers[1:] else (-3.0, 0.0), strict=True))
        return Completion("", "choices", choice_logprobs=scores)
    if not numbers:
        return Completion("Hello.", "stop")
    best, worst = numbers.index(max(numbers)) + 1, numbers.index(min(numbers)) + 1
    return Completion(json.dumps({"chosen": best, "rejected": worst}), "stop")


async def _probe(client: ModelClient) -> None:
    """One small call, so that a bad key or name is found before anything is generated."""
    try:
        await client.complete(Request(Conversation.of_user("Hello"), Sampling(greedy=True, max_tokens=1)))
    except CallFailed as failure:
        raise ServerRefused(f"the judge does not answer: {failure}") from None
    finally:
        await client.close()


def _candidates(comparisons: Path) -> Iterator[Mapping[str, Any]]:
    for _, row in read_jsonl(comparisons):
        yield {"prompt": row["prompt"][-1]["content"]} | _responses(row)


def _responses(row: Mapping[str, Any]) -> dict[str, str]:
    return {one["key"]: one["text"] for one in sorted(row["candidates"], key=lambda one: one["key"])}


def _preferences(comparisons: Path) -> Iterator[Mapping[str, Any]]:
    for _, row in read_jsonl(comparisons):
        for pair in row["pairs"]:
            yield {
                "prompt": row["prompt"][-1]["content"],
                "chosen": pair["chosen"],
                "rejected": pair["rejected"],
                "raw": {
                    "chosen_response_key": pair["chosen_key"],
                    "rejected_response_key": pair["rejected_key"],
                    "explanation": pair["explanation"],
                    "probability": pair["probability"],
                    "principle": pair["principle"],
                    "all_responses": _responses(row),
                },
            }


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    return flags.run_script(run, build_parser().parse_args(argv))
