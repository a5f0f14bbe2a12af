"""False-positive rates by simulation: a whole comparison, from search to test, of a method that has no effect at all.

Both recipes use one model of outcomes. Answer i of a run of cell c, arm a, at seed s is right if

    ability + d_i + true_c + shared_as + own_cs + taste_ai + noise_csi > 0

All terms are normal: `d_i` is the difficulty of the example, `true_c` the true quality of a cell, `shared_as` the effect of a seed on all
cells of an arm, `own_cs` its effect on one cell, `taste_ai` makes some examples easier for one arm, and the noise has standard deviation 1.
An effect of a seed on both arms alike cancels in a paired difference and is left out.

`protocol` is ours: each arm's best of `cells` by validation on a tuning seed, frozen, then fresh seeds on a fresh test split, and the tests
of `verdict.py`. `paper` is that of arXiv 2509.14252: the best of `cells` by test accuracy, tested on the same runs that selected it.

R replicates, C cells, S seeds, N examples. Does not read results folders.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.stats.crossed import mean_squares, standard_error

Singles = NDArray[np.float32]

LEVEL = 0.05
CHUNK = 4_000_000
"""Number of answers simulated at a time; bounds memory."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """A comparison and the distribution of its outcomes. Standard deviations are in units of the answer's own noise."""

    seeds: int = 5
    cells: int = 6
    """Configurations that the search tries per arm; the paper's recipe tries them for the method only."""
    val_examples: int = 64
    test_examples: int = 128
    ability: float = 0.2
    example_sd: float = 1.0
    run_sd: float = 0.3
    """Of shared_as + own_cs: how much seeds change a run."""
    shared: float = 0.5
    """Share of this variance that all cells of an arm have in common, in [0, 1]."""
    cell_sd: float = 0.0
    """Of true_c. Above 0, two frozen cells truly differ, and a test that says so is right."""
    taste_sd: float = 0.0
    """Of taste_ai. Above 0, a test over seeds alone treats these examples as all examples."""
    effect: float = 0.0
    """Added to the ability of every arm except the first. 0: no effect."""

    def __post_init__(self) -> None:
        if self.seeds < 2 or self.cells < 1 or min(self.val_examples, self.test_examples) < 2:
            raise ValueError(f"a simulation needs at least 2 seeds, 1 cell and 2 examples; this is {self}")
        if not 0 <= self.shared <= 1:
            raise ValueError(f"shared is a share of variance, in [0, 1]; it is {self.shared:g}")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often something happened."""

    hits: int
    n: int

    @property
    def rate(self) -> float:
        return self.hits / self.n

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of the rate (binomial)."""
        return math.sqrt(self.rate * (1 - self.rate) / self.n)


def protocol(design: Design, replicates: int, seed: int = 0, *, level: float = LEVEL) -> dict[str, Rate]:
    """Our protocol without an effect: rates of a two-sided paired t, a crossed interval without 0, and both (as a verdict requires).

    The tests are at `level`; a first look of a sweep has two thirds of 5 % (`stats/looks.py`).
    """
    random = np.random.default_rng(seed)
    hits: dict[str, int] = {}
    for right_ARSN in confirmations(design, replicates, random):
        D_RSN = right_ARSN[1].astype(np.float64) - right_ARSN[0]
        mean_R = D_RSN.mean(axis=(1, 2))
        t_R, crossed_R = (p_R < level for p_R in both_p(D_RSN))
        outcomes = {
            "paired t": t_R,
            "crossed interval": crossed_R,
            "both": t_R & crossed_R,
            "both, and higher": t_R & crossed_R & (mean_R > 0),
        }
        hits = {name: hits.get(name, 0) + int(hit_R.sum()) for name, hit_R in outcomes.items()}
    return {name: Rate(hits=count, n=replicates) for name, count in hits.items()}


def confirmations(design: Design, replicates: int, random: np.random.Generator, arms: int = 2) -> Iterator[NDArray[np.bool_]]:
    """Chunks (A, R, S, N): which answers of each arm's frozen configuration are right, on fresh seeds and examples."""
    for many in _chunks(replicates, arms * (design.cells * design.val_examples + design.seeds * design.test_examples)):
        val_RN, test_RN = _examples(design, random, many, design.val_examples), _examples(design, random, many, design.test_examples)
        right = []
        for arm in range(arms):
            true_RC = _cells(design, random, many, design.cells) + np.float32(design.effect if arm else 0.0)
            best_R1 = _right(design, random, true_RC, val_RN, seeds=1).mean(axis=(2, 3)).argmax(axis=1)[:, None]
            # Frozen; fresh seeds and examples: only the choice of the cell remains from the search.
            frozen_R1 = np.take_along_axis(true_RC, best_R1, axis=1)
            right.append(_right(design, random, frozen_R1, test_RN, design.seeds)[:, 0])
        yield np.stack(right)


