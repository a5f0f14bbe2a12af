"""Difference in log-probability: SciPy's paired interval, and no interval or no number where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.protocol.log_probability import compare, of


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    ours, theirs = [-3.0, -2.5, -4.0], [-3.5, -3.75, -4.25]
    found = of(ours, theirs)
    wanted = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert (found.difference, found.seeds) == (pytest.approx(2 / 3), 3)
    assert found.sentence().startswith("+0.667 nats per answer (-3.167 against -3.833), 95 % ")


def test_one_seed_or_no_spread_has_no_interval() -> None:
    for ours, theirs in (([-1.0], [-2.0]), ([-1.0, -3.0], [-2.0, -4.0])):
        found = of(ours, theirs)
        assert found.low is None and found.high is None and found.difference == 1
        assert found.sentence().endswith(f"no interval (n = {len(ours)})")


def test_a_seed_without_a_value_has_no_comparison() -> None:
    whole = pd.DataFrame({"test_logprob": [-1.0, -2.0]}, index=[4, 23])
    assert compare(whole, whole - 1, "test") == of([-1, -2], [-2, -3])
    for gap in (None, np.nan, -np.inf):
        assert compare(whole, pd.DataFrame({"test_logprob": [-1.0, gap]}, index=[4, 23]), "test") is None
    assert compare(whole[:0], whole[:0], "test") is None
