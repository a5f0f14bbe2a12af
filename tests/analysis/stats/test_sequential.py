"""Group-sequential looks: published boundaries, closed forms, type I error by simulation, and the decisions of a race."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats.sequential import boundaries, crossing, decide, ended, look_of, smallest_level, spending, spent

LOOKS = [(3, 5, 10), (5, 10, 20)]


@pytest.mark.parametrize(
    ("looks", "published"),
    [(2, [2.963, 1.969]), (3, [3.710, 2.511, 1.993]), (5, [4.877, 3.357, 2.680, 2.290, 2.031])],
)
def test_lan_and_demets(looks: int, published: list[float]) -> None:
    """O'Brien-Fleming-type spending, equally spaced, two-sided 5 % (the five looks are the example of Reboussin et al. 2000)."""
    times = tuple(k / looks for k in range(1, looks + 1))
    found = boundaries(times, tuple(spent(t, 0.05) for t in times))
    assert found == pytest.approx(published, abs=6e-4)
    assert sum(crossing(times, found)) == pytest.approx(0.05, abs=1e-10)


@pytest.mark.parametrize(("looks", "fleming", "pocock"), [(2, 1.977, 2.178), (3, 2.004, 2.289), (4, 2.024, 2.361), (5, 2.040, 2.413)])
def test_the_integral_on_boundaries_of_other_shapes(looks: int, fleming: float, pocock: float) -> None:
    """Jennison & Turnbull 2000, tables 2.1 and 2.3: constants for 5 % in all, to three decimals (0.001 more is 1.2e-4 less)."""
    times = [k / looks for k in range(1, looks + 1)]
    assert sum(crossing(times, [fleming / math.sqrt(t) for t in times])) == pytest.approx(0.05, abs=1e-4)
    assert sum(crossing(times, [pocock] * looks)) == pytest.approx(0.05, abs=1e-4)


def test_two_looks_are_a_bivariate_normal() -> None:
    """P(|Z1| < a, |Z2| < b) with correlation sqrt(t), by SciPy's own integral."""
    t, a, b = 0.3, 2.1, 1.9
    inside = stats.multivariate_normal(cov=[[1, math.sqrt(t)], [math.sqrt(t), 1]]).cdf([a, b], lower_limit=[-a, -b])
    assert sum(crossing((t, 1.0), (a, b))) == pytest.approx(1 - inside, abs=1e-7)


def test_one_look_needs_no_correction() -> None:
    assert spending([5], 0.05) == pytest.approx((0.05,))


def test_the_unit_of_time_does_not_matter() -> None:
    errors = (0.01, 0.03, 0.05)
    assert boundaries((1.0, 3.0, 9.0), errors) == pytest.approx(boundaries((1 / 9, 1 / 3, 1.0), errors), abs=1e-9)


@pytest.mark.parametrize("looks", LOOKS)
def test_levels_rise_with_the_look_and_with_alpha(looks: tuple[int, ...]) -> None:
    """Early looks cost almost nothing, and a larger alpha has larger levels at every look, so an overall p is unique."""
    table = np.array([spending(looks, alpha) for alpha in (1e-10, 1e-6, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.9, 0.999)])
    assert (np.diff(table, axis=0) > 0).all()
    assert spending(looks, 0.05)[0] < 1e-4 < 0.048 < spending(looks, 0.05)[-1] < 0.05


