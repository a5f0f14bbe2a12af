"""Table 9: pretraining seeds, each with its own fine-tuning seeds; the spread between and within pretraining seeds.

Fine-tuning runs that start from one checkpoint are not independent: a claim rests on the number of pretraining seeds. The interval
is therefore over their means, and the two variances are shown separately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis import paper_numbers as paper
from analysis.inputs.sweep import Sweep
from analysis.text_tables import Table, counted
from jepa_ray import results

LEVEL = 0.05
REPLICATES = ("seed", "pretrain_seed")


@dataclass(frozen=True)
class Components:
    """Statistics of one score or difference over groups of replicates. Standard deviations and the interval are in the score's unit."""

    groups: int
    sizes: tuple[int, ...]
    """Replicates in each group."""
    mean: float
    """Mean of the groups' means, equally weighted."""
    between: float | None
    """Sd between groups, without the part due to replicates; None if the two cannot be separated (one group, or one replicate in each)."""
    within: float | None
    """Sd between replicates within a group; None if no group has two."""
    interval: tuple[float, float] | None
    """95 % t-interval for the mean, over the groups' means; None for one group."""
    p: float | None
    """Two-sided p for a mean of 0, over the groups' means; None for one group, or if all means are equal."""


def components(values: Sequence[Sequence[float]]) -> Components:
    """Analysis of variance of y_ij = mu + a_i + e_ij, group by group (Searle, Casella and McCulloch, Variance Components, 1992, 3.6).

    With n_i replicates in I groups, N in all: within^2 = MSE, between^2 = max(0, (MSA - MSE) / n0), n0 = (N - sum n_i^2 / N) / (I - 1).
    The interval uses the groups' means only, which are independent regardless of what happens within groups.
    """
    assert values and all(len(group) for group in values)
    groups = [np.asarray(group, dtype=float) for group in values]
    sizes = np.array([len(group) for group in groups])
    means = np.array([group.mean() for group in groups])
    number, total, mean = len(groups), int(sizes.sum()), float(means.mean())
    free = total - number
    mse = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / free if free else None
    between, interval, p = None, None, None
    if number > 1:
        sd = float(means.std(ddof=1))
        half = float(stats.t.ppf(1 - LEVEL / 2, number - 1)) * sd / number**0.5
        interval = (mean - half, mean + half)
        p = float(2 * stats.t.sf(abs(mean) / (sd / number**0.5), number - 1)) if sd > 0 else None
        if mse is not None:
            grand = float(np.concatenate(groups).mean())
            msa = float((sizes * (means - grand) ** 2).sum()) / (number - 1)
            n0 = (total - float((sizes**2).sum()) / total) / (number - 1)
            between = max(0.0, (msa - mse) / n0) ** 0.5
    return Components(number, tuple(map(int, sizes)), mean, between, None if mse is None else mse**0.5, interval, p)


def tables(sweep: Sweep) -> list[Table]:
    """T9: baseline, method and their difference by pair of seeds. Several folders, one per pretraining seed, must be pooled before."""
    trials = sweep.trials
    runs = trials[trials["counts"]].dropna(subset=["test_accuracy"])
    runs = runs[runs["pretrain_task"].notna()]
    # A first stage without its own seed uses the trial's: then each pretraining seed has one fine-tuning run.
    runs = runs.assign(first=runs["pretrain_seed"].fillna(runs["seed"]).astype(int))
    rows: list[list[str]] = []
    notes: list[str] = []
    for _, group in runs.groupby(["task", "family", "model"], sort=True):
        for baseline, method in sweep.pairs(group):
            rows += _compared(group, baseline, method, notes)
    header = ["task", "family", "arm", "pretraining seeds", "fine-tuning seeds", "mean", "sd between", "sd within", "95 % interval", "p"]
    empty = f"{sweep.folder} has no confirmed baseline and method with test scores after a first stage (`pretrain:`)."
    title = "T9. Pretraining on paraphrases, then classification (accuracy on test, %; interval and p over pretraining seeds)"
    shown = [Table(title, [*header, "paper"], rows, empty)]
    if notes:
        shown.append(Table("Notes", ["note"], [[note] for note in dict.fromkeys(notes)], ""))
    return shown


