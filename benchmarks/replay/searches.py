"""One search on a grid in simulated time: the product's own studies and scheduler, with recorded curves instead of training.

Time is counted FLOPs: every slot trains at one FLOP per unit of time, so that trials overlap as they do in a sweep. A run pays for
the epochs that it ran; a run that ASHA stops pays up to the end of the epoch in which it was stopped.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks.replay.grid import KNOBS, Cell, Curve, Grid
from jepa_ray import plan
from jepa_ray.config import Arm, SweepConfig, TrialConfig, arms, columns
from jepa_ray.orchestration.early_stopping import ArmScheduler
from jepa_ray.orchestration.jobs import Job
from jepa_ray.orchestration.studies import ArmStudy


@dataclass(frozen=True)
class Reruns:
    """A second stage: the best cells of the search are rerun on other search seeds, and the best mean is chosen."""

    top: int
    """Number of cells to rerun."""
    seeds: int
    """Number of further seeds for each."""


@dataclass
class Trace:
    """The FLOPs that a search paid, and the changes of its choice."""

    choices: list[tuple[float, Cell]] = field(default_factory=list)
    """(FLOPs paid by then, the cell chosen from then on), in order."""
    paid: float = 0.0
    """FLOPs of the whole search."""
    runs: int = 0
    """Number of runs that were started."""
    cut: int = 0
    """Number of runs that were stopped early."""
    complete: list[tuple[dict[str, Any], float]] = field(default_factory=list)
    """Parameters and score of the jepa arm's complete runs, in the order in which they ended."""

    def choose(self, cell: Cell) -> None:
        """Make `cell` the choice from now on."""
        if not self.choices or self.choices[-1][1] != cell:
            self.choices.append((self.paid, cell))


@dataclass
class _Run:
    """A run in a slot."""

    arm: _Arm
    number: int
    params: dict[str, Any]
    cell: Cell
    curve: Curve
    key: str
    trial: Any
    epoch: int = 0
    """Epochs done."""

    @property
    def flops(self) -> float:
        """FLOPs of the next epoch."""
        return self.curve.flops[self.epoch] - (self.curve.flops[self.epoch - 1] if self.epoch else 0.0)


class _Arm:
    """One arm's study on the grid. As in a sweep, a repeated configuration gets the known result and costs nothing; two configurations
    with the same nearest cell are two runs."""

    def __init__(self, sweep: SweepConfig, arm: Arm, grid: Grid, seed: int, storage: BaseStorage) -> None:
        self.sweep, self.arm, self.method, self._grid, self._seed = sweep, arm, arm.method, grid, seed
        self.study = ArmStudy(sweep, arm, storage)
        self.known: dict[str, tuple[str, float]] = {}
        self.waiting: dict[str, list[int]] = {}
        self.complete: list[tuple[float, int, Cell]] = []

    def next(self) -> _Run | None:
        """The next configuration to run; None if the study is exhausted."""
        asked = self.study.ask()
        if asked is None:
            return None
        key = json.dumps(asked.params, sort_keys=True)
        config = plan.trial_config(self.sweep, self.arm, asked.params)
        if key in self.known:
            self.study.tell(asked.number, *self.known[key])
        elif key in self.waiting:
            self.waiting[key].append(asked.number)
        else:
            self.waiting[key] = [asked.number]
            cell = self._grid.nearest({name: float(columns(config)[name]) for name in KNOBS}, self.method)
            curve = self._grid.runs[self.method][cell][self._seed]
            return _Run(self, asked.number, asked.params, cell, curve, key, self._trial(asked.number, config))
        return self.next() if not self.study.exhausted else None

    def report(self, run: _Run) -> None:
        """Report the end of an epoch."""
        for number in self.waiting[run.key]:
            self.study.report(number, run.curve.scores[run.epoch - 1], run.epoch)

    def finished(self, run: _Run, state: str) -> None:
        """Record the end of a run."""
        score = run.curve.scores[run.epoch - 1]
        self.known[run.key] = state, score
        for number in self.waiting.pop(run.key):
            self.study.tell(number, state, score)
        if state == "COMPLETE":
            self.complete.append((score, -run.number, run.cell))

    def _trial(self, number: int, config: TrialConfig) -> Any:
        """Stand-in for the trial object that Tune passes to the scheduler."""
        name = f"{self.arm.name} {number}"
        return SimpleNamespace(trial_id=name, config={"job": Job(name, name, self.arm.name, "search", Path(), config).to_json()})


