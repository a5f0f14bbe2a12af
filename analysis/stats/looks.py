"""Looks at finished results that nobody planned: more seeds, on advice or not, with at most 5 % errors however often one goes on.

Whenever the results of a complete plan become known, that is a look. Two rules, both fixed before the first seed runs:

- Look k spends alpha_k = alpha * 2/3 * (1/3)^(k-1): two thirds of what is left. However many looks follow, their sum stays below alpha.
- The seeds of look k + 1 weigh twice as much as all before them together, whatever their number (`stats/combined.py`). So their number may
  be chosen in the light of all results. If it is between 1 and 4.5 times what came before, these weights cost at most 3 % of the seeds.

A race (`sequential.py`) has looks of its own within one stage; they spend the stage's alpha_k. If a race ends early, the rest of its
alpha_k is lost. A method that was added after k looks starts with alpha_(k+1): all claims together spend at most alpha_k at look k.
The critical values are those of a normal process whose clock runs with the weights. Tests and `benchmarks/false_positives.py` simulate it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.stats import sequential
from analysis.stats.combined import Stages

SHARE = 2 / 3
"""Part of the error still left that a look spends."""
FACTOR = 2.0
"""Squared weight of a stage, relative to all stages before it."""


@dataclass(frozen=True)
class Stage:
    """The seeds that a comparison ran after one look and before the next."""

    seeds: int
    number: int = 1
    """Number k of the look that ends it, counted over the whole folder: it spends alpha_k."""
    race: tuple[int, ...] = ()
    """Planned looks of a race within the stage, as numbers of its own seeds; the last is all that were planned. Empty: no race."""

    @property
    def looks(self) -> tuple[int, ...]:
        """The looks that the stage has reached."""
        planned = self.race or (self.seeds,)
        return planned[: sequential.look_of(self.seeds, planned)]

    @property
    def planned(self) -> int:
        """Seeds of the stage if it runs to its end."""
        return self.race[-1] if self.race else self.seeds


History = tuple[Stage, ...]
"""The stages of one comparison, in order."""


def alpha_of(number: int, alpha: float) -> float:
    """The part of `alpha` that look `number` (from 1) spends."""
    return float(alpha * SHARE * (1 - SHARE) ** (number - 1))


def stages(history: Sequence[Stage]) -> Stages:
    """Seeds and squared weights of the stages."""
    return Stages(tuple(stage.seeds for stage in history), _weights(history))


def level(history: Sequence[Stage], alpha: float) -> float:
    """Nominal two-sided level of the test at the last look, if `alpha` is spent over all looks that may ever follow; at least 1e-12."""
    times, spent = _clock(history, alpha)
    return max(sequential.FLOOR, float(2 * sequential.tail(sequential.boundaries(times, spent)[-1])))


def overall(p: float, history: Sequence[Stage], *, sides: int = 2) -> float:
    """p over all looks: the smallest alpha at which the p at the last look would have been significant (`sequential.smallest_level`)."""
    return sequential.smallest_level(p, lambda alpha: level(history, alpha), sides=sides)


def extended(history: Sequence[Stage], seeds: int, number: int) -> History:
    """The history with this many more seeds, to be known at look `number`."""
    return (*history, Stage(seeds, number))


def _weights(history: Sequence[Stage]) -> tuple[float, ...]:
    weights: list[float] = []
    for stage in history:
        full = FACTOR * sum(weights) if weights else 1.0
        weights.append(full * stage.looks[-1] / stage.planned)
    return tuple(weights)


def _clock(history: Sequence[Stage], alpha: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The time of each look, and the error that is spent up to it."""
    times: list[float] = []
    spent: list[float] = []
    for stage in history:
        begun, gone = (times[-1], spent[-1]) if times else (0.0, 0.0)
        full = FACTOR * begun if begun else 1.0
        for look in stage.looks:
            share = look / stage.planned
            times.append(begun + full * share)
            spent.append(gone + sequential.spent(share, alpha_of(stage.number, alpha)))
    # In units of the last look, so that a hundred looks are no larger numbers than two.
    return tuple(t / times[-1] for t in times), tuple(spent)
