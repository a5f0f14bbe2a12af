"""The curve of expected bests: three trials by hand, and a sentence for trials that are left out."""

from __future__ import annotations

from pathlib import Path

from analysis.figures import best_of_n
from analysis.inputs.sweep import read
from tests.analysis import sweeps


def rows(folder: Path) -> dict[tuple[str, str], list[str]]:
    return {(row[0], row[2]): row for row in best_of_n.plot(read(folder)).table.rows}


def test_three_trials_by_hand(tmp_path: Path) -> None:
    """30, 40, 50 %: one of them is 40 on average; of the three pairs the best is 40, 50, 50; the best of all is 50. 2e9 FLOPs each."""
    for k, accuracy in ((0, 0.3), (1, 0.5), (2, 0.4)):
        sweeps.add(tmp_path, "jepa", "search", accuracy, objective={"k": k}, epochs=2)
    found = rows(tmp_path)
    assert [found["jepa/llama3", n][4] for n in "123"] == ["40.00", f"{140 / 3:.2f}", "50.00"]
    plot = best_of_n.plot(read(tmp_path))
    assert plot.table.header[3] == "GFLOPs" and [found["jepa/llama3", n][3] for n in "123"] == ["2", "4", "6"]
    (tmp_path / "sweep.yaml").write_text("search: {metric: val_accuracy, mode: min}\n")
    assert [rows(tmp_path)["jepa/llama3", n][4] for n in "123"] == ["40.00", f"{100 / 3:.2f}", "30.00"]


def test_what_is_not_in_the_curve_is_said(tmp_path: Path) -> None:
    sweeps.add(tmp_path, "jepa", "search", 0.3, objective={"k": 0})
    sweeps.add(tmp_path, "jepa", "search", 0.4, objective={"k": 1}, state="PRUNED")
    sweeps.add(tmp_path, "jepa", "search", 0.9, objective={"k": 2}, state="FAILED")
    sweeps.add(tmp_path, "jepa", "search", 0.9, objective={"k": 3}, val_accuracy=float("nan"))
    sweeps.add(tmp_path, "jepa", "confirm", 0.9, seed=82)
    sweeps.add(tmp_path, "jepa", "matched", 0.9, seed=82, max_train_flops=1e9)
    sweeps.add(tmp_path, "baseline", "search", 0.3)
    sweeps.add(tmp_path, "other", "search", 0.3, objective={"k": 0})
    sweeps.add(tmp_path, "other", "search", 0.3, objective={"k": 1})
    plot = best_of_n.plot(read(tmp_path))
    assert {row[0] for row in plot.table.rows} == {"jepa/llama3"} and {row[1] for row in plot.table.rows} == {"2"}
    assert "jepa/llama3: 2 of 4 search trials have no score or no FLOPs and are not in its curve." in plot.notes
    assert any("baseline/llama3: no curve. 1 trial cannot make" in note for note in plot.notes)
    assert any("other/llama3: no curve. All 2 trials score 0.3" in note for note in plot.notes)
