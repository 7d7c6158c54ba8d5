# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What is written, where, and what is not: indexes of replaced files, special files, links, names and permissions."""

import os
import socket
from pathlib import Path

import pytest

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import atomic_writer, read_jsonl, write_jsonl
from nemo_aligner_cai.files.output_paths import check_output, refuse_same


@pytest.mark.parametrize("name", ["rows.jsonl", "rows [1]*.jsonl"])
def test_a1_whatever_replaces_a_data_file_removes_its_indexes_and_no_others(tmp_path: Path, name: str):
    path = tmp_path / name
    stale = [
        Path(f"{path}{end}") for end in (".idx.npy", ".idx.info", f"_{name}_indexmap_64mns_128msl_0.00ssp_1s.npy")
    ]
    others = [tmp_path / "other.jsonl.idx.npy", tmp_path / "rows.idx", tmp_path / f"x{name}.idx.npy"]
    for file in (*stale, *others):
        file.write_bytes(b"")
    write_jsonl(path, [{"n": 1}])
    assert not [file for file in stale if file.exists()]
    assert all(file.exists() for file in others)


def test_c5_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"n": 1}])
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    for mode in (0o600, 0o640):
        path.chmod(mode)
        write_jsonl(path, [{"n": 2}], overwrite=True)
        assert path.stat().st_mode & 0o777 == mode


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def test_c5_nobody_can_foresee_a_temporary_name(tmp_path: Path):
    names: set[str] = set()
    for _ in range(2):
        with atomic_writer(tmp_path / "a", overwrite=True):
            names |= {file.name for file in tmp_path.iterdir() if file.name != "a"}
    assert len(names) == 2


def test_c5_a_temporary_file_is_never_one_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr("secrets.token_hex", lambda size: "0")
    with atomic_writer(tmp_path / "a"):
        (temporary,) = [file for file in tmp_path.iterdir() if file != victim]
    (tmp_path / "a").unlink()
    temporary.symlink_to(victim)
    with pytest.raises(UsageError), atomic_writer(tmp_path / "a"):
        pass
    assert victim.read_bytes() == b"precious"


def special_files(folder: Path) -> list[Path]:
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(folder / "socket"))
    return [folder / "fifo", folder / "link", folder / "socket", Path("/dev/null")]


@pytest.mark.parametrize("number", range(4))
def test_c5_special_files_are_neither_written_nor_read(tmp_path: Path, number: int):
    path = special_files(tmp_path)[number]
    before = path.lstat()
    with pytest.raises(UsageError, match=str(path)):
        write_jsonl(path, [{"n": 1}], overwrite=True)
    with pytest.raises(UsageError, match=str(path)):
        read_jsonl(path)  # and does not wait for a writer
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_c5_standard_output_is_not_a_file_to_replace(path: str):
    with pytest.raises(UsageError, match=path):
        check_output(path, overwrite=True)


def test_b6_odd_outputs_are_refused_in_one_line(tmp_path: Path):
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("absent")
    (tmp_path / "file").write_bytes(b"")
    odd = ["loop", "nowhere", "loop/a", "file/a", "file/b/a", "nowhere/a", "x" * 256, "é" * 128, "a/" + "x" * 256]
    for name in odd:
        with pytest.raises(UsageError, match=r"^[^\n]*$"):
            check_output(tmp_path / name, overwrite=False)
    with pytest.raises(UsageError):
        refuse_same([tmp_path / "file"], [tmp_path / "loop", tmp_path / "loop"])
    write_jsonl(tmp_path / "loop", [{"n": 1}], overwrite=True)
    assert list(read_jsonl(tmp_path / "loop")) == [(1, {"n": 1})]


def test_b8_the_longest_name_is_written(tmp_path: Path):
    for name in ("x" * 255, "é" * 127):
        write_jsonl(tmp_path / name, [{"n": 1}])
        assert list(read_jsonl(tmp_path / name)) == [(1, {"n": 1})]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_b8_a_folder_without_permission_is_found_before_any_work(tmp_path: Path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="permission"):
        check_output(tmp_path / "closed" / "new" / "a", overwrite=False)
