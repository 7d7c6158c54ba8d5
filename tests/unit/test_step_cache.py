# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The step cache: unchanged steps are skipped, changed ones run again."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import locks
from nemo_aligner_cai.pipeline import step_cache
from nemo_aligner_cai.pipeline.step_cache import Step, StepCache, StepMissing


class Counting:
    """Work that writes a file and counts how often it was done."""

    def __init__(self, content: str = "made") -> None:
        self.times = 0
        self.content = content

    def __call__(self, folder: Path) -> Mapping[str, Any]:
        self.times += 1
        (folder / "out.txt").write_text(self.content)
        return {"times": self.times}


def _step(work: Any, source: Path, **settings: Any) -> Step:
    return Step("1_first", "First", reads=(source,), makes=("out.txt",), settings=settings, work=work)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("input")
    return path


def test_a_step_that_is_done_is_skipped(tmp_path: Path, source: Path) -> None:
    work = Counting()
    first = StepCache(tmp_path / "run").run(_step(work, source, seed=1))
    again = StepCache(tmp_path / "run").run(_step(work, source, seed=1))
    assert work.times == 1
    assert again == first
    assert again["facts"] == {"times": 1}


@pytest.mark.parametrize("change", ["setting", "input", "output", "lost output", "lost record", "torn record"])
def test_a_step_is_repeated_when_something_has_changed(tmp_path: Path, source: Path, change: str) -> None:
    work, folder, seed = Counting(), tmp_path / "run" / "1_first", 1
    StepCache(tmp_path / "run").run(_step(work, source, seed=seed))
    if change == "setting":
        seed = 2
    elif change == "input":
        source.write_text("other")
    elif change == "output":
        (folder / "out.txt").write_text("tampered")
    elif change == "lost output":
        (folder / "out.txt").unlink()
    elif change == "lost record":
        (folder / "step.json").unlink()
    else:
        (folder / "step.json").write_text('{"step": "1_fi')
    StepCache(tmp_path / "run").run(_step(work, source, seed=seed))
    assert work.times == 2
    assert (folder / "out.txt").read_text() == "made"


def test_an_interrupted_step_keeps_what_it_has_made_only_for_the_same_inputs(tmp_path: Path, source: Path) -> None:
    def interrupted(folder: Path) -> Mapping[str, Any]:
        (folder / "half.txt").write_text("half")
        (folder / "calls.journal.jsonl").write_text("{}")
        raise KeyboardInterrupt

    seen: list[set[str]] = []

    def look(folder: Path) -> Mapping[str, Any]:
        seen.append({path.name for path in folder.iterdir()} - {"started", "attempts.json"})
        (folder / "out.txt").write_text("made")
        return {}

    for seed in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            StepCache(tmp_path / "run").run(_step(interrupted, source, seed=1))
        StepCache(tmp_path / "run").run(_step(look, source, seed=seed))
        (tmp_path / "run" / "1_first" / "step.json").unlink()
    assert seen == [{"half.txt", "calls.journal.jsonl"}, {"calls.journal.jsonl"}]