def test_a_number_of_seeds_between_looks_belongs_to_the_later_one() -> None:
    assert [look_of(n, (3, 5, 10)) for n in (2, 3, 4, 5, 9, 10, 12)] == [1, 1, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("looks", LOOKS)
def test_t_tests_at_these_levels_keep_five_percent(looks: tuple[int, ...]) -> None:
    """The significance-level approach with as few as 3 seeds: normal differences, no effect, no stopping for futility."""
    R, hit_R = 40_000, np.zeros(40_000, dtype=bool)
    differences_RS = np.random.default_rng(4).standard_normal((R, looks[-1]))
    for look, level in zip(looks, spending(looks, 0.05), strict=True):
        hit_R |= stats.ttest_1samp(differences_RS[:, :look], 0.0, axis=1).pvalue < level
    assert hit_R.mean() == pytest.approx(0.05, abs=0.01)


def test_a_true_gain_of_the_margin_is_rarely_called_futile() -> None:
    """Each look errs in 5 %, so three err in at most 15 %; in fact less, because the looks share seeds."""
    futile_R = np.zeros(20_000, dtype=bool)
    differences_RS = np.random.default_rng(5).normal(0.01, 0.01, (20_000, 10))
    for look in (3, 5, 10):
        here = differences_RS[:, :look]
        futile_R |= ended(here.mean(axis=1), here.std(axis=1, ddof=1) / math.sqrt(look), look - 1, 1e-4, 0.01)[1]
    assert 0.05 < futile_R.mean() < 0.15


def test_a_race_decides() -> None:
    looks, level = (3, 5, 10), spending((3, 5, 10), 0.05)[1]
    gain = decide([0.05, 0.051, 0.052, 0.05, 0.051], 5, looks, 0.01, 0.05)
    assert not gain.go_on and gain.reason.startswith("decided: +5.08 points over 5 seeds") and gain.nominal_level == level
    assert gain.p is not None and gain.p < level
    # An equally certain gain whose mean is below the margin, but not with certainty: more seeds may still raise it.
    assert decide([0.009, 0.0095, 0.01, 0.0105, 0.0095], 5, looks, 0.01, 0.05).go_on
    null = decide([0.0, 0.001, 0.002, 0.0, 0.001], 5, looks, 0.01, 0.05)
    assert not null.go_on and null.reason.startswith("futile: +0.08 points") and "below the margin of 1" in null.reason
    loss = decide([-0.05, -0.051, -0.052], 3, looks, 0.01, 0.05)
    assert not loss.go_on and loss.reason.startswith("futile: -5.10 points")
    wide = decide([0.03, -0.02, 0.02], 3, looks, 0.01, 0.05)
    assert wide.go_on and wide.reason.startswith("open: +1.00 points over 3 seeds")
    end = decide([0.03, -0.02, 0.02, 0.0, 0.01] * 2, 10, looks, 0.01, 0.05)
    assert not end.go_on and end.reason.startswith("all planned seeds are in")


def test_the_upper_bound_is_student_s() -> None:
    """Differences -1, 0, 1 points: mean 0, standard error 1 / sqrt 3, t(0.95; 2) = 2.920, so the bound is 1.686 points."""
    for margin, goes_on in ((0.0168, True), (0.0169, False)):
        assert decide([-0.01, 0.0, 0.01], 3, (3, 10), margin, 0.05).go_on is goes_on


def test_what_cannot_be_tested_continues_until_the_end() -> None:
    for differences, why in (([0.01] * 3, "no spread"), ([0.01], "1 seed"), ([], "0 seed"), ([0.1, math.nan, 0.2], "NaN")):
        found = decide(differences, 3, (3, 5), 0.01, 0.05)
        assert found.go_on and found.p is None and why in found.reason
    assert not decide([0.01] * 5, 5, (3, 5), 0.01, 0.05).go_on


def test_bad_looks() -> None:
    for looks in ((), (1, 5), (5, 3), (3, 3)):
        with pytest.raises(ValueError, match="must be rising numbers of seeds from 2 on"):
            spending(looks)
    with pytest.raises(ValueError, match="between 0 and 1"):
        spending((3, 5), 1.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        smallest_level(math.nan, lambda alpha: alpha)
    for look, margin in ((4, 0.01), (3, 0.0)):
        with pytest.raises(ValueError, match="A race looks after 3, 5 seeds"):
            decide([0.1, 0.2], look, (3, 5), margin, 0.05)
