"""How much a method depends on its settings: of the searched ones, how many are nearly as good as the best, and what one at random costs.

    python -m analysis.sensitivity results/NAME [results/other ...] [--json]

A method that is as good as another but works with most settings is the better tool, and the best of many scores alone does not show it. Per
arm, over its search trials (those cut early with their last score), by the metric that the search selects by:

    near the best      share of trials within the margin (`confirm.margin`) of the arm's best one
    one at random      mean over trials: what a user without a search would get
    best of half       expected best of half as many trials (Dodge et al. 2019, arXiv 1909.03004)
    area               mean of the expected best of n over n = 1 .. all: the height of the whole budget curve

Scores are on validation, and the best of many is biased upwards. Trials count as exchangeable, as in a random or grid search.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from analysis.command_line import run
from analysis.inputs.sweep import Sweep, read
from analysis.inputs.tables import refuse_damaged
from analysis.stats.resampling import expected_best
from analysis.text_tables import Table, sized, text

FEWEST = 2
"""Trials of an arm below which nothing can be said."""


@dataclass(frozen=True)
class Sensitivity:
    """How an arm's score depends on the settings searched. Scores are shares on validation."""

    arm: str
    trials: int
    near: int
    """Trials within the margin of the best."""
    best: float
    at_random: float
    best_of_half: float
    area: float


def sensitivity(sweep: Sweep) -> tuple[list[Sensitivity], list[str]]:
    """One record per arm with at least two scored search trials, and a sentence for each other arm that was searched."""
    out, notes = [], []
    search = sweep.trials[sweep.trials["stage"] == "search"]
    for label, rows in search.groupby("label", sort=True):
        scores = rows.loc[rows["state"] != "FAILED", sweep.metric].dropna().to_numpy(dtype=float)
        if len(scores) < FEWEST:
            notes.append(f"{label}: {len(scores)} of {len(rows)} search trials have a {sweep.metric}; at least {FEWEST} are needed.")
            continue
        sign = 1.0 if sweep.mode == "max" else -1.0
        expected_n = sign * expected_best(sign * scores)
        best = float(expected_n[-1])
        near = int((np.abs(scores - best) <= sweep.declared.margin + 1e-9).sum())
        half = float(expected_n[max(1, len(scores) // 2) - 1])
        out.append(Sensitivity(str(label), len(scores), near, best, float(scores.mean()), half, float(expected_n.mean())))
    return out, notes


def table(sweep: Sweep) -> Table:
    """The records as a table, in percent."""
    found, _ = sensitivity(sweep)
    near = f"within {sized(sweep.declared.margin)} of the best"
    header = ["arm", near, "one at random", "best of half", "best", "area"]
    rows = [
        [one.arm, f"{one.near} of {one.trials}", *(f"{100 * x:.2f}" for x in (one.at_random, one.best_of_half, one.best, one.area))]
        for one in found
    ]
    title = f"Sensitivity to the searched settings ({sweep.metric.replace('_', ' ')}, %)"
    return Table(title, header, rows, f"No arm has {FEWEST} search trials with a {sweep.metric}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Status 2: a folder is not a sweep's."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.sensitivity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="results/NAME")
    parser.add_argument("--json", action="store_true", help="print one JSON object, keyed by folder")
    options = parser.parse_args(arguments)
    sweeps: dict[str, Sweep] = {}
    for folder in options.sweeps:
        try:
            refuse_damaged(folder)
            sweeps[str(folder)] = read(folder, curves=())
        except ValueError as error:
            parser.error(str(error))
    if options.json:
        print(json.dumps({name: [asdict(one) for one in sensitivity(sweep)[0]] for name, sweep in sweeps.items()}))
        return 0
    for name, sweep in sweeps.items():
        notes = [f"- {note}" for note in (*sweep.notes, *sensitivity(sweep)[1])]
        print(f"{name}\n{'=' * len(name)}", text(table(sweep)), *(["\n".join(notes)] if notes else []), sep="\n\n", end="\n\n")
    return 0


if __name__ == "__main__":
    run(main)
