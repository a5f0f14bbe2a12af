"""Sensitivity as an outcome: shares of searched settings near the best, and what one at random costs."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from analysis.inputs.sweep import read
from analysis.sensitivity import main, sensitivity, table
from analysis.stats.resampling import expected_best
from tests.analysis.sweeps import add


def searched(folder: Path) -> Path:
    for place, (tuned, robust) in enumerate(((0.1, 0.5), (0.2, 0.495), (0.52, 0.5), (0.15, 0.508))):
        rate = 1e-3 * (place + 1)
        add(folder, "baseline", "search", robust, learning_rate=rate)
        add(folder, "jepa", "search", tuned, learning_rate=rate)
    add(folder, "jepa", "search", 0.9, learning_rate=1.0, state="FAILED")
    add(folder, "alone", "search", 0.5)
    (folder / "sweep.yaml").write_text("search: {metric: val_accuracy, mode: max}\nconfirm: {seeds: [82], margin: 0.01}\n")
    return folder


def test_the_expected_best_is_the_mean_over_all_draws() -> None:
    scores = [0.3, 0.9, 0.1, 0.4, 0.4]
    by_hand = [np.mean([max(draw) for draw in itertools.combinations(scores, n)]) for n in range(1, 6)]
    assert expected_best(scores) == pytest.approx(by_hand)


def test_a_method_that_needs_tuning_differs_from_one_that_does_not(tmp_path: Path) -> None:
    found, notes = sensitivity(read(searched(tmp_path), curves=()))
    baseline, jepa = ({one.arm: one for one in found}[f"{name}/llama3"] for name in ("baseline", "jepa"))
    assert (baseline.near, baseline.trials) == (3, 4) and (jepa.near, jepa.trials) == (1, 4), (
        "0.495 is 1.3 points below; FAILED does not count"
    )
    assert jepa.best == 0.52 and jepa.at_random == pytest.approx(np.mean([0.1, 0.2, 0.52, 0.15]))
    assert jepa.best_of_half == pytest.approx(np.mean([max(pair) for pair in itertools.combinations([0.1, 0.2, 0.52, 0.15], 2)]))
    assert jepa.at_random < jepa.best_of_half < jepa.best and jepa.area < baseline.area
    assert notes == ["alone/llama3: 1 of 1 search trials have a val_accuracy; at least 2 are needed."]


def test_a_metric_that_is_minimised(tmp_path: Path) -> None:
    searched(tmp_path)
    (tmp_path / "sweep.yaml").write_text("search: {metric: val_accuracy, mode: min}\nconfirm: {seeds: [82], margin: 0.06}\n")
    jepa = next(one for one in sensitivity(read(tmp_path, curves=()))[0] if one.arm == "jepa/llama3")
    assert (jepa.best, jepa.near) == (0.1, 2) and jepa.best < jepa.best_of_half < jepa.at_random


def test_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searched(tmp_path)
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "within 1 point of the best" in shown and "1 of 4" in shown and "- alone/llama3: 1 of 1" in shown
    assert main([str(tmp_path), "--json"]) == 0
    assert {one["arm"] for one in json.loads(capsys.readouterr().out)[str(tmp_path)]} == {"baseline/llama3", "jepa/llama3"}
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nothing")])
    assert table(read(tmp_path, curves=())).header[1] == "within 1 point of the best"
