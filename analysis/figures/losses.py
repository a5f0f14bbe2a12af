"""Cross-entropy and JEPA loss by epoch (the paper's Figure 3, right) for every arm; the JEPA loss is monitored if it is not trained."""

from __future__ import annotations

import pandas as pd

from analysis.figures import style
from analysis.figures.means import over, shared
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep, shown_runs
from analysis.text_tables import Table

LOSSES = {"diag_val_ce": "cross-entropy", "diag_val_jepa": "JEPA loss", "train_ce": "cross-entropy", "train_jepa": "JEPA loss"}


def plot(sweep: Sweep) -> Plot:
    """Validation losses of the diagnostics, which all arms have, or training losses if diagnostics were off."""
    title = "Cross-entropy and JEPA loss by epoch"
    runs, notes = shown_runs(sweep)
    monitored = sweep.metrics["name"].isin(["diag_val_ce", "diag_val_jepa"]).any()
    names = ["diag_val_ce", "diag_val_jepa"] if monitored else ["train_ce", "train_jepa"]
    where = "validation, monitored in every arm" if monitored else "training"
    rows = sweep.metrics[sweep.metrics["name"].isin(names)].dropna(subset=["value"])
    rows = rows.merge(runs[["trial_id", "label", "group", "method"]], on="trial_id")
    rows, left_out = shared(rows)
    notes += left_out
    table = Table(title, ["arm", "loss", "epoch", "runs", "mean"], _lines(rows), "No loss by epoch.")
    if not monitored:
        notes.append(
            "Without diagnostics, a baseline's JEPA loss is unknown; set `base.evaluation.diagnostic_pairs` above 0 to monitor it."
        )
    if rows.empty:
        return Plot("losses", title, "metrics/ contains no loss of a finished trial: any sweep writes it.", table, notes=tuple(notes))
    looks = style.looks(sweep)
    groups = sorted(rows["group"].unique())
    frames = [(group, name) for group in groups for name in names]
    titles = [LOSSES[name] if len(groups) == 1 else f"{group}\n{LOSSES[name]}" for group, name in frames]
    with style.drawing():
        figure, axes = style.panels(titles, columns=2 if len(groups) == 1 else 4, height=2.5 if len(groups) == 1 else 1.8)
        for (group, name), axis in zip(frames, axes, strict=True):
            panel = rows[(rows["group"] == group) & (rows["name"] == name)]
            for method in (key for key in looks if key in set(panel["method"])):
                style.band(axis, panel[panel["method"] == method].groupby("epoch")["value"], looks[method])
            if len(panel):
                style.log_if_wide(axis, float(panel["value"].min()), float(panel["value"].max()))
            style.epochs(axis)
        style.legend(figure, sweep)
    whose = f"{rows['trial_id'].nunique()} runs, mean over {over(rows, runs)}"
    caption = f"{whose}; band: ± one sd; losses on {where}. Each arm's JEPA loss uses the arm's own distance."
    return Plot("losses", title, caption, table, figure, notes=tuple(notes))


def _lines(rows: pd.DataFrame) -> list[list[str]]:
    grouped = rows.groupby(["label", "name", "epoch"], sort=True)["value"]
    return [
        [str(label), LOSSES[str(name)], f"{epoch:g}", str(len(values)), f"{values.mean():.4g}"] for (label, name, epoch), values in grouped
    ]