def both_p(D_RSN: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R,) and (R,): p of the two-sided paired t over seeds, and over seeds x examples. Without any spread, p = 1."""
    S, N = D_RSN.shape[1:]
    d_RS = D_RSN.mean(axis=2)
    mean_R, by_seed_R, by_example_R, residual_R = mean_squares(D_RSN)
    se_R, df_R = standard_error(by_seed_R, by_example_R, residual_R, S, N)
    with np.errstate(invalid="ignore", divide="ignore"):
        t_R = 2 * stats.t.sf(np.abs(mean_R) / (d_RS.std(axis=1, ddof=1) / math.sqrt(S)), S - 1)
        crossed_R = 2 * stats.t.sf(np.abs(mean_R) / se_R, df_R)
    return np.where(np.ptp(d_RS, axis=1) > 1e-9, t_R, 1.0), np.nan_to_num(crossed_R, nan=1.0)


def paper(design: Design, replicates: int, seed: int = 0, *, baseline_cells: int = 1) -> dict[str, Rate]:
    """The paper's recipe without an effect: rates of its one-tailed paired t, and of a two-sided one in the method's favour.

    Of `baseline_cells` learning rates for the baseline, the best by test accuracy is kept, like the method's best of `cells`.
    """
    random = np.random.default_rng(seed)
    hits = {"one-tailed": 0, "two-sided, and higher": 0}
    for many in _chunks(replicates, (design.cells + baseline_cells) * design.seeds * design.test_examples):
        test_RN = _examples(design, random, many, design.test_examples)
        kept = []
        for cells in (baseline_cells, design.cells):
            accuracy_RCS = _right(design, random, _cells(design, random, many, cells), test_RN, design.seeds).mean(axis=3)
            best_R11 = accuracy_RCS.mean(axis=2).argmax(axis=1)[:, None, None]
            kept.append(np.take_along_axis(accuracy_RCS, best_R11, axis=1)[:, 0])
        d_RS = kept[1] - kept[0]
        hits["one-tailed"] += int(_below(d_RS, "greater").sum())
        hits["two-sided, and higher"] += int((_below(d_RS, "two-sided") & (d_RS.mean(axis=1) > 0)).sum())
    return {name: Rate(hits=count, n=replicates) for name, count in hits.items()}


def _examples(design: Design, random: np.random.Generator, many: int, N: int) -> Singles:
    return np.float32(design.example_sd) * random.standard_normal((many, N), dtype=np.float32)


def _cells(design: Design, random: np.random.Generator, many: int, cells: int) -> Singles:
    return np.float32(design.cell_sd) * random.standard_normal((many, cells), dtype=np.float32)


def _right(design: Design, random: np.random.Generator, true_RC: Singles, difficulty_RN: Singles, seeds: int) -> NDArray[np.bool_]:
    """(R, C, S, N): which answers of one arm are right."""
    R, C = true_RC.shape
    N = difficulty_RN.shape[1]

    def normal(sd: float, *shape: int) -> Singles:
        return np.float32(sd) * random.standard_normal(shape, dtype=np.float32)

    run_RCS = normal(design.run_sd * math.sqrt(design.shared), R, 1, seeds) + normal(
        design.run_sd * math.sqrt(1 - design.shared), R, C, seeds
    )
    run_RCS += true_RC[:, :, None] + np.float32(design.ability)
    latent_RCSN = random.standard_normal((R, C, seeds, N), dtype=np.float32)
    latent_RCSN += run_RCS[..., None]
    latent_RCSN += (difficulty_RN + normal(design.taste_sd, R, N))[:, None, None, :]
    right: NDArray[np.bool_] = latent_RCSN > 0
    return right


def _below(d_RS: NDArray[np.float64], alternative: str) -> NDArray[np.bool_]:
    """(R,): whether the t-test has p below the level. Without any spread there is no test and no hit."""
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SciPy warns if all differences are equal
        p_R = stats.ttest_1samp(d_RS, 0.0, axis=1, alternative=alternative).pvalue
    spread_R = np.ptp(d_RS, axis=1) > 1e-9
    below_R: NDArray[np.bool_] = spread_R & (p_R < LEVEL)
    return below_R


def _chunks(replicates: int, answers: int) -> Iterator[int]:
    if replicates < 1:
        raise ValueError(f"a simulation needs at least 1 replicate; it has {replicates}")
    step = max(1, CHUNK // answers)
    for start in range(0, replicates, step):
        yield min(step, replicates - start)
