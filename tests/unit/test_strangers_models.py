# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Model files that would run code or write outside their folder are refused (fault C1)."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the training extra is not installed")

import torch
from torch.distributed.checkpoint import FileSystemWriter, save

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checkpoints import hf_folder, nemo_archive
from nemo_aligner_cai.training.checkpoints.stored_tensors import load_tensors, read_distributed
from nemo_aligner_cai.training.checks import model_file, model_kind


class Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path, call: Callable[..., Any] = os.mkdir) -> None:
        self.folder, self.call = str(folder), call

    def __reduce__(self) -> Any:
        return self.call, (self.folder,)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model_weights"
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    save(weights, storage_writer=FileSystemWriter(str(folder)), no_dist=True)
    return folder


def change(checkpoint: Path, by: Callable[[Any], Any]) -> None:
    file = checkpoint / ".metadata"
    file.write_bytes(pickle.dumps(by(pickle.loads(file.read_bytes()))))


def read(folder: Path) -> dict[str, torch.Tensor]:
    return read_distributed(folder, lambda name: True)


def test_a_distributed_checkpoint_is_read_as_torch_reads_it(checkpoint: Path) -> None:
    found = read(checkpoint)
    assert found.keys() == {"a", "b"}
    assert torch.equal(found["a"], torch.arange(6.0).reshape(2, 3))
    assert found["b"].dtype == torch.bfloat16


def test_megatrons_checkpoints_are_read(tmp_path: Path) -> None:
    nemo_archive.unpack(packaged_files.MODEL, tmp_path / "unpacked")
    found = read_distributed(tmp_path / "unpacked" / "model_weights", lambda name: "_extra_state" not in name)
    assert "model.decoder.final_layernorm.weight" in found
    assert all(bool(weight.isfinite().all()) for weight in found.values())


@pytest.mark.parametrize("call", [os.mkdir, os.system, eval, getattr, pickle.loads, shutil.rmtree, io.open])
def test_c1_metadata_that_names_a_function_is_refused(checkpoint: Path, tmp_path: Path, call: Any) -> None:
    change(checkpoint, lambda metadata: (metadata, Runs(tmp_path / "run", call)))
    with pytest.raises(UsageError, match=r"\.metadata is refused"):
        read(checkpoint)
    assert not (tmp_path / "run").exists()


def test_c1_metadata_reaches_no_function_through_a_modules_attribute(checkpoint: Path) -> None:
    for name in (b"torch\nsave", b"torch\nos.system", b"torch.distributed.checkpoint.metadata\nos.mkdir"):
        (checkpoint / ".metadata").write_bytes(b"c" + name + b"\n.")
        with pytest.raises(UsageError):
            read(checkpoint)


def test_c1_metadata_that_asks_for_all_memory_is_refused(checkpoint: Path) -> None:
    (checkpoint / ".metadata").write_bytes(b"\x80\x04\x8e" + (1 << 50).to_bytes(8, "little") + b"a.")
    with pytest.raises(UsageError, match=r"\.metadata is refused"):
        read(checkpoint)


def test_c1_metadata_names_no_file_elsewhere_and_no_more_than_there_is(checkpoint: Path) -> None:
    def elsewhere(metadata: Any) -> Any:
        for info in metadata.storage_data.values():
            info.relative_path = "../../secret"
        return metadata

    def huge(metadata: Any) -> Any:
        metadata.state_dict_metadata["a"].size = torch.Size([1 << 40])
        return metadata

    original = (checkpoint / ".metadata").read_bytes()
    for by, reason in ((elsewhere, "secret"), (huge, str(4 << 40)), (lambda _: {"a": 1}, "metadata")):
        (checkpoint / ".metadata").write_bytes(original)
        change(checkpoint, by)
        with pytest.raises(UsageError, match=reason):
            read(checkpoint)


def test_plain_weights_are_read(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.arange(3.0)}, file)
    for read_from in (file, io.BytesIO(file.read_bytes())):
        assert torch.equal(load_tensors(read_from, "here")["a"], torch.arange(3.0))


