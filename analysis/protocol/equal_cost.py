"""Method minus baseline, seed by seed, after both have spent the same: steps, training FLOPs, or seconds of training.

Equal steps is the confirmation itself. For equal FLOPs, the more expensive arm was retrained with the cheaper one's FLOPs and a schedule
that ends there (stage `matched`). Without such runs, and for seconds, both arms are read off their validation curves at the end of the
cheaper one, by linear interpolation. This puts the more expensive arm at a disadvantage: its schedule continues beyond that point, so its
learning rate is still higher there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.inputs.confirmation import FREE, alike
from analysis.inputs.preregistration import listed
from analysis.stats import paired_tests
from analysis.text_tables import FLOPS, cost_column, counted, flops, named
from jepa_ray.results import FLOPS_ALIKE

LEVEL = 0.95
TOO_FAR = 0.05
"""Share below the budget from which a matched run is no match: its last step, which did not fit, is too large a part of few steps."""
AS_CONFIRMED = "as confirmed"
WITHIN = f"within {100 * FLOPS_ALIKE:.0f} %"
Curves = Mapping[str, pd.DataFrame]
"""trial_id -> validation curve: `value`, `step`, FLOPs (both counts) and `train_seconds` of every evaluation, sorted by step."""


@dataclass(frozen=True)
class Panel:
    """One comparison at equal cost. Differences are shares."""

    at: str
    """equal steps, equal FLOPs or equal seconds"""
    metric: str
    """What is compared; a `val_` metric if it is read off validation curves."""
    by_seed: dict[int, float] = field(default_factory=dict)
    """Method minus baseline at the seeds that could be compared."""
    spent: float | None = None
    """What both have spent, mean over these seeds: optimizer steps, training FLOPs or seconds; None if unknown."""
    how: str = ""
    """How the cost was equalised, or why the arms cannot be compared."""
    notes: tuple[str, ...] = ()
    unit: str = ""
    """Of `spent`; empty if `at` names it."""
    runs: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Seed -> the trials (method's, baseline's) whose scores are compared; empty if validation curves are."""

    @property
    def difference(self) -> float | None:
        """Mean over seeds; None without one."""
        return float(np.mean(list(self.by_seed.values()))) if self.by_seed else None

    @property
    def as_confirmed(self) -> bool:
        """Whether the scores are those of the confirmation itself."""
        return self.how.startswith(AS_CONFIRMED)

    @property
    def seeds(self) -> int:
        """Number of seeds compared."""
        return len(self.by_seed)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean difference, paired t with n - 1 degrees of freedom; None if undefined (`no_interval` says why)."""
        if self.no_interval is not None:
            return None
        low, high = stats.ttest_1samp(list(self.by_seed.values()), 0.0).confidence_interval(LEVEL)
        return float(low), float(high)

    @property
    def no_interval(self) -> str | None:
        """Why there is no interval: one seed, or differences without spread."""
        try:
            paired_tests.checked(list(self.by_seed.values()))
        except ValueError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    name: str
    confirmed: pd.DataFrame
    """Its confirmation trials at the seeds that both arms have, indexed by seed, ascending."""
    matched: pd.DataFrame
    """All its trials of stage `matched`."""
    scored: frozenset[str] = frozenset()
    """Ids of all its confirmation trials, also of those that no longer count."""


def at_equal_steps(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, curves: Curves) -> Panel:
    """The confirmation if both arms took the same number of steps; otherwise validation curves. Rows are indexed by the same seeds."""
    steps = np.array([ours["steps"], theirs["steps"]], dtype=float)
    gaps = _by_seed(ours, theirs, metric)
    if not np.isfinite(steps).all():
        how = f"{AS_CONFIRMED}; the trials table does not contain the number of steps"
        return Panel("equal steps", metric, gaps, None, how, runs=_trials(ours, theirs))
    if (steps[0] != steps[1]).any():  # the number of epochs or the batch size was searched
        return _on_curves("equal steps", "step", ours, theirs, metric, curves)
    return Panel("equal steps", metric, gaps, float(steps[0].mean()), AS_CONFIRMED, runs=_trials(ours, theirs))


def at_equal_flops(ours: Arm, theirs: Arm, metric: str, curves: Curves) -> Panel:
    """The confirmation if both arms cost the same; otherwise matched runs, and without those, validation curves.

    No difference if a matched run is more than TOO_FAR below its budget.
    """
    cost = cost_column(ours.confirmed, theirs.confirmed)
    return replace(_at_flops(ours, theirs, metric, curves, cost), unit=FLOPS[cost])


def _at_flops(ours: Arm, theirs: Arm, metric: str, curves: Curves, cost: str) -> Panel:
    spent = np.array([ours.confirmed[cost], theirs.confirmed[cost]], dtype=float)
    if not np.isfinite(spent).all() or (spent <= 0).any():
        return Panel("equal FLOPs", metric, {}, None, "train_flops is missing in the trials table")
    same = spent.max(axis=0) <= (1 + FLOPS_ALIKE) * spent.min(axis=0)
    if same.all():
        gaps = _by_seed(ours.confirmed, theirs.confirmed, metric)
        how = f"both arms cost the same {WITHIN}, so {metric} is compared directly"
        return Panel("equal FLOPs", metric, gaps, float(spent.min(axis=0).mean()), how, runs=_trials(ours.confirmed, theirs.confirmed))
    matched, notes = _matched(ours, theirs, metric, same, cost)
    if matched:
        below, steps = max((pair.below, pair.steps) for pair in matched.values())
        if below > TOO_FAR + 1e-9:  # not compared on curves either, which have no more steps
            how = f"matched runs of {counted(steps, 'step')} are up to {below:.0%} below the budget: too short to compare at equal FLOPs"
            how += f" (within {TOO_FAR:.0%})"
            return Panel("equal FLOPs", metric, {}, None, how, notes)
        how = "retrained with the same FLOPs, on a schedule shortened to match"
        how += f", {int(same.sum())} of {len(matched)} seeds at the same cost {WITHIN} anyway" if same.any() else ""
        how += f", matched runs up to {below:.1%} below the budget" if below > FLOPS_ALIKE else ""
        flops = float(np.mean([pair.flops for pair in matched.values()]))
        gaps, runs = ({seed: getattr(pair, name) for seed, pair in matched.items()} for name in ("gap", "runs"))
        return Panel("equal FLOPs", metric, gaps, flops, how, notes, runs=runs)
    return replace(_on_curves("equal FLOPs", cost, ours.confirmed, theirs.confirmed, metric, curves), notes=notes)


def at_equal_seconds(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, curves: Curves) -> Panel:
    """Validation curves at the training seconds of the arm that ended first; no comparison if devices or numbers of workers differ."""
    val = _on_validation(metric)
    for column, what in (("device", "devices"), ("num_workers", "numbers of workers")):
        values = pd.concat([ours[column], theirs[column]])
        if values.isna().any():
            why = f"{int(values.isna().sum())} of {len(values)} trials do not record where they ran ({column})"
            return Panel("equal seconds", val, {}, None, f"{why}, so seconds cannot be compared")
        if values.nunique() > 1:
            names = listed(sorted({f"{value:g}" if isinstance(value, float) else str(value) for value in values}))
            return Panel("equal seconds", val, {}, None, f"the trials ran on different {what} ({names}), so seconds cannot be compared")
    panel = _on_curves("equal seconds", "train_seconds", ours, theirs, metric, curves)
    return replace(panel, how=f"{panel.how}; wall-clock time, including effects of other programs") if panel.by_seed else panel


@dataclass(frozen=True)
class _Pair:
    """One seed at equal FLOPs: method minus baseline, the cheaper arm's FLOPs, the trials compared (method's, baseline's), and of the
    matched run the share by which it stayed below them, and its number of steps."""

    gap: float
    flops: float
    runs: tuple[str, str]
    below: float = 0.0
    steps: int = 0


def _matched(ours: Arm, theirs: Arm, metric: str, same: Any, cost: str) -> tuple[dict[int, _Pair], tuple[str, ...]]:
    """Pairs by seed, and a note for each matched run or seed that is left out.

    The partner of a matched run is the other arm's confirmation on the same seed and data whose cost was the run's budget. The run must
    have spent exactly that or slightly less (`_slack`).
    """
    pairs: dict[int, _Pair] = {}
    if ours.matched.empty and theirs.matched.empty:
        return {}, ()
    missing: list[int] = []
    notes = [
        f"{arm.name}: the matched run on seed {seed} has no partner, because the two arms are not both confirmed on it; it is ignored."
        for arm in (ours, theirs)
        for seed in sorted(set(map(int, arm.matched["seed"])) - set(map(int, ours.confirmed.index)))
    ]
    for place, seed in enumerate(ours.confirmed.index):
        pair = {True: (ours, ours.confirmed.loc[seed]), False: (theirs, theirs.confirmed.loc[seed])}
        a, b = pair[True][1], pair[False][1]
        if same[place]:
            pairs[int(seed)] = _Pair(float(a[metric] - b[metric]), float(min(a[cost], b[cost])), (str(a["trial_id"]), str(b["trial_id"])))
            continue
        is_ours = bool(a[cost] > b[cost])
        (arm, expensive), (_, cheap) = pair[is_ours], pair[not is_ours]
        run, why = _partner(arm, expensive, cheap, int(seed), metric, cost)
        notes += why
        if run is None:
            missing.append(int(seed))
            continue
        gap, flops = float(run[metric] - cheap[metric]), float(cheap[cost])
        runs = (str(run["trial_id"]), str(cheap["trial_id"]))
        below = 1 - float(run[cost]) / flops
        pairs[int(seed)] = _Pair(gap if is_ours else -gap, flops, runs if is_ours else runs[::-1], below, int(run["steps"]))
    if len(pairs) == int(np.sum(same)):  # no matched run: curves are better than the few seeds that happen to cost the same
        pairs = {}
    if missing:
        effect = "left out of the comparison at equal FLOPs" if pairs else "compared on validation curves instead"
        notes.append(f"No matched run of the more expensive arm fits at {named('seed', missing)}: {effect}.")
    return pairs, tuple(notes)


def _partner(
    arm: Arm, expensive: pd.Series[Any], cheap: pd.Series[Any], seed: int, metric: str, cost: str
) -> tuple[pd.Series[Any] | None, list[str]]:
    """The matched run of `arm` whose budget is the cost of `cheap`, and a sentence for each such run that cannot be used."""
    rows = arm.matched[arm.matched["seed"] == seed]
    rows = rows[alike(rows, expensive, (*FREE, "max_train_flops")) & rows["dataset_sha"].eq(expensive["dataset_sha"])]
    meant = rows[(rows["max_train_flops"] / float(cheap[cost]) - 1).abs() < 1e-6]
    fits, notes = None, []
    for _, row in meant.iterrows():
        head, spent = f"{arm.name}: the matched run on seed {seed}", float(row[cost])
        if row["state"] != "COMPLETE":
            notes.append(f"{head} is {row['state']}.")
        elif not np.isfinite(row[metric]):
            notes.append(f"{head} has no {metric}.")
        elif not 0 <= 1 - spent / float(cheap[cost]) <= _slack(row):
            notes.append(f"{head} spent {flops(spent)} FLOPs instead of {flops(cheap[cost])} or up to {_slack(row):.0%} less.")
        else:
            fits = row
    return fits, notes if fits is None else []  # a failed attempt before a successful one needs no note


def _slack(row: pd.Series[Any]) -> float:
    """The share by which a matched run may stay below its budget: `FLOPS_ALIKE`, or two of its steps if it has few (it stops before the
    step that would exceed the budget, and with loss dropout that step may cost nearly twice the mean)."""
    return max(FLOPS_ALIKE, 2 / float(row["steps"])) if row["steps"] else FLOPS_ALIKE


def _on_curves(at: str, column: str, ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, curves: Curves) -> Panel:
    """Compare both arms' curves at the end of the one that ended first, seed by seed."""
    gaps: dict[int, float] = {}
    ends: list[float] = []
    for seed, a, b in zip(ours.index, ours["trial_id"], theirs["trial_id"], strict=True):
        pair = [curves[str(i)].dropna(subset=["value", column]) for i in (a, b) if str(i) in curves]
        if len(pair) < 2 or any(curve.empty for curve in pair):
            continue
        points = [(curve[column].to_numpy(float), curve["value"].to_numpy(float)) for curve in pair]
        end = min(points[0][0][-1], points[1][0][-1])
        if max(points[0][0][0], points[1][0][0]) > end:
            continue  # the more expensive arm was first scored after that: nothing to interpolate
        left, right = (float(np.interp(end, *point)) for point in points)
        gaps[int(seed)] = left - right
        ends.append(float(end))
    val = _on_validation(metric)
    if not gaps:
        why = "the more expensive arm had not been scored on validation by then; evaluate more often (base.evaluation.every)"
        return Panel(at, val, {}, None, why)
    how = f"on validation curves of {len(gaps)} of {len(ours)} seeds, the schedule not shortened"
    return Panel(at, val, gaps, float(np.mean(ends)), how)


def _by_seed(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str) -> dict[int, float]:
    return dict(zip(map(int, ours.index), map(float, ours[metric] - theirs[metric]), strict=True))


def _trials(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[int, tuple[str, str]]:
    pairs = zip(ours.index, ours["trial_id"], theirs["trial_id"], strict=True)
    return {int(seed): (str(a), str(b)) for seed, a, b in pairs}


def _on_validation(metric: str) -> str:
    return f"val_{metric.partition('_')[2]}"
