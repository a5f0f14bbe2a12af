"""What came out of a sweep: best configuration per arm, confirmation, paired differences, cost.

    python -m analysis.summary results/lora [results/other ...] [--markdown | --json] [--metric val_accuracy] [--mode max]

Per arm: trials by state; the best COMPLETE search trial on validation; over the confirmation's seeds, mean and sample standard
deviation (ddof 1); against the baseline of the same task, family and model in the same sweep, the difference seed by seed with
a two-sided paired t-test. What is missing is said in a sentence, never dropped. A difference that is not shown is reported as
plainly as one that is.

May import: confirmed, files, tables, jepa_ray.results, pandas, scipy. No torch, no ray.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from analysis.files import check, read_sound
from analysis.protocol.confirmed import GROUP, choose, read_frozen, twins
from analysis.tables import Table, markdown, percent, significant, text
from jepa_ray import results

JUDGEMENTS = ("accuracy", "exact", "prefix", "contains", "stopped")
WHERE_MEASURED = ("paper", "equivalent", "errors")
"""Judgements of some tasks only: shown where a trial has them, errors where there are any."""
STAGES = ("search", "confirm", "matched")
"""What trials are for; matched ones are trained to equal FLOPs (`protocol/equal.py`) and enter no table here but the counts and costs."""
STATES = ("COMPLETE", "PRUNED", "FAILED")
ALWAYS = ("objective", "lambda", "k", "learning_rate", "loss_dropout")
"""Settings shown for every arm; others appear where the search varied them."""
LEVEL = 0.05
"""p below which a difference is called one."""


@dataclass
class Summary:
    """Plain numbers, one dict per line of a table, and the sentences that go with them. Shares are in [0, 1]."""

    states: list[dict[str, Any]] = field(default_factory=list)
    best: list[dict[str, Any]] = field(default_factory=list)
    confirmation: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    metric: str = "val_accuracy"
    mode: str = "max"


def summarise(trials: pd.DataFrame, metric: str = "val_accuracy", mode: str = "max", frozen: Mapping[str, str] | None = None) -> Summary:
    """Everything this module knows about the trials table of one sweep; `frozen` as `confirmed.read_frozen` finds it in its folder."""
    if metric not in trials.columns:
        legal = ", ".join(name for name in results.SUMMARY if name.startswith("val_"))
        raise ValueError(f"no column {metric!r} in the trials table; what is measured on validation: {legal}")
    found = Summary(metric=metric, mode=mode)
    if trials.empty:
        found.notes.append("No trial has finished yet: there is nothing to summarise.")
        return found
    chosen: dict[str, pd.DataFrame] = {}
    trials = trials.assign(label=_labels(trials))
    for label, arm in trials.groupby("label", sort=True):
        name = str(label)
        found.states.append(_states(name, arm))
        _best(name, arm[arm["stage"] == "search"], found)
        chosen[name] = _confirmed(name, arm, frozen or {}, found)
    for _, family in trials.groupby(GROUP, sort=True):
        _compare(family, chosen, found)
    return found


def full_text(found: Summary, *, as_markdown: bool = False) -> str:
    """The whole summary as aligned text or as Markdown."""
    return _render(tables(found), found.notes, markdown if as_markdown else text)


def tables(found: Summary) -> list[Table]:
    """Trials by state, best of each arm, confirmation, paired differences."""
    return [_state_table(found), _best_table(found), _confirmation_table(found), _difference_table(found)]


def _labels(trials: pd.DataFrame) -> pd.Series[str]:
    """The arm's name, with model and task where the same arm name stands for several."""
    several = len(trials[["arm", "model", "task"]].drop_duplicates()) > trials["arm"].nunique()
    return trials["arm"] + " (" + trials["model"] + ", " + trials["task"] + ")" if several else trials["arm"]


