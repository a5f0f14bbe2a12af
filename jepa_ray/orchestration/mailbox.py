"""Messages between the driver, a trial's process and its worker group: the body of one asynchronous Ray actor per sweep.

Does not import Ray: `run.py` turns the class into an actor.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jepa_ray.system.heartbeat import Beat

if TYPE_CHECKING:  # importing it would load pandas and pyarrow into the actor's process
    from jepa_ray.orchestration.jobs import Metrics

KEPT_BEATS = 256
"""More than the number of trials that run at the same time."""


class Mailbox:
    """Lets the driver tell a running trial to stop, trials show their curves, and a worker group hand its reports to the trial's process.

    One asynchronous actor per sweep. Tune's own reporting goes one way only, and Train's reports do not reach Tune.
    """

    def __init__(self) -> None:
        self._stopped: set[str] = set()
        self._posts: dict[str, list[Metrics]] = {}
        self._answers: dict[str, list[bool]] = {}
        self._beats: dict[str, tuple[float, Beat]] = {}
        self._rows: dict[str, list[Mapping[str, Any]]] = {}
        self._changed = asyncio.Condition()

    async def beat(self, name: str, beat: Beat, sent: float) -> None:
        """Store the progress of a trial or a preparation, sent at `sent` (seconds since the epoch); only the latest of each is kept.

        An asynchronous actor may run calls in another order than they were made.
        """
        latest = self._beats.pop(name, None)
        self._beats[name] = (sent, beat) if latest is None or latest[0] <= sent else latest
        while len(self._beats) > KEPT_BEATS:  # drops ended ones; running ones move to the end of the dict
            del self._beats[next(iter(self._beats))]

    async def beats(self) -> dict[str, Beat]:
        """The latest heartbeat under each name."""
        return {name: beat for name, (_, beat) in self._beats.items()}

    async def add_rows(self, trial_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store rows of a running trial's curves until they are taken."""
        self._rows.setdefault(trial_id, []).extend(rows)

    async def take_rows(self) -> dict[str, list[Mapping[str, Any]]]:
        """Trial id -> the rows added since the last call."""
        rows, self._rows = self._rows, {}
        return rows

    async def stop(self, trial_id: str) -> None:
        """Mark a trial as cut."""
        self._stopped.add(trial_id)

    async def stopped(self, trial_id: str) -> bool:
        """Whether a trial has been cut."""
        return trial_id in self._stopped

    async def post(self, run: str, metrics: Metrics) -> None:
        """Rank 0 of a worker group hands in a report."""
        async with self._changed:
            self._posts.setdefault(run, []).append(metrics)
            self._changed.notify_all()

    async def collect(self, run: str, number: int, timeout_s: float) -> Metrics | None:
        """Report `number` (from 0) of a group, or None if it does not arrive in time."""
        await self._until(lambda: len(self._posts.get(run, [])) > number, timeout_s)
        posts = self._posts.get(run, [])
        return posts[number] if len(posts) > number else None

    async def answer(self, run: str, stop: bool) -> None:
        """The trial's process answers the oldest report that has no answer yet."""
        async with self._changed:
            self._answers.setdefault(run, []).append(stop)
            self._changed.notify_all()

    async def wait(self, run: str, number: int) -> bool:
        """Every rank waits here for the answer to report `number`; True means stop. All ranks therefore stop at the same step."""
        await self._until(lambda: len(self._answers.get(run, [])) > number, None)
        return self._answers[run][number]

    async def forget(self, run: str) -> None:
        """Drop the reports and answers of a group that has ended."""
        self._posts.pop(run, None)
        self._answers.pop(run, None)

    async def _until(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(condition), timeout_s)
