"""The console output of a sweep, from the events it receives."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from jepa_ray import plan
from jepa_ray.config import SweepConfig, arms
from jepa_ray.system.heartbeat import Beat
from tests import fake_training as fake


def jobs(sweep: SweepConfig, folder: Path, seeds: tuple[int, ...] = (1,)) -> list:  # type: ignore[type-arg]
    from jepa_ray.orchestration.jobs import Job

    out = []
    for seed in seeds:
        for arm in arms(sweep):
            config = plan.trial_config(sweep, arm, {}).model_copy(update={"seed": seed})
            identity = f"{arm.method}{seed}"
            out.append(Job(identity, identity, arm.name, "search" if seed == 1 else "confirm", folder, config))
    return out


def board(sweep: SweepConfig, terminal: bool, width: int = 140):  # type: ignore[no-untyped-def]
    from jepa_ray.orchestration.console import Board

    out = io.StringIO()
    return Board(sweep, Console(file=out, force_terminal=terminal, width=width, highlight=False, color_system=None)), out


def plain(out: io.StringIO) -> list[str]:
    """Lines of terminal output without control sequences; overwritten text counts as a line."""
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n").splitlines() if line]


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


def test_the_data_report_has_the_labels_of_the_plan(tmp_path: Path) -> None:
    """What is said of a task comes once, under its name; what is said of a family on it, under both names."""
    shown, out = board(fake.make_sweep(tmp_path), terminal=False)
    splits = dict.fromkeys(("train", "val", "test"), 0)
    counts = {"overlap_text": 0, "overlap_text_share": 0.0, "overlap_target": 0, "overlap_target_share": 0.0}
    table = {"dropped": 0, "special": 0, "lm": {"p50": 7.0, "p95": 9.0, "max": 9}}
    report = {"sizes": {**splits, "test": 5}, "duplicates": splits, **counts, "fewer": {"test": (512, 5, 5)}, "tokens": {"train": table}}
    for family in ("auto", "llama3"):
        shown.prepared(family, "text", report)
    labels = [line.partition(": ")[0] for line in out.getvalue().splitlines()]
    assert labels == ["text", "text", "text", "auto text", "llama3 text"]
    assert out.getvalue().count("data.num_test is 512, the data have 5 left: 5 are used") == 1


def test_the_first_finished_trial_corrects_the_plan_once(tmp_path: Path) -> None:
    from jepa_ray.orchestration.planning import Planned
    from jepa_ray.plan.hardware import CARDS
    from tests.plan.test_requirements import FLOPS, make_estimate, make_sweep

    sweep = fake.make_sweep(tmp_path)
    shown, out = board(sweep, terminal=False)
    base, jepa = jobs(sweep, tmp_path)
    shown.planned = Planned(make_sweep(), {"baseline/llama3": make_estimate()}, [], CARDS["h100"])
    base = dataclasses.replace(base, arm="baseline/llama3")
    row = {"state": "COMPLETE", "val_accuracy": 0.5, "train_flops": FLOPS, "train_seconds": 100.0, "val_seconds": 20.0}
    shown.stage("search", 3, 0, 1)
    for job, outcome in ((jepa, {"state": "FAILED", "error": "x", "val_accuracy": None}), (base, row), (base, row)):
        shown.started(job)
        shown.finished(job, outcome)
    corrected = [line for line in out.getvalue().splitlines() if "The whole sweep takes about" in line]
    assert len(corrected) == 1 and f"MFU of {FLOPS / 100 / 989e12:.2f} (measured in the first trial)" in corrected[0]


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


def test_a_terminal_prints_finished_trials_and_alarms_above_the_table(tmp_path: Path) -> None:
    shown, out = board(fake.make_sweep(tmp_path), terminal=True)
    base, jepa = jobs(shown.sweep, tmp_path)
    with shown.shown():
        shown.stage("search", 2, 0, 2)
        shown.started(jepa)
        shown.finished(base, {"state": "COMPLETE", "error": None, "val_accuracy": 0.25})
        shown.finished(jepa, {"state": "COMPLETE", "error": None, "val_accuracy": 0.5, "alarms": "collapse"})
    lines = plain(out)
    assert "[1/2] base/llama3 lr 0.01: COMPLETE val_accuracy 0.2500 (best 0.2500)" in lines
    assert any(line.startswith("[2/2] jepa/llama3") and ", ALARM collapse" in line for line in lines)


def test_a_running_trial_shows_its_heartbeat(tmp_path: Path) -> None:
    shown, _ = board(fake.make_sweep(tmp_path), terminal=True)
    base, jepa = jobs(shown.sweep, tmp_path)
    beats = {jepa.trial_id: Beat("train", 120, 600, 3456.0, 1.25, 95.0), "long gone": Beat("test")}
    shown.watch(lambda: beats)
    shown.stage("search", 2, 0, 2)
    shown.started(jepa)
    header, row, caption = rendered(shown.table()).splitlines()
    assert all(name in header for name in ("phase", "step", "tokens/s", "loss", "ETA"))
    assert row.split()[-8:] == ["train", "120/600", "3,456", "1.250", "1", "min", "35", "s"]
    # One trial waits and this one has just started: 95 s each, two at a time.
    assert caption.rstrip().endswith("search: 0 of 2 done, about 1 min 35 s left")
    shown.started(base)
    silent = rendered(shown.table()).splitlines()[2].split()
    assert silent[0] == "base/llama3" and silent[-5:] == ["start", "-", "-", "-", "-"]


def test_before_the_first_stage_the_preparation_is_shown(tmp_path: Path) -> None:
    shown, _ = board(fake.make_sweep(tmp_path), terminal=True)
    assert "Preparing data and models" in rendered(shown.table())
    shown.watch(lambda: {"llama3 nl-rx": Beat("train the tiny base", 120, 600, 9000.0, 2.0, 20.0), "gemma2 nl-rx": Beat("read the data")})
    lines = [line.rstrip() for line in rendered(shown.table()).splitlines()]
    assert lines[0].endswith("Preparing data and models")
    assert lines[1:] == ["  gemma2 nl-rx: read the data", "  llama3 nl-rx: train the tiny base, step 120 of 600, 20 s left"]
    shown.stage("search", 2, 0, 2)
    assert "Starting trials" in rendered(shown.table()) and "gemma2" not in rendered(shown.table())


def test_sentences_wrap_at_words_on_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jepa_ray.orchestration import console

    for name, value in (("COLUMNS", "80"), ("FORCE_COLOR", "1"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    shown = console.Board(fake.make_sweep(tmp_path))
    shown.console.file = out = io.StringIO()
    sentence = "llama3: " + "an incomprehensible sentence " * 9
    shown.say(sentence.strip())
    lines = plain(out)
    assert len(lines) > 3 and max(map(len, lines)) <= 80
    assert " ".join(lines).split() == sentence.split(), "a word was broken"


@pytest.mark.parametrize("width", [80, 160])
def test_the_live_table_fits_the_terminal(width: int, tmp_path: Path) -> None:
    shown, _ = board(fake.make_sweep(tmp_path), terminal=True, width=width)
    jepa = jobs(shown.sweep, tmp_path)[1]
    shown.watch(lambda: {jepa.trial_id: Beat("validate", 1200, 2000, 123_456.0, 1.25, 4000.0)})
    shown.stage("search", 2, 0, 2)
    shown.started(jepa)
    out = io.StringIO()
    Console(file=out, width=width).print(shown.table())
    assert max(map(len, out.getvalue().splitlines())) <= width
    row = next(line for line in out.getvalue().splitlines() if line.startswith("jepa/llama3"))
    assert "validate" in row and "1200/2000" in row and "123,456" in row and ("0.01" in row) == (width == 160)


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
    from jepa_ray.orchestration.console import _settings

    shown = []
    for settings in ({"lambda": 0.5}, {"lambda": {"grad_ratio": 0.3}}, {"lambda_effective": 1.0, "loss_dropout": 0.5}):
        objective = ObjectiveConfig.model_validate(settings)
        shown.append(_settings(TrialConfig.model_validate({"model": {"family": "llama3"}, "objective": objective}))[0])
    assert shown == ["0.5", "at ratio 0.3", "2"]
