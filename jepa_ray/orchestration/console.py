"""The output of a running sweep: one line per finished trial and, on a terminal, a live table below these lines.

Only this module and the command line print. It receives events as a listener (`stages.Listener`) and reads the progress of running
trials from their heartbeats (`watch`), without waiting for them. Knows nothing of Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from jepa_ray.config import SweepConfig, TrialConfig, arms, columns
from jepa_ray.data.report import labelled, of_family, of_task
from jepa_ray.orchestration.forecast import later_trials, seconds_left
from jepa_ray.orchestration.jobs import Job
from jepa_ray.orchestration.planning import Planned
from jepa_ray.results import Stage
from jepa_ray.system.heartbeat import Beat

SHOWN = 16
"""Maximum number of running trials in the live table; the last line counts the others."""
NARROW = 130
"""Terminal width in characters below which the live table omits the searched parameters; the line of the finished trial has them."""


def make_console() -> Console:
    """Standard output. On a terminal, lines wrap at words; for a file or a pipe, lines stay whole and tables are 160 columns wide."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=160)


def starting(console: Console) -> AbstractContextManager[object]:
    """A spinner while Ray starts, on a terminal only."""
    return console.status("Starting Ray", spinner="line") if console.is_terminal else nullcontext()


_STAGES: dict[Stage, str] = {
    "search": "Search",
    "confirm": "Confirmation on fresh seeds and the sealed test split",
    "matched": "Equal FLOPs: the more expensive of each pair with the other's budget",
}


@dataclass
class _Running:
    job: Job
    since: float
    epoch: int = 0
    value: float | None = None


@dataclass
class Board:
    """The displayed state of the sweep. Implements `stages.Listener`."""

    sweep: SweepConfig
    console: Console = field(default_factory=lambda: make_console())
    planned: Planned | None = None
    """The plan whose cost the first finished trial corrects."""

    def __post_init__(self) -> None:
        self._running: dict[str, _Running] = {}
        self._best: dict[str, float] = {}
        self._tasks: set[str] = set()
        self._durations: list[float] = []
        self._stage: Stage = "search"
        self._total = self._done = self._failed = 0
        self._concurrent = 1
        self._lists: dict[Stage, int] = {}
        self._beats: Callable[[], Mapping[str, Beat]] = dict
        self._spinner = Spinner("line", "Preparing data and models")

    @contextmanager
    def shown(self) -> Iterator[Board]:
        """Show the live table within the block, on a terminal only."""
        if not self.console.is_terminal:
            yield self
            return
        with Live(get_renderable=self.table, console=self.console, refresh_per_second=4, transient=True):
            yield self

    def watch(self, beats: Callable[[], Mapping[str, Beat]]) -> None:
        """Set the source of the latest heartbeats, by trial id, or by family and task during preparation. It must not wait."""
        self._beats = beats

    def prepared(self, family: str, task: str, report: dict[str, Any]) -> None:
        """Print the data report of a family and task; what it says of the task alone is printed once."""
        if not report:
            return
        for line in [*([] if task in self._tasks else labelled(of_task(report), task)), *labelled(of_family(report), task, family)]:
            self.say(line)
        self._tasks.add(task)

    def stage(self, stage: Stage, total: int, done: int, concurrent: int) -> None:
        self._stage, self._total, self._done, self._concurrent = stage, total, done, concurrent
        if stage != "search":  # other seeds have other values; those of the search may come from an earlier run
            self._best.clear()
        self._running.clear()
        self._lists[stage] = self._lists.get(stage, -1) + 1
        self._spinner.update(text="Starting trials")
        if total == 0:
            return
        progress = f"continuing: {done} of {total} done" if done else f"{total} trials"
        self.say(f"{_STAGES[stage]}: {progress}, {concurrent} at a time")

    def best_before(self, rows: pd.DataFrame) -> None:
        """Include results of earlier runs of the sweep in "best so far"."""
        metric = self.sweep.search.metric
        complete = rows[(rows["stage"] == "search") & (rows["state"] == "COMPLETE")].dropna(subset=[metric])
        for arm, value in zip(complete["arm"], complete[metric], strict=True):
            self._improve(str(arm), float(value))

    def started(self, job: Job) -> None:
        self._running.setdefault(job.trial_id, _Running(job, time.monotonic()))

    def progress(self, job: Job, metrics: dict[str, Any]) -> None:
        running = self._running.setdefault(job.trial_id, _Running(job, time.monotonic()))
        running.epoch, running.value = int(metrics["epoch"]), metrics.get(self.sweep.search.metric)

    def finished(self, job: Job, outcome: dict[str, Any]) -> None:
        running = self._running.pop(job.trial_id, None)
        seconds = time.monotonic() - running.since if running else None
        if seconds is not None:
            self._durations.append(seconds)
        self._count(job, outcome, f"{seconds:.1f} s" if seconds is not None else "")
        if self.planned is not None and outcome.get("state") == "COMPLETE":
            if sentence := self.planned.measured(job.arm, outcome):
                self.say(f"The whole sweep takes {sentence}")
            self.planned = None

    def repeated(self, job: Job, outcome: dict[str, Any]) -> None:
        self._count(job, outcome, "already known, not run again")

    def restarted(self, job: Job, reason: str) -> None:
        self.say(f"{job.arm} {job.trial_id}: its process died; it resumes from its last checkpoint ({reason})")

    def say(self, sentence: str) -> None:
        self.console.print(Text(sentence))

    def table(self) -> RenderableType:
        """The live display: running trials, their progress and the remaining time; before the first, the phases of the preparation."""
        beats = self._beats()
        if not self._lists:
            lines = [Text(f"  {name}: {_phase(beat)}") for name, beat in sorted(beats.items())]
            return Group(self._spinner, *lines)
        if not self._running:
            return Group(self._spinner, Text(self._caption(beats)))
        table = Table(
            box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", caption_justify="left", caption=self._caption(beats)
        )
        wide = self.console.width >= NARROW
        metric = self.sweep.search.metric.replace("_", " ")
        settings = ("lambda", "k", "learning rate", "loss dropout") if wide else ()
        for name in ("arm", *settings, "epoch", metric, "best so far", "phase", "step", "tokens/s", "loss", "ETA"):
            _column(table, name, self.sweep)
        for running in list(self._running.values())[:SHOWN]:
            job, beat = running.job, beats.get(running.job.trial_id, Beat("start"))
            epochs = job.config.optim.num_epochs
            table.add_row(
                job.arm,
                *(_settings(job.config) if wide else ()),
                f"{running.epoch}/{epochs}",
                _share(running.value),
                _share(self._best.get(job.arm)),
                beat.phase,
                f"{beat.done}/{beat.total}" if beat.total else "-",
                f"{beat.tokens_per_second:,.0f}" if beat.tokens_per_second is not None else "-",
                f"{beat.loss:.3f}" if beat.loss is not None else "-",
                _duration(_left(running, beat)),
            )
        return table

    def _caption(self, beats: Mapping[str, Beat]) -> str:
        more = f", {len(self._running) - SHOWN} more running" if len(self._running) > SHOWN else ""
        failed = f", {self._failed} failed" if self._failed else ""
        left = self.seconds_left(beats)
        eta = f", about {_duration(left)} left" if left is not None else ""
        eta += " with all later stages" if left is not None and self._later() else ""
        return f"{self._stage}: {self._done} of {self._total} done{failed}{more}{eta}"

    def seconds_left(self, beats: Mapping[str, Beat] | None = None) -> float | None:
        """Seconds until the end of the whole sweep, all stages; None while no trial duration is known."""
        beats = beats if beats is not None else self._beats()
        running = [(time.monotonic() - one.since, _left(one, beats.get(one.job.trial_id))) for one in list(self._running.values())]
        waiting = max(0, self._total - self._done - len(running)) + self._later()
        return seconds_left(waiting, running, self._durations, self._concurrent)

    def _later(self) -> float:
        return later_trials(self.sweep, self._stage, self._total, self._lists.get(self._stage, 0))

    def _count(self, job: Job, outcome: dict[str, Any], remark: str) -> None:
        metric, state = self.sweep.search.metric, outcome.get("state", "FAILED")
        self._done += 1
        self._failed += state == "FAILED"
        value = outcome.get(metric)
        if state == "COMPLETE" and value is not None:
            self._improve(job.arm, value)
        if state == "FAILED":
            result = f"FAILED: {outcome.get('error')}"
        else:
            result = f"{state} {metric} {_share(value)} (best {_share(self._best.get(job.arm))})"
            result += f", ALARM {alarms}" if (alarms := outcome.get("alarms")) else ""
        names = ("lambda", "k", "lr", "loss dropout")
        settings = " ".join(f"{name} {value}" for name, value in zip(names, _settings(job.config), strict=True) if value != "-")
        seed = f" seed {job.config.seed}" if self._stage != "search" else ""
        remark = f", {remark}" if remark else ""
        self.say(f"[{self._done}/{self._total}] {job.arm}{seed} {settings}: {result}{remark}")

    def _improve(self, arm: str, value: float) -> None:
        better = max if self.sweep.search.mode == "max" else min
        self._best[arm] = better(self._best.get(arm, value), value)