def _states(arm: str, rows: pd.DataFrame) -> dict[str, Any]:
    counts = rows["state"].value_counts()
    return {
        "arm": arm,
        "search": int((rows["stage"] == "search").sum()),
        "confirm": int((rows["stage"] == "confirm").sum()),
        "matched": int((rows["stage"] == "matched").sum()),
        **{state: int(counts.get(state, 0)) for state in STATES},
        **{name: float(rows[name].sum()) for name in ("train_flops", "train_seconds", "wall_seconds")},
        "without_cost": int(rows["train_flops"].isna().sum()),
    }


def _best(arm: str, search: pd.DataFrame, found: Summary) -> None:
    complete = search[search["state"] == "COMPLETE"]
    ranked = complete.dropna(subset=[found.metric])
    if len(ranked) < len(complete):
        found.notes.append(f"{arm}: {len(complete) - len(ranked)} COMPLETE search trial(s) have no {found.metric} and can't be the best.")
    if ranked.empty:
        found.notes.append(f"{arm}: no COMPLETE search trial with a {found.metric}, so no best configuration.")
        return
    ranked = ranked.sort_values([found.metric, "started_at", "trial_id"], ascending=[found.mode == "min", True, True])
    first = ranked.iloc[0]
    ties = int((ranked[found.metric] == first[found.metric]).sum())
    if ties > 1:
        found.notes.append(
            f"{arm}: {ties} search trials share the best {found.metric}; the table shows the one started first, as the selection does."
        )
    varied = [name for name in results.CONFIG if name != "seed" and search[name].nunique(dropna=False) > 1]
    shown = dict.fromkeys([*ALWAYS, *varied])
    row = {"arm": arm, "trial_id": first["trial_id"], found.metric: float(first[found.metric]), "of": len(ranked)}
    found.best.append(row | {name: _plain(first[name]) for name in shown})


def _confirmed(arm: str, rows: pd.DataFrame, frozen: Mapping[str, str], found: Summary) -> pd.DataFrame:
    """The confirmation of an arm, indexed by seed; adds the arm's line to the summary."""
    choice = choose(arm, rows, frozen)
    found.notes += choice.notes
    latest = choice.runs.set_index("seed")
    if latest.empty:
        found.notes.append(f"{arm}: no COMPLETE confirmation trial that counts, so only search results, which favour whoever was picked.")
        return latest
    line: dict[str, Any] = {"arm": arm, "n": len(latest), "seeds": [int(seed) for seed in latest.index]}
    for name in (*_metrics(), *_SOMETIMES):
        values = latest[name].dropna()
        if 0 < len(values) < len(latest):
            missing = f"{len(latest) - len(values)} of {len(latest)} confirmation seeds"
            found.notes.append(f"{arm}: {name} is missing for {missing}; its mean is over the rest.")
        line[name] = _moments(values)
    for name in ("train_flops", "train_seconds"):
        line[name] = _moments(latest[name].dropna())
    if latest["test_accuracy"].isna().all():
        found.notes.append(f"{arm}: the confirmation has no test figures, only validation, on which the configuration was chosen.")
    found.confirmation.append(line)
    return latest


def _compare(family: pd.DataFrame, chosen: dict[str, pd.DataFrame], found: Summary) -> None:
    """Every method of one task, family and model against its baseline, seed by seed."""
    labels = family.groupby("label")["objective"].agg(lambda names: bool((names == "none").all()))
    baselines = [str(label) for label, is_baseline in labels.items() if is_baseline]
    methods = [str(label) for label, is_baseline in labels.items() if not is_baseline]
    where = ", ".join(str(family[name].iloc[0]) for name in GROUP)
    if not baselines:
        found.notes.append(f"{', '.join(methods)}: no baseline arm (objective none) for {where}, so nothing to compare with.")
    elif not methods:
        found.notes.append(f"{', '.join(baselines)}: no other method for {where}, so nothing to compare with it.")
    pairs = twins(family)
    alone = sorted(set(methods) - {method for _, method in pairs}) if baselines else []
    if alone:
        found.notes.append(f"{', '.join(alone)}: no baseline with the same loss_on and train_end_of_turn, so nothing to compare with.")
    for baseline, method in pairs:
        ours, theirs = chosen[method], chosen[baseline]
        if ours.empty or theirs.empty:
            found.notes.append(f"{method} against {baseline}: no paired difference, as one of them has no COMPLETE confirmation.")
            continue
        if set(ours["dataset_sha"]) != set(theirs["dataset_sha"]):
            found.notes.append(f"{method} against {baseline}: confirmed on different data (dataset_sha differs), so not paired.")
            continue
        single = sorted(set(map(int, ours.index)) ^ set(map(int, theirs.index)))
        if single:
            seeds = ", ".join(map(str, single))
            found.notes.append(f"{method} against {baseline}: seed(s) {seeds} are in one of the two only and not in the pairs.")
        _difference_lines(method, baseline, ours, theirs, found)


