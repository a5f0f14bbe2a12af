"""The embedding space during training: effective rank, anisotropy, contrast of pairs, retrieval; for every arm including the baseline."""

from __future__ import annotations

from analysis.figures import style
from analysis.figures.means import over, shared
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep, shown_runs
from analysis.text_tables import Table

MEASURES = {
    "diag_rank_text": "effective rank, Text",
    "diag_rank_code": "effective rank, Code",
    "diag_anisotropy_text": "anisotropy, Text",
    "diag_anisotropy_code": "anisotropy, Code",
    "diag_contrast": "paired - unpaired cosine",
    "diag_r1": "retrieval at 1 (share)",
}


def plot(sweep: Sweep) -> Plot:
    """Mean over an arm's seeds by epoch with a band of one standard deviation; the chance level of retrieval is a dotted line."""
    title = "Diagnostics of the embedding space"
    runs, notes = shown_runs(sweep)
    rows = sweep.metrics[sweep.metrics["name"].isin([*MEASURES, "diag_r1_chance"])].dropna(subset=["value"])
    rows = rows.merge(runs[["trial_id", "label", "group", "method"]], on="trial_id")
    rows, left_out = shared(rows)
    notes += left_out
    lines = []
    measured = rows[rows["name"].isin(MEASURES)]
    for (label, epoch), cell in measured.groupby(["label", "epoch"], sort=True):
        mean = cell.groupby("name")["value"].mean()
        lines.append([str(label), f"{epoch:g}", str(cell["trial_id"].nunique()), *(f"{mean.get(n, float('nan')):.3g}" for n in MEASURES)])
    table = Table(title, ["arm", "epoch", "runs", *MEASURES.values()], lines, "No diagnostics.")
    if measured.empty:
        why = "metrics/ contains no diag_*: run a sweep with `base.evaluation.diagnostic_pairs` above 0."
        return Plot("diagnostics", title, why, table, notes=tuple(notes))
    looks = style.looks(sweep)
    groups = sorted(measured["group"].unique())
    frames = [(group, name) for group in groups for name in MEASURES]
    titles = [MEASURES[name] if len(groups) == 1 else f"{group}\n{MEASURES[name]}" for group, name in frames]
    with style.drawing():
        figure, axes = style.panels(titles, columns=3, height=1.9)
        for (group, name), axis in zip(frames, axes, strict=True):
            panel = rows[(rows["group"] == group) & (rows["name"] == name)]
            for method in (key for key in looks if key in set(panel["method"])):
                style.band(axis, panel[panel["method"] == method].groupby("epoch")["value"], looks[method])
            if name == "diag_r1":
                chance = rows[(rows["group"] == group) & (rows["name"] == "diag_r1_chance")]["value"]
                if len(chance):
                    axis.axhline(float(chance.mean()), color=style.FAINT, linestyle=":", linewidth=1)
            style.epochs(axis)
        style.legend(figure, sweep)
    seeds = f"mean over {over(measured, runs)}, at epochs for which all have a value"
    caption = f"{measured['trial_id'].nunique()} runs, {seeds}; band: ± one sd; epoch 0: before training; dotted: chance."
    return Plot("diagnostics", title, caption, table, figure, notes=tuple(notes))
