"""How often a sweep is wrong if its user goes on after seeing results: habits of adding seeds and methods, without any effect.

A habit sees the p-values of each look and answers with what runs next. Everything is decided by the rule of `stats/looks.py`; `naive` tests
all seeds together at 5 % whenever someone looks, as one would without a rule. Sweeps of one chunk are simulated together; those with the
same history are tested together.

M methods, R replicates, S seeds, N examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from analysis.simulation.sweeps import LEVEL, Design, Rate, both_p, confirmations
from analysis.stats import combined, looks
from analysis.stats.crossed import mean_squares, shared, standard_error
from analysis.stats.looks import History, Stage

MARGIN = 0.01
POWER = 0.8


@dataclass(frozen=True)
class Seen:
    """What a user knows of one sweep at a look."""

    p: float
    """Smallest p of any method, all seeds together, as every other tool prints it."""
    spread: float
    """Standard deviation over seeds of that method's difference."""
    seeds: int
    look: int
    methods: int


Habit = Callable[[Seen], tuple[int, int]]
"""What is known -> how many more seeds all methods run, and how many more methods start; (0, 0) ends the sweep."""


def advised(seen: Seen) -> int:
    """Seeds still missing for a difference of the margin, by a normal approximation: what a planning tool would say."""
    wanted = (special.ndtri(1 - LEVEL / 2) + special.ndtri(POWER)) * seen.spread / MARGIN
    return max(1, int(wanted**2) - seen.seeds)


HABITS: dict[str, Habit] = {
    "planned seeds only": lambda seen: (0, 0),
    "as advised once": lambda seen: (advised(seen) if seen.look == 1 else 0, 0),
    "as advised until decided": lambda seen: (advised(seen), 0),
    "always 5 more": lambda seen: (5, 0),
    "only if p is 0.05 to 0.2": lambda seen: (5 if 0.05 <= seen.p < 0.2 else 0, 0),
    "one more, as long as p falls near": lambda seen: (1 if seen.p < 0.3 else 10, 0),
    "another method": lambda seen: (0, 1 if seen.methods < 3 else 0),
    "another method and 5 more": lambda seen: (5, 1 if seen.methods < 3 else 0),
    "few or many by p": lambda seen: (2 if seen.p < 0.1 else 20, 0),
    "everything": lambda seen: (advised(seen) if seen.look % 2 else 3, 1 if seen.methods < 3 and seen.p > 0.2 else 0),
}
"""Habits of going on while nothing is significant. A user who stops at the first significant result is wrong as often as any look is."""


def rates(habit: Habit, design: Design, replicates: int, seed: int = 0, *, start: int = 5, race: tuple[int, ...] = ()) -> dict[str, Rate]:
    """Share of sweeps in which any method becomes significant at any look, by the rule and naively.

    `design.seeds` is the largest number of seeds that a user would run, `start` the plan. With `race`, the plan looks at these numbers of
    its seeds first. Errors of methods are a family: one of them suffices.
    """
    random = np.random.default_rng(seed)
    hits = {"rule": 0, "naive": 0}
    most = 3
    for right_ARSN in confirmations(replace(design, cells=1, val_examples=2), replicates, random, arms=most + 1):
        D_MRSN = right_ARSN[1:].astype(np.float64) - right_ARSN[0]
        R = D_MRSN.shape[1]
        first = [start] if not race else list(race)
        going: dict[tuple[History, ...], NDArray[np.int64]] = {}
        wrong_R, naive_R = np.zeros(R, dtype=bool), np.zeros(R, dtype=bool)
        everyone = np.arange(R)
        for size in first:
            plan = (Stage(size, race=race),)
            wrong_R[everyone] |= larger_p(D_MRSN[0][:, :size], plan) < looks.level(plan, LEVEL)
            naive_R |= np.maximum(*both_p(D_MRSN[0][:, :size])) < LEVEL
        going = {((Stage(first[-1], race=race),),): everyone}
        look = 1
        while going:
            following: dict[tuple[History, ...], list[int]] = {}
            for histories, inside in going.items():
                seeds = sum(stage.seeds for stage in histories[0])
                D_mrsn = D_MRSN[: len(histories), inside, :seeds]
                p_mr = np.stack([np.maximum(*both_p(D_rsn)) for D_rsn in D_mrsn])
                spread_r = D_mrsn[p_mr.argmin(axis=0), np.arange(len(inside))].mean(axis=2).std(axis=1, ddof=1)
                for place, replicate in enumerate(inside):
                    if wrong_R[replicate]:
                        continue
                    seen = Seen(float(p_mr[:, place].min()), float(spread_r[place]), seeds, look, len(histories))
                    more, methods = habit(seen)
                    more = min(more, design.seeds - seeds)
                    if more or methods:
                        following.setdefault(_next(histories, seeds, more, methods, look + 1), []).append(int(replicate))
            look += 1
            going = {histories: np.array(inside) for histories, inside in following.items()}
            for histories, inside in going.items():
                for method, history in enumerate(histories):
                    D_rsn = D_MRSN[method, inside, : sum(stage.seeds for stage in history)]
                    wrong_R[inside] |= larger_p(D_rsn, history) < looks.level(history, LEVEL / len(histories))
                    naive_R[inside] |= np.maximum(*both_p(D_rsn)) < LEVEL / len(histories)
        hits["rule"] += int(wrong_R.sum())
        hits["naive"] += int(naive_R.sum())
    return {name: Rate(hits=count, n=replicates) for name, count in hits.items()}


def _next(histories: tuple[History, ...], seeds: int, more: int, methods: int, look: int) -> tuple[History, ...]:
    old = tuple(looks.extended(history, more, look) if more else history for history in histories)
    return (*old, *[(Stage(seeds + more, look),)] * methods)


def larger_p(D_RSN: NDArray[np.float64], history: History) -> NDArray[np.float64]:
    """(R,): the larger p of both tests at the last look, by stage. Without spread, 1."""
    S, N = D_RSN.shape[1:]
    d_RS, stages = D_RSN.mean(axis=2), looks.stages(history)
    _, by_seed_R, by_example_R, residual_R = mean_squares(D_RSN)
    _, df_R = standard_error(by_seed_R, by_example_R, residual_R, S, N)
    tau2_R = shared(by_example_R, residual_R, S, N)
    with np.errstate(invalid="ignore", divide="ignore"):
        larger_R = np.zeros(len(D_RSN))
        for tau2, df in ((0.0 * tau2_R, S - 1), (tau2_R, df_R)):
            mean_R, se_R = combined.estimate(d_RS, by_seed_R / N, tau2, stages)
            larger_R = np.maximum(larger_R, 2 * stats.t.sf(np.abs(mean_R) / se_R, df))
    return np.where(np.ptp(d_RS, axis=1) > 1e-9, np.nan_to_num(larger_R, nan=1.0), 1.0)
