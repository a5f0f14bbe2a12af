"""Replays on grids with known answers: a search's cost, the paper's protocol, refused input; and the committed table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.replay import contenders, grid
from benchmarks.replay.contenders import Contender, Replay
from benchmarks.replay.grid import Cell, Curve, Grid
from benchmarks.replay.searches import Reruns, Trace, paper, search
from benchmarks.search_efficiency import DEFAULT, LIMIT, SPACE, TABLE, measure
from jepa_ray import plan, results
from jepa_ray.config import SweepConfig, arms
from jepa_ray.plan.load import load_sweep
from jepa_ray.results import TrialResult

RATES, LAMBDAS, KS, DROPOUTS = (1e-3, 2e-3, 4e-3), (0.5, 1.0, 2.0), (0, 1, 2), (0.0, 0.75)
BEST: Cell = (2e-3, 1.0, 1, 0.0)
NONE = {"name": "none"}


def peak(cell: Cell) -> float:
    """Highest at BEST, 0.1 less for every step away from it."""
    rate, lambda_, k, dropout = (abs(math.log2(cell[0] / BEST[0])), abs(math.log2(cell[1] or 1)), abs(cell[2] - BEST[2]), cell[3] > 0)
    return round(0.9 - 0.1 * (rate + lambda_ + k + dropout), 6)


def made(score: Callable[[Cell, int], float] = lambda cell, seed: peak(cell), cost: Callable[[Cell], float] = lambda cell: 1.0) -> Grid:
    """A grid of four seeds and four epochs, with `score` from the first epoch on and `cost` FLOPs per epoch."""

    def run(cell: Cell, seed: int) -> Curve:
        return Curve(tuple(cost(cell) * epoch for epoch in (1, 2, 3, 4)), (score(cell, seed),) * 4)

    cells = list(itertools.product(RATES, LAMBDAS, KS, DROPOUTS))
    baseline = [(rate, 0.0, 0, 0.0) for rate in RATES]
    seeds = (1, 2, 3, 4)
    return Grid(
        "llama3",
        {
            name: {c: {s: run(c, s) for s in seeds} for c in method_cells}
            for name, method_cells in (("jepa", cells), ("baseline", baseline))
        },
    )


@pytest.fixture(scope="module")
def base() -> SweepConfig:
    """The sweep in the grid's file."""
    return load_sweep(SPACE)


def sweep_of(base: SweepConfig, toy: Grid, number: int = 0, **changes: Any) -> SweepConfig:
    return contenders.sweep_of(Contender("", **changes), base, toy, contenders.draw(toy, number))


def test_a_search_pays_what_the_table_says(base: SweepConfig) -> None:
    """Costs are powers of two, so no other set of runs has the same sum."""
    order = {cell: index for index, cell in enumerate(made().cells())}
    toy = made(cost=lambda cell: 2.0 ** (order.get(cell, 0) % 40))
    trace = search(sweep_of(base, toy, search={"algorithm": "random", "num_trials": 6}, scheduler=NONE), toy, [3])
    cells = [toy.nearest({path.split(".")[1]: value for path, value in params.items()}) for params, _ in trace.complete]
    assert len(cells) == trace.runs == 6 and trace.cut == 0
    assert trace.paid == sum(toy.runs["jepa"][cell][3].flops[-1] for cell in cells)
    assert [score for _, score in trace.complete] == [peak(cell) for cell in cells]


def test_what_is_cut_pays_for_the_epochs_it_ran(base: SweepConfig) -> None:
    """Rungs at 2 and 6 epochs: a run does two or all of its four epochs. The order of scores is constant, so the best is never stopped."""
    toy = made()
    trace = search(sweep_of(base, toy, search={"num_trials": 15}, scheduler={"grace_period": 2, "reduction_factor": 3}), toy, [1])
    assert trace.cut > 0 and trace.runs == 15
    assert trace.paid == 4 * (trace.runs - trace.cut) + 2 * trace.cut


