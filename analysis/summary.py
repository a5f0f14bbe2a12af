"""Results of a sweep: best configuration per arm, confirmation, paired differences, cost.

    python -m analysis.summary results/lora [results/other ...] [--markdown | --json] [--metric val_accuracy] [--mode max]

Per arm: trials by state; the search trial that the selection froze (without a selection, the best COMPLETE one on validation); mean and
sample standard deviation (ddof 1) over the confirmation's seeds; and the difference from the declared baseline, seed by seed, with a
two-sided paired t-test; what a run cost; and the log-probability of the references. Every missing number is reported in a sentence, and a
difference that is not significant as plainly as one that is.
The console output of a sweep ends with the same numbers (`summary_tables.brief`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import summary_costs
from analysis.command_line import run
from analysis.inputs.confirmation import Choice
from analysis.inputs.preregistration import NOT_RUN, baselines, standing
from analysis.inputs.sweep import Sweep, read
from analysis.inputs.tables import refuse_damaged
from analysis.stats.paired_tests import paired_t
from analysis.summary_tables import STAGES, STATES, Summary, judged, occasional, tables
from analysis.text_tables import Table, counted, markdown, named, text
from jepa_ray import results

ALWAYS = ("objective", "lambda", "k", "learning_rate", "loss_dropout")
"""Settings shown for every arm; others appear if the search varied them, or if they replace one of these."""
INSTEAD = ("lambda_grad_ratio", "pretrain_learning_rate")
JEPA_ONLY = ("lambda", "k", "loss_dropout", "lambda_grad_ratio")
"""Settings without effect if there is no JEPA term."""
LEVEL = 0.05
"""A difference is called significant if its p is below this."""


def summarise(sweep: Sweep, metric: str | None = None, mode: str | None = None) -> Summary:
    """The summary of one sweep; metric and mode default to those that the sweep selects by.

    Raises ValueError for a metric that a search may not select by: tables show shares of answers, defined on both splits, higher is better.
    """
    metric, mode = metric or sweep.metric, mode or sweep.mode
    if metric not in results.VALIDATION_METRICS:
        legal = ", ".join(results.VALIDATION_METRICS)
        raise ValueError(f"{metric!r} is not a share measured on validation for which higher is better; choose one of {legal}.")
    summary = Summary(metric=metric, mode=mode)
    if sweep.trials.empty:
        summary.notes.append("No trial has finished yet: there is nothing to summarise.")
        return summary
    chosen: dict[str, pd.DataFrame] = {}
    for label in _in_order(sweep):
        rows = sweep.trials[sweep.trials["label"] == label]
        summary.states.append(_states(label, rows))
        if rows.empty:
            summary.notes.append(f"{label}: {NOT_RUN}.")
            continue
        _best(label, rows, sweep, summary)
        chosen[label] = _confirmed(label, sweep.confirmation(label), sweep.folder, summary)
    _compare(sweep, chosen, summary)
    return summary


def full_text(summary: Summary, *, as_markdown: bool = False) -> str:
    """The whole summary as aligned text or as Markdown."""
    return _render([*tables(summary), *summary_costs.tables(summary)], summary.notes, markdown if as_markdown else text)


def _in_order(sweep: Sweep) -> list[str]:
    """Labels of all arms (names of arms that were not run), in the order of declaration; undeclared arms come last."""
    place = {arm.name: index for index, arm in enumerate(sweep.declared.arms)}
    arms = sweep.trials[["label", "arm"]].drop_duplicates()
    pairs = [*zip(arms["label"].astype(str), arms["arm"].astype(str), strict=True), *((name, name) for name in sweep.absent)]
    return [label for label, _ in sorted(pairs, key=lambda pair: (place.get(pair[1], len(place)), pair[0]))]


def _states(arm: str, rows: pd.DataFrame) -> dict[str, Any]:
    search = rows["stage"] == "search"
    return {
        "arm": arm,
        "standing": standing(rows),
        **{stage: int((rows["stage"] == stage).sum()) for stage in STAGES},
        **{state: int((rows["state"] == state).sum()) for state in STATES},
        **{f"search_{state}": int((search & (rows["state"] == state)).sum()) for state in STATES},
        **{name: float(rows[name].sum()) for name in ("train_flops", "train_seconds", "wall_seconds")},
        "without_cost": int(rows["train_flops"].isna().sum()),
    }


def _best(arm: str, rows: pd.DataFrame, sweep: Sweep, summary: Summary) -> None:
    search = rows[rows["stage"] == "search"]
    complete = search[search["state"] == "COMPLETE"]
    ranked = complete.dropna(subset=[summary.metric])
    if len(ranked) < len(complete):
        bare = counted(len(complete) - len(ranked), "COMPLETE search trial")
        summary.notes.append(f"{arm}: {bare} without {summary.metric} cannot be the best.")
    as_selected = (summary.metric, summary.mode) == (sweep.metric, sweep.mode)
    first = sweep.best(rows) if as_selected else results.best_trial(rows, summary.metric, summary.mode)
    if first is None:
        summary.notes.append(f"{arm}: no COMPLETE search trial with a {summary.metric} in {sweep.folder}, so no best configuration.")
        if len(complete):
            summary.best.append({"arm": arm, "trial_id": None, summary.metric: None, "of": 0})
        return
    frozen = as_selected and str(first["trial_id"]) in sweep.frozen
    better = ranked[summary.metric] > first[summary.metric] if summary.mode == "max" else ranked[summary.metric] < first[summary.metric]
    ties = int((ranked[summary.metric] == first[summary.metric]).sum())
    if better.any():
        which = f"{counted(int(better.sum()), 'other search trial')} with a better {summary.metric} was not part of the selection"
        summary.notes.append(f"{arm}: the table shows trial {first['trial_id']}, which the selection froze; {which}.")
    elif ties > 1:
        one = "the one that the selection froze" if frozen else "the one suggested first, as the selection does"
        summary.notes.append(f"{arm}: {ties} search trials share the best {summary.metric}; the table shows {one}.")
    varied = [name for name in results.CONFIG if name != "seed" and search[name].nunique(dropna=False) > 1]
    shown = dict.fromkeys([*ALWAYS, *(name for name in INSTEAD if pd.notna(first[name])), *varied])
    settings = {name: None if name in JEPA_ONLY and first["objective"] == "none" else _plain(first[name]) for name in shown}
    summary.best.append(
        {"arm": arm, "trial_id": first["trial_id"], summary.metric: float(first[summary.metric]), "of": len(ranked), **settings}
    )


def _confirmed(arm: str, choice: Choice, folder: Path, summary: Summary) -> pd.DataFrame:
    """The confirmation of an arm, indexed by seed; adds the arm's line to the summary."""
    summary.notes += choice.notes
    runs = choice.runs.set_index("seed")
    if runs.empty:
        summary.notes.append(f"{arm}: no COMPLETE confirmation trial that counts. Only search results are shown, which are biased upwards.")
        return runs
    line: dict[str, Any] = {"arm": arm, "n": len(runs), "seeds": [int(seed) for seed in runs.index]}
    for name in (*judged(summary), *occasional(summary)):
        values = runs[name].dropna()
        if 0 < len(values) < len(runs):
            missing = f"{len(runs) - len(values)} of {len(runs)} confirmation seeds"
            summary.notes.append(f"{arm}: {name} is missing for {missing}; its mean is over the others.")
        line[name] = _moments(values)
    line |= summary_costs.numbers(runs, _moments)
    measured = [name for name in judged(summary) if name.startswith("test_") and runs[name].notna().any()]
    if measured:
        summary.notes += [f"{arm}: no confirmation trial in {folder} has {name}." for name in _wanted(summary) if runs[name].isna().all()]
    else:
        summary.notes.append(f"{arm}: the confirmation has no test scores, only validation scores, on which the configuration was chosen.")
    summary.confirmation.append(line)
    return runs