@pytest.mark.parametrize("zipped", [True, False])
def test_c1_weights_that_run_something_are_refused(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "pytorch_model.bin"
    state = {"a": torch.ones(1), "b": Runs(tmp_path / "run")}
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    for read_from in (file, io.BytesIO(file.read_bytes())):
        with pytest.raises(UsageError, match="here"):
            load_tensors(read_from, "here")
    assert not (tmp_path / "run").exists()


def test_c1_an_index_names_no_file_elsewhere(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "secret.bin")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../secret.bin"}}')
    with pytest.raises(UsageError, match=r"\.\./secret\.bin"):
        hf_folder.open_weights(folder)


def member(name: str, **changes: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("/tmp/outside"),
        member("a/../../outside"),
        member("model_weights", type=tarfile.SYMTYPE, linkname="/etc"),
        member("link", type=tarfile.LNKTYPE, linkname="model_config.yaml"),
        member("device", type=tarfile.CHRTYPE),
        member("fifo", type=tarfile.FIFOTYPE),
        member("sparse", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 50)}),
        member(f"./{nemo_archive.MODEL_CONFIG}"),
    ],
    ids=lambda info: f"{info.name} {info.type.decode()}",
)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_c1_an_archive_that_reaches_out_is_refused(tmp_path: Path, bad: tarfile.TarInfo, mode: Any) -> None:
    path = tmp_path / "evil.nemo"
    with tarfile.open(path, mode) as archive:
        archive.addfile(member(nemo_archive.MODEL_CONFIG))
        archive.addfile(bad)
    with pytest.raises(UsageError, match=bad.name):
        nemo_archive.unpack(path, tmp_path / "unpacked")
    with pytest.raises(UsageError, match=bad.name):
        model_file.nemo_file(path, "MODEL.nemo")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_c1_an_archive_is_read_to_its_end_and_never_past_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    path = tmp_path / "m.nemo"
    config = b"target: a.MegatronGPTRewardModel\n"
    with tarfile.open(path, mode) as archive:
        archive.addfile(member("weights", size=50_000), io.BytesIO(random.Random(1).randbytes(50_000)))
        archive.addfile(member(f"a/{nemo_archive.MODEL_CONFIG}", size=2), io.BytesIO(b"a:"))
        archive.addfile(member(f"./{nemo_archive.MODEL_CONFIG}", size=len(config)), io.BytesIO(config))
    assert model_kind.kind_of(model_file.nemo_file(path, "MODEL")) == model_kind.REWARD_MODEL
    os.truncate(path, 30_000)
    with pytest.raises(UsageError, match=r"m\.nemo cannot be read to its end"):
        model_file.nemo_file(path, "MODEL")

    bomb = member("model_weights/bomb", size=1 << 60)
    content = bomb.tobuf(tarfile.PAX_FORMAT)
    path.write_bytes(gzip.compress(content) if mode == "w:gz" else content)
    with pytest.raises(UsageError, match=r"m\.nemo: unpacked it has .* TMPDIR"):
        model_file.nemo_file(path, "MODEL")


def test_c1_a_header_is_never_longer_than_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.nemo"
    header = member("pax", type=tarfile.XHDTYPE, size=1 << 30).tobuf(tarfile.GNU_FORMAT)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(20):
            file.write(b"9" * (1 << 20))
    with pytest.raises(UsageError, match=r"m\.nemo: a header has"):
        model_file.nemo_file(path, "MODEL")


def test_c1_yaml_creates_no_objects(tmp_path: Path) -> None:
    (tmp_path / nemo_archive.MODEL_CONFIG).write_text(f"a: !!python/object/apply:os.mkdir [{tmp_path / 'run'}]\n")
    with pytest.raises(UsageError, match=nemo_archive.MODEL_CONFIG):
        model_file.model_config(tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.nemo")
    with pytest.raises(UsageError, match="pipe"):
        nemo_archive.read(tmp_path / "model.nemo")