def search(
    sweep: SweepConfig,
    grid: Grid,
    seeds: Sequence[int],
    *,
    methods: Sequence[str] = ("jepa",),
    slots: int = 2,
    reruns: Reruns | None = None,
    storage: BaseStorage | None = None,
) -> Trace:
    """Replay a sweep's search of the arms of `methods`, which take turns. The choice is the jepa arm's best COMPLETE trial; of equals, the
    first suggested one. All trials are runs of `seeds[0]`, as all trials of a sweep have `base.seed`; the other seeds are for `reruns`.

    `storage` may contain studies from which the search resumes.
    """
    trace, cut, order = Trace(), set[str](), itertools.count()
    scheduler: Any = ArmScheduler(sweep.scheduler, sweep.search.metric, sweep.search.mode, lambda job: cut.add(job.trial_id))
    storage = storage or InMemoryStorage()
    searched = {arm.method: _Arm(sweep, arm, grid, seeds[0], storage) for arm in arms(sweep) if arm.method in methods}
    heap: list[tuple[float, int, _Run]] = []
    running: dict[int, tuple[float, _Run]] = {}
    now = ended = 0.0

    def start(run: _Run) -> None:
        number = next(order)
        running[number] = now, run
        heapq.heappush(heap, (now + run.flops, number, run))

    while True:
        while len(running) < slots and (open_arms := [arm for arm in searched.values() if not arm.study.exhausted]):
            if (run := min(open_arms, key=lambda arm: arm.study.taken).next()) is not None:
                trace.runs += 1
                scheduler.on_trial_add(None, run.trial)
                start(run)
        if not heap:
            break
        now, number, run = heapq.heappop(heap)
        del running[number]
        ended += run.flops
        trace.paid = ended + sum(now - begun for begun, _ in running.values())
        run.epoch += 1
        run.arm.report(run)
        measured = {"epoch": run.epoch, "train_flops": run.curve.flops[run.epoch - 1], sweep.search.metric: run.curve.scores[run.epoch - 1]}
        scheduler.on_trial_result(None, run.trial, measured)
        stopped = run.trial.trial_id in cut
        if not stopped and run.epoch < len(run.curve.scores):
            start(run)
            continue
        trace.cut += stopped
        run.arm.finished(run, "PRUNED" if stopped else "COMPLETE")
        if run.arm.method == "jepa" and not stopped:
            trace.complete.append((run.params, run.curve.scores[-1]))
            trace.choose(max(run.arm.complete)[2])
    if reruns is not None and "jepa" in searched:
        _run_again(trace, grid, seeds, searched["jepa"].complete, reruns)
    return trace


def _run_again(trace: Trace, grid: Grid, seeds: Sequence[int], complete: Sequence[tuple[float, int, Cell]], reruns: Reruns) -> None:
    """The second stage: rerun the best distinct cells on further seeds and choose the best mean; of equals, the better ranked one."""
    best = list(dict.fromkeys(cell for _, _, cell in sorted(complete, reverse=True)))[: reruns.top]
    used = seeds[: 1 + reruns.seeds]
    assert len(used) == 1 + reruns.seeds, "too few search seeds"
    for cell, seed in itertools.product(best, used[1:]):
        trace.paid += grid.runs["jepa"][cell][seed].flops[-1]
        trace.runs += 1
    if best:
        trace.choose(max(best, key=lambda cell: grid.final(cell, used)))


def paper(grid: Grid, seeds: Sequence[int], order: Sequence[Cell]) -> Trace:
    """The paper's protocol: find the learning rate that is best for the baseline, on all seeds; at that rate, run each of the paper's
    twenty cells on all seeds, in the given order. The choice is updated to the best mean whenever a cell is complete.

    `order` contains all of the paper's cells at every learning rate; cells at other rates are skipped.
    """
    trace = Trace()

    def run(method: str, cell: Cell) -> float:
        for seed in seeds:
            trace.paid += grid.runs[method][cell][seed].flops[-1]
            trace.runs += 1
        return grid.final(cell, seeds, method)

    rate = max(grid.cells("baseline"), key=lambda cell: run("baseline", cell))[0]
    best = float("-inf")
    for cell in order:
        if cell[0] == rate and (score := run("jepa", cell)) > best:
            best = score
            trace.choose(cell)
    return trace
