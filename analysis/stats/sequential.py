"""Tests of a comparison before all its seeds are in, with no more false alarms than a single test at the end.

The looks are planned: each after a given number of seeds, the last after all of them. The O'Brien-Fleming-type spending function (Lan &
DeMets 1983) distributes the error over the looks: after a share t of the seeds at most alpha*(t) = 4 - 4 Phi(z / sqrt t) is spent, where
Phi(z) = 1 - alpha / 4 (each of the two sides spends half). Almost nothing is spent early, almost all of it at the end. The boundaries are
those of a normal process with independent increments; the paired t-test at a look compares its p with the boundary's nominal level (the
significance-level approach, Jennison & Turnbull 2000, chapter 3). Tests and `benchmarks/false_positives.py` simulate it with few seeds.

A race ends a comparison that is decided or hopeless (`decide`). Its final p is that of `smallest_level`: the smallest alpha whose boundary
at the final look would have been reached. Whatever the reason for stopping, the probability of reaching the boundary for alpha at any look
is at most alpha. This p is therefore valid for every rule that stops at a planned look, and stopping for futility is not binding.
`looks.py` adds looks that nobody planned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from analysis.stats import paired_tests

Floats = NDArray[np.float64]

FUTILE = 0.05
"""One-sided level of the upper bound: a comparison whose bound is below the margin ends as hopeless."""
FLOOR = 1e-12
"""Overall p-values below this are not distinguished."""
WIDE = 9.0
"""Standard deviations beyond which a normal process is cut off (2e-19 of its mass)."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The outcome of one look at one comparison."""

    go_on: bool
    reason: str
    nominal_level: float
    """The level that p is compared with at this look."""
    p: float | None
    """p of the two-sided paired t-test at this look; None if there is no test."""


def spending(looks: Sequence[int], alpha: float = 0.05) -> tuple[float, ...]:
    """Nominal two-sided level of the test at each look; `looks` are numbers of seeds, the last is all. Raises ValueError for bad looks."""
    if not 0 < alpha < 1:
        raise ValueError(f"The level that is spent over the looks must be between 0 and 1; it is {alpha:g}.")
    times = shares(looks)
    return tuple(2 * tail(z) for z in boundaries(times, tuple(spent(t, alpha) for t in times)))


def spent(t: float, alpha: float) -> float:
    """The error that may be spent up to a share `t` in (0, 1] of the seeds, `alpha` in all (Lan & DeMets 1983)."""
    return 4 * tail(-special.ndtri(alpha / 4) / math.sqrt(t))


@lru_cache(maxsize=4096)
def boundaries(times: tuple[float, ...], spent: tuple[float, ...]) -> tuple[float, ...]:
    """Two-sided critical values of a standard normal statistic at ascending times (in any unit), for the error spent up to each of them."""
    walk, critical, before = _Walk(times), [], 0.0
    for total in spent:
        share = total - before
        if share <= 0:
            z = math.inf
        elif walk.crossing(0.0) <= share:
            z = 0.0
        else:
            z = float(optimize.brentq(lambda z, share=share: walk.crossing(z) - share, 0.0, 40.0, xtol=1e-12))
        walk.inside(z)
        critical.append(z)
        before = total
    return tuple(critical)


def crossing(times: Sequence[float], critical: Sequence[float]) -> list[float]:
    """Without an effect, the probability that |Z| first reaches its critical value at each look."""
    walk, out = _Walk(times), []
    for z in critical:
        out.append(walk.crossing(z))
        walk.inside(z)
    return out


@lru_cache(maxsize=32)
def _legendre(number: int) -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(number)
    return nodes, weights


