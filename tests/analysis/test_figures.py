"""Figures: each draws what its table contains, counts what it shows, keeps the baseline grey, and reports what is missing."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib.colors import to_hex

from analysis.artefacts import ARTEFACTS
from analysis.figures import accuracies, budget, curves, epochs, heatmap, importance, losses, parallel, seeds, stops, style
from analysis.inputs.sweep import Sweep, read, shown_runs
from tests.analysis import sweeps

PLOTS = {artefact.name: artefact.plot for artefact in ARTEFACTS if artefact.plot is not None}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return read(sweeps.full(tmp_path_factory.mktemp("results") / "full"))


@pytest.mark.parametrize("name", [name for name in PLOTS if name != "importance"])
def test_every_figure_draws_what_its_table_holds(sweep: Sweep, name: str) -> None:
    plot = PLOTS[name](sweep)
    assert plot.figure is not None and plot.table.rows and any(letter.isdigit() for letter in plot.caption)
    assert all(len(row) == len(plot.table.header) for row in plot.table.rows)
    text = style.svg(plot)
    ElementTree.fromstring(text)
    ids = {element.get("id") for element in ElementTree.fromstring(text).iter() if element.get("id")}
    assert ids and all(str(name).startswith(plot.name) for name in ids), "two figures on one page must not share ids"
    assert "nan" not in text.lower().replace("nanum", ""), "a coordinate is not a number"
    assert style.png(plot).startswith(b"\x89PNG")


def test_the_baseline_is_grey_and_methods_differ(sweep: Sweep) -> None:
    looks = style.looks(sweep)
    red, green, blue = (int(looks["baseline"].colour[at : at + 2], 16) for at in (1, 3, 5))
    assert max(red, green, blue) - min(red, green, blue) < 24
    assert looks["jepa"].colour == style.METHODS[0]
    many = pd.DataFrame({"method": [f"m{n:02}" for n in range(12)], "is_baseline": False})
    found = style.looks(Sweep(sweep.folder, many, sweep.metrics))
    assert len({(look.colour, look.dash, look.marker) for look in found.values()}) == 12
    assert set(style.GREYS).isdisjoint(look.colour for look in found.values())
    baseline = looks["baseline"]
    assert all((look.dash, look.marker) != (baseline.dash, baseline.marker) for look in found.values()), "on paper in grey"
    assert looks["jepa"].dash != baseline.dash and looks["jepa"].marker != baseline.marker


def test_learning_curves_hold_every_trial(sweep: Sweep) -> None:
    plot = curves.plot(sweep)
    assert plot.figure is not None
    drawn = sum(len(line.get_xdata()) > 1 or line.get_linestyle() != "None" for axis in plot.figure.axes for line in axis.lines)
    assert drawn == len(sweep.trials) == 27
    assert plot.caption.startswith("27 of 27 trials")
    counts = {(arm, epoch): int(number) for arm, epoch, number, *_ in plot.table.rows}
    # 3 complete + 1 pruned + 1 failed search trials and 3 seeds reach epoch 1, the last two of them no further.
    assert counts["jepa/llama3", "1"] == 8 and counts["jepa/llama3", "2"] == 6


def test_accuracy_by_epoch_is_the_mean_over_seeds(sweep: Sweep) -> None:
    plot = epochs.plot(sweep)
    last = {arm: cell for arm, epoch, _, cell in plot.table.rows if epoch == "3"}
    # (0.50 + 0.60 + 0.55) / 3 = 0.55 with sample sd 0.05
    assert last["jepa/llama3"] == "55.00 ± 5.00"
    assert plot.figure is not None
    axis = plot.figure.axes[1]
    assert axis.get_title() == "" and axis.get_title(loc="left") == "llama3"
    grey = next(line for line in axis.lines if to_hex(line.get_color()) == style.GREYS[0])
    assert list(grey.get_ydata())[-1] == pytest.approx(49.0)  # (45 + 50 + 52) / 3


def test_a_mean_is_over_the_same_seeds_at_every_epoch(tmp_path: Path) -> None:
    """One seed runs one epoch longer, with a far better score: the mean curve must not bend because of that."""
    folder = tmp_path / "s"
    for seed, accuracy, epochs_run in ((82, 0.3, 2), (23, 0.3, 2), (37, 0.9, 3)):
        sweeps.add(folder, "jepa", "confirm", accuracy, seed=seed, epochs=epochs_run)
        sweeps.add(folder, "baseline", "confirm", 0.3, seed=seed)
    sweep = read(folder)
    for name in ("F3-losses", "diagnostics", "F1", "F5"):
        plot = PLOTS[name](sweep)
        at = plot.table.header.index("epoch")
        assert max(float(row[at]) for row in plot.table.rows if row[0] == "jepa/llama3") == 2, name
        assert max(float(row[at]) for row in plot.table.rows if row[0] == "baseline/llama3") == 3, name
        assert "jepa/llama3: epoch 3 left out of the mean, as only 1 of 3 runs reached it." in plot.notes, name
        assert plot.figure is not None
        jepa = style.looks(sweep)["jepa"]
        drawn = [line for axis in plot.figure.axes for line in axis.lines if to_hex(line.get_color()) == jepa.colour]
        assert drawn and max(len(line.get_xdata()) for line in drawn) <= 3, name  # epochs 0, 1, 2


def test_a_run_without_a_curve_is_said_in_the_caption(tmp_path: Path) -> None:
    """A run's metrics are lost: the mean is over the other two seeds, and the caption names them."""
    folder = tmp_path / "s"
    for seed in (82, 23, 37):
        lost = sweeps.add(folder, "jepa", "confirm", 0.3, seed=seed)
        sweeps.add(folder, "baseline", "confirm", 0.3, seed=seed)
    whole = read(folder)
    (folder / "metrics" / f"{lost}.parquet").unlink()
    sweep = read(folder)
    for name in ("F3", "F3-losses", "diagnostics", "F1", "F5"):
        caption = PLOTS[name](sweep).caption
        assert "mean over an arm's seeds (jepa/llama3: seeds 23, 82 of 3 runs, as the others have no curve)" in caption, name
        assert "5 runs" in caption and "baseline" not in caption
        assert "(jepa" not in PLOTS[name](whole).caption


