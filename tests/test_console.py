"""What a sweep prints, from what it is told."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from jepa_ray import plan
from jepa_ray.config import SweepConfig, arms
from tests import fake_training as fake


def jobs(sweep: SweepConfig, folder: Path, seeds: tuple[int, ...] = (1,)) -> list:  # type: ignore[type-arg]
    from jepa_ray.jobs import Job

    out = []
    for seed in seeds:
        for arm in arms(sweep):
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


def test_settings_of_every_form_of_lambda() -> None:
    from jepa_ray.config import ObjectiveConfig, TrialConfig
    from jepa_ray.console import _settings

    shown = []
    for said in ({"lambda": 0.5}, {"lambda": {"grad_ratio": 0.3}}, {"lambda_effective": 1.0, "loss_dropout": 0.5}):
        objective = ObjectiveConfig.model_validate(said)
        shown.append(_settings(TrialConfig.model_validate({"model": {"family": "llama3"}, "objective": objective}))[0])
    assert shown == ["0.5", "at ratio 0.3", "2"]