def _difference_lines(method: str, baseline: str, ours: pd.DataFrame, theirs: pd.DataFrame, found: Summary) -> None:
    lines: dict[str, dict[str, Any]] = {}
    for name in _metrics():
        pairs = (ours[name] - theirs[name]).dropna()
        if not pairs.empty:
            per_seed = dict(zip(map(int, pairs.index), map(float, pairs), strict=True))
            lines[name] = {"method": method, "baseline": baseline, "metric": name, **paired(pairs.tolist()), "per_seed": per_seed}
    if not lines:
        found.notes.append(f"{method} against {baseline}: no seed with figures of both, so no paired difference.")
        return
    found.differences += lines.values()
    head = lines.get("test_accuracy") or next(iter(lines.values()))
    found.notes.append(f"{method} against {baseline}, {head['metric'].replace('_', ' ')}: {verdict(head)}")


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """Mean, sd (ddof 1), n and two-sided p of a paired t-test. sd and p are None where they do not exist (n = 1; p also at sd 0).

    t = mean / (sd / sqrt(n)) with n - 1 degrees of freedom, the same as scipy.stats.ttest_rel on the two columns.
    """
    moments = _moments(pd.Series(list(differences), dtype=float))
    mean, sd, n = moments["mean"], moments["sd"], moments["n"]
    # Differences that are equal up to rounding leave nothing to estimate a spread from: t would be the rounding's.
    if sd is None or sd <= 1e-9 * max(1.0, abs(mean)):
        return {**moments, "p": None}
    return {**moments, "p": float(2 * stats.t.sf(abs(mean) / (sd / math.sqrt(n)), n - 1))}


def verdict(line: dict[str, Any]) -> str:
    """One sentence that says no more than the numbers do."""
    points = f"{100 * line['mean']:+.2f} points over {line['n']} seed(s)"
    if line["n"] == 1:
        return f"{points}. One pair says nothing about seeds: no spread, no test."
    if line["p"] is None:
        return f"{points}, the same on every seed, so there is no t-test." if line["mean"] else f"{points}: identical on every seed."
    if line["p"] < LEVEL:
        return f"{points} (p = {line['p']:.3g}): {'higher' if line['mean'] > 0 else 'lower'} than the baseline."
    return f"{points} (p = {line['p']:.3g}): no difference shown."


def _moments(values: pd.Series[Any]) -> dict[str, Any]:
    n = len(values)
    return {"mean": float(values.mean()) if n else None, "sd": float(values.std(ddof=1)) if n > 1 else None, "n": n}


def _metrics() -> list[str]:
    return [f"{split}_{name}" for split in ("val", "test") for name in JUDGEMENTS]


_SOMETIMES = [f"test_{name}" for name in WHERE_MEASURED] + ["chance"]


def _sometimes(found: Summary) -> list[str]:
    """Those of WHERE_MEASURED, and chance, that are not nothing in every line."""
    return [name for name in _SOMETIMES if any(line[name]["mean"] for line in found.confirmation)]


