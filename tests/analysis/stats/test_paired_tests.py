"""Paired tests against published values: Darwin's maize (Fisher 1935), closed forms, and definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats.paired_tests import (
    equivalence,
    holm,
    mcnemar,
    never_apart,
    paired_differences,
    paired_t,
    paper_one_tailed_t,
    sign_flip,
)

MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Height of crossed minus self-fertilised plants in eighths of an inch, 15 pairs (Fisher, The Design of Experiments, table 3)."""


def test_darwin_s_maize() -> None:
    """Fisher: t = 2.148 with 14 degrees of freedom; 863 of 32,768 sign patterns reach the sum of 314, so 5.27 % two-sided."""
    t = paired_t(MAIZE)
    assert t.n == 15 and t.estimate == pytest.approx(314 / 15)
    assert t.p == pytest.approx(2 * stats.t.sf(2.148, 14), abs=2e-5)
    assert sign_flip(MAIZE).p == pytest.approx(2 * 863 / 32768, rel=1e-12)
    assert paper_one_tailed_t(MAIZE).p == pytest.approx(t.p / 2)
    assert paper_one_tailed_t([-x for x in MAIZE]).p == pytest.approx(1 - t.p / 2)


def test_two_pairs_have_a_closed_form() -> None:
    """With one degree of freedom t is Cauchy: differences 1 and 3 give t = 2 / 1, p = 1 - 2 atan(2) / pi."""
    assert paired_t([1.0, 3.0]).p == pytest.approx(1 - 2 * math.atan(2.0) / math.pi)


def test_five_seeds_cannot_pass_by_sign_flips() -> None:
    assert sign_flip([1.0, 2.0, 3.0, 4.0, 5.0]).p == pytest.approx(2 / 2**5)
    differences = [0.3, -0.1, 0.25, 0.4]
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in itertools.product((1, -1), repeat=4)]
    assert sign_flip(differences).p == pytest.approx(sum(x >= 0.85 - 1e-9 for x in sums) / 16)


def test_many_seeds_are_drawn_at_random() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1.0, 40).tolist()
    drawn = sign_flip(differences)
    assert "random" in drawn.test and drawn.n == 40
    assert drawn.p == pytest.approx(paired_t(differences).p, abs=0.02)  # the two agree for normal differences


def test_mcnemar_is_a_fair_coin_on_the_disagreements() -> None:
    ours, theirs = [1] * 6 + [0] + [1] * 10 + [0] * 3, [0] * 6 + [1] + [1] * 10 + [0] * 3
    found = mcnemar(ours, theirs)
    assert (found.n, found.estimate) == (7, pytest.approx(5 / 7))
    assert found.p == pytest.approx(2 * (1 + 7) / 2**7)  # 6 or 7 heads of 7, doubled
    assert mcnemar(theirs, ours).p == pytest.approx(found.p)


def test_holm_s_own_arithmetic() -> None:
    """Sorted .01 .02 .03 .04: times 4, 3, 2, 1 is .04 .06 .06 .04, then the running maximum."""
    assert holm({"d": 0.04, "b": 0.02, "a": 0.01, "c": 0.03}) == pytest.approx({"d": 0.06, "b": 0.06, "a": 0.04, "c": 0.06})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert list(holm({"z": 0.5, "a": 0.1})) == ["z", "a"]


def test_holm_keeps_the_family_wise_rate() -> None:
    random = np.random.default_rng(1)
    wrong = sum(min(holm({str(i): p for i, p in enumerate(row)}).values()) < 0.05 for row in random.uniform(size=(4000, 8)))
    assert wrong / 4000 == pytest.approx(1 - (1 - 0.05 / 8) ** 8, abs=4 * math.sqrt(0.05 * 0.95 / 4000))


def test_tost_is_the_90_percent_interval_within_the_margin() -> None:
    differences = [0.001, -0.002, 0.003, 0.0005, -0.001]
    low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(0.90)
    edge = max(-low, high)
    assert equivalence(differences, edge * 1.001).p < 0.05 < equivalence(differences, edge * 0.999).p
    assert equivalence(differences, edge).p == pytest.approx(0.05)


def test_differences_by_seed() -> None:
    assert paired_differences({82: 0.5, 4: 0.75}, {4: 0.5, 82: 0.75}) == {4: 0.25, 82: -0.25}
    with pytest.raises(ValueError, match="in one arm only: 4"):
        paired_differences({82: 0.5, 4: 0.5}, {82: 0.5})
    with pytest.raises(ValueError, match=r"NaN or infinite at seed 82"):
        paired_differences({82: math.nan}, {82: 0.5})


def test_examples_that_never_tell_the_arms_apart() -> None:
    """The rule of three: 0 of 300 leaves at most 3 / 300 at p = 0.05; 299 are the fewest (0.99 ** 299 = 0.0495)."""
    assert never_apart(300, 0.01) == pytest.approx(0.99**300)
    assert never_apart(299, 0.01) < 0.05 < never_apart(298, 0.01)
    with pytest.raises(ValueError, match="margin above 0"):
        never_apart(300, 0.0)


@pytest.mark.parametrize("test", [paired_t, paper_one_tailed_t, sign_flip, lambda d: equivalence(d, 0.01)])
@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([0.1], "1 seed"),
        ([0.1, math.nan], "1 of 2 differences are NaN"),
        ([0.3 - 0.2, 0.1, 0.1], "same"),
        ([0.0, 0.0], "same"),
        ([], "0 seed"),
    ],
)
def test_no_result_is_a_one_sentence_error(test, differences: list[float], words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        test(differences)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="margin above 0"):
        equivalence([0.1, 0.2], 0.0)
    with pytest.raises(ValueError, match="agree on all 3"):
        mcnemar([1, 0, 1], [1, 0, 1])
    with pytest.raises(ValueError, match="same examples"):
        mcnemar([1, 0], [1])
    with pytest.raises(ValueError, match="or NaN"):
        mcnemar([1.0, math.nan], [1.0, 0.0])
    with pytest.raises(ValueError, match="at least one claim"):
        holm({})
    with pytest.raises(ValueError, match="for b"):
        holm({"a": 0.1, "b": math.nan})
