"""The paper's tables from a sweep: our mean ± sd over seeds next to the paper's numbers.

Each function takes a `Sweep` and returns tables. If the folder lacks the data for a table, it has no rows and a sentence that says so.
Confirmation runs are used if they fill a table, otherwise COMPLETE search trials on validation; the title says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pandas as pd

from analysis import paper_numbers as paper
from analysis.inputs.sweep import Sweep, last_values, shown_runs
from analysis.text_tables import FLOPS, Table, cost_column, flops, percent, significant

USUAL = {"objective": "cosine", "layout": "append", "target": "online", "predictor": "tokens", "readout": "last", "control": "none"}
"""The paper's own term: column -> value."""
TINY = "`tiny` models have about 0.2M parameters: only the shape of the table is comparable with the paper, not the numbers."


def comparison(sweep: Sweep, name: str, title: str) -> list[Table]:
    """Method against baseline for the tasks and families of one of the paper's tables."""
    rows = []
    runs, _ = shown_runs(sweep)
    judged = "prefix" if name == "T2" else "accuracy"
    confirmed = runs[runs["stage"] == "confirm"].dropna(subset=[f"test_{judged}"])
    for line in paper.COMPARISONS[name]:
        where = confirmed[(confirmed["task"] == line.task) & (confirmed["family"] == line.family)]
        where = where[where["pretrain_task"].isna()]
        where = where[where["init"] == "random"] if name == "T2" else where
        where = where[where["model"].str.contains(line.size, regex=False) | where["model"].eq("tiny")] if line.size else where
        for _, group in where.groupby("group", sort=True):
            for baseline, method in sweep.pairs(group):
                ours = [_by_seed(group, label, f"test_{judged}") for label in (baseline, method)]
                same_data = set(_data(group, baseline)) == set(_data(group, method))
                difference = (ours[1] - ours[0]).dropna() if same_data else ours[0].head(0)
                as_paper = variant(group[group["label"] == method].iloc[0]) == "cosine"  # no other variant is the paper's method
                theirs = [
                    _paper(line.baseline),
                    *([_paper(line.jepa), f"{line.jepa[0] - line.baseline[0]:+.2f}"] if as_paper else ["-", "-"]),
                ]
                shown = [_mean(ours[0]), _mean(ours[1]), _mean(difference, sign=True) if len(difference) else "-"]
                model = str(group["model"].iloc[0])
                rows.append(
                    [
                        line.task,
                        line.family,
                        model,
                        method,
                        baseline,
                        str(len(ours[0])),
                        str(len(ours[1])),
                        *shown,
                        *theirs,
                        f"{line.size} {line.settings}".strip(),
                    ]
                )
    header = [*("task", "family", "model", "method", "against"), "seeds, baseline", "seeds, method", "baseline", "method", "difference"]
    header += ["paper: baseline", "paper: LLM-JEPA", "paper: difference", "paper's setting"]
    wanted = ", ".join(f"{line.task}/{line.family}{' ' + line.size if line.size else ''}" for line in paper.COMPARISONS[name])
    extra = " from random weights (base.model.init=random)" if name == "T2" else ""
    empty = f"{sweep.folder} has no confirmed baseline and method with test scores for {wanted}{extra}."
    return [Table(f"{name}. {title} ({judged} on test, %, mean ± sd over seeds)", header, rows, empty)]


def variants(sweep: Sweep) -> list[Table]:
    """T3: distances and layouts."""
    runs, _ = shown_runs(sweep)
    confirmed = runs[(runs["stage"] == "confirm") & runs["test_accuracy"].notna()]
    rows = []
    for label, arm in confirmed.groupby("label", sort=True):
        first = arm.iloc[0]
        kind = variant(first)
        printed = f"{paper.VARIANTS[kind]:.2f}" if kind in paper.VARIANTS else "-"
        settings = [significant(_number(first[name])) if not first["is_baseline"] else "-" for name in ("lambda", "k")]
        rows.append([str(label), kind, str(len(arm)), *settings, _mean(arm["test_accuracy"]), printed])
    rows.sort(key=lambda row: (list(paper.VARIANTS).index(row[1]) if row[1] in paper.VARIANTS else 99, row[0]))
    header = ["arm", "variant", "seeds", "lambda", "k", "ours", "paper (lambda 1, k 1)"]
    enough = len({row[1] for row in rows} - {"baseline"}) > 1
    empty = f"{sweep.folder} has fewer than two confirmed variants of the term (distance, layout) with test scores."
    return [Table("T3. Variants of the term (accuracy on test, %, mean ± sd over seeds)", header, rows if enough else [], empty)]


