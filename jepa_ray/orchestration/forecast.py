"""Estimates the remaining time of a sweep, over all stages and from the reports of running trials. Pure arithmetic, no output."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from jepa_ray import plan
from jepa_ray.config import SweepConfig, arms
from jepa_ray.results import Stage

STAGES: tuple[Stage, ...] = ("search", "confirm", "matched")
"""In execution order."""


def later_trials(sweep: SweepConfig, stage: Stage, total: int, look: int) -> float:
    """Upper bound on the trials after a stage of `total` trials: those of later looks of a race and of later stages.

    `look`: index from 0 of the stage's list with `total` trials. Races may end early, and pairs of equal cost are not run again.
    """
    seeds, declared = len(sweep.confirm.seeds), arms(sweep)
    most = plan.most_matched(sweep, declared)
    after = {"search": seeds * len(declared) + most, "confirm": most, "matched": 0}[stage]
    looks = sweep.confirm.race or (seeds,)
    if stage == "confirm" and look < len(looks):
        after += round(total / looks[look] * (seeds - looks[look]))  # the remaining arms, on the seeds of the later looks
    return after


def seconds_left(waiting: float, running: Sequence[tuple[float, float | None]], finished: Sequence[float], concurrent: int) -> float | None:
    """Seconds until the last trial ends, if trials keep taking as long as they did; None while no duration is known.

    Args:
        waiting: trials that have not started.
        running: for each running trial, the seconds since its start and the seconds left according to its own report (None: unknown).
        finished: durations of finished trials, in seconds.
        concurrent: trials that run at the same time.
    """
    durations = list(finished) or [elapsed + left for elapsed, left in running if left is not None]
    if not durations:
        return None
    usual = statistics.fmean(durations)
    remaining = [left if left is not None else max(0.0, usual - elapsed) for elapsed, left in running]
    return max((sum(remaining) + waiting * usual) / concurrent, max(remaining, default=0.0))