def test_trials_overlap_in_time(base: SweepConfig) -> None:
    """With two slots, two runs of 4 FLOPs are paid for when the first of them ends; with one slot, one run is."""
    toy = made()
    sweep = sweep_of(base, toy, search={"algorithm": "random", "num_trials": 3}, scheduler=NONE)
    assert search(sweep, toy, [1], slots=2).choices[0][0] == 8
    assert search(sweep, toy, [1], slots=1).choices[0][0] == 4
    assert search(sweep, toy, [1], slots=2).paid == search(sweep, toy, [1], slots=1).paid == 12


def test_the_baselines_arm_takes_turns_and_is_paid(base: SweepConfig) -> None:
    toy = made(cost=lambda cell: 1.0 if cell[1] == 0 else 2.0)
    sweep = sweep_of(base, toy, search={"algorithm": "random", "num_trials": 5}, scheduler=NONE)
    both = search(sweep, toy, [1], methods=("baseline", "jepa"))
    assert both.runs == 10 and both.paid == 5 * 4 * 1.0 + 5 * 4 * 2.0
    assert both.choices[0][0] == 16, "a run of the jepa arm takes 8, and the other slot trains two baseline runs in that time"


def test_a_repeated_configuration_costs_nothing_but_a_repeated_cell_does(base: SweepConfig) -> None:
    toy = made()
    listed = sweep_of(base, toy, search={"algorithm": "random", "num_trials": 90}, scheduler=NONE, choices=True)
    few = {"optim.learning_rate": {"choice": [1e-3, 2e-3]}, "objective.k": {"choice": [0, 1]}}
    tree = listed.model_dump(mode="json", by_alias=True)
    trace = search(SweepConfig.model_validate(tree | {"space": few}), toy, [1])
    assert trace.runs == 4 and trace.paid == 4 * 4
    ranged = search(sweep_of(base, toy, search={"algorithm": "random", "num_trials": 90}, scheduler=NONE), toy, [1])
    assert ranged.runs == 90 > len(toy.cells()) and ranged.paid == 90 * 4


def test_the_choice_is_the_best_complete_trial_and_reruns_average(base: SweepConfig) -> None:
    """On seed 1 a poor cell is lucky; two further seeds reveal that."""
    lucky: Cell = (4e-3, 2.0, 2, 0.75)
    toy = made(score=lambda cell, seed: 0.95 if (cell, seed) == (lucky, 1) else peak(cell))
    sweep = sweep_of(base, toy, search={"algorithm": "grid", "num_trials": 54}, scheduler=NONE, choices=True)
    assert search(sweep, toy, [1, 2, 3]).choices[-1][1] == lucky
    again = search(sweep, toy, [1, 2, 3], reruns=Reruns(3, 2))
    assert again.choices[-1][1] == BEST
    assert again.runs == 54 + 3 * 2 and again.paid == 4 * again.runs


def test_the_papers_protocol_runs_what_it_should() -> None:
    """Three learning rates on two seeds, then 3 lambda x 3 k at the best, loss dropout 0; the baseline is best at 4e-3, JEPA at 2e-3."""
    toy = made(score=lambda cell, seed: cell[0] * 100 if cell[1] == 0 else peak(cell) + 0.001 * seed, cost=lambda cell: 1.0 + (cell[1] > 0))
    order = [cell for cell in toy.cells() if cell[3] == 0]
    trace = paper(toy, [2, 4], order)
    assert trace.runs == 3 * 2 + 9 * 2
    assert trace.paid == 3 * 2 * 4 * 1.0 + 9 * 2 * 4 * 2.0
    assert trace.choices[-1][1] == (4e-3, 1.0, 1, 0.0), "the learning rate is the baseline's"
    assert trace.choices[0] == (3 * 2 * 4 + 2 * 4 * 2.0, order[-9]), "the first cell is chosen once all its seeds have run"


