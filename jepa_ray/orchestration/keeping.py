"""Decides which trained models a sweep keeps (`confirm.keep`), once an arm's confirmation is complete, and deletes the others.

Every confirmed trial writes its model to a waiting folder at its end (`training/keeping.py`), because no seed is known to be the median
before all have been scored. Here the chosen ones are renamed to `models/<arm>/seed-<N>`, and only then the others are deleted. So a kill at
any point leaves whole models, and the next run of the sweep finishes what this one has begun. Nothing is trained again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jepa_ray import results
from jepa_ray.config import Arm, Kind, SweepConfig, TrialConfig, arms, canonical
from jepa_ray.orchestration.jobs import confirmation
from jepa_ray.results import FACTS, JUDGED, KeptModel, kept_models, model_folder, read_model, unreadable_models, waiting_folder
from jepa_ray.system import atomic

Row = Mapping[str, Any]
Ruling = tuple[tuple[str | None, ...], list[str]]
"""The arms that a verdict compares, and its lines."""
SCORES = ("accuracy", "exact", "prefix", "contains", "stopped", "ce")


def check_room(sweep: SweepConfig, folder: Path, declared: Sequence[Arm], model_bytes: Mapping[tuple[str, str], float]) -> None:
    """ValueError, with the numbers and the remedies, if the disk cannot hold the models of all confirmations that are still to run.

    `model_bytes`: of one model, by family and task.
    """
    done = results.read_trials(folder, ["arm", "stage", "state"])
    confirmed = done[(done["stage"] == "confirm") & (done["state"] == "COMPLETE")]["arm"].value_counts()
    sizes = [model_bytes.get((arm.family, arm.task), 0.0) for arm in declared]
    left = [max(0, sweep.confirm.most - int(confirmed.get(arm.name, 0))) for arm in declared]
    needed = sum(size * seeds for size, seeds in zip(sizes, left, strict=True))
    place = folder / "models"
    parent = place if place.is_dir() else folder
    free = shutil.disk_usage(parent).free
    until = " until the median of each arm is known" if sweep.confirm.keep == "best" else ""
    if needed > free:
        raise ValueError(
            f"the models of {sum(left)} confirmed trials ({len(declared)} arms, {max(sizes) / 1e9:.3g} GB each at most) take up to "
            f"{needed / 1e9:.3g} GB{until}, but {folder} has {free / 1e9:.3g} GB free; free some, name another folder with output=..., or "
            "keep no model with confirm.keep=none"
        )
    if needed:
        try:
            with tempfile.TemporaryFile(dir=parent):
                pass
        except OSError as error:
            raise ValueError(
                f"the trained models cannot be written to {place} ({error.strerror}); make it writable, or keep no model with "
                "confirm.keep=none"
            ) from error


def clean(sweep: SweepConfig, folder: Path) -> None:
    """Delete what a killed run has left half-written; and models that wait for a decision, if none is to be kept."""
    atomic.sweep_up(folder / "models")
    if sweep.confirm.keep == "none":
        shutil.rmtree(waiting_folder(folder, ""), ignore_errors=True)


def settle(
    sweep: SweepConfig,
    folder: Path,
    selection: Mapping[str, TrialConfig],
    identify: Callable[[str, TrialConfig], str],
    say: Callable[[str], None],
) -> None:
    """Keep what `confirm.keep` asks for of every arm of `selection`, whose confirmation has ended, and delete its other models."""
    if sweep.confirm.keep == "none" or sweep.base.masked is not None:
        return
    rows, kinds = results.finished(folder), {arm.name: arm.kind for arm in arms(sweep)}
    for arm, best in selection.items():
        configs = {seed: confirmation(best, seed) for seed in sweep.confirm.seeds}
        runs = {seed: (config, rows.get(identify(arm, config), {})) for seed, config in configs.items()}
        ended = {seed: run for seed, run in runs.items() if run[1].get("state") == "COMPLETE"}
        _settle_arm(folder, arm, kinds.get(arm), ended, sweep.confirm.keep, say)
    waiting = waiting_folder(folder, "")
    for path in sorted(waiting.iterdir()) if waiting.is_dir() else ():
        row = rows.get(path.name.partition("-")[0])
        if row is not None and row["arm"] in selection:
            atomic.discard(path)
    if waiting.is_dir() and not any(waiting.iterdir()):
        waiting.rmdir()


def add_verdict(folder: Path, told: Sequence[Ruling]) -> list[str]:
    """Write the verdicts into the cards of the kept models that they are about; return a line for the console if there are models."""
    models = kept_models(folder)
    for model in models:
        results.add_facts(model, verdict=[line for arms, lines in told if model.arm in arms for line in lines])
    named = ", ".join(dict.fromkeys(model.arm for model in models))
    return [f"Models: {folder}/models ({named}); to copy one: python -m jepa_ray.export {folder} --arm ARM --to DIR"] if models else []


def median(scores: Mapping[int, float]) -> int:
    """The seed with the median score: the lower one in the middle of an even number of seeds, the first in order of equal ones."""
    value = sorted(scores.values())[(len(scores) - 1) // 2]
    return next(seed for seed, score in scores.items() if score == value)


def nearest(scores: Mapping[int, float], available: Sequence[int]) -> int:
    """Of the available seeds, the one whose score is nearest to the median; the median itself if it is available."""
    middle = median(scores)
    return min(available, key=lambda seed: (seed != middle, abs(scores[seed] - scores[middle])))


def _settle_arm(
    folder: Path, arm: str, kind: Kind | None, runs: Mapping[int, tuple[TrialConfig, dict[str, Any]]], keep: str, say: Callable[[str], None]
) -> None:
    scores = {seed: float(row[JUDGED]) for seed, (_, row) in runs.items() if row.get(JUDGED) is not None}
    if not scores:
        return
    models = {seed: model for seed in scores if (model := _model_of(folder, arm, seed, str(runs[seed][1]["trial_id"])))}
    lost = [seed for seed in scores if seed not in models]
    middle = median(scores)

    def why_lost(seeds: Sequence[int]) -> str:
        unreadable = [path for path in unreadable_models(folder, arm) if path in {model_folder(folder, arm, seed) for seed in seeds}]
        return f"as {unreadable[0] / FACTS} is missing or damaged" if unreadable else _why_lost(runs, seeds)

    if not models:
        say(f"{arm}: no model can be kept, {why_lost(lost)}.")
        return
    if keep == "all":
        chosen = list(models)
        if lost:
            say(f"{arm}: no model of {_seeds(lost)}, {why_lost(lost)}.")
    else:
        chosen = [nearest(scores, list(models))]
        if chosen != [middle]:
            say(
                f"{arm}: seed {middle} is the median now, but it has no model, {why_lost([middle])}; the model of seed {chosen[0]}, "
                "the nearest that has one, is kept."
            )
    for seed in chosen:
        config, row = runs[seed]
        why = {"why": _why(scores, seed), "median": seed == middle, "kind": kind}
        _keep(folder, arm, models[seed], config, row, why, keep, say)
    if keep == "best":
        for model in kept_models(folder):
            if model.arm == arm and model.seed not in chosen and model.facts.get("kept") == "best":
                atomic.discard(model.folder)


def _model_of(folder: Path, arm: str, seed: int, trial_id: str) -> KeptModel | None:
    """The model of a trial: kept already, or waiting."""
    places = (model_folder(folder, arm, seed), waiting_folder(folder, trial_id))
    models = (read_model(place) for place in places)
    return next((model for model in models if model is not None and model.trial_id == trial_id), None)


def _keep(
    folder: Path, arm: str, model: KeptModel, config: TrialConfig, row: Row, why: dict[str, Any], keep: str, say: Callable[[str], None]
) -> None:
    """Complete the facts of a model, and rename it to its place unless it is there already."""
    place = model_folder(folder, arm, config.seed)
    scores = {f"{split}_{name}": row.get(f"{split}_{name}") for split in ("val", "test") for name in SCORES}
    more = {
        "arm": arm,
        **why,
        "scores": {name: value for name, value in scores.items() if value is not None},
        "dataset_sha": row.get("dataset_sha"),
        "sizes": {name: row.get(f"{name}_examples") for name in ("train", "val", "test")},
        "config": canonical(config),
    }
    kept = model.facts.get("kept") if model.folder == place else None
    model = results.add_facts(model, **more, kept=kept or keep)
    if model.folder != place:
        atomic.move_folder(model.folder, place)
        say(f"{arm}: the model of seed {config.seed} is in {place}. {why['why']}")


def _why(scores: Mapping[int, float], seed: int) -> str:
    """Why the model of this seed is kept, with the rule by which the median is chosen."""
    middle, of = median(scores), f"{len(scores)} seed{'s' if len(scores) > 1 else ''}"
    shown = ", ".join(f"{other}: {score:.4f}" for other, score in scores.items())
    rule = ", the lower of the two in the middle, as their number is even" if len(scores) % 2 == 0 else ""
    if seed == middle:
        return f"Its test accuracy is the median of {of} ({shown}){rule}."
    return f"The median of the test accuracies of {of} is that of seed {middle} ({shown}){rule}."


def _why_lost(runs: Mapping[int, tuple[TrialConfig, Row]], seeds: Sequence[int]) -> str:
    reasons = list(dict.fromkeys(str(runs[seed][1]["model_error"]) for seed in seeds if runs[seed][1].get("model_error")))
    if reasons:
        return f"as it could not be saved ({'; '.join(reasons)})"
    return "as it was not kept when the trial ran, and no trial is run again for its model"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
