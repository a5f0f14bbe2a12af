"""Two further tables of a summary: what each arm's confirmation cost, and how probable its models find the references.

`numbers` and `compared` fill lines of the summary; `tables` writes them. Cells are strings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from analysis.protocol import log_probability
from analysis.summary_tables import Summary
from analysis.text_tables import COMPUTED, FLOPS, UNPACKED, Table, significant

COSTS = ("train_seconds", "wall_seconds", "val_seconds", "test_seconds", COMPUTED, UNPACKED, "peak_memory_bytes")
"""Columns of the trials table that say what a run cost."""
LOGPROBS = ("val_logprob", "test_logprob")
GB = 1e9


def numbers(runs: pd.DataFrame, moments: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Mean, sd and n over an arm's confirmed runs of what they cost and of the log-probabilities, and whether all ran on GPUs."""
    values = {name: moments(pd.to_numeric(runs[name]).dropna()) for name in COSTS}
    for name in LOGPROBS:  # a reference of probability 0 leaves no mean
        found = pd.to_numeric(runs[name]).dropna()
        values[name] = moments(found if np.isfinite(found).all() else found.iloc[:0])
    return values | {"on_gpu": bool(runs["device"].astype("string").str.startswith("cuda").fillna(False).all())}


def compared(method: str, baseline: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> list[dict[str, Any]]:
    """Method minus baseline in `test_logprob`, over the seeds that both arms have; no line without values."""
    both = ours.index.intersection(theirs.index)
    found = log_probability.compare(ours.loc[both], theirs.loc[both], "test")
    return [] if found is None else [{"method": method, "baseline": baseline, **asdict(found)}]


def tables(summary: Summary) -> list[Table]:
    """Cost per run; and log-probabilities, if a trial has measured them."""
    measured = any(line[name]["n"] for line in summary.confirmation for name in LOGPROBS)
    return [_cost_table(summary), *([_logprob_table(summary)] if measured else [])]


def _cost_table(summary: Summary) -> Table:
    lines = summary.confirmation
    shown = [name for name in COSTS if any(line[name]["n"] for line in lines)]
    memory = "peak GPU memory (GB)" if all(line["on_gpu"] for line in lines) else "peak memory (GB)"
    titles = FLOPS | {name: name.replace("_seconds", " s") for name in COSTS if name.endswith("seconds")} | {"peak_memory_bytes": memory}
    rows = [[line["arm"], str(line["n"]), *(_moments(line[name], name) for name in shown)] for line in lines]
    on_cpu = "" if all(line["on_gpu"] for line in lines) else "; memory on a CPU is the process's, with its earlier trials"
    title = f"Cost per run of the confirmation (mean ± sd{on_cpu})"
    return Table(title, ["arm", "n", *(titles[name] for name in shown)], rows, "No confirmation yet.")


def _moments(moments: Mapping[str, Any], name: str) -> str:
    mean, sd = moments["mean"], moments["sd"]
    if mean is None:
        return "-"
    if name == "peak_memory_bytes":
        mean, sd = mean / GB, None if sd is None else sd / GB
    if name in FLOPS:
        return f"{mean:.3e}" if sd is None else f"{mean:.3e} ± {sd:.1e}"
    return significant(float(mean)) if sd is None else f"{significant(float(mean))} ± {sd:.2g}"


def _logprob_table(summary: Summary) -> Table:
    differences = {line["method"]: line for line in summary.logprobs if line["own"]}
    rows = [
        [line["arm"], str(line["n"]), *(_moments(line[name], name) for name in LOGPROBS), _difference(differences.get(line["arm"]))]
        for line in summary.confirmation
    ]
    header = ["arm", "n", "val", "test", "test minus baseline (95 % over seeds)"]
    return Table("Log-probability of the references (nats per answer without its end of turn, mean ± sd)", header, rows, "None.")


def _difference(line: Mapping[str, Any] | None) -> str:
    if line is None:
        return "-"
    interval = "" if line["low"] is None else f" ({line['low']:+.3g} to {line['high']:+.3g})"
    return f"{line['difference']:+.3g}{interval}"
