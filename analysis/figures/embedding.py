"""Text and Code embeddings in two dimensions (the paper's Figures 4 and 6): principal components and t-SNE, one row per arm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.embeddings import Array, Pairs, cosine_distances, principal, read_pairs, tsne
from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep, shown_runs
from analysis.paper_tables import variant
from analysis.text_tables import Table, percent

TEXT, CODE = style.METHODS[0], style.METHODS[1]
NEEDS = "embeddings/ contains no states of a confirmed trial: run a sweep with `base.evaluation.embeddings` above 0 and `confirm.seeds`."
NO_TSNE = "t-SNE needs scikit-learn (pip install -e '.[report]' in the jepa_ray folder); only principal components are shown."


def plot(sweep: Sweep) -> Plot:
    """F6: every arm."""
    return _plot(sweep, "embeddings", "Text and Code, every arm")


def plot_paper(sweep: Sweep) -> Plot:
    """F4: baselines, and methods with the paper's own term."""
    in_paper = [variant(row) in ("baseline", "cosine") for _, row in sweep.trials.iterrows()]
    chosen = replace(sweep, trials=sweep.trials[np.array(in_paper, dtype=bool)])
    return _plot(chosen, "embeddings_paper", "Text and Code, baseline and LLM-JEPA")


def _plot(sweep: Sweep, name: str, title: str) -> Plot:
    runs, _ = shown_runs(sweep)
    runs = runs[runs["stage"] == "confirm"].sort_values(["is_baseline", "label", "seed"], ascending=[False, True, True])
    notes: list[str] = []
    kept: dict[str, dict[int, Pairs]] = {}
    for _, run in runs.iterrows():
        pairs, note = read_pairs(sweep.folder, str(run["trial_id"]))
        notes += [note] if note else []
        if pairs is not None:
            kept.setdefault(str(run["label"]), {})[int(run["seed"])] = pairs
    header = ["arm", "seeds", "pairs", "distance of pairs", "of non-pairs", "ratio", "variance on two components (%)"]
    table = Table(title, header, [_line(label, seeds) for label, seeds in kept.items()], NEEDS)
    if not kept:
        return Plot(name, title, NEEDS, table, sources=("embeddings",), notes=tuple(notes))
    shared = sorted(set.intersection(*(set(seeds) for seeds in kept.values())))
    if not shared:
        notes.append("No seed is available in all arms, so each arm's first seed is shown.")
    drawn = {label: seeds[shared[0] if shared else min(seeds)] for label, seeds in kept.items()}
    common = set.intersection(*(set(pairs.example_ids) for pairs in drawn.values()))
    drawn = {label: _only(pairs, common) for label, pairs in drawn.items()} if len(common) > 1 else drawn
    flat = {}
    for label, pairs in drawn.items():
        points_ND = np.concatenate([pairs.text_PD, pairs.code_PD])
        flat[label] = principal(points_ND), tsne(points_ND)
    with_tsne = all(points is not None for _, points in flat.values())
    notes += [] if with_tsne else [NO_TSNE]
    ways = ("principal components", "t-SNE") if with_tsne else ("principal components",)
    titles = [f"{label}\n{way}" for label in drawn for way in ways]
    with style.drawing():
        figure, axes = style.panels(titles, columns=2, height=2.3)
        places = iter(axes)
        for (points_N2, share_2), spread_N2 in flat.values():
            axis = next(places)
            _scatter(axis, points_N2)
            axis.set_xlabel(f"{100 * share_2[0]:.0f} % of variance")
            axis.set_ylabel(f"{100 * share_2[1]:.0f} %")
            if with_tsne and spread_N2 is not None:
                _scatter(next(places), spread_N2)
        handles = [
            Line2D([], [], color=colour, marker=marker, linestyle="none", label=view)
            for view, colour, marker in (("Text", TEXT, "o"), ("Code", CODE, "^"))
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2)
    number = len(next(iter(drawn.values())).example_ids)
    seed = f"seed {shared[0]}" if shared else "an arm's first seed"
    caption = (
        f"{number} validation pairs, the same in every arm, {seed}; lines join the Text (without predictor tokens) and the "
        "Code of a pair. Distances in the table are 1 - cosine of the full states, mean ± sd over seeds. The axes of t-SNE have no unit, "
        "and panels do not share a scale."
    )
    return Plot(name, title, caption, table, figure, ("embeddings",), tuple(notes))


def _line(label: str, seeds: dict[int, Pairs]) -> list[str]:
    rows = []
    for pairs in seeds.values():
        paired, unpaired = cosine_distances(pairs.text_PD, pairs.code_PD)
        share_2 = principal(np.concatenate([pairs.text_PD, pairs.code_PD]))[1]
        ratio = paired / unpaired if unpaired else float("nan")
        rows.append({"paired": paired, "unpaired": unpaired, "ratio": ratio, "share": share_2.sum()})
    frame = pd.DataFrame(rows)
    counts = sorted({len(pairs.example_ids) for pairs in seeds.values()})
    moments = {"mean": float(frame["share"].mean()), "sd": float(frame["share"].std()) if len(frame) > 1 else None}
    figures = [_spread(frame[column]) for column in ("paired", "unpaired", "ratio")]
    return [label, str(len(seeds)), " to ".join(map(str, {counts[0]: 0, counts[-1]: 0})), *figures, percent(moments)]


def _spread(values: pd.Series[float]) -> str:
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def _only(pairs: Pairs, ids: set[str]) -> Pairs:
    at = [place for place, name in enumerate(pairs.example_ids) if name in ids]
    return Pairs(tuple(pairs.example_ids[place] for place in at), pairs.text_PD[at], pairs.code_PD[at])


def _scatter(axis: Axes, points_N2: Array) -> None:
    """Draw pairs: the first half of the points are Texts, the second half Codes in the same order."""
    half = len(points_N2) // 2
    text_P2, code_P2 = points_N2[:half], points_N2[half:]
    joined = np.stack([text_P2, code_P2, np.full_like(text_P2, np.nan)], axis=1).reshape(-1, 2)
    axis.plot(joined[:, 0], joined[:, 1], color=style.FAINT, linewidth=0.4, alpha=0.4, zorder=1)
    for points_P2, colour, marker in ((text_P2, TEXT, "o"), (code_P2, CODE, "^")):
        axis.plot(points_P2[:, 0], points_P2[:, 1], color=colour, marker=marker, markersize=2.5, linestyle="none", alpha=0.8, zorder=2)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