@pytest.mark.parametrize(("second", "seconds"), [(1, 111.0), (2, 1.0)])
def test_the_seconds_of_a_step_are_those_of_all_attempts_with_its_inputs(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, second: int, seconds: float
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(step_cache, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def attempt(lasts: float, error: BaseException | None = None) -> Any:
        def work(folder: Path) -> Mapping[str, Any]:
            clock.now += lasts
            if error is not None:
                raise error
            (folder / "out.txt").write_text("made")
            return {}

        return work

    for lasts, error in ((100.0, KeyboardInterrupt()), (10.0, CaiError("failed"))):
        with pytest.raises(type(error)):
            StepCache(tmp_path / "run").run(_step(attempt(lasts, error), source, seed=1))
    record = StepCache(tmp_path / "run").run(_step(attempt(1.0), source, seed=second))
    assert record["seconds"] == seconds
    # Made again since an output was lost: the attempts before belong to the record that is replaced.
    (tmp_path / "run" / "1_first" / "out.txt").unlink()
    assert StepCache(tmp_path / "run").run(_step(attempt(2.0), source, seed=second))["seconds"] == 2.0


@pytest.mark.parametrize("forget", [False, True])
def test_an_interruption_while_files_are_removed_leaves_a_folder_of_the_run(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, forget: bool
) -> None:
    folder = tmp_path / "run" / "1_first"

    def work(folder: Path) -> Mapping[str, Any]:
        seen.append({path.name for path in folder.iterdir()} - {"started", "attempts.json"})
        for name in ("a", "z"):
            (folder / name).mkdir()
            (folder / name / "file").write_text(name)
        (folder / "calls.journal.jsonl").write_text("{}")
        (folder / "out.txt").write_text("made")
        return {}

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    seen: list[set[str]] = []
    StepCache(tmp_path / "run").run(_step(work, source, seed=1))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(step_cache.shutil, "rmtree", interrupted)
        if forget:
            StepCache(tmp_path / "run").forget(["1_first"])
        StepCache(tmp_path / "run").run(_step(work, source, seed=2))
    assert (folder / "a" / "file").is_file() or (folder / "z" / "file").is_file()
    # Also with the settings of the attempt that is half removed.
    StepCache(tmp_path / "run").run(_step(work, source, seed=1))
    assert seen[-1] <= {"calls.journal.jsonl"} and len(seen) == 2


def test_a_full_disk_does_not_take_the_folder_from_its_run(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Any:
        raise UsageError("No space left on device")

    work = Counting()
    for seed in (1, 2):
        with monkeypatch.context() as patched, pytest.raises(UsageError, match="No space"):
            patched.setattr(step_cache, "atomic_writer", full)
            StepCache(tmp_path / "run").run(_step(work, source, seed=seed))
        StepCache(tmp_path / "run").run(_step(work, source, seed=seed))
    assert work.times == 2


def test_a_file_system_without_locks_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(handle: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", without)
    cache, said = StepCache(tmp_path / "run"), "no locks: Function not implemented; mount it with flock"
    with pytest.raises(UsageError, match=said), cache.locked():
        pass


def test_a_step_that_does_not_make_its_files_fails_and_is_not_recorded(tmp_path: Path, source: Path) -> None:
    with pytest.raises(CaiError, match=r"did not make out\.txt"):
        StepCache(tmp_path / "run").run(_step(lambda folder: {}, source))
    assert not (tmp_path / "run" / "1_first" / "step.json").exists()


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=path.name):
            StepCache(path)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    held = StepCache(tmp_path).locked()
    with held, pytest.raises(UsageError, match="another run"), StepCache(tmp_path).locked():
        pass
    with StepCache(tmp_path).locked():
        assert (tmp_path / ".lock").exists()


def test_files_of_somebody_else_are_not_touched(tmp_path: Path, source: Path) -> None:
    (tmp_path / "run" / "1_first").mkdir(parents=True)
    (tmp_path / "run" / "1_first" / "precious.csv").write_text("a,b")
    with pytest.raises(UsageError, match="1_first"):
        StepCache(tmp_path / "run").run(_step(Counting(), source))
    assert (tmp_path / "run" / "1_first" / "precious.csv").read_text() == "a,b"


def test_models_are_identified_by_their_inputs_and_data_by_their_bytes(tmp_path: Path, source: Path) -> None:
    def work(folder: Path) -> Mapping[str, Any]:
        (folder / "model.nemo").write_text(str(time.monotonic_ns()))
        (folder / "rows.jsonl").write_text("{}")
        return {}

    def identities(seed: int) -> list[str]:
        cache = StepCache(tmp_path / "run")
        step = Step("1_first", "First", (source,), ("model.nemo", "rows.jsonl"), {"seed": seed}, work)
        cache.run(step)
        folder = tmp_path / "run" / "1_first"
        found = [cache.identity(folder / name) for name in step.makes]
        (folder / "step.json").unlink()  # as if it had been interrupted just before its end
        return found

    first, again, other = identities(1), identities(1), identities(2)
    assert first == again
    assert first[0] != other[0]
    assert first[1] == other[1]


def test_b3_only_folders_that_a_step_has_begun_are_forgotten(tmp_path: Path, source: Path) -> None:
    run = tmp_path / "run"
    cache = StepCache(run)
    cache.run(_step(Counting(), source))
    (run / "1_first" / "calls.journal.jsonl").write_text("")
    foreign = run / "2_second"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    for name, content in (("notes", ""), ("step.json", "{}"), ("started", "at nine o'clock")):
        (foreign / name).write_text(content)
        with pytest.raises(UsageError, match="2_second"):
            cache.forget(["1_first", "2_second"])
        assert (foreign / "thesis.txt").exists()
        assert (run / "1_first" / "out.txt").exists(), "nothing is removed where something cannot be"
    cache.forget(["1_first", "3_third"])
    assert list((run / "1_first").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "link to a file", "link to a folder"])
def test_b3_what_is_not_a_steps_folder_stays(tmp_path: Path, source: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    if kind == "link to a folder":
        outside.mkdir()
        (outside / "thesis.txt").write_text("years of work")
    else:
        outside.write_text("years of work")
    (tmp_path / "run").mkdir()
    folder = tmp_path / "run" / "1_first"
    if kind == "file":
        folder.write_text("years of work")
    else:
        folder.symlink_to(outside)
    cache = StepCache(tmp_path / "run")
    with pytest.raises(UsageError, match="1_first"):
        cache.forget(["1_first"])
    with pytest.raises(UsageError, match="1_first"):
        cache.run(_step(Counting(), source))
    assert outside.exists()


def test_b3_a_steps_folder_may_be_a_link_to_another_disk(tmp_path: Path, source: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "1_first").symlink_to(tmp_path / "disk")
    (tmp_path / "precious").mkdir()
    cache, work = StepCache(tmp_path / "run"), Counting()
    cache.run(_step(work, source))
    (tmp_path / "disk" / "link").symlink_to(tmp_path / "precious")
    cache.forget(["1_first"])
    cache.run(_step(work, source))
    assert work.times == 2
    assert (tmp_path / "precious").is_dir()


def test_c5_the_lock_is_not_taken_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(UsageError), StepCache(tmp_path).locked():
        pass
    assert victim.read_text() == "precious"


def test_the_hook_is_called_after_a_step_that_was_run(tmp_path: Path, source: Path) -> None:
    called: list[bool] = []
    run = tmp_path / "run"
    for _ in range(2):
        cache = StepCache(run, on_done=lambda folder: called.append((folder / "1_first" / "step.json").is_file()))
        cache.run(_step(Counting(), source))
    assert called == [True]


def test_a_required_step_that_is_missing_or_outdated_is_named(tmp_path: Path, source: Path) -> None:
    work = Counting()
    cache = StepCache(tmp_path / "run")
    with pytest.raises(StepMissing) as caught:
        cache.require(_step(work, source, seed=1))
    assert caught.value.step == "1_first"
    record = cache.run(_step(work, source, seed=1))
    assert StepCache(tmp_path / "run").require(_step(work, source, seed=1)) == record
    with pytest.raises(StepMissing):
        cache.require(_step(work, source, seed=2))
    assert work.times == 1


def test_a_required_step_whose_own_input_is_missing_is_named(tmp_path: Path) -> None:
    lost = tmp_path / "run" / "0_before" / "out.txt"
    with pytest.raises(StepMissing):
        StepCache(tmp_path / "run").require(_step(Counting(), lost))


def test_shards_of_a_step_run_at_the_same_time_and_nothing_else_does(tmp_path: Path, source: Path) -> None:
    cache, folder = StepCache(tmp_path / "run"), tmp_path / "run" / "1_first"
    work = Counting()

    def shard(name: str) -> Step:
        def write(folder: Path) -> Mapping[str, Any]:
            (folder / "calls.shards").mkdir(exist_ok=True)
            (folder / "calls.shards" / f"{name}.journal.jsonl").write_text("{}")
            (folder / f"{name}.log").touch()
            return {}

        return _step(write, source)

    with cache.locked(shared=True), StepCache(tmp_path / "run").locked(shared=True):
        with pytest.raises(UsageError, match="another run"), StepCache(tmp_path / "run").locked():
            pytest.fail("it was locked")
        for name in ("0", "1"):
            cache.run_shard(shard(name))
    assert {path.name for path in folder.glob("*.log")} == {"0.log", "1.log"}, "the second one removed nothing"
    with cache.locked(), pytest.raises(UsageError, match="another run"), cache.locked(shared=True):
        pytest.fail("it was locked")
    # With other settings only the journals are kept, which are never wrong.
    cache.run(_step(work, source, seed=2))
    assert {path.name for path in folder.iterdir()} == {"calls.shards", "out.txt", "started", "step.json"}
    assert len(list((folder / "calls.shards").iterdir())) == 2
    cache.run_shard(_step(work, source, seed=2))
    assert work.times == 1, "the step is done"