def loss_dropout(sweep: Sweep) -> list[Table]:
    """T6: loss dropout by lambda with their FLOPs; the baseline, which has neither, comes first."""
    both, judged = _cells(sweep, ["loss_dropout", "lambda"], baseline=True)
    trials, cost = both[~both["is_baseline"]], cost_column(both)
    rows = []
    for label, cell in both[both["is_baseline"]].groupby("label", sort=True):
        rows.append([str(label), "-", "-", str(len(cell)), flops(cell[cost].mean()), _mean(cell[judged]), "-"])
    for key, cell in trials.groupby(["label", "loss_dropout", "lambda"], sort=True):
        label, alpha, lambda_ = cast(tuple[str, float, float], key)
        printed = paper.LOSS_DROPOUT.get((alpha, lambda_))
        theirs = "-" if printed is None else f"{printed:.2f}"
        rows.append([str(label), f"{alpha:g}", f"{lambda_:.4g}", str(len(cell)), flops(cell[cost].mean()), _mean(cell[judged]), theirs])
    header = ["arm", "loss dropout", "lambda", "trials", f"{FLOPS[cost]} per trial", "ours", "paper (equal FLOPs)"]
    enough = trials["loss_dropout"].nunique() > 1
    empty = f"{sweep.folder} has trials with at most one value of loss dropout."
    return [Table(f"T6. Loss dropout ({_where(judged)})", header, rows if enough else [], empty)]


def ranks(sweep: Sweep) -> list[Table]:
    """T8: LoRA rank, baseline and method."""
    trials, judged = _cells(sweep, ["lora_r"], baseline=True)
    trials = trials.assign(rank=trials["lora_r"].fillna(float("inf")))
    rows = []
    for key, cell in trials.groupby(["label", "rank"], sort=True):
        label, rank = cast(tuple[str, float], key)
        full = rank == float("inf")
        printed = paper.RANKS.get(None if full else rank)
        theirs = "-" if printed is None else f"{printed[0 if cell['is_baseline'].iloc[0] else 1]:.2f}"
        rows.append([str(label), "full" if full else f"{rank:g}", str(len(cell)), _mean(cell[judged]), theirs])
    enough = trials["rank"].nunique() > 1
    empty = f"{sweep.folder} has trials with at most one LoRA rank."
    return [Table(f"T8. LoRA rank ({_where(judged)})", ["arm", "rank", "trials", "ours", "paper"], rows if enough else [], empty)]


def ratios(sweep: Sweep) -> list[Table]:
    """T10: gamma / lambda."""
    trials, judged = _cells(sweep, ["gamma", "lambda"], baseline=True)
    ratio = (trials["gamma"] / trials["lambda"].where(trials["lambda"] > 0)).where(~trials["is_baseline"], float("inf"))
    trials = trials.assign(ratio=ratio.fillna(float("inf")))
    rows = []
    for key, cell in trials.groupby(["label", "ratio"], sort=True):
        label, value = cast(tuple[str, float], key)
        near = [
            theirs
            for printed, theirs in paper.RATIOS.items()
            if printed == value or (value < 1e9 and abs(printed - value) < 1e-3 * printed)
        ]
        ks = ", ".join(f"{k:g}" for k in sorted(cell["k"].dropna().unique())) if not cell["is_baseline"].iloc[0] else "-"
        rows.append([str(label), f"{value:.4g}", ks, str(len(cell)), _mean(cell[judged]), f"{near[0]:.2f}" if near else "-"])
    enough = trials.loc[~trials["is_baseline"], "gamma"].nunique() > 1
    empty = f"{sweep.folder} has trials with at most one value of gamma."
    return [
        Table(
            f"T10. gamma / lambda ({_where(judged)})",
            ["arm", "gamma / lambda", "k", "trials", "ours", "paper (k 0)"],
            rows if enough else [],
            empty,
        )
    ]