class _Walk:
    """B(t) = Z sqrt(t) inside the boundaries of the earlier looks, by quadrature (Armitage, McPherson & Rowe 1969)."""

    def __init__(self, times: Sequence[float]) -> None:
        self._times = list(times)
        self._steps = [math.sqrt(t - before) for before, t in pairwise([0.0, *times])]
        self._look = 0
        self._nodes, self._mass = np.zeros(1), np.ones(1)

    def crossing(self, z: float) -> float:
        """P(|Z| reaches z at this look, and no earlier look its own)."""
        edge, step = z * math.sqrt(self._times[self._look]), self._steps[self._look]
        return float((special.ndtr((self._nodes - edge) / step) + special.ndtr((-edge - self._nodes) / step)) @ self._mass)

    def inside(self, z: float) -> None:
        """Go on to the next look with those walks that stay below z at this one."""
        step, edge = self._steps[self._look], min(z, WIDE) * math.sqrt(self._times[self._look])
        # Eight nodes per standard deviation of the finer of the two increments that meet here, so that no kernel falls between nodes.
        finest = min(self._steps[self._look : self._look + 2])
        nodes, weights = _legendre(min(2000, 64 * math.ceil(1 + edge / finest / 8)))
        nodes, weights = edge * nodes, edge * weights
        kernel = np.exp(-(((nodes[:, None] - self._nodes) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
        self._nodes, self._mass = nodes, weights * (kernel @ self._mass)
        self._look += 1


def smallest_level(p: float, level: Callable[[float], float], *, sides: int = 2) -> float:
    """The smallest overall level at which this p would have been significant: p of a comparison with several looks.

    `level(alpha)` is the nominal two-sided level of the look that was reached if alpha may be spent in all; it rises with alpha and is at
    most alpha. `sides` = 1 is for a one-sided p (an equivalence test has two of them): it is spent as half of a two-sided level, up to 0.5,
    and counts as 1 beyond.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is a number between 0 and 1; it is {p:g}.")
    double = 2 * p if sides == 1 else p
    least, most = max(double, FLOOR), 1 - 1e-9

    def short_of(alpha: float) -> float:
        return level(alpha) - least

    # At the largest overall level the nominal one is below 1; any p above it counts as 1.
    if least >= most or short_of(most) <= 0:
        return 1.0
    # With a single look, and below FLOOR, the two levels are equal up to rounding.
    found = (
        least
        if short_of(least) >= 0
        else math.exp(optimize.brentq(lambda x: short_of(math.exp(x)), math.log(least), math.log(most), xtol=1e-9))
    )
    return found / 2 if sides == 1 else found


def tail(z: float) -> float:
    """P(Z > z) of a standard normal Z."""
    return float(special.ndtr(-z))


def look_of(seeds: int, looks: Sequence[int]) -> int:
    """The look, counted from 1, that a comparison with this many seeds has reached."""
    return next((number for number, look in enumerate(looks, 1) if seeds <= look), len(looks))


def ended(mean: Floats, se: Floats, df: float, level: float, margin: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(decided, futile) elementwise, for means of differences with their standard errors and degrees of freedom.

    Decided: the interval at the look's nominal level is above 0 and the mean reaches the margin, as `better` requires.
    Futile: the one-sided upper bound at level `FUTILE` is below the margin.
    """
    decided = (mean - stats.t.isf(level / 2, df) * se > 0) & (mean >= margin)
    return decided, mean + stats.t.isf(FUTILE, df) * se < margin


def upper_bound(differences: Sequence[float]) -> float:
    """One-sided upper confidence bound of the mean at level `FUTILE`, for one look alone. Raises as `paired_tests.checked`."""
    values = paired_tests.checked(differences)
    return float(values.mean() + stats.t.isf(FUTILE, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size))


def decide(differences: Sequence[float], look: int, looks: Sequence[int], margin: float, alpha: float) -> Decision:
    """Whether to run a comparison on more seeds after `look` of them.

    `differences` are method minus baseline as shares, by seed (fewer than `look` if runs failed). `alpha` is the level of this comparison:
    0.05 / claims, so that a decision still holds after Holm's correction. Raises ValueError for a look that is not planned.
    """
    levels = spending(looks, alpha)
    if look not in looks or not 0 < margin < 1:
        raise ValueError(
            f"A race looks after {', '.join(map(str, looks))} seeds at a margin in (0, 1); got {look} seeds, margin {margin:g}."
        )
    level, last = levels[list(looks).index(look)], look == looks[-1]
    try:
        values = paired_tests.checked(differences)
    except ValueError as error:
        return Decision(go_on=not last, reason=f"cannot be tested yet: {error}", nominal_level=level, p=None)
    mean, se, df = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size), values.size - 1
    p = paired_tests.paired_t(differences).p
    decided, futile = (bool(end[0]) for end in ended(np.array([mean]), np.array([se]), df, level, margin))
    upper = upper_bound(differences)
    effect = f"{100 * mean:+.2f} points over {values.size} seeds"
    if decided:
        reason = f"decided: {effect}, p = {p:.2g} is below this look's level of {level:.2g}, and the margin of {100 * margin:g} is reached"
    elif futile:
        reason = f"futile: {effect}, and the one-sided 95 % bound, {100 * upper:+.2f} points, is below the margin of {100 * margin:g}"
    elif last:
        reason = f"all planned seeds are in: {effect}, p = {p:.2g}, with a level of {level:.2g}"
    else:
        reason = f"open: {effect}, p = {p:.2g}, with a level of {level:.2g}; one-sided 95 % bound {100 * upper:+.2f} points"
    return Decision(go_on=not (decided or futile or last), reason=reason, nominal_level=level, p=p)


def shares(looks: Sequence[int]) -> tuple[float, ...]:
    """Each look as a share of the last. Raises ValueError for looks that do not rise from 2 seeds on."""
    if not looks or looks[0] < 2 or any(b <= a for a, b in pairwise(looks)):
        raise ValueError(f"Looks must be rising numbers of seeds from 2 on, such as 3, 5, 10; got {', '.join(map(str, looks)) or 'none'}.")
    return tuple(look / looks[-1] for look in looks)
