"""Diagnostics of paired embeddings: values derived by hand, invariances, planted collapse, degenerate input."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jepa_ray.evaluation import embedding as e

Matrix = e.Matrix


def m(*rows: Any) -> Matrix:
    return np.array(rows, dtype=np.float64)


def normal(n: int, d: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).normal(size=(n, d))


def rotation(d: int, seed: int = 0) -> Matrix:
    return np.linalg.qr(normal(d, d, seed))[0]


H4 = 1 + 1 / 2 + 1 / 3 + 1 / 4
ROOT = math.sqrt(2)
ONE: list[tuple[Callable[[Matrix], float], Matrix, float]] = [
    (e.effective_rank, np.eye(5), 5.0),  # p = 1/5 each, entropy log 5
    (e.effective_rank, m([3, 0], [0, 1]), 4 / 3**0.75),  # exp(3/4 log 4/3 + 1/4 log 4)
    (e.effective_rank, m([1, 2], [2, 4], [3, 6]), 1.0),
    (e.participation_ratio, m([2, 0], [-2, 0], [0, 1], [0, -1]), 25 / 17),  # eigenvalues 2 and 1/2: 6.25 / 4.25
    (e.participation_ratio, m([5, 1], [5, 3]), 1.0),  # the common 5 does not vary
    (e.mean_energy, m([1, 1], [1, -1]), 0.5),  # mean (1, 0): 2 * 1 / 4
    (e.mean_energy, m([1, 0], [-1, 0]), 0.0),
    (e.mean_energy, m([3, 4], [3, 4], [3, 4]), 1.0),
    (e.variance, m([1, 1], [1, -1]), 0.5),  # 0 and 1
    (e.variance, m([7, 7], [7, 7]), 0.0),
    (e.uniformity, m([1, 0], [-9, 0]), -8.0),  # |x - y|^2 = 4
    (e.uniformity, m([1, 0], [2, 0], [0, 1]), math.log((1 + 2 * math.exp(-4)) / 3)),  # squared distances 0, 2, 2
    (e.anisotropy, m([1, 0], [0, 2], [3, 0]), 1 / 3),  # cosines 0, 1, 0
    (e.anisotropy, m([1, 0], [-1, 0]), -1.0),
]
TWO: list[tuple[Callable[[Matrix, Matrix], Any], Matrix, Matrix, Any]] = [
    (e.linearity, m([1], [1]), m([0], [2]), ROOT),  # X = 1 leaves (-1, 1)
    (e.linearity, m([1, 0], [0, 1], [1, 1]), m([0], [0], [3]), math.sqrt(3)),  # the part along (1, 1, -1) / sqrt 3: 3 / sqrt 3
    (e.linearity, m([1, 1], [2, 2], [0, 0]), m([1], [2], [4]), 4.0),  # rank 1, two equal columns
    (e.alignment, m([1, 0], [0, 2]), m([0, 3], [0, 1]), 1.0),  # 2 and 0
    (e.paired_cosine, m([1, 0], [0, 2]), m([0, 3], [0, 1]), 0.5),
    (e.contrast, m([1, 0], [0, 2]), m([3, 0], [0, 1]), 1.0),  # 1 - 0
    (e.contrast, m([1, 0], [0, 1]), m([1, 0], [1, 0]), 0.0),  # pairs 1, 0; others 1, 0
    (e.contrast, m([1, 0], [0, 1], [-1, 0]), m([1, 0], [0, 1], [-1, 0]), 1 + 2 / 6),  # others 0, -1, 0 twice
    (e.retrieval, m([1, 0], [0, 1]), m([9, 1], [1, 9]), (1.0, 1.0)),
    (e.retrieval, m([1, 0], [0, 1]), m([1, 9], [9, 1]), (0.0, 0.5)),  # both second
    # Text 1 finds code 1 alone: 1 and 1. Text 2 ties codes 2 and 3 at the top: 1/2 and (1 + 1/2)/2. Text 3 has cosine sqrt(1/2) with all
    # three: 1/3 and (1 + 1/2 + 1/3)/3.
    (e.retrieval, m([1, 0], [0, 1], [1, 1]), m([1, 0], [0, 1], [0, 1]), ((1 + 1 / 2 + 1 / 3) / 3, (1 + 3 / 4 + 11 / 18) / 3)),
    (e.retrieval, np.ones((4, 2)), np.ones((4, 2)), (0.25, H4 / 4)),  # collapsed: all four tied
]


@pytest.mark.parametrize(("function", "x", "wanted"), ONE)
def test_one_set_by_hand(function: Callable[[Matrix], float], x: Matrix, wanted: float) -> None:
    assert function(x) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("function", "text", "code", "wanted"), TWO)
def test_pairs_by_hand(function: Callable[[Matrix, Matrix], Any], text: Matrix, code: Matrix, wanted: Any) -> None:
    assert function(text, code) == pytest.approx(wanted, abs=1e-12)


def test_singular_values_by_hand() -> None:
    text, code = m([3, 1], [0, 5]), m([0, 1], [0, 1])  # difference diag(3, 4); at length 1 it is not
    values = e.describe(text, code)
    assert [values[f"sv_{i}"] for i in (1, 2)] == pytest.approx([4.0, 3.0]) and math.isnan(values["sv_3"])
    assert (values["sv_mean"], values["sv_max"]) == pytest.approx((3.5, 4.0))
    # At length 1 the difference is (3, 1) / sqrt 10 - (0, 1) in its first row and zero in its second: its one singular value is its length.
    length = math.hypot(3 / math.sqrt(10), 1 / math.sqrt(10) - 1)
    assert (values["unit_sv_1"], values["unit_sv_2"], values["unit_sv_mean"]) == pytest.approx((length, 0, length / 2))
    assert values["alignment"] == pytest.approx(length**2 / 2), "the squares of singular values sum to those of the entries"
    assert e.top_mean(np.arange(150.0, 0, -1)) == (51 + 150) / 2


def test_ridge_finds_a_linear_map_with_an_offset_and_nothing_in_noise() -> None:
    text = normal(128, 16)
    code = text @ normal(16, 8, 1) + 5
    assert e.ridge_r2(text, code) > 0.999
    assert e.linearity(text, code) > 1 > e.linearity(np.hstack([text, np.ones((128, 1))]), code), "T14 has no intercept"
    noise = [e.ridge_r2(normal(128, 16, 2 + seed), normal(128, 8, 50 + seed)) for seed in range(20)]
    assert max(noise) < 0.1 and min(noise) > -0.3, noise
    half = code - 5 + normal(128, 8, 3) * np.sqrt(16)  # noise of the signal's own variance: half can be explained
    assert 0.2 < e.ridge_r2(text, half) < 0.6
    wide = normal(128, 400)  # D > N: least squares fits anything, so `linearity` has no value, but unseen pairs do
    assert math.isnan(e.linearity(wide, code)) and e.ridge_r2(wide, wide @ normal(400, 4, 7)) < 0.7


def test_held_out_pairs_do_not_choose_the_ridge() -> None:
    """The fit's predictions do not depend on the held-out Codes, so R2 follows from its definition."""
    text, code = normal(32, 3), normal(32, 1, 1)
    held = np.arange(32) % 4 == 3
    mean = code[~held].mean()
    results = {}
    for shift in (0.0, 1.0, -2.0, 3.0):
        moved = code + shift * held[:, None]
        total = np.square(moved[held] - mean).sum()
        results[shift] = (1 - e.ridge_r2(text, moved)) * total  # sum (y + s - f)^2: a parabola in s with second difference 2 n
    a = (results[1.0] - results[0.0] - held.sum()) / 2  # sum (y - f)
    for shift, value in results.items():
        assert value == pytest.approx(results[0.0] + 2 * shift * a + shift**2 * held.sum(), rel=1e-9)