def _wanted(summary: Summary) -> list[str]:
    """The metric that judges a confirmation, and the selecting metric on the same split."""
    return list(dict.fromkeys([results.JUDGED, f"test_{summary.metric.partition('_')[2]}"]))


def _compare(sweep: Sweep, chosen: dict[str, pd.DataFrame], summary: Summary) -> None:
    """Compare every method with its declared baseline, seed by seed."""
    pairs = sweep.pairs(sweep.trials)
    if sweep.declared.undeclared is not None:
        summary.notes.append("No differences, as it is unknown which arms are compared.")
        return
    own = baselines(sweep.declared.arms, sweep.trials)
    alone = set(chosen) - {label for pair in pairs for label in pair}
    for label in [label for label in chosen if label in alone]:
        summary.notes.append(f"{label}: no arm to compare it with has trials in this folder.")
    for baseline, method in pairs:
        ours, theirs = chosen[method], chosen[baseline]
        if ours.empty or theirs.empty:
            summary.notes.append(f"{method} against {baseline}: no paired difference, as one of them has no COMPLETE confirmation.")
            continue
        if set(ours["dataset_sha"]) != set(theirs["dataset_sha"]):
            summary.notes.append(f"{method} against {baseline}: confirmed on different data (dataset_sha differs), so not paired.")
            continue
        single = sorted(set(map(int, ours.index)) ^ set(map(int, theirs.index)))
        if single:
            summary.notes.append(f"{method} against {baseline}: confirmed in only one of the two, so left out: {named('seed', single)}.")
        is_own = own.get(method) == baseline
        _difference_lines(method, baseline, ours, theirs, summary, own=is_own)
        summary.logprobs += [{**line, "own": is_own} for line in summary_costs.compared(method, baseline, ours, theirs)]