def test_paired_dots_join_the_same_seed(sweep: Sweep) -> None:
    plot = seeds.plot(sweep)
    assert plot.figure is not None
    pairs = {tuple(round(float(y), 6) for y in line.get_ydata()) for line in plot.figure.axes[0].lines if line.get_linestyle() == "-"}
    assert pairs == {(45.0, 50.0), (50.0, 60.0), (52.0, 55.0)}
    assert "12 runs on 3 seeds, test accuracy" in plot.caption


def test_a_cell_of_the_heat_map_says_its_count(sweep: Sweep) -> None:
    plot = heatmap.plot(sweep)
    row = next(row for row in plot.table.rows if row[:3] == ["jepa/llama3", "1", "1"])
    assert row[3:] == ["1", "0", "50.00", "-", "50.00"], "one trial with an unknown number of answers: no interval"
    cut = next(row for row in plot.table.rows if row[:3] == ["jepa/llama3", "4", "1"])
    assert cut[3:6] == ["0", "1", "-"], "a pruned trial is counted and not averaged"
    assert "6 COMPLETE search trials of 9" in plot.caption


def test_cells_of_the_heat_map_are_as_far_apart_as_their_values() -> None:
    places = heatmap.on_log_scale([0.0, 0.5, 1.0, 8.0])
    assert places == [-2.0, -1.0, 0.0, 3.0]  # 0 has no logarithm: one (smallest) step before the first
    assert heatmap.edges(places) == [-2.5, -1.5, -0.5, 1.5, 4.5]
    assert heatmap.edges([2.0]) == [1.5, 2.5] and heatmap.on_log_scale([0.0]) == [-1.0]


