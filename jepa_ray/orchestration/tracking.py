"""Feeds the trackers of a sweep: a mirror of its tables, with live curves of the trials that run.

The driver writes, not the trials: one machine needs the network and the keys, a trial whose process is killed costs no run, and a trial
never waits for a tracker. Each tracker has a thread. Trials send rows of their curves to the Mailbox; when a trial has ended, its tables
complete its run. Trials that ended without (the process was killed, or `track` is new) are added from their tables at the start.

Which points of which metric a run has is kept in `results/NAME/tracked/`, and written before they are sent. So a resumed trial or sweep
continues its runs, and steps that are trained again are not sent again.
"""

from __future__ import annotations

import contextlib
import json
import math
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import ray
from ray.tune import Callback

from jepa_ray.config import SweepConfig, columns
from jepa_ray.orchestration.jobs import Job
from jepa_ray.orchestration.trackers import Points, Run, Tracked, Tracker
from jepa_ray.orchestration.tune_adapters import NotSaved, job_of
from jepa_ray.results import SUMMARY
from jepa_ray.system import atomic

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

EVERY_S = 2.0
"""Seconds between two looks for new rows."""
PATIENCE_S = 60.0
"""Seconds that the end of a sweep waits for its trackers; they are completed when its command is repeated."""
UNTRACKED = re.compile(r"pretrain_|diag_(unit_)?sv_\d")
"""Names of values that are not curves over optimizer steps, or too many of them (each singular value)."""
Row = Mapping[str, Any]


@dataclass
class Followed:
    """A trial as one tracker has it."""

    trial: Tracked
    run: Run | None = None
    run_id: str | None = None
    sent: dict[str, int] = field(default_factory=dict)
    """Metric -> the last step that has been sent."""
    dropped: bool = False


