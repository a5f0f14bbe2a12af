"""What a sweep ran: five lines for the first screen, and every setting as a table.

Settings are read from the trials table; ranges of knobs and the budget of the search, which no trial contains, from sweep.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from analysis.figures.style import unit
from analysis.inputs.plan import section
from analysis.inputs.sweep import Sweep
from analysis.text_tables import Table, counted, significant, sized
from jepa_ray import results

STAGES = {"search": "search", "confirm": "confirmation", "matched": "at equal FLOPs"}
ARMS_OWN = ("seed", "evaluate_test", "max_train_flops", "init", "model", "family")
"""Settings that differ between trials by design, or that are in the five lines."""
MOST = 6
"""Up to this many values of a setting are listed; of more, the range."""


def five_lines(sweep: Sweep, tree: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Model, data, knobs, seeds, cost; empty if no trial has ended."""
    trials = sweep.trials
    if trials.empty:
        return ()
    lines = {"model": _model(trials), "data": _data(trials), "knobs": _knobs(sweep, tree), "seeds": _seeds(sweep, tree)}
    return tuple({**lines, "cost": _cost(trials)}.items())


def counts(sweep: Sweep) -> Table:
    """How many trials of which stage ended how, where, and with which code."""
    trials = sweep.trials
    stages, states = trials["stage"].value_counts(), trials["state"].value_counts()
    finished = trials["finished_at"].dropna().astype(str)
    facts = {
        "trials": f"{len(trials)}: {', '.join(f'{stages[name]} {word}' for name, word in STAGES.items() if name in stages)}",
        "ended": f"{states.get('COMPLETE', 0)} complete, {states.get('PRUNED', 0)} cut early, {states.get('FAILED', 0)} failed",
        "methods": ", ".join(sweep.methods),
        "families": listed(trials["family"]),
        "models": listed(trials["model"]),
        "tasks": listed(trials["task"]),
        "confirmation seeds": listed(trials.loc[trials["stage"] == "confirm", "seed"]) or "none",
        "selected by": f"{sweep.metric} ({'highest' if sweep.mode == 'max' else 'lowest'})",
        "device": listed(trials["device"]) or "unknown",
        "code": listed(trials["git_sha"].astype(str).str.slice(0, 12)) if trials["git_sha"].notna().any() else "unknown",
        "versions": versions(trials),
        "data (SHA-256)": listed(trials["dataset_sha"].astype(str).str.slice(0, 12)),
        "last trial ended": finished.max()[:16].replace("T", " ") + " UTC" if len(finished) else "unknown",
    }
    return Table("What ran", ["what", "value"], [[name, value] for name, value in facts.items() if value], "No trial yet.")


def settings(sweep: Sweep) -> Table:
    """Every setting of the confirmed trials (without one: of all), in one row if all methods share it, else in one per method."""
    confirmed = sweep.trials[sweep.trials["stage"] == "confirm"]
    rows = sweep.trials if confirmed.empty else confirmed
    lines = []
    for name in results.CONFIG:
        if name in ARMS_OWN or rows[name].isna().all():
            continue
        by_method = {str(method): listed(values) or "-" for method, values in rows.groupby("method")[name]}
        if len(set(by_method.values())) == 1:
            lines.append([name, "all", next(iter(by_method.values()))])
        else:
            lines += [[name, method, value] for method, value in by_method.items()]
    return Table("Settings of the confirmed trials", ["setting", "method", "value"], lines, "No trial yet.")


def question(sweep: Sweep) -> str:
    """What the sweep asks."""
    trials = sweep.trials
    if trials.empty:
        return "What will this sweep show?"
    where = f"for {_names(trials)} on {listed(trials['task'])}"
    claims = [one for one in sweep.declared.comparisons if one.kind == "claim" and one.arm in set(trials["arm"])]
    usual = {(arm.name, arm.baseline) for arm in sweep.declared.arms}
    if any((one.arm, one.other) not in usual for one in claims):
        compared = {name for one in claims for name in (one.arm, one.other)}
        names = list(dict.fromkeys(arm.method for arm in sweep.declared.arms if arm.name in compared))
        return (
            f"Which is better {where}: {' or '.join([', '.join(names[:-1]), names[-1]]) if len(names) <= 6 else f'{len(names)} methods'}?"
        )
    claimed = {one.arm for one in claims}
    rows = trials[trials["arm"].isin(claimed)] if claimed else trials[~trials["is_baseline"]]
    methods = list(dict.fromkeys(map(str, rows["method"])))
    if not methods:
        return f"How well do the baselines do {where}?"
    if len(methods) == 1:
        return f"Is {methods[0]} better than its baseline {where}?"
    which = " or ".join([", ".join(methods[:-1]), methods[-1]]) if len(methods) <= 3 else f"any of {len(methods)} methods"
    return f"Is {which} better than the baseline {where}?"