def test_the_heat_map_has_a_scale_and_one_colour_on_any_page(sweep: Sweep) -> None:
    plot = heatmap.plot(sweep)
    assert plot.figure is not None
    assert any(axis.get_ylabel() == "val accuracy (%)" for axis in plot.figure.axes), "no colour bar"
    text = style.svg(plot)
    assert "#e8f1f8" not in text and "var(--c0072b2)" in text, "a fixed faint colour would be the brightest on a dark page"


def test_many_learning_curves_are_a_median_and_its_spread(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    for number in range(curves.MOST_LINES + 1):
        sweeps.add(folder, "jepa", "search", 0.3 + number / 100, learning_rate=1e-3 * (1 + number), diagnostics=False)
    plot = curves.plot(read(folder))
    assert plot.figure is not None and len(plot.figure.axes[0].lines) == 2 and len(plot.figure.axes[0].collections) == 1
    median, best = plot.figure.axes[0].lines
    assert list(median.get_ydata())[-1] == pytest.approx(45.0) and list(best.get_ydata())[-1] == pytest.approx(60.0)
    assert "For an arm with more than 30" in plot.caption


def test_intervals_of_a_cell() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), Table I: of 81 in 263, Wilson's score interval without continuity correction.
    found = heatmap.interval(pd.Series([81 / 263]), pd.Series([263.0]))
    assert found == pytest.approx((0.2553, 0.3662), abs=5e-5)
    # Two trials: t with one degree of freedom, 12.706; sd sqrt(2) / 100, so sd / sqrt(2) is 0.01.
    assert heatmap.interval(pd.Series([0.50, 0.52]), pd.Series([9.0, 9.0])) == pytest.approx((0.51 - 0.12706, 0.51 + 0.12706), abs=1e-5)
    assert heatmap.interval(pd.Series([0.5]), pd.Series([float("nan")])) is None


def test_every_arm_has_its_dot_and_the_papers_beside_it(sweep: Sweep) -> None:
    plot = accuracies.plot(sweep)
    found = {row[0]: row[-2:] for row in plot.table.rows}
    assert found["jepa/gemma2"] == ["55.00 ± 5.00", "43.12 ± 2.61"] and found["baseline/llama3"][1] == "57.29 ± 5.32"
    assert plot.figure is not None
    hollow = {float(line.get_xdata()[0]) for line in plot.figure.axes[0].lines if line.get_markerfacecolor() == "none"}
    assert hollow == {57.29, 71.46, 33.65, 43.12}


def test_lambdas_of_a_sampler_are_binned_and_those_of_a_grid_are_not() -> None:
    grid = pd.Series([0.0, 0.5, 1.0, 4.0, 1024.0])
    assert heatmap.binned(grid).tolist() == grid.tolist()
    assert heatmap.binned(pd.Series([0.0, 1.234567, 2.7, 3.0, 0.3])).tolist() == [0.0, 1.0, 2.0, 4.0, 0.25]


def test_stops_say_why(sweep: Sweep) -> None:
    row = next(row for row in stops.plot(sweep).table.rows if row[0] == "jepa/llama3")
    assert row == ["jepa/llama3", "8", "6", "1", "1", "1: 1", "RuntimeError: out of memory (1)", "contraction (1)"]


def test_budget_adds_up(sweep: Sweep) -> None:
    plot = budget.plot(sweep)
    assert sum(int(row[2]) for row in plot.table.rows) == 27
    total = sweep.trials["train_flops"].sum()
    assert f"{total / 1e9:.4g} GFLOPs computed in all" in plot.caption and "computed GFLOPs" in plot.table.header


def test_a_baseline_has_no_lambda_in_parallel_coordinates(sweep: Sweep) -> None:
    plot = parallel.plot(sweep)
    at = plot.table.header.index("lambda")
    assert {row[at] for row in plot.table.rows if row[0] == "baseline/llama3"} == {"-"}
    assert "-" not in {row[at] for row in plot.table.rows if row[0] == "jepa/llama3"}


