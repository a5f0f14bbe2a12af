"""Seeds x examples: a published analysis of variance, closed forms, coverage by simulation, and power against G*Power's number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.stats import crossed
from analysis.stats.crossed import Components, bootstrap, components, detectable, interval, mean_squares, plan, seeds_needed, standard_error

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)
"""Six targets rated by four judges (Shrout & Fleiss 1979, table 2); their table 3 has the mean squares."""


def drawn(random: np.random.Generator, R: int, S: int, N: int, seed: float, example: float, residual: float) -> NDArray[np.float64]:
    """R tables with these variances."""
    return (
        math.sqrt(seed) * random.standard_normal((R, S, 1))
        + math.sqrt(example) * random.standard_normal((R, 1, N))
        + math.sqrt(residual) * random.standard_normal((R, S, N))
    )


def test_shrout_and_fleiss() -> None:
    _, targets, judges, residual = mean_squares(SHROUT_FLEISS)
    assert [round(float(x), 2) for x in (targets, judges, residual)] == [11.24, 32.49, 1.02]
    found = components(SHROUT_FLEISS)
    assert (found.seeds, found.examples) == (6, 4)
    # Their ICC(2,1), 0.29, is the targets' share of the variance of one rating.
    assert found.var_seed / (found.var_seed + found.var_example + found.var_residual) == pytest.approx(0.29, abs=0.005)


def test_components_are_unbiased() -> None:
    tables = drawn(np.random.default_rng(0), 3000, 5, 30, 0.5, 0.3, 1.0)
    _, by_seed, by_example, residual = mean_squares(tables)
    means = [(by_seed - residual).mean() / 30, (by_example - residual).mean() / 5, residual.mean()]
    assert means == pytest.approx([0.5, 0.3, 1.0], rel=0.05)
    one = components(tables[0])
    assert one.var_residual == pytest.approx(float(residual[0]))


@pytest.mark.parametrize("variances", [(1, 1, 1), (0.1, 0.1, 1), (0.02, 0.05, 0.3), (0, 1, 1), (0, 0, 1)])
def test_the_interval_covers(variances: tuple[float, float, float]) -> None:
    """95 %, within 1.5 points; without variance over seeds or examples it may cover more, but not less."""
    S, N, R = 5, 60, 4000
    mean, *squares = mean_squares(drawn(np.random.default_rng(2), R, S, N, *variances))
    se, df = standard_error(squares[0], squares[1], squares[2], S, N)
    outside = float((2 * stats.t.sf(np.abs(mean) / se, df) < 0.05).mean())
    assert 0.035 <= outside <= 0.065


def test_without_examples_effects_it_is_the_t_interval_over_seeds() -> None:
    """All examples are equal at a seed, except for a checkerboard that cancels by row: only seeds vary."""
    seeds = np.array([0.1, 0.4, -0.2, 0.3])
    D_SN = seeds[:, None] + 1e-9 * np.array([[1, -1], [-1, 1], [1, -1], [-1, 1]])
    found = interval(D_SN)
    expected = stats.ttest_1samp(seeds, 0.0)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-6)
    assert (found.seeds, found.examples) == (4, 2)


def test_equivalence_is_the_90_percent_interval_within_the_margin() -> None:
    """If the arms differ often: the gap between mean and margin is then small compared with the differences."""
    D_SN = drawn(np.random.default_rng(3), 1, 5, 40, 0.1, 0.1, 1.0)[0]
    found = interval(D_SN)
    edge = abs(found.estimate) + stats.t.ppf(0.95, found.df) * found.se
    wider = 1 + (edge - abs(found.estimate)) / float(np.square(D_SN).mean())
    p = stats.t.sf(stats.t.isf(0.05, found.df) / math.sqrt(wider), found.df)
    assert crossed.equivalence(D_SN, edge) == pytest.approx(p) and 0.05 < p < 0.08
    assert crossed.equivalence(D_SN, 1.2 * edge) < 0.05


def test_the_interval_is_never_narrower_than_that_over_seeds() -> None:
    """Scattered example means give more than S - 1 degrees of freedom, and so a smaller quantile."""
    for seed in range(30):
        D_SN = drawn(np.random.default_rng(seed), 1, 3, 80, 0.01, 0.3, 1.0)[0]
        found, low, high = interval(D_SN), *stats.ttest_1samp(D_SN.mean(axis=1), 0).confidence_interval(0.95)
        assert found.low <= low + 1e-12 and found.high >= high - 1e-12


def test_seeds_that_agree_exactly_have_no_interval() -> None:
    """The same sum at every seed, on different examples each time: no spread over seeds, and none visible between examples."""
    D_SN = np.zeros((3, 256))
    for s in range(3):
        D_SN[s, s] = 1.0
    with pytest.raises(ValueError, match=r"same .* at all 3 seeds"):
        interval(D_SN)
    assert 0 < crossed.equivalence(D_SN, 0.05) < 0.05


def test_arms_that_hardly_ever_differ_are_not_equivalent_for_that_reason() -> None:
    """64 examples x 5 seeds at a true difference of one point: one example in fifty is won half of the time, the others never.

    With 256 examples, the plain TOST is wrong in one case of eight. One difference among 320 answers must not give p = 0.046 either.
    """
    one = np.zeros((5, 64))
    one[2, 7] = 1.0
    assert crossed.equivalence(one, 0.01) > 0.1
    for won, limit in ((0.2, 0.06), (0.5, 0.06), (0.8, 0.06)):
        random = np.random.default_rng(7)
        special_RN = random.random((1500, 1, 256)) < 0.01 / won
        D_RSN = (special_RN & (random.random((1500, 5, 256)) < won)).astype(float)
        wrong = [bool(D_SN.any()) and crossed.equivalence(D_SN, 0.01) < 0.05 for D_SN in D_RSN]
        assert np.mean(wrong) < limit, f"{won}: {np.mean(wrong)}"


def test_seeds_that_agree_by_luck_are_not_equivalence() -> None:
    """Seed means are almost equal although 10 % of the answers differ at random: the t over seeds is certain, the answers are not."""
    random = np.random.default_rng(5)
    D_SN = random.permuted(np.tile(np.repeat([1.0, -1.0, 0.0], [26, 25, 461]), (5, 1)), axis=1)
    D_SN[0, np.flatnonzero(D_SN[0] == 1)[0]] = 0.0
    sampling = math.sqrt(components(D_SN).var_residual / D_SN.size)
    assert interval(D_SN).se < 0.2 * sampling
    assert crossed.equivalence(D_SN, 0.01) == pytest.approx(stats.t.sf((0.01 - D_SN.mean()) / sampling, 4), rel=0.1)
    assert crossed.equivalence(D_SN, 0.01) > 0.05 > crossed.equivalence(D_SN, 0.04)


def test_equivalence_errs_at_most_at_its_level() -> None:
    """At a true difference of the margin, for every composition of the variance."""
    for parts in ((0.0, 0.0), (0.02, 0.0), (0.0, 0.3), (0.02, 0.3)):
        drawn_RSN = drawn(np.random.default_rng(6), 2000, 5, 60, *parts, 1.0) + 0.2
        errors = np.mean([crossed.equivalence(D_SN, 0.2) < 0.05 for D_SN in drawn_RSN])
        assert errors < 0.06, f"{parts}: {errors}"


def test_bootstrap_variance_has_a_closed_form() -> None:
    """Counts w of seeds have E[w w'] = I + (1 - 1/S) J, examples the same way, so E[(w' D v)^2] = tr(E[ww'] D E[vv'] D')."""
    D_SN = np.random.default_rng(4).choice([-1.0, 0.0, 1.0], size=(5, 40), p=[0.1, 0.7, 0.2])
    S, N = D_SN.shape
    seeds, examples = (np.eye(n) + (1 - 1 / n) * np.ones((n, n)) for n in (S, N))
    second = float(np.trace(seeds @ D_SN @ examples @ D_SN.T)) / (S * N) ** 2
    found = bootstrap(D_SN, resamples=20_000)
    assert found.se == pytest.approx(math.sqrt(second - D_SN.mean() ** 2), rel=0.03)
    assert found.low < found.estimate < found.high and found.df is None and found.p is None
    assert bootstrap(D_SN) == bootstrap(D_SN)  # a named random stream


def test_power_of_a_paired_t() -> None:
    """G*Power and statsmodels: d = 0.5, two-sided 5 % and power 0.8 need 33.37, hence 34, pairs; the power at 34 is 0.8078."""
    by_seed = Components(seeds=2, examples=1, mean=0.0, var_seed=1.0, var_example=0.0, var_residual=0.0)
    assert detectable(by_seed, seeds=33, examples=1) > 0.5 > detectable(by_seed, seeds=34, examples=1)
    assert detectable(by_seed, seeds=34, examples=1, power=0.8078) == pytest.approx(0.5, abs=2e-4)
    assert seeds_needed(by_seed, 0.5, examples=1) == 34


def test_detectable_differences_are_detected_with_the_stated_power() -> None:
    parts = Components(seeds=5, examples=50, mean=0.0, var_seed=0.05, var_example=0.1, var_residual=1.0)
    difference = detectable(parts, seeds=8, examples=50)
    tables = difference + drawn(np.random.default_rng(5), 3000, 8, 50, 0.05, 0.1, 1.0)
    mean, by_seed, by_example, residual = mean_squares(tables)
    se, df = standard_error(by_seed, by_example, residual, 8, 50)
    assert float((2 * stats.t.sf(np.abs(mean) / se, df) < 0.05).mean()) == pytest.approx(0.8, abs=0.04)


def test_a_plan_gets_finer_with_seeds_but_not_without_examples() -> None:
    parts = components(drawn(np.random.default_rng(6), 1, 5, 50, 0.05, 0.5, 1.0)[0])
    table = plan(parts, examples=50)
    assert list(table) == [5, 10, 20] and table[5] > table[10] > table[20]
    floor = stats.norm.ppf(0.975) * math.sqrt(parts.var_example / 50)
    assert seeds_needed(parts, 0.9 * floor, examples=50) is None
    assert seeds_needed(parts, table[10], examples=50) == 10


@pytest.mark.parametrize("call", [components, interval, bootstrap, lambda D: crossed.equivalence(D, 0.01)])
@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([[1.0, 0.0, 1.0]], "1 seed"),
        ([[1.0], [0.0]], r"1 example"),
        ([[1.0, math.nan], [0.0, 1.0]], "1 of 2 x 2 differences are NaN"),
        ([[0.0, 0.0], [0.0, 0.0]], "same"),
        ([1.0, 0.0], "this array has 1 axes"),
    ],
)
def test_no_result_is_a_one_sentence_error(call, table: list[list[float]], words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        call(table)


def test_impossible_plans() -> None:
    parts = components(SHROUT_FLEISS)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        detectable(parts, seeds=1, examples=10)
    with pytest.raises(ValueError, match="above 0"):
        seeds_needed(parts, 0.0, examples=10)
    with pytest.raises(ValueError, match="no noise"):
        detectable(Components(seeds=2, examples=2, mean=0.0, var_seed=0.0, var_example=0.0, var_residual=0.0), seeds=5, examples=5)
    with pytest.raises(ValueError, match="margin above 0"):
        crossed.equivalence(SHROUT_FLEISS, 0.0)