class Lane:
    """One tracker and its thread, which carries out one call after the other."""

    def __init__(self, tracker: Tracker, sweep: str, folder: Path, say: Callable[[str], None]) -> None:
        self._tracker, self._sweep, self._folder, self._say = tracker, sweep, folder, say
        self._followed: dict[str, Followed] = {}
        self._reported = False
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"tracker {tracker.key}")

    def start(self) -> None:
        """Begin with the trials that have ended and are not complete in the tracker."""
        self._calls.put(self._catch_up)
        self._thread.start()

    def started(self, trial: Tracked) -> None:
        """A trial has started, or started again."""
        self._calls.put(lambda: self._follow(trial))

    def rows(self, trial_id: str, rows: Sequence[Row]) -> None:
        """Rows of a running trial's curves."""
        self._calls.put(lambda: self._safely(trial_id, lambda followed: self._send(followed, rows)))

    def ended(self, trial_id: str) -> None:
        """A trial's tables are written."""
        self._calls.put(lambda: self._safely(trial_id, self._complete))

    def stop(self, seconds: float) -> None:
        """Carry out what was called, then close the runs of trials that have not ended; gives up after so many seconds."""
        self._calls.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive() and not self._reported:
            self._say(f"{self._tracker.name} has not taken everything in time; the same command, repeated, completes it.")

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
        for trial_id in list(self._followed):
            self._safely(trial_id, lambda followed: followed.run.leave() if followed.run is not None else None)

    def _catch_up(self) -> None:
        for path in sorted((self._folder / "trials").glob("[!._]*.parquet")):
            if not self._state(path.stem).get("ended"):
                with contextlib.suppress(Exception):  # `results/damaged.py` says what is wrong with a file
                    self._follow(Tracked.of(self._sweep, _rows(path)[0]))
                    self._safely(path.stem, self._complete)

    def _follow(self, trial: Tracked) -> None:
        if trial.trial_id not in self._followed:
            state = self._state(trial.trial_id)
            self._followed[trial.trial_id] = Followed(trial, run_id=state.get("run"), sent=state.get("sent", {}))

    def _safely(self, trial_id: str, call: Callable[[Followed], object]) -> None:
        """An error concerns this trial's run only, which is then not continued before the sweep's command is repeated.

        Only the first is reported, as a server that is down fails with every trial.
        """
        followed = self._followed.get(trial_id)
        if followed is None or followed.dropped:
            return
        try:
            call(followed)
        except Exception as error:
            followed.dropped, followed.run = True, None
            reason = (str(error).strip().partition("\n")[0] or type(error).__name__)[:200]
            if not self._reported:
                self._reported = True
                self._say(
                    f"{self._tracker.name} does not take {followed.trial.name} ({reason}), and perhaps others; training goes on, the "
                    "tables have all curves, and the same command, repeated, completes the tracker."
                )

    def _send(self, followed: Followed, rows: Sequence[Row]) -> Run:
        """Send what is new among rows of the metrics table."""
        if followed.run is None:
            followed.run = self._tracker.open(followed.trial, followed.run_id)
            followed.run_id = followed.run.id
            followed.sent = {} if followed.run.new else followed.sent
        points = points_of(rows, followed.sent)
        followed.sent |= {name: step for step, values in points for name in values}
        self._save(followed)
        if points:
            followed.run.log(points)
        return followed.run

    def _complete(self, followed: Followed) -> None:
        """Send the rest of the curves and the final numbers, from the tables."""
        name = f"{followed.trial.trial_id}.parquet"
        (row,), curves = _rows(self._folder / "trials" / name), _rows(self._folder / "metrics" / name)
        run = self._send(followed, curves)
        final = {key: row[key] for key in ("error", *SUMMARY) if row.get(key) is not None}
        numbers = {
            key: float(value)
            for key, value in final.items()
            if isinstance(value, (int, float)) and math.isfinite(value) and key not in followed.sent  # curves end with theirs
        }
        texts = {key: value for key, value in final.items() if isinstance(value, str)}
        run.end(row["state"], numbers, texts, int(row.get("steps") or 0))
        self._save(followed, ended=True)
        del self._followed[followed.trial.trial_id]

    def _path(self, trial_id: str) -> Path:
        return self._folder / "tracked" / self._tracker.key / f"{trial_id}.json"

    def _state(self, trial_id: str) -> dict[str, Any]:
        """What this store has of a trial; empty if nothing, or if the file cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(self._path(trial_id).read_text(encoding="utf-8"))
            if state["where"] == self._tracker.where:
                return dict(state)
        return {}

    def _save(self, followed: Followed, *, ended: bool = False) -> None:
        state = {"where": self._tracker.where, "run": followed.run_id, "sent": followed.sent, "ended": ended}
        atomic.write_text(self._path(followed.trial.trial_id), json.dumps(state))


class Started(NotSaved, Callback):
    """Tells the lanes which trials start and end."""

    def __init__(self, sweep: str, lanes: Sequence[Lane]) -> None:
        self._sweep, self._lanes = sweep, lanes

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        for lane in self._lanes:
            lane.started(tracked(self._sweep, job_of(trial)))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        for lane in self._lanes:
            lane.ended(job_of(trial).trial_id)

    on_trial_error = on_trial_complete


@contextmanager
def tracking(
    trackers: Sequence[Tracker], sweep: SweepConfig, folder: Path, mailbox: Any, say: Callable[[str], None]
) -> Iterator[list[Callback]]:
    """Within the block, feed the trackers; yields the callbacks that Tune calls. Without trackers, nothing happens."""
    if not trackers:
        yield []
        return
    lanes, over = [Lane(tracker, sweep.name, folder, say) for tracker in trackers], threading.Event()

    def collect() -> None:
        with contextlib.suppress(Exception):  # the mailbox is restarting, or Ray is shutting down: the tables complete the runs
            if ray.is_initialized():
                for trial_id, rows in ray.get(mailbox.take_rows.remote(), timeout=EVERY_S).items():
                    for lane in lanes:
                        lane.rows(trial_id, rows)

    def work() -> None:
        while not over.wait(EVERY_S):
            collect()

    thread = threading.Thread(target=work, daemon=True, name="tracking")
    for lane in lanes:
        lane.start()
    thread.start()
    try:
        yield [Started(sweep.name, lanes)]
    finally:
        over.set()
        thread.join(2 * EVERY_S)
        for lane in lanes:
            lane.stop(PATIENCE_S)


def tracked(sweep: str, job: Job) -> Tracked:
    """A job as trackers show it."""
    return Tracked.of(sweep, {"trial_id": job.trial_id, "arm": job.arm, "stage": job.stage, "number": job.number, **columns(job.config)})


def points_of(rows: Sequence[Row], sent: Mapping[str, int]) -> Points:
    """The finite values among rows of the metrics table that are later than what has been sent, by step."""
    points: dict[int, dict[str, float]] = {}
    for row in rows:
        name, step, value = str(row["name"]), int(row["step"]), row["value"]
        if UNTRACKED.match(name) or value is None or not math.isfinite(value):
            continue
        if step > sent.get(name, -1):
            points.setdefault(step, {})[name] = float(value)
    return sorted(points.items())


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