def test_leave_one_out_errors_are_those_of_leaving_one_out() -> None:
    text, code = normal(9, 3), normal(9, 2, 1)
    x, y, ridges = text - text.mean(0), code - code.mean(0), np.array([0.01, 1.0, 30.0])
    for ridge, error in zip(ridges, e.loo_errors(*np.linalg.svd(x, full_matrices=False)[:2], y, ridges), strict=True):
        wanted = 0.0
        for i in range(9):
            keep = np.arange(9) != i
            a, b = x[keep] - x[keep].mean(0), y[keep] - y[keep].mean(0)
            slope = np.linalg.solve(a.T @ a + ridge * np.eye(3), a.T @ b)
            wanted += float(np.square(y[i] - y[keep].mean(0) - (x[i] - x[keep].mean(0)) @ slope).sum())
        assert error == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_chance_is_the_exact_mean_over_all_exchanges_of_pairs(ties: bool) -> None:
    text, code = normal(5, 3), normal(5, 3, 1)
    if ties:
        code[1] = code[3] = 2 * code[0]
        text[2] = 0
    scores = np.array([e.retrieval(text, code[list(order)]) for order in itertools.permutations(range(5))])
    assert scores.mean(axis=0) == pytest.approx(e.chance(5), rel=1e-12)
    assert e.chance(5) == pytest.approx((0.2, (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5)) and scores.std(axis=0).min() > 0


def test_equal_codes_are_tied_whatever_rounding_does() -> None:
    """Ten examples, two distinct targets with states that are equal: R@1 is at most 2/10, also with many dimensions to round in."""
    two = normal(2, 999)
    code = two[np.arange(10) % 2]
    assert e.retrieval(code + 0.01 * normal(10, 999, 1), code)[0] == pytest.approx(0.2)


INVARIANT_TO_SCALE = {"linearity_relative", "ridge_r2", "alignment", "paired_cosine", "contrast", "r1", "mrr", "pred_distance"} | {
    f"{name}_{side}" for name in ("rank", "participation", "mean_energy", "uniformity", "anisotropy") for side in ("text", "code")
}


def test_a_common_rotation_changes_nothing() -> None:
    text, code = normal(40, 6) + 1, normal(40, 6, 1)
    turn = rotation(6)
    wanted = e.describe(text, code)
    assert e.describe(text @ turn, code @ turn) == pytest.approx(wanted, rel=1e-7, nan_ok=True)
    moved = e.describe(text[:, ::-1] @ turn, code[:, ::-1] @ turn)
    assert moved == pytest.approx(wanted, rel=1e-7, nan_ok=True) and len(wanted) > 40


def test_the_order_of_the_examples_matters_to_the_held_out_split_only() -> None:
    text, code = normal(40, 6) + 1, normal(40, 6, 1)
    order = np.random.default_rng(2).permutation(40)
    wanted, described = e.describe(text, code), e.describe(text[order], code[order])
    assert described.pop("ridge_r2") != pytest.approx(wanted.pop("ridge_r2"))
    assert described == pytest.approx(wanted, rel=1e-9, nan_ok=True)
    apart = e.describe(text, code[order])  # other pairs: the values of each side are unchanged
    for name in wanted:
        if name.endswith(("_text", "_code")):
            assert apart[name] == pytest.approx(wanted[name]), name
    assert apart["contrast"] != pytest.approx(wanted["contrast"])


@pytest.mark.parametrize("factors", [(1e-3, 1e-3), (1e4, 10.0), (1e30, 1e-30)])
def test_scale_does_not_matter_where_it_should_not(factors: tuple[float, float]) -> None:
    text, code = normal(40, 6) + 1, normal(40, 6, 1)
    wanted = e.describe(text, code)
    names = INVARIANT_TO_SCALE
    described = e.describe(factors[0] * text, factors[1] * code)
    assert {name: described[name] for name in names} == pytest.approx({name: wanted[name] for name in names}, rel=1e-7)
    if factors[0] < 1:
        assert described["sv_max"] == pytest.approx(factors[0] * wanted["sv_max"])
        assert described["variance_code"] == pytest.approx(factors[1] ** 2 * wanted["variance_code"])


def test_an_invertible_map_of_text_does_not_change_what_is_linear_in_it() -> None:
    text, code = normal(40, 6), normal(40, 6, 1)
    assert e.linearity(text @ normal(6, 6, 3), code) == pytest.approx(e.linearity(text, code))


def test_a_planted_collapse_shows_and_healthy_states_do_not() -> None:
    """Shared content, noise of half its size: pairs find each other. Then the same drowned in one common direction; then on one line."""
    content = normal(128, 64)
    text, code = content + 0.5 * normal(128, 64, 1), content + 0.5 * normal(128, 64, 2)
    healthy = e.describe(text, code)
    assert healthy["r1"] > 0.95 and healthy["contrast"] > 0.5 and abs(healthy["anisotropy_code"]) < 0.05
    assert healthy["mean_energy_code"] < 0.05 and healthy["rank_code"] > 40 and healthy["participation_code"] > 30
    common = 20 * normal(1, 64, 3)
    collapsed = e.describe(0.01 * text + common, 0.01 * code + common)
    assert collapsed["anisotropy_code"] > 0.999 and collapsed["mean_energy_text"] > 0.999 and collapsed["contrast"] < 1e-3
    assert collapsed["alignment"] < 1e-3 < healthy["alignment"], "the JEPA term alone sees an improvement"
    assert collapsed["uniformity_code"] > -1e-3 and healthy["uniformity_code"] < -3
    line = normal(128, 1, 4) @ normal(1, 64, 5)
    flat = e.describe(line, line)
    assert flat["rank_text"] == pytest.approx(1) and flat["participation_text"] == pytest.approx(1) and flat["ridge_r2"] > 0.999


def test_text_and_prediction_are_told_apart() -> None:
    text, code = normal(20, 5), normal(20, 5, 1)
    values = e.describe(text, code, prediction_ND=3 * code)
    assert values["pred_r1"] == values["pred_mrr"] == 1 and values["pred_distance"] == pytest.approx(0, abs=1e-12)
    assert values["r1"] == e.retrieval(text, code)[0] < 1 and values["pred_contrast"] == pytest.approx(e.contrast(code, code))
    plain = e.describe(text, code)
    assert plain["pred_r1"] == plain["r1"] and plain["pred_distance"] == pytest.approx(1 - plain["paired_cosine"])
    assert list(plain) == list(values)


NAN_ON = {
    "all equal": (np.ones((9, 4)), {"participation_text", "participation_code", "ridge_r2"}),
    "zeros": (
        np.zeros((9, 4)),
        {f"{name}_{side}" for name in ("rank", "participation", "mean_energy") for side in ("text", "code")}
        | {"ridge_r2", "linearity_relative"},
    ),
    "one example": (
        m([1, 2, 3]),
        {"contrast", "pred_contrast", "linearity", "linearity_relative", "ridge_r2"}
        | {f"{name}_{side}" for name in ("anisotropy", "uniformity", "participation") for side in ("text", "code")},
    ),
    "two examples": (m([1, 2, 3], [3, 2, 0]), {"linearity", "linearity_relative", "ridge_r2"}),
    "one dimension": (normal(9, 1), set()),
    "more dimensions than examples": (normal(9, 30), {"linearity", "linearity_relative"}),
    "some zero rows": (np.vstack([np.zeros((3, 4)), normal(9, 4)]), set()),
}


@pytest.mark.parametrize("case", NAN_ON)
def test_degenerate_input_gives_the_documented_nan_and_no_warning(case: str) -> None:
    x, wanted = NAN_ON[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = e.describe(x, x)
    assert values.keys() == e.describe(normal(9, 4), normal(9, 4, 1)).keys()
    short = {f"{prefix}_{i}" for prefix in ("sv", "unit_sv") for i in range(min(x.shape) + 1, e.LISTED + 1)}
    assert {name for name, value in values.items() if math.isnan(value)} == wanted | short
    assert all(math.isnan(value) or math.isfinite(value) for value in values.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_gives_nan_and_no_warning(bad: float, side: int) -> None:
    pair = [normal(12, 4), normal(12, 4, 1)]
    pair[side][3, 2] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = e.describe(*pair)
    spoilt, other = ("text", "code") if side == 0 else ("code", "text")
    finite = {"pairs", "r1_chance", "mrr_chance"} | {name for name in values if name.endswith(f"_{other}")}
    assert {name for name, value in values.items() if math.isfinite(value)} == finite and len(finite) == 9 and spoilt not in finite


def test_no_examples_give_nan_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = e.describe(np.empty((0, 4)), np.empty((0, 4)))
    assert {name for name, value in values.items() if not math.isnan(value)} == {"pairs"}