def test_replays_split_the_seeds_and_repeat_themselves() -> None:
    toy = made()
    drawn = [contenders.draw(toy, number) for number in range(99)]
    assert all(sorted(one.searched + one.held_out) == [1, 2, 3, 4] and len(one.searched) == 2 for one in drawn)
    assert len({one.searched for one in drawn}) == 12, "not every ordered pair of seeds was searched on"
    assert drawn == [contenders.draw(toy, number) for number in range(99)]
    assert {cell[1] for cell in drawn[0].order} <= set(contenders.PAPER_LAMBDAS) and {cell[3] for cell in drawn[0].order} == {0}


def test_a_rigged_grid_is_solved(base: SweepConfig) -> None:
    """Every cell except the best is at least ten points worse. All replays of a full grid and of the paper's protocol end there."""
    rigged = made()
    full = contenders.run(Contender("", {"algorithm": "grid", "num_trials": 54}, NONE, choices=True), base, rigged, 3)
    assert [replay.gaps[-1][1] for replay in full] == [0, 0, 0]
    exhaustive = contenders.figures("full", full, budget=math.inf)
    assert exhaustive.share == exhaustive.share_at_budget == 1 and exhaustive.gap == 0 and exhaustive.reached <= 54 * 4
    theirs = contenders.figures("paper", contenders.run_paper(rigged, 3), budget=1.0)
    assert theirs.gap == 0 and theirs.at_budget == -math.inf, "before the first cell there is no choice"
    guided = contenders.figures("tpe", contenders.run(Contender("", {"num_trials": 60}, NONE), base, rigged, 3), budget=math.inf)
    assert guided.gap >= -0.1, "the default sampler is more than one step away from an optimum without noise"


def test_worth_is_of_held_out_seeds_and_so_is_the_reference() -> None:
    """A cell that is best on the search seeds only by luck has no advantage on the other seeds."""
    toy = made(score=lambda cell, seed: 0.5 + 0.1 * (cell == BEST and seed in (1, 2)) + 0.02 * (cell != BEST and seed in (3, 4)))
    drawn = contenders.Draw(0, (1, 2), (3, 4), BEST, ())
    assert contenders.reference(toy, drawn) == BEST
    other = next(cell for cell in toy.cells() if cell != BEST)
    replay = contenders.valued(Trace(choices=[(1.0, BEST), (2.0, other)], paid=2.0), toy, drawn)
    assert [gap for _, gap in replay.gaps] == pytest.approx([0.0, 0.02])


def test_the_smoothed_reference_is_not_taken_in_by_one_lucky_cell() -> None:
    """BEST and its seven neighbours average 0.8125; the lucky corner and its four (0.95 + 4 x 0.6) / 5 = 0.67."""
    corner: Cell = (4e-3, 2.0, 2, 0.75)
    toy = made(score=lambda cell, seed: 0.95 if cell == corner and seed < 3 else peak(cell))
    drawn = contenders.Draw(0, (1, 2), (3, 4), BEST, ())
    assert contenders.reference(toy, drawn) == corner and contenders.smoothed(toy, drawn) == BEST
    replay = contenders.valued(Trace(choices=[(1.0, BEST)], paid=1.0), toy, drawn)
    assert replay.gaps[0][1] == pytest.approx(replay.smooth) and replay.smooth == pytest.approx(peak(BEST) - peak(corner))


def test_settled_is_the_last_time_the_mean_comes_within_a_point() -> None:
    """Means by hand: none at 1; (-0.03 + 0) / 2 at 2; 0 at 3, left at 4 with -0.015; -0.005 at 5, for good."""
    first = Replay(Trace(), ((1.0, -0.03), (3.0, 0.0), (4.0, -0.03), (5.0, -0.01)))
    second = Replay(Trace(), ((2.0, 0.0),))
    assert contenders.settled([first, second]) == 5.0
    assert contenders.settled([first]) == 5.0, "exactly one point is within it"
    assert contenders.settled([first, second], level=0.0) == math.inf
    assert (first.gap(0.5), first.gap(3.5), first.gap(99)) == (-math.inf, 0.0, -0.01)


