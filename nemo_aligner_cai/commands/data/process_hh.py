# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What examples/nlp/cai/process_anthropic_hh_using_chat_prompt.py does, with upstream's flags and file names."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from nemo_aligner_cai.chat import TEMPLATE_FLAGS, TokenPolicy, template_from_flags
from nemo_aligner_cai.commands.common.exit_codes import exit_code
from nemo_aligner_cai.commands.common.flag_types import Parser, file_prefix, never, record_of
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.data.anthropic_hh import SPLITS, SUBSETS, Outputs, hub_rows, local_files, rows_of, write_split
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.files.same_files import refuse_same
from nemo_aligner_cai.stages.manifest import Manifest, Place, hashes, recordable


def build_parser() -> Parser:
    """Upstream's flags and defaults, and --input, --on-template-tokens and --overwrite."""
    parser = Parser(description="Anthropic HH-RLHF as prompts and comparisons in a chat template.")
    parser.add_argument("--output-dir", required=True)
    parser.add_argument(
        "--dataset-dir-name", nargs="*", metavar="NAME", help=f"of {', '.join(SUBSETS)}; default: all of them"
    )
    parser.add_argument(
        "--output-file-name-prefix",
        type=file_prefix,
        help="default: anthropic_hh where no --dataset-dir-name is given",
    )
    parser.add_argument(
        "--add-eos", choices=["False", "True"], default="True", help="end comparisons with the end-of-sequence token"
    )
    parser.add_argument("--input", help="a local file or folder (hub layout) to read, in place of the hub")
    parser.add_argument(
        "--on-template-tokens",
        choices=[policy.value for policy in TokenPolicy],
        default=TokenPolicy.ESCAPE.value,
        help="texts that contain the template's tokens are escaped, left out or refused (default: escape)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing output files")
    group = parser.add_argument_group("chat template")
    group.add_argument("--user_format", default=r"<extra_id_1>User\n{MESSAGE}\n<extra_id_1>Assistant\n")
    group.add_argument("--assistant_format", default=r"{MESSAGE}\n")
    group.add_argument("--system_format", default=r"<extra_id_0>System\n{MESSAGE}\n")
    group.add_argument("--system_default_message", default="")
    group.add_argument("--bos_token")
    group.add_argument("--eos_token", default="<extra_id_1>")
    group.add_argument("--response_extract_pattern", default=r"<extra_id_1>Assistant\n")
    parser.effect("response_extract_pattern", when=never, otherwise="here: no reply is extracted", accepted=True)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write each split's files, say where its rows went, and leave the same in a manifest beside them."""
    recordable(record_of(args))
    prefix: str | None = args.output_file_name_prefix or (None if args.dataset_dir_name else "anthropic_hh")
    template = template_from_flags({name: getattr(args, name) for name in TEMPLATE_FLAGS})
    add_eos = args.add_eos == "True"
    if add_eos and not template.eos_token:
        raise UsageError("--add-eos True needs --eos_token")
    inputs, sources = _sources(args)
    outputs = {split: Outputs.named(args.output_dir, split, prefix=prefix, add_eos=add_eos) for split in sources}
    manifest_path = Path(args.output_dir) / f"{prefix + '_' if prefix else ''}with_chat_prompt.manifest.json"
    targets = [path for files in outputs.values() for path in (files.prompts, files.comparisons)]
    refuse_same(inputs, [*targets, manifest_path])
    for files in outputs.values():
        files.check(overwrite=args.overwrite)
    place = Place(manifest_path, "", "output_file_name_prefix", (Path(args.output_dir),))
    manifest = Manifest.begin(place, record_of(args), inputs)

    balances: dict[str, Row] = {}
    for split, rows in sources.items():
        counts = write_split(
            rows,
            outputs[split],
            template=template,
            add_eos=add_eos,
            policy=TokenPolicy(args.on_template_tokens),
            overwrite=args.overwrite,
        )
        balances[split] = counts.to_dict()
        write_line(f"{outputs[split].comparisons}: {counts}")
    if args.overwrite:
        for line in manifest.remove_stale(targets, ()):
            write_line(line)
    manifest.write(hashes(targets), splits=balances)
    return 0


def _sources(args: argparse.Namespace) -> tuple[list[Path], dict[str, Iterator[tuple[str, Row]]]]:
    """The files that are read, none for the hub, and the rows of each split."""
    subsets = list(dict.fromkeys(args.dataset_dir_name or SUBSETS))
    if unknown := [name for name in subsets if name not in SUBSETS]:
        raise UsageError(f"--dataset-dir-name {unknown[0]}: must be one of {', '.join(SUBSETS)}")
    if not args.input:
        return [], {split: hub_rows(subsets, split) for split in SPLITS}
    found = local_files(args.input, subsets)
    return [file for files in found.values() for file in files], {
        split: rows_of(files) for split, files in found.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code, and shows an error as one line."""
    return exit_code(lambda: run(build_parser().parse_args(argv)), "error")
