# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Object stores: local copies of inputs, and uploads of finished files.

Input:  s3://bucket/prompts.jsonl, or s3://bucket/helpful-base/ for all objects below it; or gs://...
Output: FOLDER/bucket/prompts.jsonl, FOLDER/bucket/helpful-base/

Inputs are copied because they are read several times. Several processes, such as the tasks of a Slurm array, share one
copy: a copy has the size and the time of its object, and is made again only if the object has changed. Credentials,
region and address are those that the AWS and Google Cloud SDKs find (AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL,
GOOGLE_APPLICATION_CREDENTIALS, ...).
"""

import importlib
import os
import shutil
from collections.abc import Generator, Sequence, Set
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.extras import not_installed
from nemo_aligner_cai.files.locks import file_lock
from nemo_aligner_cai.files.writing import atomic_writer

_BLOCK = 1 << 20
_RETRY_TIME = timedelta(seconds=30)


def download(url: str, folder: Path) -> Path:
    """Copy an object, or all objects below a prefix, into a folder; returns the path of the copy.

    Raises:
        UsageError: the store cannot be reached, or has no such object.
    """
    store, path = _open(url)
    fs = _library()
    with _errors_of(url, UsageError):
        info = store.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise UsageError(f"{url}: there is no such object")
        is_folder = info.type == fs.FileType.Directory
        found = store.get_file_info(fs.FileSelector(path, recursive=True)) if is_folder else [info]
        objects = [one for one in found if one.type == fs.FileType.File]
        with file_lock(folder / ".lock", wait=True):
            for one in objects:
                _copy_here(store, one, folder)
            if is_folder:
                _remove_others(folder / path, {folder / one.path for one in objects})
    return folder / path


def check_store(url: str) -> None:
    """Check that the bucket of a URL can be reached.

    Raises:
        UsageError: the URL is invalid, its bucket does not exist, or the store cannot be reached.
    """
    store, path = _open(url)
    bucket = path.split("/")[0]
    with _errors_of(url, UsageError):
        if store.get_file_info(bucket).type == _library().FileType.NotFound:
            raise UsageError(f"{url}: there is no bucket {bucket!r}")


def upload(files: Sequence[Path], *, base: Path, url: str) -> None:
    """Copy files to an object store, in this order, with their paths relative to `base`.

    An object appears when it is complete.

    Raises:
        CaiError: a file cannot be uploaded.
    """
    store, prefix = _open(url)
    fs = _library()
    for file in files:
        target = str(PurePosixPath(prefix, file.relative_to(base)))
        with _errors_of(url, CaiError):
            fs.copy_files(str(file), target, fs.LocalFileSystem(), store, chunk_size=_BLOCK)
            if store.get_file_info(target).size != file.stat().st_size:
                raise CaiError(f"{url}: {target} was not uploaded completely")


def _copy_here(store: Any, info: Any, folder: Path) -> None:
    """Copy an object into a folder, unless the copy is there already."""
    target = folder / info.path
    if not target.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{info.path}: the name of this object leads out of its folder; rename it")
    changed = info.mtime_ns
    if target.is_file() and (target.stat().st_size, target.stat().st_mtime_ns) == (info.size, changed):
        return
    # Without "detect", which decompresses objects with names in .gz.
    with store.open_input_stream(info.path, compression=None) as source, atomic_writer(target, overwrite=True) as copy:
        shutil.copyfileobj(source, copy, _BLOCK)
        copy.flush()
        os.utime(copy.fileno(), ns=(changed, changed))


def _remove_others(folder: Path, kept: Set[Path]) -> None:
    """Remove the copies of objects that are gone from the store: a folder is read as a whole."""
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        # The message does not show the URL, which may contain a secret.
        raise UsageError("the URL of an object store must not contain keys; set AWS_ACCESS_KEY_ID and the like")
    if not parts.netloc:
        raise UsageError(f"{url}: has no bucket; write {parts.scheme}://BUCKET/NAME")
    fs = _library()
    with _errors_of(url, UsageError):
        store = _s3(fs, parts.netloc) if parts.scheme == "s3" else _gcs(fs)
    return store, f"{parts.netloc}{parts.path}".rstrip("/")


def _s3(fs: Any, bucket: str) -> Any:
    address = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if address.netloc:
        return fs.S3FileSystem(region=region, scheme=address.scheme, endpoint_override=address.netloc)
    return fs.S3FileSystem(region=region or fs.resolve_s3_region(bucket))


def _gcs(fs: Any) -> Any:
    # The variable is that of Google's C++ library, which still asks for credentials that an emulator does not need.
    # By default, it tries again for 15 minutes if there are none.
    return fs.GcsFileSystem(anonymous="CLOUD_STORAGE_EMULATOR_ENDPOINT" in os.environ, retry_time_limit=_RETRY_TIME)


def _library() -> Any:
    try:
        return importlib.import_module("pyarrow.fs")
    except ImportError as error:
        raise not_installed("an object store (s3://, gs://)", "pyarrow", "s3") from error


@contextmanager
def _errors_of(url: str, kind: type[CaiError]) -> Generator[None]:
    """Convert the errors of a store to one line."""
    try:
        yield
    except OSError as error:
        # Google's library repeats the error as structured data.
        said = " ".join(str(error).split(" error_info=")[0].split())
        raise kind(f"{url}: {said}") from error