def test_noise_is_what_cell_and_seed_do_not_explain() -> None:
    """Cell + seed alone leave nothing; d in one corner of 2 x 2 leaves d/4 in each, hence sqrt(4 (d/4)^2 / 1) = d/2."""
    assert made(score=lambda cell, seed: peak(cell) + 0.01 * seed).noise() == pytest.approx(0, abs=1e-12)

    def corner(cell: Cell, seed: int) -> Curve:
        return Curve((1.0,), (0.5 + 0.04 * (cell[0] == 2e-3 and seed == 2),))

    cells: list[Cell] = [(1e-3, 1.0, 0, 0.0), (2e-3, 1.0, 0, 0.0)]
    assert Grid("f", {"jepa": {cell: {s: corner(cell, s) for s in (1, 2)} for cell in cells}}).noise() == pytest.approx(0.02)


def test_a_configuration_gets_the_nearest_cell() -> None:
    toy = made()
    assert toy.nearest({"learning_rate": 1.5e-3, "lambda": 1.4, "k": 2, "loss_dropout": 0.75}) == (2e-3, 1.0, 2, 0.75)
    assert toy.nearest({"learning_rate": 1.4e-3, "lambda": 1.5, "k": 0, "loss_dropout": 0.0}) == (1e-3, 2.0, 0, 0.0), "in the logarithm"
    space = contenders.ranges(toy)
    low, high = space["optim.learning_rate"]["float"]
    assert math.log(high / low) == pytest.approx(3 * math.log(2)), "three values a factor of two apart, with equal shares"


FILE = """\
name: small
methods: {baseline: none, jepa: {distance: cosine, lambda: 1, k: 1}}
space:
  optim.learning_rate: {choice: [1e-3, 2e-3]}
  objective.lambda: {choice: [0.5, 1]}
  objective.k: {choice: [0, 1]}
  objective.loss_dropout: {choice: [0, 0.75]}
search: {algorithm: grid, num_trials: 16}
scheduler: none
confirm: none
base: {optim: {num_epochs: 2}}
"""


def finished(folder: Path, seed: int, skip: int | None = None, state: str = "COMPLETE", **changes: object) -> Path:
    """A finished sweep of FILE; trial number `skip` is left out, or ends as `state`."""
    place = folder / f"small-{seed}{len(list(folder.glob('small-*')))}"
    place.mkdir()
    tree = yaml.safe_load(FILE) | {"name": place.name, "base": {"optim": {"num_epochs": 2}, "seed": seed}} | changes
    (place / "sweep.yaml").write_text(yaml.safe_dump(tree))
    sweep = load_sweep(place / "sweep.yaml")
    points = [(arm, params) for arm in arms(sweep) for params in plan.grid(sweep, arm)]
    for number, (arm, params) in enumerate(points):
        if number == skip and state == "COMPLETE":
            continue
        rows = [
            {"step": e, "epoch": e, "split": "val", "name": "val_accuracy", "value": number / 100 + e / 1000, "train_flops": 10.0 * e}
            for e in (1, 2)
        ]
        ended = state if number == skip else "COMPLETE"
        summary = {"val_accuracy": rows[-1]["value"], "git_sha": "abc", "versions": '{"python": "3"}', "device": "cpu"}
        config = plan.trial_config(sweep, arm, params)
        result = TrialResult(ended, None, summary, rows[: 1 if ended == "PRUNED" else 2])  # type: ignore[arg-type]
        results.write_trial(place, f"{number:016x}", config, arm.name, "search", result)
    return place


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    """The path of a file with the text FILE."""
    (tmp_path / "small.yaml").write_text(FILE)
    return tmp_path / "small.yaml"


