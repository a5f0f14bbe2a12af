"""Expected best validation score against budget, per arm: what a search of n of its trials would have found on average.

Dodge et al. 2019 (arXiv 1909.03004), in the unbiased form of `resampling.best_of_n`.
"""

from __future__ import annotations

import pandas as pd

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep
from analysis.stats.resampling import BestOf, best_of_n
from analysis.text_tables import Table, cost_column, significant

SHOWN = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Numbers of trials shown in the table and marked on the curve, in addition to the last."""
MEANT = "Trials are treated as exchangeable, as in a random or grid search; an adaptive search finds good ones later than shown."


def plot(sweep: Sweep) -> Plot:
    """Search trials with a score (for trials cut early, their last one); the budget of one trial is the mean cost."""
    title, what = "Expected best of n trials", sweep.metric.replace("_", " ")
    by_arm, notes = curves(sweep)
    most = max((points[-1].budget for _, points in by_arm.values()), default=0.0)
    size, prefix = style.unit(most)
    lines = [
        [label, str(point.trials), str(point.n), significant(point.budget / size), *(f"{100 * x:.2f}" for x in _range(point, sweep.mode))]
        for label, (_, points) in by_arm.items()
        for point in points
        if point.n in SHOWN or point.n == len(points)
    ]
    header = ["arm", "trials", "n", f"{prefix}FLOPs", f"expected best {what} (%)", "95 % from", "to"]
    table = Table(title, header, lines, "No arm has two or more scores.")
    if not by_arm:
        why = f"trials/ contains no arm with two search trials of different {what} and known FLOPs: use `search.num_trials=10` or more."
        return Plot("best_of_n", title, why, table, sources=("trials",), notes=tuple(notes))
    looks = style.looks(sweep)
    groups = sorted({arm["group"] for arm, _ in by_arm.values()})
    cheapest = min(points[0].budget for _, points in by_arm.values())
    with style.drawing():
        figure, axes = style.panels(groups)
        for group, axis in zip(groups, axes, strict=True):
            for arm, points in by_arm.values():
                if arm["group"] != group:
                    continue
                look = looks[str(arm["method"])]
                x = [point.budget / size for point in points]
                y, low, high = zip(*(_range(point, sweep.mode) for point in points), strict=True)
                marked = [place for place, point in enumerate(points) if point.n in SHOWN]
                axis.plot(x, [100 * v for v in y], color=look.colour, linestyle=look.dash, marker=look.marker, markevery=marked)
                axis.fill_between(x, [100 * v for v in low], [100 * v for v in high], color=look.colour, alpha=0.12, linewidth=0)
            style.log_if_wide(axis, cheapest / size, most / size, "x")
            axis.set_xlabel(f"training {prefix}FLOPs of the search")
        axes[0].set_ylabel(f"best {what} (%)")
        style.legend(figure, sweep, only=sorted({str(arm["method"]) for arm, _ in by_arm.values()}))
    counts = ", ".join(f"{label} {points[0].trials}" for label, (_, points) in by_arm.items())
    caption = f"Search trials: {counts}. Line: mean over draws of n; band: 95 % bootstrap interval, too narrow towards the end. {MEANT}"
    return Plot("best_of_n", title, caption, table, figure, ("trials",), tuple(notes))


def curves(sweep: Sweep) -> tuple[dict[str, tuple[pd.Series[str], list[BestOf]]], list[str]]:
    """Arm -> (its group and method, its curve), and sentences on trials and arms that are left out."""
    by_arm, notes = {}, []
    search = sweep.trials[sweep.trials["stage"] == "search"]
    for label, arm in search.groupby("label", sort=True):
        scored = arm.dropna(subset=[sweep.metric, "train_flops"])
        cost = cost_column(scored)
        scored = scored[scored["state"] != "FAILED"]
        if len(scored) < len(arm):
            notes.append(
                f"{label}: {len(arm) - len(scored)} of {len(arm)} search trials have no score or no FLOPs and are not in its curve."
            )
        values = scored[sweep.metric] if sweep.mode == "max" else -scored[sweep.metric]
        try:
            points = best_of_n(values.tolist(), scored[cost].tolist())
        except ValueError as error:
            notes.append(f"{label}: no curve. {error}")
            continue
        by_arm[str(label)] = scored[["group", "method"]].iloc[0], points
    return by_arm, notes


def _range(point: BestOf, mode: str) -> tuple[float, float, float]:
    """Expected best, low and high; for a metric that is minimised, with the sign restored."""
    best = point.expected
    return (best.estimate, best.low, best.high) if mode == "max" else (-best.estimate, -best.high, -best.low)