def _compared(group: pd.DataFrame, baseline: str, method: str, notes: list[str]) -> list[list[str]]:
    """Three rows: baseline, method, difference."""
    sides = {label: _latest(group[group["label"] == label], label, notes) for label in (baseline, method)}
    task, family = str(group["task"].iloc[0]), str(group["family"].iloc[0])
    printed = next((row for row in paper.COMPARISONS["T9"] if (row.task, row.family) == (task, family)), None)
    shown = ["-", "-", "-"]
    if printed is not None:
        (low, low_sd), (high, high_sd) = printed.baseline, printed.jepa
        shown = [f"{low:.2f} ± {low_sd:.2f}", f"{high:.2f} ± {high_sd:.2f}", f"{high - low:+.2f}"]
    joined = sides[baseline].merge(sides[method], on=["first", "seed"], suffixes=("_baseline", "_method"))
    same = joined["dataset_sha_baseline"].eq(joined["dataset_sha_method"])
    if not same.all():
        notes.append(f"{method}: {counted(int((~same).sum()), 'pair')} of runs saw different data than {baseline}, not compared.")
    joined = joined[same]
    alone = {label: len(side) - len(joined) for label, side in sides.items()}
    notes += [
        f"{label}: {counted(number, 'run')} without a counterpart on the same two seeds." for label, number in alone.items() if number
    ]
    joined = joined.assign(difference=joined["test_accuracy_method"] - joined["test_accuracy_baseline"])
    parts = [(baseline, sides[baseline], "test_accuracy"), (method, sides[method], "test_accuracy"), ("difference", joined, "difference")]
    return [[task, family, *_row(label, frame, column), known] for (label, frame, column), known in zip(parts, shown, strict=True)]


def _latest(runs: pd.DataFrame, label: str, notes: list[str]) -> pd.DataFrame:
    """One run per pair of seeds, the one started last; a note if runs of different settings are combined."""
    settings = [name for name in results.CONFIG if name not in REPLICATES]
    kept = runs.sort_values(["started_at", "trial_id"]).drop_duplicates(["first", "seed"], keep="last")
    if len(kept) < len(runs):
        notes.append(f"{label}: {counted(len(runs) - len(kept), 'run')} left out, as a later run has the same two seeds.")
    different = [name for name in settings if kept[name].nunique(dropna=False) > 1]
    if different:
        notes.append(f"{label}: runs differ in {', '.join(different)}, so the spread between pretraining seeds includes that of settings.")
    return kept[["first", "seed", "dataset_sha", "test_accuracy"]]


def _row(label: str, frame: pd.DataFrame, column: str) -> list[str]:
    if frame.empty:
        return [label, "0", "-", "-", "-", "-", "-", "-"]
    by_seed: Mapping[int, list[float]] = {int(str(key)): rows[column].tolist() for key, rows in frame.groupby("first", sort=True)}
    parts = components(list(by_seed.values()))
    sign = "+" if label == "difference" else ""
    sizes = f"{min(parts.sizes)}" if len(set(parts.sizes)) == 1 else f"{min(parts.sizes)} to {max(parts.sizes)}"
    interval = "-" if parts.interval is None else f"{100 * parts.interval[0]:{sign}.2f} to {100 * parts.interval[1]:{sign}.2f}"
    sds = ["-" if sd is None else f"{100 * sd:.2f}" for sd in (parts.between, parts.within)]
    p = f"{parts.p:.3g}" if label == "difference" and parts.p is not None else "-"
    return [label, str(parts.groups), sizes, f"{100 * parts.mean:{sign}.2f}", *sds, interval, p]