def test_collected_sweeps_come_back_as_a_grid(tmp_path: Path, space_file: Path) -> None:
    table = grid.collect([finished(tmp_path, 1), finished(tmp_path, 2)], space_file)
    assert table.num_rows == 2 * (2 + 16) * 2
    grid.write(table, tmp_path / "t.parquet")
    collected = grid.read(tmp_path / "t.parquet")["llama3"]
    assert collected.seeds == [1, 2] and len(collected.cells()) == 16 and len(collected.cells("baseline")) == 2
    # The arm's first point in grid order is trial number 2, after the baseline's two trials.
    first = collected.runs["jepa"][(1e-3, 0.5, 0, 0.0)][2]
    assert first.flops == (10.0, 20.0) and first.scores == pytest.approx((0.021, 0.022))
    facts = pq.read_schema(tmp_path / "t.parquet").metadata
    assert b"search_spaces/small.yaml name=small-10 base.seed=1" in facts[b"commands"] and b'"abc"' in facts[b"origins"]


@pytest.mark.parametrize(
    ("state", "named"), [("COMPLETE", "1 runs are missing"), ("PRUNED", "lambda 0.5 k 0"), ("FAILED", "finish the sweep")]
)
def test_a_sweep_with_a_hole_is_refused(state: str, named: str, tmp_path: Path, space_file: Path) -> None:
    with pytest.raises(ValueError, match=named):
        grid.collect([finished(tmp_path, 1, skip=2, state=state)], space_file)


def test_what_is_no_sweep_of_the_file_is_refused(tmp_path: Path, space_file: Path) -> None:
    one = finished(tmp_path, 1)
    with pytest.raises(ValueError, match="is already in"):
        grid.collect([one, finished(tmp_path, 1)], space_file)
    with pytest.raises(ValueError, match="its data differs"):
        grid.collect([finished(tmp_path, 3, data={"num_train": 7})], space_file)
    with pytest.raises(ValueError, match=r"has no sweep\.yaml"):
        grid.collect([tmp_path], space_file)
    with pytest.raises(ValueError, match=r"the table .* does not exist"):
        grid.read(tmp_path / "absent.parquet")
    grid.write(grid.collect([one, finished(tmp_path, 2)], space_file).slice(2), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="lacks seeds"):
        grid.read(tmp_path / "t.parquet")


def test_the_committed_table_is_whole() -> None:
    grids, facts = grid.read(TABLE), pq.read_schema(TABLE).metadata
    assert TABLE.stat().st_size < 2e6
    assert len(grids["llama3"].seeds) == 5 and len(grids["llama3"].cells()) == 4 * 5 * 5 * 2
    assert set(grids) == {"llama3", "gemma2", "qwen3"}
    for family_grid in grids.values():
        assert len(family_grid.seeds) >= 2 and len(family_grid.cells()) >= 4 * 3 * 3 * 2 and len(family_grid.cells("baseline")) == 4
        assert {len(run.scores) for cell in family_grid.runs["jepa"].values() for run in cell.values()} == {4}
        assert all(
            run.flops[0] > 0 and sorted(run.flops) == list(run.flops) for cell in family_grid.runs["jepa"].values() for run in cell.values()
        )
    assert facts[b"commands"].count(b"python -m jepa_ray.sweep search_spaces/efficiency.yaml") == sum(
        len(family_grid.seeds) for family_grid in grids.values()
    )
    assert b"git_sha" in facts[b"origins"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_default_needs_a_quarter_of_the_papers_flops(base: SweepConfig) -> None:
    toy = grid.read(TABLE)["llama3"]
    theirs, (default,) = measure(toy, base, 50, [Contender(DEFAULT)])
    assert default.reached <= LIMIT * theirs.paid
    assert default.replays == 50 and default.paid > 0 and math.isfinite(default.gap)
