"""Several folders as one: with their own panels, or as replicates of one design; no trial counts twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis import paper, paper_tables
from analysis.figures import epochs, heatmap
from analysis.inputs import combine
from analysis.inputs.sweep import read
from jepa_ray import results
from tests.analysis import sweeps
from tests.analysis.sweeps import SEEDS


def grid(folder: Path, seed: int, plus: float) -> Path:
    for k in (0, 1):
        sweeps.add(folder, "jepa", "search", 0.4 + 0.1 * k + plus, seed=seed, objective={"k": k})
    return folder


def test_beside_keeps_arms_of_one_name_apart(tmp_path: Path) -> None:
    for name, accuracy in (("full", 0.5), ("lora", 0.3)):
        for seed in SEEDS:
            sweeps.add(tmp_path / name, "jepa", "confirm", accuracy, seed=seed, lora_r=8 if name == "lora" else None)
    both = combine.beside([read(tmp_path / "full"), read(tmp_path / "lora")])
    plot = epochs.plot(both)
    assert plot.figure is not None
    assert [axis.get_title(loc="left") for axis in plot.figure.axes] == ["full · llama3", "lora · llama3"]
    last = {row[0]: row[-1] for row in plot.table.rows if row[1] == "3"}
    assert last == {"jepa/llama3 (full)": "50.00 ± 0.00", "jepa/llama3 (lora)": "30.00 ± 0.00"}


def test_a_comparison_of_two_sweeps_is_one_table(tmp_path: Path) -> None:
    for task, accuracy in (("nq-open", 0.2), ("hellaswag", 0.6)):
        for seed in SEEDS:
            sweeps.add(tmp_path / task, "baseline", "confirm", accuracy, seed=seed, task=task)
            sweeps.add(tmp_path / task, "jepa", "confirm", accuracy + 0.05, seed=seed, task=task)
    (table,) = paper_tables.comparison(combine.beside([read(tmp_path / "nq-open"), read(tmp_path / "hellaswag")]), "T4", "")
    assert [(row[0], row[3], row[9]) for row in table.rows] == [
        ("nq-open", "jepa/llama3 (nq-open)", "+5.00 ± 0.00"),
        ("hellaswag", "jepa/llama3 (hellaswag)", "+5.00 ± 0.00"),
    ]


def test_trials_of_one_configuration_keep_their_own_curves(tmp_path: Path) -> None:
    for name, accuracy in (("a", 0.5), ("b", 0.3)):
        for seed in SEEDS:
            sweeps.add(tmp_path / name, "jepa", "confirm", accuracy, seed=seed)
    plot = epochs.plot(combine.beside([read(tmp_path / "a"), read(tmp_path / "b")]))
    last = {row[0]: row[2:] for row in plot.table.rows if row[1] == "3"}
    assert last == {"jepa/llama3 (a)": ["3", "50.00 ± 0.00"], "jepa/llama3 (b)": ["3", "30.00 ± 0.00"]}
    assert plot.caption.startswith("6 runs")


def test_a_baseline_of_two_folders_is_in_both_of_their_comparisons(tmp_path: Path) -> None:
    """The baseline's trials are identical; the methods have the same name but are different arms."""
    for name, plus, k in (("a", 0.05, 1), ("b", 0.10, 2)):
        for seed in SEEDS:
            sweeps.add(tmp_path / name, "baseline", "confirm", 0.2, seed=seed, task="nq-open")
            sweeps.add(tmp_path / name, "jepa", "confirm", 0.2 + plus, seed=seed, task="nq-open", objective={"k": k})
    both = combine.beside([read(tmp_path / "a"), read(tmp_path / "b")])
    assert both.trials.groupby("label").size().to_dict() == {f"{m}/llama3 ({f})": 3 for m in ("baseline", "jepa") for f in "ab"}
    assert both.pairs(both.trials) == [(f"baseline/llama3 ({f})", f"jepa/llama3 ({f})") for f in "ab"]
    (table,) = paper_tables.comparison(both, "T4", "")
    assert [(row[3], row[4], row[9]) for row in table.rows] == [
        ("jepa/llama3 (a)", "baseline/llama3 (a)", "+5.00 ± 0.00"),
        ("jepa/llama3 (b)", "baseline/llama3 (b)", "+10.00 ± 0.00"),
    ]


def test_a_comparison_that_only_the_other_folder_declared_is_not_shown(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for seed in SEEDS:
            sweeps.add(tmp_path / name, "baseline", "confirm", 0.2, seed=seed, task="nq-open")
            sweeps.add(tmp_path / name, "jepa", "confirm", 0.3, seed=seed, task="nq-open", lora_r=8 if name == "b" else None)
    results.write_arms(tmp_path / "b", [replace(arm, baseline=None) for arm in results.read_arms(tmp_path / "b")])
    both = combine.beside([read(tmp_path / "a"), read(tmp_path / "b")])
    assert both.pairs(both.trials) == [("baseline/llama3 (a)", "jepa/llama3 (a)")]


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    folders = [tmp_path / "mine" / "lora", tmp_path / "yours" / "lora"]
    for folder, accuracy in zip(folders, (0.3, 0.4), strict=True):
        sweeps.add(folder, "jepa", "confirm", accuracy, lora_r=8 if accuracy > 0.3 else None)
    both = combine.beside([read(folder) for folder in folders])
    assert set(both.trials["label"]) == {f"jepa/llama3 ({folder})" for folder in folders}


def test_pooled_seeds_fill_the_cells_of_one_grid(tmp_path: Path) -> None:
    folders = [grid(tmp_path / f"seed{seed}", seed, plus) for seed, plus in ((1, 0.0), (2, 0.02), (3, 0.04))]
    both = combine.pooled([read(folder) for folder in folders])
    rows = {row[1]: dict(zip(heatmap.plot(both).table.header, row, strict=True)) for row in heatmap.plot(both).table.rows}
    # 40, 42 and 44 %: mean 42, sd 2; the t-interval with two degrees of freedom is 42 +- 4.3027 * 2 / sqrt(3).
    assert rows["0"]["complete"] == "3" and rows["0"]["val accuracy (%, mean ± sd)"] == "42.00 ± 2.00"
    assert rows["0"]["95 % interval"] == "37.03 to 46.97"


def test_a_folder_given_twice_counts_once(tmp_path: Path) -> None:
    sweep = read(grid(tmp_path / "s", 1, 0.0))
    both = combine.pooled([sweep, sweep])
    assert len(both.trials) == len(sweep.trials) and len(both.metrics) == len(sweep.metrics)
    assert both.notes[-1] == "2 trials in more than one folder, counted once."


def test_different_metrics_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [grid(tmp_path / "a", 1, 0.0), grid(tmp_path / "b", 2, 0.0)]
    (folders[1] / "sweep.yaml").write_text("search: {metric: val_prefix, mode: max}\n")
    with pytest.raises(SystemExit) as ended:
        paper.main(["F7", *map(str, folders)])
    told = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2 and "selected by different metrics" in told and "give them one by one" in told
