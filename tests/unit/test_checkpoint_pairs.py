# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The checkpoints from which a stopped PPO step resumes: of the same step, and complete, wherever the stop was."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("omegaconf", reason="the training extra is not installed")

from nemo_aligner_cai.pipeline.steps import checkpoint_pairs
from nemo_aligner_cai.training.launch.log_folder import last_step, unfinished_mark
from tests.unit.ppo_folder import ACTOR, CRITIC, FILES, Ppo, configure, save, write


def at_step_10(folder: Path) -> Ppo:
    """A step that has kept the checkpoints of step 10."""
    ppo = Ppo(folder)
    ppo.pairs.resume()
    configure(ppo.actor, ppo.critic)
    ppo.save(10, 20)
    ppo.pairs.keep()
    return ppo


@pytest.mark.parametrize(
    ("step", "updates", "warmup", "kept"),
    [
        (10, 20, 0, True),  # two batches of the critic to a step of the actor
        (10, 24, 2, True),
        (10, 40, 0, False),  # killed after the critic's save
        (20, 20, 0, False),  # killed after the actor's save
        (10, None, 0, False),
        (None, 20, 0, False),
        (None, None, 0, False),
    ],
)
def test_without_a_pair_both_resume_from_the_same_step_or_start_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, step: int | None, updates: int | None, warmup: int, kept: bool
) -> None:
    caplog.set_level("WARNING", logger=checkpoint_pairs.__name__)
    ppo = Ppo(tmp_path)
    configure(ppo.actor, ppo.critic, warmup=warmup)
    ppo.save(step, updates)
    ppo.pairs.resume()
    assert (ppo.actor.exists(), ppo.critic.exists()) == (kept, kept)
    assert ("PPO starts over" in caplog.text) != kept


def test_a_checkpoint_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    ppo = at_step_10(tmp_path)
    write(ppo.actor, ACTOR.format(20))
    ppo.new_start().resume()
    assert (last_step(ppo.actor), last_step(ppo.critic)) == (10, 20)
    assert (ppo.actor / "checkpoints" / ACTOR.format(20)).is_dir(), "the trainer removes it, no pair was restored"


def test_two_last_checkpoints_are_none(tmp_path: Path) -> None:
    """NeMo stops at them: a run was killed before the earlier one was removed."""
    ppo = Ppo(tmp_path)
    configure(ppo.actor, ppo.critic)
    ppo.save(20, 40)
    (ppo.actor / "checkpoints" / ACTOR.format(10)).mkdir()
    ppo.pairs.resume()
    assert not ppo.actor.exists()
    assert not ppo.critic.exists()


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    Ppo(tmp_path).pairs.resume()
    assert not list(tmp_path.iterdir())


def critic_ahead(ppo: Ppo) -> None:
    ppo.save(None, 40)


def actor_ahead(ppo: Ppo) -> None:
    ppo.save(20, None)


def critic_ahead_while_the_actor_saves(ppo: Ppo) -> None:
    ppo.save(None, 40)
    write(ppo.actor, ACTOR.format(20))


def actor_has_not_removed_the_earlier_one(ppo: Ppo) -> None:
    ppo.save(None, 40)
    write(ppo.actor, ACTOR.format(20))
    unfinished_mark(ppo.actor, ACTOR.format(20)).unlink()


def critic_has_removed_a_part_of_the_earlier_one(ppo: Ppo) -> None:
    write(ppo.critic, CRITIC.format(40))
    unfinished_mark(ppo.critic, CRITIC.format(40)).unlink()
    unfinished_mark(ppo.critic, CRITIC.format(20)).touch()
    (ppo.critic / "checkpoints" / CRITIC.format(20) / FILES[0]).unlink()


def settings_moved_at_a_resumed_start(ppo: Ppo) -> None:
    (ppo.actor / "config.yaml").unlink()


STOPS = (
    critic_ahead,
    actor_ahead,
    critic_ahead_while_the_actor_saves,
    actor_has_not_removed_the_earlier_one,
    critic_has_removed_a_part_of_the_earlier_one,
    settings_moved_at_a_resumed_start,
)


@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_while_both_save_resumes_from_the_last_step_that_both_have_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stop: Callable[[Ppo], None]
) -> None:
    caplog.set_level("WARNING", logger=checkpoint_pairs.__name__)
    ppo = at_step_10(tmp_path)
    (ppo.actor / "metrics.jsonl").write_text("logged")
    best = ppo.actor / "checkpoints" / ACTOR.format(5).replace("-last", "-val_rewards=0.5")
    best.mkdir()
    stop(ppo)
    ppo.pairs.keep()
    again = ppo.new_start()
    again.resume()
    ppo.assert_complete(10)
    assert best.is_dir() and (ppo.actor / "metrics.jsonl").read_text() == "logged"
    assert "step 10" in caplog.text and "starts over" not in caplog.text
    assert ppo.kept() == ["10"], "another stop before the next save would need it"


def test_several_stops_in_a_row_and_a_later_pair(tmp_path: Path) -> None:
    ppo = at_step_10(tmp_path)
    for stop in (critic_ahead, actor_ahead, critic_ahead):
        stop(ppo)
        ppo.new_start().resume()
        ppo.assert_complete(10)
    again = ppo.new_start()
    again.resume()
    for step in (20, 30):
        ppo.save(None, 2 * step)
        again.keep()
        assert ppo.kept() == [str(step - 10)]
        ppo.save(step, None)
        again.keep()
        assert ppo.kept() == [str(step)], "the earlier one does not keep its disk space"
    actor_behind = ppo.new_start()
    ppo.save(None, 80)
    actor_behind.resume()
    ppo.assert_complete(30)