def linearity(sweep: Sweep) -> list[Table]:
    """T14: is Code a linear image of Text, and how far apart are they? Before training, and at the end of training for every arm.

    The paper's norm is fitted and evaluated on the same pairs, and needs more pairs than the model is wide to exist. The R2
    on unseen pairs is what a linear map explains of pairs that it was not fitted on.
    """
    runs, _ = shown_runs(sweep)
    names = ["diag_linearity", "diag_linearity_relative", "diag_ridge_r2", "diag_sv_mean", "diag_pairs"]
    metrics = sweep.metrics[sweep.metrics["trial_id"].isin(runs["trial_id"])]
    rows: list[list[str]] = []
    first = last_values(metrics[metrics["step"] == 0], names)
    last = last_values(metrics, names).join(runs.set_index("trial_id")[["label", "is_baseline", "k", *USUAL]])
    for group, cell in first.join(runs.set_index("trial_id")[["group"]]).groupby("group", sort=True):
        rows.append([f"{group}: before training", str(len(cell)), *_means(cell, names), *_linear("before training")])
    for label, cell in last.groupby("label", sort=True):
        kind = variant(cell.iloc[0])
        key = f"k {cell['k'].iloc[0]:g}" if kind == "cosine" else kind
        rows.append([str(label), str(len(cell)), *_means(cell, names), *_linear(key)])
    header = ["arm", "runs", "||Enc(Text) X - Enc(Code)||", "relative to ||Enc(Code)||", "R2 on unseen pairs"]
    header += ["mean of top singular values", "pairs", "paper: norm", "paper: mean of top 100"]
    empty = f"{sweep.folder} has no diag_linearity, as diagnostics were off; set `base.evaluation.diagnostic_pairs` above 0."
    title = "T14. Linearity of Text -> Code and singular values of the difference (mean over runs)"
    if any(row[2] == "-" for row in rows):
        title += "; no norm unless there are more pairs than the model is wide (`base.evaluation.diagnostic_pairs`)"
    return [Table(title, header, rows, empty)]


def _cells(sweep: Sweep, keys: Sequence[str], baseline: bool) -> tuple[pd.DataFrame, str]:
    """Trials that fill cells of `keys`, and their score: confirmation on test if it has several cells, else the search on validation."""
    trials = sweep.trials if baseline else sweep.trials[~sweep.trials["is_baseline"]]
    complete = trials[trials["state"] == "COMPLETE"]
    confirmed = trials[trials["counts"] & trials["test_accuracy"].notna()]
    if confirmed.loc[~confirmed["is_baseline"], keys[0]].nunique(dropna=False) > 1:
        return confirmed, "test_accuracy"
    return complete[(complete["stage"] == "search") & complete[sweep.metric].notna()], sweep.metric


def _where(judged: str) -> str:
    return f"{judged.replace('_', ' ')}, %, mean ± sd; " + (
        "confirmed seeds" if judged.startswith("test") else "search trials, one seed: the spread is not over seeds"
    )


def variant(row: pd.Series[Any]) -> str:
    """How the term differs from the paper's: the values that differ, joined by +; `cosine` if none does, `baseline` without a term."""
    if row["is_baseline"]:
        return "baseline"
    changed = [str(row[name]) for name, value in USUAL.items() if isinstance(row[name], str) and row[name] != value]
    return " + ".join(changed) or "cosine"


def _by_seed(group: pd.DataFrame, label: str, judged: str) -> pd.Series[float]:
    return group[group["label"] == label].set_index("seed")[judged].dropna()


def _data(group: pd.DataFrame, label: str) -> pd.Series[str]:
    return group.loc[group["label"] == label, "dataset_sha"]


def _mean(values: pd.Series[float], sign: bool = False) -> str:
    moments = {"mean": float(values.mean()) if len(values) else None, "sd": float(values.std()) if len(values) > 1 else None}
    return percent(moments, sign=sign)


def _means(cell: pd.DataFrame, names: Sequence[str]) -> list[str]:
    return [f"{cell[name].mean():.4g}" if name in cell and cell[name].notna().any() else "-" for name in names]


def _paper(moments: tuple[float, float | None]) -> str:
    mean, sd = moments
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"


def _linear(key: str) -> list[str]:
    printed = paper.LINEARITY.get(key)
    return ["-", "-"] if printed is None else [f"{number:g}" for number in printed]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
