"""What a sweep prints, from what it is told."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from jepa_ray import plan, results
from jepa_ray.config import SweepConfig
from jepa_ray.results import TrialResult
from tests import fake_training as fake


def jobs(sweep: SweepConfig, folder: Path, seeds: tuple[int, ...] = (1,)) -> list:  # type: ignore[type-arg]
    from jepa_ray.jobs import Job

    out = []
    for seed in seeds:
        for arm in plan.arms(sweep):
            config = plan.trial_config(sweep, arm, {}).model_copy(update={"seed": seed})
            identity = f"{arm.method}{seed}"
            out.append(Job(identity, identity, arm.name, "search" if seed == 1 else "confirm", folder, config))
    return out


def board(sweep: SweepConfig, terminal: bool):  # type: ignore[no-untyped-def]
    from jepa_ray.console import Board

    out = io.StringIO()
    return Board(sweep, Console(file=out, force_terminal=terminal, width=140, highlight=False, color_system=None)), out


def rendered(table: object) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(table)
    return out.getvalue()


def test_without_a_terminal_one_line_per_finished_trial(tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path)
    shown, out = board(sweep, terminal=False)
    base, jepa = jobs(sweep, tmp_path)
    with shown.shown():
        shown.stage("search", 2, 0, 2)
        for job in (base, jepa):
            shown.started(job)
            shown.progress(job, {"epoch": 1, "val_accuracy": 0.1})
        shown.finished(base, {"state": "COMPLETE", "error": None, "val_accuracy": 0.25})
        shown.finished(jepa, {"state": "FAILED", "error": "RuntimeError: unlucky", "val_accuracy": None})
    lines = out.getvalue().splitlines()
    assert lines[0] == "Search: 2 trials, 2 at a time"
    assert lines[1].startswith("[1/2] base/llama3 lr 0.01: COMPLETE val_accuracy 0.2500 (best 0.2500), ")
    assert lines[2].startswith("[2/2] jepa/llama3 lambda 1 k 1 lr 0.01 loss dropout 0: FAILED: RuntimeError: unlucky, ")
    assert len(lines) == 3


def test_live_table_shows_running_trials_best_and_what_is_left(tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path)
    shown, _ = board(sweep, terminal=True)
    base, jepa = jobs(sweep, tmp_path)
    shown.stage("search", 8, 3, 2)
    shown.started(jepa)
    shown.progress(jepa, {"epoch": 2, "val_accuracy": 0.125})
    shown.started(base)
    shown.finished(base, {"state": "COMPLETE", "error": None, "val_accuracy": 0.5})
    text = rendered(shown.table())
    header, row = text.splitlines()[:2]
    assert header.split("  ")[0] == "arm" and all(
        name in header for name in ("lambda", "learning rate", "loss dropout", "epoch", "best so far", "ETA")
    )
    assert row.split()[:7] == ["jepa/llama3", "1", "1", "0.01", "0", "2/3", "0.1250"]
    assert "search: 4 of 8 done" in text and "left" in text


@pytest.mark.parametrize("mode", ["max", "min"])
def test_best_follows_the_mode(mode: str, tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path, search={"num_trials": 4, "mode": mode})
    shown, out = board(sweep, terminal=False)
    job = jobs(sweep, tmp_path)[0]
    shown.stage("search", 3, 0, 1)
    for value in (0.2, 0.4, 0.3):
        shown.finished(job, {"state": "COMPLETE", "error": None, "val_accuracy": value})
    assert out.getvalue().count("(best 0.4000)" if mode == "max" else "(best 0.2000)") == (2 if mode == "max" else 3)


def test_confirmation_is_paired_by_seed(tmp_path: Path) -> None:
    from jepa_ray.console import report, side_by_side

    sweep = fake.make_sweep(tmp_path, confirm={"seeds": [5, 6, 7]})
    scores = {"base5": 0.1, "jepa5": 0.4, "base6": 0.2, "jepa6": 0.3, "base7": 0.3, "jepa7": None}
    for job in jobs(sweep, tmp_path, (5, 6, 7)):
        score = scores[job.trial_id]
        state = "COMPLETE" if score is not None else "FAILED"
        error = None if score is not None else "its process died"
        result = TrialResult(state, error, {"val_accuracy": 0.9, "test_accuracy": score, "finished_at": results.now()})  # type: ignore[arg-type]
        results.write_trial(tmp_path, job.trial_id, job.config, job.arm, "confirm", result)
    text = rendered(side_by_side(sweep, results.read_trials(tmp_path)))
    base, jepa = (line.split() for line in text.splitlines() if "/llama3" in line)
    # Seeds 5 and 6 pair up: differences 0.3 and 0.1, so a mean of 0.2 and a standard deviation of 0.1 * sqrt(2).
    assert base[:6] == ["base/llama3", "3", "0.2000", "0.1000", "-", "-"]
    assert jepa[:6] == ["jepa/llama3", "2", "0.3500", "0.0707", "+0.2000", "0.1414"]
    out = io.StringIO()
    report(
        sweep,
        tmp_path,
        Console(file=out, width=160),
        [{"trial_id": "jepa7", "arm": "jepa/llama3", "stage": "confirm", "error": "its process died"}],
    )
    assert "FAILED jepa7 (jepa/llama3, confirm): its process died" in out.getvalue()


def test_report_of_nothing(tmp_path: Path) -> None:
    from jepa_ray.console import report

    out = io.StringIO()
    report(fake.make_sweep(tmp_path, confirm={"seeds": [5]}), tmp_path, Console(file=out, width=160))
    assert out.getvalue().count("none complete") == 2
    assert isinstance(results.read_trials(tmp_path), pd.DataFrame)


def test_settings_of_every_form_of_lambda() -> None:
    from jepa_ray.config import ObjectiveConfig, TrialConfig
    from jepa_ray.console import _settings

    shown = []
    for said in ({"lambda": 0.5}, {"lambda": {"grad_ratio": 0.3}}, {"lambda_effective": 1.0, "loss_dropout": 0.5}):
        objective = ObjectiveConfig.model_validate(said)
        shown.append(_settings(TrialConfig.model_validate({"model": {"family": "llama3"}, "objective": objective}))[0])
    assert shown == ["0.5", "at ratio 0.3", "2"]
