"""What ran: five lines from the tables and the sweep file, and the question that the page asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis import what_ran
from analysis.inputs.plan import plan
from analysis.inputs.sweep import read
from jepa_ray.results import read_arms, write_arms
from tests.analysis import sweeps

SPACE = """space:
  optim.learning_rate: {float: [0.001, 0.008], log: true}
  objective.k: {int: [0, 2], log: false}
  objective.layout: {choice: [append, unified]}
search: {algorithm: tpe, num_trials: 4}
scheduler: {name: asha}
confirm: {seeds: [82, 23, 37], margin: 0.02, race: [2, 3]}
"""


def test_five_lines(tmp_path: Path) -> None:
    folder = sweeps.full(tmp_path / "full")
    (folder / "sweep.yaml").write_text(SPACE)
    lines = dict(what_ran.five_lines(read(folder), plan(folder)))
    assert list(lines) == ["model", "data", "knobs", "seeds", "cost"]
    assert "full fine-tuning" in lines["model"] and "batch" in lines["model"] and "llama3 (tiny)" in lines["model"]
    assert lines["knobs"].startswith("learning rate 0.001 to 0.008 (log), k 0 to 2, layout in append, unified; tpe, ")
    assert lines["knobs"].endswith("3 to 5 trials an arm, early stopping by ASHA")
    assert lines["seeds"] == "3 fresh seeds an arm (82, 23, 37); margin 2 points; raced, looks after 2, 3"
    # 24 of 27 trials ran three epochs of 1e9 FLOPs, two were cut after one, and one failed after one; two seconds each.
    assert lines["cost"].startswith("27 trials, 75 GFLOPs, 0.9 min of training on cpu")


def test_a_rank_and_several_values_are_said(tmp_path: Path) -> None:
    sweeps.add(tmp_path, "baseline", "confirm", 0.4, seed=82, lora_r=16)
    sweeps.add(tmp_path, "jepa", "confirm", 0.4, seed=82, lora_r=8, objective={"k": 1})
    sweep = read(tmp_path)
    assert "LoRA of rank 8, 16" in dict(what_ran.five_lines(sweep, {}))["model"]
    rows = {(row[0], row[1]): row[2] for row in what_ran.settings(sweep).rows}
    assert rows["lora_r", "baseline"] == "16" and rows["lora_r", "jepa"] == "8" and ("batch_size", "all") in rows
    assert rows["task", "all"] == "nl-rx"


def test_the_question_names_what_is_compared(tmp_path: Path) -> None:
    sweeps.add(tmp_path, "baseline", "confirm", 0.4, seed=82)
    assert what_ran.question(read(tmp_path)) == "How well do the baselines do for llama3 (tiny) on nl-rx?"
    sweeps.add(tmp_path, "jepa", "confirm", 0.4, seed=82, objective={"k": 1})
    sweeps.add(tmp_path, "jepa-zero", "confirm", 0.4, seed=82, objective={"control": "zero"}, kind="control")
    assert what_ran.question(read(tmp_path)) == "Is jepa better than its baseline for llama3 (tiny) on nl-rx?"
    sweeps.add(tmp_path, "linear", "confirm", 0.4, seed=82, objective={"k": 2})
    assert what_ran.question(read(tmp_path)).startswith("Is jepa or linear better than the baseline")
    arms = [replace(arm, against=("jepa/llama3",)) if arm.method == "linear" else arm for arm in read_arms(tmp_path)]
    write_arms(tmp_path, arms)
    assert what_ran.question(read(tmp_path)) == "Which is better for llama3 (tiny) on nl-rx: baseline, jepa or linear?"


def test_versions_that_differ_are_both_named() -> None:
    texts = ['{"torch": "2.13.0", "ray": null}', '{"torch": "2.14.0"}', "not json"]
    assert what_ran.versions(pd.DataFrame({"versions": texts})) == "torch 2.13.0 and 2.14.0"


def test_without_a_sweep_file_there_is_no_range(tmp_path: Path) -> None:
    sweeps.add(tmp_path, "baseline", "search", 0.4)
    assert plan(tmp_path) == {}
    lines = dict(what_ran.five_lines(read(tmp_path), plan(tmp_path)))
    assert lines["knobs"] == "1 trial an arm" and lines["seeds"].startswith("no confirmation")
