# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Tasks of a Ray cluster that make the calls of shards: what is refused before a call is made."""

import argparse
import shutil
import socket
import threading
from pathlib import Path

import pytest

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.generate import ray_shards
from nemo_aligner_cai.engine.shards import shards_folder
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.step_cache import JOURNAL_SUFFIX
from tests.unit.fake_servers import FakeOpenAI
from tests.unit.sl_run import SlRun, outputs


def test_without_ray_the_extra_is_named(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    assert SlRun(inputs, tmp_path)("--ray", "auto", "--shards", "2") == 2
    assert "[ray]" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1", "no.such.host.invalid:6379"])
def test_a_cluster_that_cannot_be_reached_is_one_error(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    pytest.importorskip("ray", reason="Ray comes with the extra ray")
    run = SlRun(inputs, tmp_path)
    assert run("--ray", address, "--shards", "2") == 2
    assert f"--ray {address}" in capsys.readouterr().err
    assert outputs(run.folder) == {}


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
@pytest.mark.parametrize("form", ["{}", "ray://{}", "auto"])
def test_a_program_that_is_not_ray_is_one_error_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: dict[str, str], answer: bytes, form: str
) -> None:
    pytest.importorskip("ray", reason="Ray comes with the extra ray")
    monkeypatch.setattr(ray_shards, "_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", place)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(answer)
                connection.recv(1 << 10)
                # A silent program keeps the connection.
                ended.wait(10 if not answer else 0)

        ended, server = threading.Event(), threading.Thread(target=serve)
        server.start()
        with pytest.raises(UsageError, match=place), ray_shards._cluster(form.format(place)):
            pytest.fail("no cluster was reached")
        ended.set()
        server.join()


@pytest.mark.parametrize("place", ["whole", "folder"])
def test_a_journal_that_is_to_be_read_is_not_emptied(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    pytest.importorskip("ray", reason="Ray comes with the extra ray")
    with FakeOpenAI(lambda body: f"{len(body['messages'])} {body['messages'][0]['content']}") as server:
        run = SlRun(inputs, tmp_path, "--model-url", f"http://127.0.0.1:{server.port}/v1", "--model", "m")
        assert run() == 0
    (journal,) = run.folder.rglob("*.journal.jsonl")
    read = journal
    if place == "folder":
        folder = shards_folder(journal)
        folder.mkdir()
        read = Path(shutil.copy(journal, folder / f"1-of-1{JOURNAL_SUFFIX}"))
    before = read.read_bytes()
    named = read if place == "whole" else read.parent
    assert run("--ray", "auto", "--shards", "2", "--overwrite", "--journal-from", str(named)) == 2
    assert f"{read}: is read by --journal-from and deleted by --overwrite" in capsys.readouterr().err
    assert read.read_bytes() == before


def test_a_task_that_sees_another_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray comes with the extra ray")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "absent"):
        end = ray_shards.run_task("sl-cai", argparse.Namespace(), str(folder), str(tmp_path / "marker"))
        assert str(folder) in end.error and "shared" in end.error