def test_the_jepa_loss_is_monitored_in_the_baseline(sweep: Sweep) -> None:
    assert {row[0] for row in losses.plot(sweep).table.rows if row[1] == "JEPA loss"} == {
        f"{m}/{f}" for m in ("baseline", "jepa") for f in ("llama3", "gemma2")
    }


def test_what_is_missing_is_a_sentence(tmp_path: Path) -> None:
    sweeps.add(tmp_path / "bare", "jepa", "search", 0.4, diagnostics=False)
    bare = read(tmp_path / "bare")
    for name in ("F3", "diagnostics", "seeds", "importance", "parallel"):
        plot = PLOTS[name](bare)
        assert plot.figure is None and ":" in plot.caption, name
    assert any("JEPA loss is unknown" in note for note in losses.plot(bare).notes)
    _, notes = shown_runs(bare)
    assert notes == ["jepa/llama3: not confirmed; its best of 1 search trial is shown, which is biased upwards."]


def test_nothing_ended_yet(tmp_path: Path) -> None:
    (tmp_path / "new" / "trials").mkdir(parents=True)
    new = read(tmp_path / "new")
    assert "No trial has ended yet." in new.notes
    for name, plot in PLOTS.items():
        assert plot(new).figure is None, name


def test_damaged_files_cost_their_own_trial_only(tmp_path: Path) -> None:
    folder = sweeps.full(tmp_path / "full")
    whole = len(read(folder).trials)
    for table in ("trials", "metrics"):
        victim = sorted((folder / table).glob("*.parquet"))[0 if table == "trials" else 1]
        victim.write_bytes(victim.read_bytes()[:200])
    damaged = read(folder)
    assert len(damaged.trials) == whole - 1
    told = " ".join(damaged.notes)
    assert f"1 of {whole} files in trials/ cannot be read and are left out" in told and "files in metrics/ cannot be read" in told
    assert "have no curves in metrics/" in told
    assert curves.plot(damaged).figure is not None


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="name the folder of a sweep"):
        read(tmp_path / name)


def test_a_misspelt_folder_and_one_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "efficiency").mkdir()
    with pytest.raises(ValueError, match=r"did you mean .*efficiency\?"):
        read(tmp_path / "eficiency")
    (tmp_path / "efficiency" / "sweep.yaml").write_text(sweeps.SWEEP)
    assert read(tmp_path / "efficiency").trials.empty, "a sweep whose first trial still runs is a sweep"


def test_a_folder_of_damaged_files_alone_is_refused(tmp_path: Path) -> None:
    sweeps.add(tmp_path / "s", "jepa", "search", 0.4)
    for path in (tmp_path / "s" / "trials").glob("*.parquet"):
        path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="no file in trials/ can be read"):
        read(tmp_path / "s")


def test_a_running_sweep_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    sweeps.add(folder, "baseline", "confirm", 0.4, seed=82)
    (folder / "sweep.yaml").write_text(sweeps.SWEEP)
    (folder / "scratch" / "abc").mkdir(parents=True)
    (folder / "scratch" / "abc" / "progress.json").write_text("{}")
    told = " ".join(read(folder).notes)
    assert "1 trial started but not ended" in told
    assert "1 of 3 planned confirmation trials have ended" in told and "one seed only" in told


def test_importance_needs_enough_trials(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name, number in (("jepa/llama3", 30), ("few/llama3", 3)):
        storage, sampler = f"sqlite:///{tmp_path}/study.db", optuna.samplers.RandomSampler(0)
        study = optuna.create_study(study_name=name, storage=storage, sampler=sampler, direction="maximize")
        study.optimize(lambda trial: trial.suggest_float("lambda", 0, 1) + 0 * trial.suggest_float("lr", 0, 1), n_trials=number)
    found, notes = importance.importances(tmp_path / "study.db")
    count, shares = found["jepa/llama3"]
    assert count == 30 and shares["lambda"] > 0.9 and sum(shares.values()) == pytest.approx(1)
    assert "few/llama3 (3)" in notes[0]
    (tmp_path / "broken.db").write_bytes(b"no database")
    assert "cannot be read" in importance.importances(tmp_path / "broken.db")[1][0]