def listed(values: pd.Series[Any], limit: int = 12) -> str:
    """The distinct values, or the range of many numbers."""
    distinct = sorted(values.dropna().unique())
    if len(distinct) > MOST and pd.api.types.is_float_dtype(values):
        return f"{significant(float(distinct[0]))} to {significant(float(distinct[-1]))}"
    names = [significant(float(value)) if isinstance(value, float) else str(value) for value in distinct]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def versions(trials: pd.DataFrame) -> str:
    """The libraries' versions, in the order of their names; several if the trials differ."""
    found: dict[str, dict[str, None]] = {}
    for text in trials["versions"].dropna().unique():
        try:
            named = json.loads(text)
        except ValueError:
            continue
        for name, version in named.items() if isinstance(named, dict) else ():
            if version:
                found.setdefault(str(name), {})[str(version)] = None
    return ", ".join(f"{name} {' and '.join(versions)}" for name, versions in sorted(found.items()))


def _names(trials: pd.DataFrame) -> str:
    pairs = [(family, PurePosixPath(str(model)).name) for family, model in trials[["family", "model"]].drop_duplicates().to_numpy()]
    families = [model if family == "auto" else f"{family} ({model})" for family, model in pairs]
    return ", ".join(families[:3]) + (f" and {len(families) - 3} more" if len(families) > 3 else "")


def _model(trials: pd.DataFrame) -> str:
    full, ranks = trials["lora_r"].isna().any(), listed(trials["lora_r"])
    how = " and ".join([*(["full fine-tuning"] if full else []), *([f"LoRA of rank {ranks}"] if ranks else [])])
    size = trials["num_trainable"].max()
    trained = "" if pd.isna(size) else f", {size / 1e6:.3g} M parameters trained"
    init = "" if (trials["init"] == "pretrained").all() else f", weights: {listed(trials['init'])}"
    schedules = listed(trials["schedule"])
    epochs = listed(trials["num_epochs"])
    steps = f"{epochs} epoch{'s' * (epochs != '1')}, batch {listed(trials['batch_size'])}, {schedules} schedule"
    return f"{_names(trials)}{init}: {how}{trained}; {steps}"


def _data(trials: pd.DataFrame) -> str:
    parts = []
    for task, rows in trials.groupby("task", sort=True):
        sizes = []
        for split, planned in (("train", "num_train"), ("val", "num_val"), ("test", "num_test")):
            found = listed(rows[f"{split}_examples"]) or listed(rows[planned])
            sizes += [f"{found} {split}"] if found else []
        parts.append(f"{task}: {', '.join(sizes)}" if sizes else str(task))
    return "; ".join(parts)


def _knobs(sweep: Sweep, tree: Mapping[str, Any]) -> str:
    ranges = [f"{_knob(name)} {_range(value)}" for name, value in section(tree, "space").items()]
    search, trials = section(tree, "search"), sweep.trials
    number = trials[trials["stage"] == "search"].groupby("label").size()
    each = ""
    if len(number):
        fewest, most = int(number.min()), int(number.max())
        each = f"{counted(most, 'trial')} an arm" if fewest == most else f"{fewest} to {most} trials an arm"
    stopping = {"asha": "early stopping by ASHA", "none": "no early stopping"}.get(str(section(tree, "scheduler").get("name", "")), "")
    how = ", ".join(filter(None, [str(search.get("algorithm", "")), each, stopping]))
    return "; ".join(filter(None, [", ".join(ranges), how])) or "none searched"


def _knob(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ")


def _range(value: Any) -> str:
    if not isinstance(value, dict):
        return f"in {_values(value)}" if isinstance(value, list) else str(value)
    kind = next((name for name in ("float", "int") if isinstance(value.get(name), list) and len(value[name]) == 2), None)
    if kind is None:
        choices = next((inner for inner in value.values() if isinstance(inner, list)), None)
        return f"in {_values(choices)}" if choices else str(value)
    return f"{value[kind][0]:g} to {value[kind][1]:g}{' (log)' if value.get('log') else ''}"


def _values(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:MOST])) + (f" and {len(values) - MOST} more" if len(values) > MOST else "")


def _seeds(sweep: Sweep, tree: Mapping[str, Any]) -> str:
    seeds, confirm = sweep.declared.seeds, section(tree, "confirm")
    if not seeds:
        return "no confirmation: the best trial of a search is biased upwards"
    matched = "; retrained at equal FLOPs" if (sweep.trials["stage"] == "matched").any() else ""
    race = f"; raced, looks after {', '.join(map(str, confirm['race']))}" if confirm.get("race") else ""
    few = f" ({', '.join(map(str, seeds))})" if len(seeds) <= 10 else ""
    return f"{counted(len(seeds), 'fresh seed')} an arm{few}; margin {sized(sweep.declared.margin)}{matched}{race}"


def _cost(trials: pd.DataFrame) -> str:
    total = float(trials["train_flops"].sum())
    size, prefix = unit(total)
    hours = float(trials["train_seconds"].sum()) / 3600
    time = f"{hours:.3g} h" if hours >= 1 else f"{60 * hours:.3g} min"
    workers = trials["num_workers"].max()
    several = f" x {workers:.0f}" if pd.notna(workers) and workers > 1 else ""
    device = listed(trials["device"]) or "an unknown device"
    torch = next((part for part in versions(trials).split(", ") if part.startswith("torch ")), "")
    code = [f"commit {listed(trials['git_sha'].astype(str).str.slice(0, 8))}"] if trials["git_sha"].notna().any() else []
    made = ", ".join(filter(None, [torch, *code]))
    spent = f"{counted(len(trials), 'trial')}, {total / size:.3g} {prefix}FLOPs, {time} of training on {device}{several}"
    return "; ".join(filter(None, [spent, made]))