def _left(running: _Running, beat: Beat | None) -> float | None:
    """Remaining seconds of a running trial, from its own report or else from its finished epochs."""
    if beat is not None and beat.seconds_left is not None:
        return beat.seconds_left
    if not running.epoch:
        return None
    return (time.monotonic() - running.since) / running.epoch * (running.job.config.optim.num_epochs - running.epoch)


def _phase(beat: Beat) -> str:
    """A phase of the preparation in words."""
    steps = f", step {beat.done} of {beat.total}" if beat.total else ""
    return beat.phase + steps + (f", {_duration(beat.seconds_left)} left" if beat.seconds_left is not None else "")


def _column(table: Table, name: str, sweep: SweepConfig) -> None:
    """Add a column; on a narrow terminal, headers wrap at words, while arms and numbers stay whole."""
    if name == "arm":
        table.add_column(name, no_wrap=True, min_width=max(map(len, _arms(sweep))))
    else:
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))


def _arms(sweep: SweepConfig) -> list[str]:
    return [arm.name for arm in arms(sweep)]


def _settings(config: TrialConfig) -> tuple[str, str, str, str]:
    return _shown(columns(config))


def _shown(row: Any) -> tuple[str, str, str, str]:
    """lambda, k, learning rate and loss dropout of a row of the trials table; a dash if there is no JEPA term."""
    jepa = row["objective"] != "none"
    return (
        _lambda(row) if jepa else "-",
        f"{int(row['k'])}" if jepa else "-",
        f"{row['learning_rate']:.3g}" + (f" after {row['pretrain_learning_rate']:.3g}" if isinstance(row["pretrain_task"], str) else ""),
        f"{row['loss_dropout']:.3g}" if jepa and row["loss_dropout"] is not None else "-",
    )


def _lambda(row: Any) -> str:
    """lambda as a number, or the ratio of gradients that determines it."""
    value = row["lambda"]
    return f"{value:.3g}" if value is not None and value == value else f"at ratio {row['lambda_grad_ratio']:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
