# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Anthropic HH-RLHF in a chat template: examples/nlp/cai/process_anthropic_hh_using_chat_prompt.py."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from nemo_aligner_cai.chat import TEMPLATE_FLAGS, TokenPolicy, template_from_flags
from nemo_aligner_cai.commands.common.flag_types import file_prefix
from nemo_aligner_cai.commands.common.parser import Parser, never, recorded_flags
from nemo_aligner_cai.commands.common.shared_flags import (
    NEMO_TEMPLATE_FLAGS,
    add_system_message_flag,
    add_template_format_flags,
    add_template_tokens_flag,
)
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.console.program import main_guard
from nemo_aligner_cai.data.anthropic_hh import SPLITS, SUBSETS, Outputs, hub_rows, local_files, rows_of, write_split
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.files.output_paths import refuse_same
from nemo_aligner_cai.stages.manifest import Manifest, ManifestLocation, hashes, recordable


def build_parser() -> Parser:
    """Build the parser, with upstream's flags and defaults."""
    parser = Parser(
        prog="cai data anthropic-hh",
        description="Write Anthropic HH-RLHF as prompts and comparisons in a chat template.",
    )
    parser.examples = (
        "cai data anthropic-hh --output-dir hh --dataset-dir-name helpful-base",
        "cai data anthropic-hh --output-dir hh --input hh-rlhf",
    )
    parser.add_argument("--output-dir", required=True, metavar="DIR", help="the folder of all files")
    parser.add_argument(
        "--dataset-dir-name", nargs="*", metavar="NAME", help=f"subsets: {', '.join(SUBSETS)} (default: all of them)"
    )
    parser.add_argument(
        "--output-file-name-prefix",
        type=file_prefix,
        help="how all file names begin (default: anthropic_hh, without --dataset-dir-name)",
    )
    parser.add_argument(
        "--add-eos", choices=["False", "True"], default="True", help="end comparisons with the end-of-sequence token"
    )
    parser.add_argument("--input", help="a local file or folder in the hub's layout (default: the hub)")
    add_system_message_flag(parser, "conversations")
    add_template_tokens_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace existing output files")
    group = parser.add_group("chat template")
    add_template_format_flags(group, NEMO_TEMPLATE_FLAGS)
    parser.effect("response_extract_pattern", when=never, otherwise="here: no reply is extracted", accepted=True)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the files and the manifest, and print the row counts of each split."""
    settings = recorded_flags(args)
    recordable(settings)
    prefix: str | None = args.output_file_name_prefix or (None if args.dataset_dir_name else "anthropic_hh")
    template = template_from_flags({name: getattr(args, name) for name in TEMPLATE_FLAGS})
    add_eos = args.add_eos == "True"
    if add_eos and not template.eos_token:
        raise UsageError("--add-eos True needs --eos_token")
    inputs, sources = _sources(args.dataset_dir_name, args.input)
    folder = Path(args.output_dir)
    outputs = {split: Outputs.named(folder, split, prefix=prefix, add_eos=add_eos) for split in sources}
    manifest_path = folder / f"{prefix + '_' if prefix else ''}with_chat_prompt.manifest.json"
    targets = [path for files in outputs.values() for path in (files.prompts, files.comparisons)]
    refuse_same(inputs, [*targets, manifest_path])
    for files in outputs.values():
        files.check(overwrite=args.overwrite)
    location = ManifestLocation(manifest_path, "", "output_file_name_prefix", (folder,))
    manifest = Manifest.begin(location, settings, inputs)

    counts: dict[str, Row] = {}
    policy = TokenPolicy(args.on_template_tokens)
    for split, rows in sources.items():
        files = outputs[split]
        written = write_split(
            rows,
            files,
            template=template,
            add_eos=add_eos,
            policy=policy,
            system_message=args.system_message,
            overwrite=args.overwrite,
        )
        counts[split] = written.to_dict()
        write_line(f"{files.comparisons}: {written}")
    for line in manifest.remove_stale(targets, ()) if args.overwrite else ():
        write_line(line)
    manifest.write(hashes(targets), splits=counts)
    return 0


def _sources(
    names: Sequence[str] | None, source: str | None
) -> tuple[list[Path], dict[str, Iterator[tuple[str, Row]]]]:
    """Return the local files to read, none for the hub, and the rows of each split."""
    subsets = list(dict.fromkeys(names or SUBSETS))
    if unknown := [name for name in subsets if name not in SUBSETS]:
        raise UsageError(f"--dataset-dir-name {unknown[0]}: must be one of {', '.join(SUBSETS)}")
    if not source:
        return [], {split: hub_rows(subsets, split) for split in SPLITS}
    found = local_files(source, subsets)
    rows = {split: rows_of(files) for split, files in found.items()}
    return [file for files in found.values() for file in files], rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    return main_guard(lambda: run(build_parser().parse_args(argv)))
