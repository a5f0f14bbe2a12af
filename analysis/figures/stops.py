"""How trials ended: their states, the epochs at which they were cut, the errors of failed trials, and all alarms."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep
from analysis.text_tables import Table

WORDS = {"COMPLETE": "ran to the end", "PRUNED": "cut early", "FAILED": "failed"}


def plot(sweep: Sweep) -> Plot:
    """One bar per arm: its trials by state."""
    title = "How trials ended, and why"
    lines = []
    for label, arm in sweep.trials.groupby("label", sort=True):
        counts = arm["state"].value_counts()
        lines.append(
            [str(label), str(len(arm)), *(str(int(counts.get(state, 0))) for state in WORDS), _epochs(arm), _errors(arm), _alarms(arm)]
        )
    header = ["arm", "trials", *WORDS.values(), "cut after epoch", "errors", "alarms"]
    table = Table(title, header, lines, "No trial yet.")
    if sweep.trials.empty:
        return Plot("stops", title, "trials/ is empty: no trial has ended yet.", table, sources=("trials",))
    labels = sorted(sweep.trials["label"].unique())
    with style.drawing():
        figure, (axis,) = style.panels([""], height=0.6 + 0.24 * len(labels))
        left = pd.Series(0, index=labels)
        for state, words in WORDS.items():
            size = sweep.trials[sweep.trials["state"] == state].groupby("label").size().reindex(labels, fill_value=0)
            hatch = {"PRUNED": "///", "FAILED": "xxx"}.get(state)
            axis.barh(
                labels, size, left=left, color=style.STATES[state], label=words, hatch=hatch, edgecolor="white", linewidth=0.5, height=0.7
            )
            left = left + size
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("trials")
        figure.legend(loc="outside upper left", ncols=3)
    counts = sweep.trials["state"].value_counts()
    caption = ", ".join(f"{int(counts.get(state, 0))} {words}" for state, words in WORDS.items()) + f"; {len(sweep.trials)} trials in all"
    matched = int((sweep.trials["stage"] == "matched").sum())
    caption += f", {matched} of them matched to a cheaper arm's FLOPs." if matched else "."
    return Plot("stops", title, caption, table, figure, ("trials",))


def _epochs(arm: pd.DataFrame) -> str:
    cut = arm.loc[arm["state"] == "PRUNED", "epochs_done"].dropna()
    counts = cut.value_counts().sort_index()
    return ", ".join(f"{epoch:g}: {count}" for epoch, count in counts.items()) or "-"


def _errors(arm: pd.DataFrame) -> str:
    failed = arm.loc[arm["state"] == "FAILED", "error"]
    lines = failed.map(
        lambda error: str(error).strip().splitlines()[-1][:100] if isinstance(error, str) and error.strip() else "no reason recorded"
    )
    return "; ".join(f"{line} ({count})" for line, count in lines.value_counts().items()) or "-"


def _alarms(arm: pd.DataFrame) -> str:
    names = arm["alarms"].dropna().astype(str).str.split(r"[,;\s]+", regex=True).explode()
    counts = names[names.str.len() > 0].value_counts()
    return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "-"