def test_a_pair_needs_no_disk_space_while_its_checkpoints_exist(tmp_path: Path) -> None:
    ppo = at_step_10(tmp_path)
    own = {file.stat().st_ino for log_dir in (ppo.actor, ppo.critic) for file in log_dir.rglob("*_0.distcp")}
    pair = {file.stat().st_ino for file in (tmp_path / "pairs").rglob("*_0.distcp")}
    assert pair == own and len(pair) == 2


def test_a_pair_is_kept_at_the_start_if_the_earlier_process_had_no_time(tmp_path: Path) -> None:
    ppo = Ppo(tmp_path)
    configure(ppo.actor, ppo.critic)
    ppo.save(10, 20)
    ppo.pairs.resume()
    assert ppo.kept() == ["10"]


@pytest.mark.parametrize("layout", ["{}.ckpt", "mp_rank_00/{}.ckpt", "tp_rank_00_pp_rank_001/{}.ckpt"])
def test_adapters_are_files(tmp_path: Path, layout: str) -> None:
    ppo = Ppo(tmp_path)
    configure(ppo.actor, ppo.critic)
    save(ppo.critic, CRITIC.format(20))
    files = [ppo.actor / "checkpoints" / layout.format(ACTOR.format(step)) for step in (10, 20)]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    files[0].write_text("step 10")
    ppo.pairs.resume()
    files[1].write_text("step 20")
    files[0].unlink()
    ppo.new_start().resume()
    assert files[0].read_text() == "step 10" and not files[1].exists()
    assert (last_step(ppo.actor), last_step(ppo.critic)) == (10, 20)


class Interruption:
    """Raises KeyboardInterrupt at one of the changes of the file system, before it is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.left = number
        for owner, name in ((os, "link"), (os, "unlink"), (os, "rename"), (os, "rmdir"), (os, "mkdir")):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))
        monkeypatch.setattr(Path, "touch", self._counted(Path.touch))

    def _counted(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return change(*arguments, **options)

        return counted


def interrupted(work: Callable[[], None], number: int) -> bool:
    """Interrupt work before one of its changes; returns False if it makes fewer."""
    with pytest.MonkeyPatch.context() as patched:
        changes = Interruption(patched, number)
        try:
            work()
        except KeyboardInterrupt:
            return True
        assert changes.left >= 0, "an interruption was suppressed"
    return False


@pytest.mark.parametrize("critic_saves_again", [True, False])
def test_a_stop_at_any_moment_of_keeping_leaves_a_pair(tmp_path: Path, critic_saves_again: bool) -> None:
    number, steps = 0, set[int | None]()
    while True:
        ppo = at_step_10(tmp_path / str(number))
        ppo.save(20, 40)
        if not interrupted(ppo.pairs.keep, number):
            break
        if critic_saves_again:
            ppo.save(None, 60)
        ppo.new_start().resume()
        step = last_step(ppo.actor)
        assert step in (10, 20)
        ppo.assert_complete(step)
        assert ppo.kept() == [str(step)]
        steps.add(step)
        number += 1
    assert steps == ({10, 20} if critic_saves_again else {20}) and number > 10


def test_a_pair_is_without_the_earlier_checkpoint_that_is_being_removed(tmp_path: Path) -> None:
    ppo = at_step_10(tmp_path)
    ppo.save(20, None)
    critic_has_removed_a_part_of_the_earlier_one(ppo)
    ppo.pairs.keep()
    assert ppo.kept() == ["20"]
    assert [path.name for path in (tmp_path / "pairs").rglob("cai_ppo_critic*")] == [CRITIC.format(40)]


@pytest.mark.parametrize("stop", [critic_ahead_while_the_actor_saves, actor_has_not_removed_the_earlier_one])
def test_a_stop_at_any_moment_of_restoring_is_made_up_for_by_the_next_start(
    tmp_path: Path, stop: Callable[[Ppo], None]
) -> None:
    number = 0
    while True:
        ppo = at_step_10(tmp_path / str(number))
        stop(ppo)
        if not interrupted(ppo.new_start().resume, number):
            break
        ppo.new_start().resume()
        # Where both have saved step 20, it is valid once the actor's checkpoint of step 10 is marked.
        step = last_step(ppo.actor)
        assert step == 10 or (step == 20 and stop is actor_has_not_removed_the_earlier_one)
        ppo.assert_complete(step)
        number += 1
    ppo.assert_complete(10)
    assert number > 10


def test_a_checkpoint_that_nemo_removes_meanwhile_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = at_step_10(tmp_path)
    ppo.save(20, 40)
    link = os.link

    def removed_first(source: Path, target: Path) -> None:
        link(source, target)
        unfinished_mark(ppo.critic, CRITIC.format(40)).touch()

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", removed_first)
        ppo.pairs.keep()
    assert ppo.kept() == ["10"]


def test_a_file_system_without_hard_links_stops_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("WARNING", logger=checkpoint_pairs.__name__)

    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported", str(source), None, str(target))

    monkeypatch.setattr(os, "link", refused)
    ppo = at_step_10(tmp_path)
    ppo.pairs.keep()
    assert not ppo.kept() and len(caplog.records) == 1, "it is said once for each save"
    ppo.save(None, 40)
    ppo.new_start().resume()
    assert not ppo.actor.exists() and not ppo.critic.exists()
