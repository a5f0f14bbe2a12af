"""Seconds and memory of the report of a large sweep: 500 trials with 2,000 judged answers each.

    python -m benchmarks.report [--json] [--trials N] [--answers N]

The tables' own writer writes the sweep, with answers as long as NL-RX's: two families, a baseline and three methods, ten confirmation
seeds, runs at equal FLOPs; all other trials are search trials. It measures `python -m analysis.report` as a user runs it, page and
Markdown, including its start. Limits: 60 seconds, 2 GB and a page of 3 MB at the default size.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import finish
from jepa_ray import results
from jepa_ray.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, OptimConfig, TrialConfig, config_id
from jepa_ray.results import Arm, Stage, TrialResult

FAMILIES = ("llama3", "gemma2")
METHODS = ("baseline", "jepa", "linear", "tube")
SEEDS = tuple(range(1, 11))
EPOCHS = 4
MATCHED = tuple((family, method, seed) for family in FAMILIES for method in METHODS[1:] for seed in SEEDS)
SECONDS, BYTES, PAGE = 60.0, 2e9, 3e6


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--trials", type=int, default=500, help="trials in all")
    parser.add_argument("--answers", type=int, default=2000, help="judged answers of each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "large"
        write(folder, options.trials, options.answers)
        size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "analysis.report", str(folder)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        page = (folder / "report" / "index.html").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    figures = {"seconds": seconds, "memory (bytes)": peak, "page (bytes)": page, "tables (bytes)": size}
    limits = {"seconds": ("<=", SECONDS), "memory (bytes)": ("<=", BYTES), "page (bytes)": ("<=", PAGE)}
    usual = (options.trials, options.answers) == (500, 2000)
    finish("report", figures, limits if usual else {}, options.json, {"trials": options.trials, "answers": options.answers})


def write(folder: Path, trials: int, answers: int) -> None:
    """Write a sweep of `trials` trials with `answers` answers each."""
    folder.mkdir(parents=True)
    plan = f"methods: {{{', '.join(METHODS)}}}\nfamilies: [{', '.join(FAMILIES)}]\ntask: nl-rx\n"
    (folder / "sweep.yaml").write_text(plan + f"search: {{metric: val_accuracy, mode: max}}\nconfirm: {{seeds: {list(SEEDS)}}}\n")
    confirmed = [(family, method, seed) for family in FAMILIES for method in METHODS for seed in SEEDS]
    searched = trials - len(confirmed) - len(MATCHED)
    if searched < len(FAMILIES) * len(METHODS):
        raise SystemExit(f"--trials {trials} is too few; pass at least {len(confirmed) + len(MATCHED) + len(FAMILIES) * len(METHODS)}")
    random = np.random.default_rng(0)
    hardness = (random.permutation(answers) + 0.5) / answers
    for number in range(searched):
        family, method = FAMILIES[number % 2], METHODS[number // 2 % len(METHODS)]
        add(folder, family, method, "search", 1, 1e-4 * 30 ** random.random(), random.uniform(0.2, 0.5), hardness)
    for family, method, seed in confirmed:
        add(folder, family, method, "confirm", seed, 1e-3, random.normal(0.5, 0.01), hardness)
    for family, method, seed in MATCHED:
        add(folder, family, method, "matched", seed, 1e-3, random.normal(0.45, 0.01), hardness, budget=4e9)
    results.write_arms(folder, [_arm(family, method) for family in FAMILIES for method in METHODS])


def _arm(family: str, method: str) -> Arm:
    """Every method is compared with the baseline of its family, so that the page has verdicts and answers."""
    claimed = method != "baseline"
    return Arm(method, family, "nl-rx", f"{method}/{family}", "claim" if claimed else "baseline", f"baseline/{family}" if claimed else None)


def add(
    folder: Path, family: str, method: str, stage: Stage, seed: int, rate: float, score: float, hardness: Any, budget: float | None = None
) -> None:
    """Write one trial; its correct answers are those whose hardness is below `score`."""
    config = TrialConfig(
        model=ModelConfig(family=family, model="tiny"),
        data=DataConfig(num_val=len(hardness)),
        objective=None if method == "baseline" else ObjectiveConfig(predictor="linear" if method == "linear" else "tokens"),
        optim=OptimConfig(learning_rate=rate, num_epochs=EPOCHS, max_train_flops=budget),
        evaluation=EvaluationConfig(test=stage != "search"),
        seed=seed,
    )
    score = float((hardness < score).mean())
    split, flops = ("val" if stage == "search" else "test"), (budget or (4e9 if method == "baseline" else 7e9))
    answers = [_answer(split, place, hard < score) for place, hard in enumerate(hardness)]
    shares = {f"{each}_{name}": score for each in {"val", split} for name in ("accuracy", "exact", "prefix", "contains", "stopped")}
    summary: dict[str, Any] = {"train_flops": flops, "train_seconds": 60.0, "wall_seconds": 90.0, "steps": 40, "dataset_sha": "d", **shares}
    summary |= {"epochs_done": EPOCHS, "started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-01T00:01:30+00:00"}
    points = [
        {"step": 10 * epoch, "epoch": float(epoch), "split": name.partition("_")[0], "name": name, "value": value}
        | {"train_flops": flops * epoch / EPOCHS, "train_seconds": 15.0 * epoch}
        for epoch in range(1, EPOCHS + 1)
        for name, value in {"val_accuracy": score * epoch / EPOCHS, "train_ce": 1 / epoch, "diag_val_ce": 1 / epoch, **_spectrum()}.items()
    ]
    trial = config_id(config, method)
    results.write_trial(folder, trial, config, f"{method}/{family}", stage, TrialResult("COMPLETE", None, summary, points, answers))


def _spectrum() -> dict[str, float]:
    return {f"diag_sv_{index}": 10.0 / index for index in range(1, 101)}


def _answer(split: str, place: int, right: bool) -> dict[str, Any]:
    reference = f"(([AEIOUaeiou]).*([0-9]).*){{{place},}}|(.*dog.*)(truck){place}"
    flags = dict.fromkeys(("correct", "exact", "prefix_correct", "contains"), right)
    prediction = reference if right else reference.replace("dog", "string")
    return {
        "split": split,
        "example_id": f"nl-rx:{place}",
        "question": f"lines with the string {reference} before a vowel, at least {place} times",
        "prediction": prediction,
        "reference": reference,
        "stopped": True,
        **flags,
    }


if __name__ == "__main__":
    main()