def _plain(value: Any) -> Any:
    """A cell as JSON knows it: Python's own scalar, None for missing."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _state_table(found: Summary) -> Table:
    lines = list(found.states)
    if len(lines) > 1:
        lines.append({"arm": "total", **{name: sum(line[name] for line in lines) for name in lines[0] if name != "arm"}})
    rows = [[line["arm"], *(str(line[name]) for name in (*STAGES, *STATES)), *_cost(line)] for line in lines]
    header = ["arm", *STAGES, "complete", "pruned", "failed", "train FLOPs", "train s", "wall s"]
    return Table("Trials", header, rows, "No trial yet.")


def _cost(line: dict[str, Any]) -> list[str]:
    known = f"{line['train_flops']:.3g}" + (f" ({line['without_cost']} unknown)" if line["without_cost"] else "")
    return [known, f"{line['train_seconds']:.0f}", f"{line['wall_seconds']:.0f}"]


def _best_table(found: Summary) -> Table:
    settings = list(dict.fromkeys(name for line in found.best for name in line if name not in ("arm", "trial_id", found.metric, "of")))
    rows = [[line["arm"], *(significant(line.get(name)) for name in (found.metric, "of", *settings, "trial_id"))] for line in found.best]
    title = f"Best configuration per arm ({'highest' if found.mode == 'max' else 'lowest'} {found.metric} of the COMPLETE search trials)"
    return Table(title, ["arm", found.metric, "of", *settings, "trial_id"], rows, "No COMPLETE search trial.")


def _confirmation_table(found: Summary) -> Table:
    cost = ("train_flops", "train_seconds")
    rows = [
        [
            line["arm"],
            str(line["n"]),
            *map(percent, (line[name] for name in (*_metrics(), *_sometimes(found)))),
            *(significant(line[name]["mean"]) for name in cost),
        ]
        for line in found.confirmation
    ]
    header = ["arm", "n", *(name.replace("_", " ") for name in (*_metrics(), *_sometimes(found))), "FLOPs/trial", "s/trial"]
    return Table("Confirmation on fresh seeds (%, mean ± sd)", header, rows, "No confirmation yet.")


def _difference_table(found: Summary) -> Table:
    rows = [
        [
            line["method"],
            line["baseline"],
            line["metric"].replace("_", " "),
            percent(line, sign=True),
            str(line["n"]),
            "-" if line["p"] is None else f"{line['p']:.3g}",
            ", ".join(f"{seed}: {100 * value:+.2f}" for seed, value in line["per_seed"].items()),
        ]
        for line in found.differences
    ]
    header = ["method", "baseline", "metric", "difference", "n", "p", "per seed"]
    title = "Paired differences, method - baseline (points, mean ± sd; p: two-sided paired t-test, not corrected for the number of lines)"
    return Table(title, header, rows, "No pair of confirmed arms.")


def _render(shown: Sequence[Table], notes: Sequence[str], how: Callable[[Table], str]) -> str:
    parts = [how(table) for table in shown]
    return "\n\n".join(parts + (["\n".join(f"- {note}" for note in notes)] if notes else []))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 2 where a folder is no sweep."""
    parser = argparse.ArgumentParser(prog="python -m analysis.summary", description="What came out of one or more sweeps.")
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="results/NAME")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--markdown", action="store_true")
    shape.add_argument("--json", action="store_true")
    parser.add_argument(
        "--metric", default="val_accuracy", help="the validation metric that picks the best trial (the sweep's search.metric)"
    )
    parser.add_argument("--mode", choices=("max", "min"), default="max")
    options = parser.parse_args(arguments)
    summaries: dict[str, Summary] = {}
    for folder in options.sweeps:
        try:
            check(folder)
        except ValueError as error:
            parser.error(str(error))
        notes: list[str] = []
        trials, (frozen, doubts) = read_sound(folder, "trials", notes), read_frozen(folder)
        try:
            summaries[str(folder)] = found = summarise(trials, options.metric, options.mode, frozen)
        except ValueError as error:
            parser.error(str(error))
        found.notes[:0] = [*notes, *doubts]
    if options.json:
        print(json.dumps({name: asdict(found) for name, found in summaries.items()}))
        return 0
    for name, found in summaries.items():
        title = f"# {name}" if options.markdown else f"{name}\n{'=' * len(name)}"
        print(title, full_text(found, as_markdown=options.markdown), sep="\n\n", end="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
