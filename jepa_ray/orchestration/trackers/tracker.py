"""What a tracker and its runs do. Every call may raise any error of the tracker's package: the caller drops the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jepa_ray.results import CONFIG, State

Number = float | int
Points = Sequence[tuple[int, Mapping[str, float]]]
"""(optimizer step, metric -> value), steps ascending. A metric has its name in the metrics table, such as `val_accuracy`."""


@dataclass(frozen=True)
class Tracked:
    """What a tracker shows of a trial from its start."""

    sweep: str
    trial_id: str
    arm: str
    stage: str
    seed: int
    number: int | None
    """Of a search trial: see the column `number`."""
    settings: Mapping[str, Number | str]
    """Its configuration, under the names of the trials table, without nulls."""

    @classmethod
    def of(cls, sweep: str, row: Mapping[str, Any]) -> Tracked:
        """From a row of the trials table, or those of its columns that are known at the start."""
        settings = {name: row[name] for name in CONFIG if row.get(name) is not None}
        return cls(sweep, str(row["trial_id"]), str(row["arm"]), str(row["stage"]), int(row["seed"]), row.get("number"), settings)

    @property
    def short_name(self) -> str:
        """Its name within the arm: `seed 82`, or `trial 7` of a search. Trials of different configurations may share it."""
        if self.stage == "search":
            return f"trial {self.trial_id if self.number is None else self.number}"
        return f"seed {self.seed}" + (", equal FLOPs" if self.stage == "matched" else "")

    @property
    def name(self) -> str:
        """By which people recognise its run."""
        return f"{self.arm} {self.short_name}"

    @property
    def tags(self) -> dict[str, str]:
        """What runs are grouped and filtered by."""
        of_settings = {name: str(self.settings[name]) for name in ("family", "task") if name in self.settings}
        method = self.arm.partition("/")[0]
        of_trial = {"trial": self.trial_id, "stage": self.stage, "seed": str(self.seed)}
        return {"sweep": self.sweep, "arm": self.arm, "method": method, **of_trial, **of_settings}


class Run(Protocol):
    """The run of one trial."""

    id: str
    """By which the tracker finds it again."""
    new: bool
    """Whether the tracker has nothing of it yet."""

    def log(self, points: Points) -> None:
        """Add points to its curves."""

    def end(self, state: State, numbers: Mapping[str, float], texts: Mapping[str, str], step: int) -> None:
        """The trial has ended after `step` steps: its final numbers, without those that curves end with, and texts, under the names of the
        trials table."""

    def leave(self) -> None:
        """The sweep ends before the trial does, which may be resumed later."""


class Tracker(Protocol):
    """A place in which the runs of a sweep appear."""

    key: str
    """Its key in `track`."""
    name: str
    """For sentences."""
    where: str
    """Its store: runs are found again in the same one."""

    def open(self, trial: Tracked, run_id: str | None) -> Run:
        """The trial's run: the one with this id, or a new one."""