def _difference_lines(method: str, baseline: str, ours: pd.DataFrame, theirs: pd.DataFrame, summary: Summary, *, own: bool) -> None:
    lines: dict[str, dict[str, Any]] = {}
    for name in judged(summary):
        pairs = (ours[name] - theirs[name]).dropna()
        if not pairs.empty:
            per_seed = dict(zip(map(int, pairs.index), map(float, pairs), strict=True))
            named = {"method": method, "baseline": baseline, "own": own, "metric": name}
            lines[name] = {**named, **paired(pairs.tolist()), "per_seed": per_seed}
    if not lines:
        summary.notes.append(f"{method} against {baseline}: no seed has scores of both, so there is no paired difference.")
        return
    summary.differences += lines.values()
    head = lines.get(results.JUDGED) or next(iter(lines.values()))
    summary.notes.append(f"{method} against {baseline}, {head['metric'].replace('_', ' ')}: {verdict(head)}")


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """Mean, sd (ddof 1), n and two-sided p of a paired t-test. sd and p are None if they do not exist (n = 1; p also without spread)."""
    moments = _moments(pd.Series(list(differences), dtype=float))
    try:
        return {**moments, "p": paired_t(differences).p}
    except ValueError:  # one difference, or all are equal
        return {**moments, "p": None}


def verdict(line: dict[str, Any]) -> str:
    """One sentence that claims no more than the numbers show."""
    points = f"{100 * line['mean']:+.2f} points over {counted(line['n'], 'seed')}"
    if line["n"] == 1:
        return f"{points}. One pair says nothing about the spread over seeds: no test."
    if line["p"] is None:
        return f"{points}, the same on every seed, so there is no t-test." if line["mean"] else f"{points}: identical on every seed."
    if line["p"] < LEVEL:
        other = "the baseline" if line.get("own", True) else line["baseline"]
        return f"{points} (p = {line['p']:.3g}): {'higher' if line['mean'] > 0 else 'lower'} than {other}."
    return f"{points} (p = {line['p']:.3g}): no significant difference."


def _moments(values: pd.Series[Any]) -> dict[str, Any]:
    n = len(values)
    return {"mean": float(values.mean()) if n else None, "sd": float(values.std(ddof=1)) if n > 1 else None, "n": n}


def _plain(value: Any) -> Any:
    """A cell as a Python scalar, for JSON; None if missing."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _render(shown: Sequence[Table], notes: Sequence[str], how: Callable[[Table], str]) -> str:
    parts = [how(table) for table in shown]
    return "\n\n".join(parts + (["\n".join(f"- {note}" for note in notes)] if notes else []))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Status 2: a folder is not a sweep's."""
    parser = argparse.ArgumentParser(prog="python -m analysis.summary", description="Results of one or more sweeps.")
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="results/NAME")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    shape.add_argument("--json", action="store_true", help="print one JSON object, keyed by folder")
    parser.add_argument("--metric", help="validation metric that picks the best trial (default: the sweep's search.metric)")
    parser.add_argument("--mode", choices=("max", "min"), help="whether the best is highest or lowest (default: the sweep's search.mode)")
    options = parser.parse_args(arguments)
    summaries: dict[str, Summary] = {}
    for folder in options.sweeps:
        try:
            refuse_damaged(folder)
            sweep = read(folder, curves=())
            summaries[str(folder)] = summary = summarise(sweep, options.metric, options.mode)
        except ValueError as error:
            parser.error(str(error))
        summary.notes[:0] = sweep.notes
    if options.json:
        print(json.dumps({name: asdict(summary) for name, summary in summaries.items()}))
        return 0
    for name, summary in summaries.items():
        title = f"# {name}" if options.markdown else f"{name}\n{'=' * len(name)}"
        print(title, full_text(summary, as_markdown=options.markdown), sep="\n\n", end="\n\n")
    return 0


if __name__ == "__main__":
    run(main)
