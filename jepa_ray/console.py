"""What a sweep prints: a live table on a terminal, else one line per finished trial; at the end both stages side by side.

Only this module and the command line print. It is told what happens (`search.Listener`) and asks nobody but the tables.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jepa_ray.config import SweepConfig, TrialConfig, arms, columns
from jepa_ray.data.report import of_family, of_task
from jepa_ray.jobs import Job
from jepa_ray.results import Stage

SHOWN = 16
"""Running trials in the live table; more are counted in its last line."""


def make_console() -> Console:
    """Standard output. A file or a pipe has no width: tables are then not squeezed into the 80 columns of a terminal that is not there."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=160)


_STAGES: dict[Stage, str] = {
    "search": "Search",
    "confirm": "Confirmation on fresh seeds and the sealed test split",
    "matched": "Equal FLOPs, the dearer of each pair with the cheaper one's budget",
}


@dataclass
class _Running:
    job: Job
    since: float
    epoch: int = 0
    value: float | None = None


@dataclass
class Board:
    """State of the sweep as far as it is shown. Its methods are those of `search.Listener`."""

    sweep: SweepConfig
    console: Console = field(default_factory=lambda: make_console())

    def __post_init__(self) -> None:
        self._running: dict[str, _Running] = {}
        self._best: dict[str, float] = {}
        self._durations: list[float] = []
        self._stage: Stage = "search"
        self._total = self._done = self._failed = 0
        self._concurrent = 1
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[Board]:
        """The live table, while inside; on a terminal only."""
        if not self.console.is_terminal:
            yield self
            return
        with Live(get_renderable=self.table, console=self.console, refresh_per_second=2, transient=True) as self._live:
            yield self

    def prepared(self, name: str, report: dict[str, Any]) -> None:
        """The data report of a family and task."""
        for sentence in [*of_task(report), *of_family(report)] if report else ():
            self.say(f"{name}: {sentence}")

    def stage(self, stage: Stage, total: int, done: int, concurrent: int) -> None:
        self._stage, self._total, self._done, self._concurrent = stage, total, done, concurrent
        if stage != "search":  # its values are another seed's; those of the search may come from an earlier run
            self._best.clear()
        self._running.clear()
        if total == 0:
            return
        going_on = f"continuing: {done} of {total} done" if done else f"{total} trials"
        self.say(f"{_STAGES[stage]}: {going_on}, {concurrent} at a time")

    def best_before(self, rows: pd.DataFrame) -> None:
        """What earlier runs of the sweep found counts for "best so far"."""
        metric = self.sweep.search.metric
        known = rows[(rows["stage"] == "search") & (rows["state"] == "COMPLETE")].dropna(subset=[metric])
        for arm, value in zip(known["arm"], known[metric], strict=True):
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

    def repeated(self, job: Job, outcome: dict[str, Any]) -> None:
        self._count(job, outcome, "known already, not run again")

    def restarted(self, job: Job, reason: str) -> None:
        self.say(f"{job.arm} {job.trial_id}: its process died, it goes on from its last epoch ({reason})")

    def say(self, sentence: str) -> None:
        self.console.print(Text(sentence))

    def table(self) -> Table:
        """The live table: what is running, and what is left."""
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", caption_justify="left", caption=self._caption())
        for name in (
            "arm",
            "lambda",
            "k",
            "learning rate",
            "loss dropout",
            "epoch",
            self.sweep.search.metric.replace("_", " "),
            "best so far",
            "ETA",
        ):
            _column(table, name, self.sweep)
        for running in list(self._running.values())[:SHOWN]:
            job, best = running.job, self._best.get(running.job.arm)
            epochs = job.config.optim.num_epochs
            left = (time.monotonic() - running.since) / running.epoch * (epochs - running.epoch) if running.epoch else None
            table.add_row(
                job.arm, *_settings(job.config), f"{running.epoch}/{epochs}", _share(running.value), _share(best), _duration(left)
            )
        return table

    def _caption(self) -> str:
        more = f", {len(self._running) - SHOWN} more running" if len(self._running) > SHOWN else ""
        failed = f", {self._failed} failed" if self._failed else ""
        eta = f", about {_duration(self.seconds_left())} left" if self._durations else ""
        return f"{self._stage}: {self._done} of {self._total} done{failed}{more}{eta}"

    def seconds_left(self) -> float:
        """Until the end of both stages, if trials go on taking as long as they did."""
        if not self._durations:
            return 0.0
        left = self._total - self._done
        if self._stage == "search":
            left += len(self.sweep.confirm.seeds) * len(_arms(self.sweep))
        return left * statistics.fmean(self._durations) / self._concurrent

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
        if not self.console.is_terminal or state == "FAILED":
            names = ("lambda", "k", "lr", "loss dropout")
            settings = " ".join(f"{name} {value}" for name, value in zip(names, _settings(job.config), strict=True) if value != "-")
            seed = f" seed {job.config.seed}" if self._stage != "search" else ""
            remark = f", {remark}" if remark else ""
            self.say(f"[{self._done}/{self._total}] {job.arm}{seed} {settings}: {result}{remark}")

    def _improve(self, arm: str, value: float) -> None:
        better = max if self.sweep.search.mode == "max" else min
        self._best[arm] = better(self._best.get(arm, value), value)


def _column(table: Table, name: str, sweep: SweepConfig) -> None:
    """On a narrow terminal headers wrap at their words; arms and numbers stay whole."""
    if name == "arm":
        table.add_column(name, no_wrap=True, min_width=max(map(len, _arms(sweep))))
    else:
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))


def _arms(sweep: SweepConfig) -> list[str]:
    return [arm.name for arm in arms(sweep)]


def _settings(config: TrialConfig) -> tuple[str, str, str, str]:
    return _shown(columns(config))


def _shown(row: Any) -> tuple[str, str, str, str]:
    """lambda, k, learning rate and loss dropout of a row of the trials table; a dash where there is no JEPA term."""
    jepa = row["objective"] != "none"
    return (
        _lambda(row) if jepa else "-",
        f"{int(row['k'])}" if jepa else "-",
        f"{row['learning_rate']:.3g}" + (f" after {row['pretrain_learning_rate']:.3g}" if isinstance(row["pretrain_task"], str) else ""),
        f"{row['loss_dropout']:.3g}" if jepa and row["loss_dropout"] is not None else "-",
    )


def _lambda(row: Any) -> str:
    """As a number, or the ratio of gradients that decides it."""
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
