"""How long a sweep still takes: every stage counts, and running trials by what they report. Pure arithmetic; nothing is shown here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from jepa_ray import plan
from jepa_ray.config import SweepConfig, arms
from jepa_ray.results import Stage

STAGES: tuple[Stage, ...] = ("search", "confirm", "matched")
"""In the order in which they run."""


def later_trials(sweep: SweepConfig, stage: Stage, total: int, look: int) -> float:
    """Trials that follow a stage of `total` trials, at most: the later looks of a race, and the stages after it.

    `look`: the how-manieth list of this stage `total` is, from 0. Races may end early, and pairs of equal cost are not run again.
    """
    seeds, declared = len(sweep.confirm.seeds), arms(sweep)
    most = plan.most_matched(sweep, declared)
    after = {"search": seeds * len(declared) + most, "confirm": most, "matched": 0}[stage]
    looks = sweep.confirm.race or (seeds,)
    if stage == "confirm" and look < len(looks):
        after += round(total / looks[look] * (seeds - looks[look]))  # the arms that are still in, on the seeds of the later looks
    return after


def seconds_left(waiting: float, running: Sequence[tuple[float, float | None]], finished: Sequence[float], concurrent: int) -> float | None:
    """Until the last trial ends, if trials go on taking as long as they did; None while nothing is known of that.

    Args:
        waiting: trials that have not begun.
        running: of each running trial the seconds since its start, and the seconds left that it reports itself (None: unknown).
        finished: seconds of the trials that have ended.
        concurrent: trials at once.
    """
    known = list(finished) or [elapsed + left for elapsed, left in running if left is not None]
    if not known:
        return None
    usual = statistics.fmean(known)
    own = [left if left is not None else max(0.0, usual - elapsed) for elapsed, left in running]
    return max((sum(own) + waiting * usual) / concurrent, max(own, default=0.0))
