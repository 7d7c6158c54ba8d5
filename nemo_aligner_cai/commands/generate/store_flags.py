# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Object stores in the generation scripts: flags that read files accept URLs, and finished files are uploaded."""

import argparse
import logging
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files.object_stores import check_store, download, upload
from nemo_aligner_cai.files.reading import is_object

_INPUTS = (
    "red_teaming_prompts_dataset_path",
    "red_teaming_file_path",
    "helpfulness_dataset_path",
    "few_shot_prompts_dataset_path",
    "critique_revision_instructions_path",
    "sys_prompt_constitution_file_path",
    "judge_few_shot_path",
    "tokenizer_model",
)
_LOCAL = ("output_filepath", "output_dir", "journal_from")
_log = logging.getLogger(__name__)


def add_store_flags(parser: Parser) -> None:
    """Add the flags."""
    group = parser.add_group(
        "object stores", "flags that read files accept s3://BUCKET/NAME and gs://BUCKET/NAME, too"
    )
    group.add_argument(
        "--upload", metavar="URL", help="copy the finished files to s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
    )


@contextmanager
def local_inputs(args: argparse.Namespace) -> Generator[None]:
    """Replace the URLs among the inputs by local copies, which are kept next to the outputs.

    Raises:
        UsageError: an output or journal is in an object store, or a store cannot be used.
    """
    for name in _LOCAL:
        for value in _values(args, name):
            if is_object(value):
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{flag} {value}: outputs are written to a file system first, with the journal, which grows "
                    f"during the run; give a local path, and --upload {value} for the finished files"
                )
    if args.upload is not None:
        if not is_object(args.upload):
            raise UsageError(f"--upload {args.upload}: must begin with s3:// or gs://")
        check_store(args.upload)
    remote = {name: value for name in _INPUTS for value in _values(args, name) if is_object(value)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = _folder(args, Path(scratch)) if remote else Path(scratch)
        for name, url in remote.items():
            path = download(url, folder)
            _log.info("%s: copied to %s", url, path)
            setattr(args, name, str(path))
        yield


def upload_files(args: argparse.Namespace, files: Iterable[str | Path], manifest: Path | None) -> None:
    """Upload finished files, the manifest last: an upload with a manifest is complete. A shard has none."""
    paths = [Path(file).resolve() for file in files]
    if args.upload is None or args.dry_run or not paths:
        return
    base = _base(args).resolve()
    if manifest is not None:
        paths = [path for path in paths if path != manifest.resolve()] + [manifest.resolve()]
    upload(paths, base=base, url=args.upload)
    _log.info("uploaded %d files to %s", len(paths), args.upload)


def _values(args: argparse.Namespace, name: str) -> list[str]:
    value: str | list[str] | None = getattr(args, name, None)
    return [value] if isinstance(value, str) else value or []


def output_of(args: argparse.Namespace) -> Path:
    """Return the script's output: a file, or a folder."""
    return Path(args.output_filepath if hasattr(args, "output_filepath") else args.output_dir)


def _base(args: argparse.Namespace) -> Path:
    """Return the folder of the outputs."""
    return output_of(args).parent if hasattr(args, "output_filepath") else output_of(args)


def _folder(args: argparse.Namespace, scratch: Path) -> Path:
    """Return the folder of the copies; a run that keeps no files keeps no copies."""
    if args.dry_run or args.plan or args.preview is not None:
        return scratch
    return _base(args) / "cai_inputs"
