"""Search and early stopping of a sweep file: rules between their keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jepa_ray.config import MASKED_METRICS, VALIDATION_METRICS, SchedulerConfig, SearchConfig, canonical
from jepa_ray.config.messages import Finding
from jepa_ray.config.record import is_a
from jepa_ray.plan.checks.data import judge_in
from jepa_ray.plan.checks.tree import at
from jepa_ray.plan.warm_start import began_with, misfit

_METRIC_JUDGES = {"val_equivalent": ("regex",), "val_paper": ("number", "answers", "sql")}
"""Metrics that only some judges measure -> these judges."""
MIN_GRACE_FLOPS = 1e6
"""Less than one optimizer step of the smallest model: 6 x 0.1M parameters x a few tokens."""


def check_search(tree: dict[str, Any], masked: bool) -> Iterator[Finding]:
    """Check the selection metric, its direction, and the folders of earlier sweeps."""
    metric, judges = at(tree, "search", "metric"), _METRIC_JUDGES.get(str(at(tree, "search", "metric")))
    task = at(tree, "task", default=at(tree, "data", "task", default="nl-rx"))
    for name in [task] if isinstance(task, str) else task if isinstance(task, (list, dict)) else ():
        judge = judge_in(tree, name) if isinstance(name, str) else None
        if judges is not None and judge is not None and judge not in judges:
            yield ["search", "metric"], f"{metric} is not measured on {name}, whose judge does not define it; use val_accuracy"
    metric, mode = at(tree, "search", "metric", default=SearchConfig().metric), at(tree, "search", "mode", default="max")
    measured = MASKED_METRICS if masked else tuple(name for name in VALIDATION_METRICS if name != "val_retrieval")
    if metric in VALIDATION_METRICS and metric not in measured:
        kind = "masked encoders" if masked else "causal models"
        yield ["search", "metric"], f"{metric} is not measured on {kind}; choose from {', '.join(measured)}"
    if mode == "min" and metric in VALIDATION_METRICS:
        place = ["search", "metric" if at(tree, "search", "mode") is None else "mode"]
        yield (
            place,
            f"a larger {metric} is better, so mode = {mode} would select the worst; change search.mode or search.metric",
        )
    yield from _check_warm_start(tree)
    pilot = at(tree, "confirm", "pilot")
    if isinstance(pilot, str) and not (Path(pilot) / "trials").is_dir():
        yield (
            ["confirm", "pilot"],
            f"{pilot} is not the folder of a sweep: {Path(pilot) / 'trials'} does not exist; give results/NAME of one, or drop it",
        )


def _check_warm_start(tree: dict[str, Any]) -> Iterator[Finding]:
    given, methods = at(tree, "search", "warm_start", default=[]), at(tree, "methods", default={})
    folders = [given] if isinstance(given, str) else given if isinstance(given, (list, tuple)) else []
    own_folder = Path(str(at(tree, "output", default="results"))) / str(at(tree, "name", default=""))
    for number, folder in enumerate(folders):
        if not isinstance(folder, str) or not isinstance(methods, dict):
            continue  # reported elsewhere
        if folder in folders[:number]:
            yield ["search", "warm_start"], f"contains {folder} twice; drop one"
        elif Path(folder).resolve() == own_folder.resolve():
            yield ["search", "warm_start"], f"{folder} is this sweep's own folder, from which it resumes anyway; drop it"
        elif not Path(folder).is_dir() and folder in began_with(own_folder):
            continue  # deleted since; the arms have recorded its suggestions
        elif reason := misfit(folder, [str(name) for name in methods]):
            yield ["search", "warm_start"], reason
    if folders and at(tree, "search", "algorithm") == "grid":
        yield (
            ["search", "warm_start"],
            "has no effect with algorithm grid, which runs every point; drop it, or set another search.algorithm",
        )


def check_scheduler(tree: dict[str, Any]) -> Iterator[Finding]:
    scheduler = tree.get("scheduler")
    if not isinstance(scheduler, dict):
        return
    usual = canonical(SchedulerConfig())
    idle = [key for key, value in scheduler.items() if key != "name" and value != usual.get(key, value)]
    if scheduler.get("name") == "none":
        for key in idle:
            yield (
                ["scheduler", key],
                "has no effect, since the scheduler is none; drop it (to drop all: scheduler=none), or set scheduler.name=asha",
            )
    elif scheduler.get("time_attr") == "train_flops":
        grace = scheduler.get("grace_period", usual["grace_period"])
        if isinstance(grace, (int, float)) and grace < MIN_GRACE_FLOPS:
            yield (
                ["scheduler", "grace_period" if "grace_period" in scheduler else "time_attr"],
                f"with time_attr train_flops, scheduler.grace_period must be in FLOPs, but {grace:g} is less than one step; give e.g. the "
                "FLOPs of an epoch: those that --dry-run with scheduler=none prints for a trial, divided by its epochs",
            )
    elif scheduler.get("time_attr") == "step":
        grace = scheduler.get("grace_period")
        if grace is None:
            yield ["scheduler", "time_attr"], "with time_attr step, scheduler.grace_period must be given, in optimizer steps"
        elif is_a(grace, float) and not is_a(grace, int):
            yield ["scheduler", "grace_period"], f"with time_attr step, must be a whole number of optimizer steps, but is {grace:g}"
