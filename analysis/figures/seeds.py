"""The confirmation, seed by seed: every dot is a run; thin lines join runs with the same seed."""

from __future__ import annotations

import pandas as pd

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep
from analysis.text_tables import Table, counted, percent


def plot(sweep: Sweep) -> Plot:
    """Test accuracy if the confirmation has it, else the selection metric on validation, as the caption says."""
    title = "Confirmation, seed by seed"
    arms = [sweep.confirmation(label) for label in sorted(sweep.trials["label"].unique())]
    rows = pd.concat([arm.runs for arm in arms]) if arms else sweep.trials.head(0)
    judged = "test_accuracy" if rows["test_accuracy"].notna().any() else sweep.metric
    missing = int(rows[judged].isna().sum())
    notes = [note for arm in arms for note in arm.notes]
    notes += [f"{missing} of {len(rows)} confirmation runs have no {judged} and are not drawn."] if missing else []
    rows = rows.dropna(subset=[judged])
    seeds = sorted(rows["seed"].unique())
    lines = []
    for label, arm in rows.groupby("label", sort=True):
        by_seed = arm.set_index("seed")[judged]
        moments = {"mean": float(by_seed.mean()), "sd": float(by_seed.std()) if len(by_seed) > 1 else None}
        lines.append([str(label), str(len(arm)), percent(moments), *(_cell(by_seed.get(seed)) for seed in seeds)])
    what = judged.replace("_", " ")
    table = Table(title, ["arm", "seeds", f"{what} (%, mean ± sd)", *(f"seed {seed}" for seed in seeds)], lines, "No confirmation yet.")
    if rows.empty:
        why = "trials/ contains no COMPLETE confirmation run: a sweep with `confirm: {seeds: [...]}` adds them after its search."
        return Plot("seeds", title, why, table, sources=("trials",), notes=tuple(notes))
    looks = style.looks(sweep)
    groups = sorted(rows["group"].unique())
    with style.drawing():
        figure, axes = style.panels(groups, height=2.5)
        for group, axis in zip(groups, axes, strict=True):
            panel = rows[rows["group"] == group]
            methods = [name for name in looks if name in set(panel["method"])]
            wide = panel.pivot_table(index="seed", columns="method", values=judged).reindex(columns=methods) * 100
            for _, values in wide.iterrows():
                axis.plot(range(len(methods)), values, color=style.FAINT, linewidth=0.6, alpha=0.6, zorder=1)
            for place, method in enumerate(methods):
                look = looks[method]
                for seed, trial, value in panel.loc[panel["method"] == method, ["seed", "trial_id", judged]].itertuples(index=False):
                    (dot,) = axis.plot([place], [100 * value], look.marker, color=look.colour, markersize=5, zorder=2)
                    style.told(dot, f"trial {trial}, seed {seed}: {100 * value:.2f} %")
                axis.hlines(wide[method].mean(), place - 0.22, place + 0.22, color=look.colour, linewidth=2.2, zorder=3)
            axis.set_xlim(-0.5, len(methods) - 0.5)
            axis.set_xticks(
                range(len(methods)),
                style.short(methods),
                rotation=0 if len(methods) <= 3 else 35,
                ha="center" if len(methods) <= 3 else "right",
            )
            axis.grid(axis="x", visible=False)
        axes[0].set_ylabel(f"{what} (%)")
    caption = f"{len(rows)} runs on {counted(len(seeds), 'seed')}, {what}; bar: mean over seeds; thin lines join runs with the same seed."
    if judged != "test_accuracy":
        caption += " There are no test scores; the configuration was chosen on validation, so validation scores are biased upwards."
    return Plot("seeds", title, caption, table, figure, ("trials",), tuple(notes))


def _cell(value: float | None) -> str:
    return "-" if value is None or pd.isna(value) else f"{100 * value:.2f}"
