"""Heartbeats reach the console, and monitoring never harms a trial."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import ray

from jepa_ray.orchestration.mailbox import KEPT_BEATS, Mailbox
from jepa_ray.orchestration.progress import Beats, sending
from jepa_ray.system.heartbeat import HEARTBEAT, Beat
from tests import fake_training as fake


class Recorder:
    """A mailbox handle that records messages."""

    def __init__(self) -> None:
        self.beat = self
        self.sent: list[tuple[str, Beat]] = []
        self.several = threading.Event()

    def remote(self, name: str, beat: Beat, sent: float) -> None:
        assert sent > 0
        self.sent.append((name, beat))
        if len(self.sent) > 3:
            self.several.set()


class Broken:
    """A mailbox whose process has died."""

    beat = property(lambda self: self)
    beats = beat

    def remote(self, *arguments: Any) -> None:
        raise RuntimeError("the actor is dead")


def test_the_state_is_sent_at_once_regularly_and_at_the_end() -> None:
    mailbox = Recorder()
    with sending(mailbox, "trial-1", phase="load", every_s=0.01):
        assert mailbox.sent[0][1].phase == "load"
        HEARTBEAT.enter("train")
        assert mailbox.several.wait(30)
        HEARTBEAT.enter("ready")
    assert {name for name, _ in mailbox.sent} == {"trial-1"}
    assert mailbox.sent[-1][1].phase == "ready" and "train" in {beat.phase for _, beat in mailbox.sent}


def test_a_broken_mailbox_neither_fails_the_work_nor_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with sending(Broken(), "trial-1", every_s=0.01):
        HEARTBEAT.enter("train")
    assert Beats(Broken())() == {}


def test_nothing_is_asked_when_ray_is_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call would make Ray start its own cluster."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    asked = Recorder()
    asked.beats = asked  # type: ignore[attr-defined]
    assert Beats(asked)() == {} and asked.sent == []


def test_an_error_of_the_work_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), sending(Recorder(), "trial-1"):
        raise ZeroDivisionError


def test_the_mailbox_keeps_the_latest_and_no_more_than_it_must() -> None:
    async def work() -> dict[str, Beat]:
        mailbox = Mailbox()
        for number in range(2 * KEPT_BEATS):
            await mailbox.beat(f"ended-{number}", Beat("test"), number)
            await mailbox.beat("running", Beat("train", number), number)
        return await mailbox.beats()

    beats = asyncio.run(work())
    assert len(beats) == KEPT_BEATS
    assert beats["running"] == Beat("train", 2 * KEPT_BEATS - 1)


def test_a_late_heartbeat_does_not_replace_a_newer_one() -> None:
    """Calls of an asynchronous actor may overtake each other."""

    async def work() -> dict[str, Beat]:
        mailbox = Mailbox()
        await mailbox.beat("a", Beat("ready"), 2.0)
        await mailbox.beat("a", Beat("start"), 1.0)
        return await mailbox.beats()

    assert asyncio.run(work()) == {"a": Beat("ready")}


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_beats_of_preparation_and_trials_reach_the_driver(tmp_path: Path) -> None:
    from jepa_ray.orchestration.cluster import connect
    from jepa_ray.orchestration.run import run_sweep

    sweep = fake.make_sweep(tmp_path, search={"num_trials": 1})
    folder = tmp_path / "fake"
    folder.mkdir()
    heard = fake.Heard()
    watched: list[Beats] = []
    heard.watch = watched.append  # type: ignore[attr-defined]
    seen: dict[str, Beat] = {}
    with connect(sweep.resources, num_cpus=2) as cluster, fake.hold(folder) as release:
        thread = threading.Thread(target=_watch, args=(watched, seen, release))
        thread.start()
        run_sweep(sweep, folder, cluster, heard, prepare_one=fake.prepare, run_trial=fake.run_trial)  # type: ignore[arg-type]
        thread.join(60)
    assert seen["llama3 nl-rx"].phase == "ready"
    assert len(seen) == 3 and all(beat.phase == "load" for name, beat in seen.items() if name != "llama3 nl-rx")


def _watch(watched: list[Beats], seen: dict[str, Beat], release: Any) -> None:
    """Ask for heartbeats while both trials wait in their second epoch, then let them continue."""

    def three() -> bool:
        seen.update(watched[0]())
        return len(seen) == 3 and seen["llama3 nl-rx"].phase == "ready"  # beats of different processes arrive in any order

    fake.wait_for(lambda: watched, "the driver's heartbeats")
    fake.wait_for(three, "heartbeats of the preparation and of two trials")
    release()
