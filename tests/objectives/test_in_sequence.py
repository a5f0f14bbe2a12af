"""In-sequence pairs: by hand if a layout leaves no choice, otherwise by properties that every draw has."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from jepa_ray.config import IN_SEQUENCE
from jepa_ray.objectives.in_sequence import Combination, count_pairs, points
from jepa_ray.streams import stream

RANDOM = [layout for layout in IN_SEQUENCE if layout != "curvature"]


def rng(seed: int = 0) -> np.random.Generator:
    return stream(seed, "test")


def as_dict(combination: Combination) -> dict[int, float]:
    offsets, weights = combination
    return dict(zip(offsets.tolist(), weights.tolist(), strict=True))


def drawn(layout: str, content: NDArray[np.int64], seed: int = 0) -> tuple[dict[int, float], dict[int, float]]:
    """The one pair of a random layout."""
    ((source, target),) = points(layout, content, rng(seed))
    return as_dict(source), as_dict(target)


def states(combination: Combination, path: NDArray[np.float64]) -> NDArray[np.float64]:
    """The state that the combination computes from a path's states."""
    offsets, weights = combination
    return np.asarray((path[offsets] * weights[:, None]).sum(axis=0))


def test_every_layout_is_known() -> None:
    assert len(IN_SEQUENCE) == 5
    with pytest.raises(AssertionError, match="append"):
        points("append", np.arange(5), rng())


def test_three_tokens_leave_no_choice() -> None:
    at = np.array([4, 6, 9])
    straight = ({9: 1.0, 6: -1.0}, {6: 1.0, 4: -1.0})
    assert drawn("tube", at) == drawn("tube_ends", at) == drawn("tube_means", at) == straight
    assert [(as_dict(source), as_dict(target)) for source, target in points("curvature", at, rng())] == [straight]
    # The patch is (4, 6], with only what comes after it left over, or (6, 9], with what comes before.
    seen = [drawn("tube_patch", at, seed) for seed in range(30)]
    assert ({9: 1.0, 6: -1.0}, {6: 1.0, 4: -1.0}) in seen and ({6: 1.0, 4: -1.0}, {9: 1.0, 6: -1.0}) in seen
    assert len({str(pair) for pair in seen}) == 2


def test_curvature_by_hand() -> None:
    pairs = [(as_dict(source), as_dict(target)) for source, target in points("curvature", np.array([2, 3, 5, 8]), rng())]
    assert pairs == [({5: 1, 3: -1}, {3: 1, 2: -1}), ({8: 1, 5: -1}, {5: 1, 3: -1})]


@pytest.mark.parametrize("seed", range(20))
def test_means_are_of_three_spans_that_make_up_the_sequence(seed: int) -> None:
    at = np.arange(10, 19)
    source, target = drawn("tube_means", at, seed)
    first = [offset for offset, weight in target.items() if weight < 0]
    second = [offset for offset, weight in target.items() if weight > 0]
    third = [offset for offset, weight in source.items() if weight > 0]
    assert first + second + third == at.tolist() and first and second and third
    assert [offset for offset, weight in source.items() if weight < 0] == second
    for side, spans in ((source, (third, second)), (target, (second, first))):
        for span in spans:
            assert [abs(side[offset]) for offset in span] == pytest.approx([1 / len(span)] * len(span))


@pytest.mark.parametrize("seed", range(20))
def test_where_the_points_of_a_tube_lie(seed: int) -> None:
    at = np.arange(3, 12)
    for layout in ("tube", "tube_ends"):
        source, target = drawn(layout, at, seed)
        (t, r), (r_again, s) = sorted(source, reverse=True), sorted(target, reverse=True)
        assert source == {t: 1, r: -1} and target == {r: 1, s: -1} and r == r_again
        assert 3 <= s < r < t <= 11
        if layout == "tube_ends":
            assert (s, t) == (3, 11)
    rest, patch = drawn("tube_patch", at, seed)
    (t, s) = sorted(patch, reverse=True)
    assert patch == {t: 1, s: -1} and (s, t) != (3, 11)
    before, after = {s: 1, 3: -1} if s != 3 else {}, {11: 1, t: -1} if t != 11 else {}
    assert rest == before | after


@pytest.mark.parametrize("layout", IN_SEQUENCE)
def test_a_straight_line_has_no_distance_and_what_all_tokens_share_cancels(layout: str) -> None:
    line = np.arange(12.0)[:, None] * np.array([[1.0, -2.0, 0.5]]) + 7
    pairs = points(layout, np.arange(2, 11), rng(1))
    assert pairs
    for source, target in pairs:
        ahead, behind = states(source, line), states(target, line)
        assert ahead @ behind == pytest.approx(np.linalg.norm(ahead) * np.linalg.norm(behind))  # cosine 1: the same direction
        assert (ahead @ [1.0, -2.0, 0.5]) > 0  # and that of the sequence
        for combination in (source, target):
            assert combination[1].sum() == pytest.approx(0, abs=1e-6)  # what all tokens share cancels
            assert len(set(combination[0].tolist())) == len(combination[0]) and (combination[1] != 0).all()


@pytest.mark.parametrize("layout", ["tube", "tube_ends", "curvature"])
def test_unrelated_states_have_cosine_minus_one_half(layout: str) -> None:
    # (h_t - h_r) . (h_r - h_s) = -|h_r|^2 except for products of independent states, over two lengths of sqrt(2) |h| each.
    path = rng(3).normal(size=(8, 20_000))
    for source, target in points(layout, np.arange(8), rng(4)):
        ahead, behind = states(source, path), states(target, path)
        cos = ahead @ behind / np.linalg.norm(ahead) / np.linalg.norm(behind)
        assert cos == pytest.approx(-0.5, abs=0.05)  # seven standard deviations, each 1 / sqrt(20,000)


@pytest.mark.parametrize("layout", IN_SEQUENCE)
def test_pairs_are_counted_from_lengths(layout: str) -> None:
    lengths = np.arange(9)
    assert count_pairs(layout, lengths).tolist() == [len(points(layout, np.arange(n), rng())) for n in lengths]
    assert count_pairs(layout, lengths).tolist() == ([0, 0, 0, 1, 2, 3, 4, 5, 6] if layout == "curvature" else [0, 0, 0] + [1] * 6)


@pytest.mark.parametrize("layout", RANDOM)
def test_draws_follow_the_stream_and_short_sequences_take_none(layout: str) -> None:
    at = np.arange(20)
    assert drawn(layout, at, 1) == drawn(layout, at, 1)
    assert len({str(drawn(layout, at, seed)) for seed in range(30)}) > 5
    used = rng()
    points(layout, np.arange(2), used)
    assert used.random() == rng().random()
    shifted = [{offset - 100: weight for offset, weight in side.items()} for side in drawn(layout, at + 100, 1)]
    assert tuple(shifted) == drawn(layout, at, 1)  # draws depend on ranks, not offsets


@pytest.mark.parametrize(("layout", "choices"), [("tube", 10), ("tube_ends", 3), ("tube_patch", 9), ("tube_means", 6)])
def test_every_choice_is_as_likely_as_any_other(layout: str, choices: int) -> None:
    # Of five tokens: C(5, 3) triples; 3 inner points; C(5, 2) - 1 patches; C(4, 2) pairs of cuts.
    draws, source = 300 * choices, rng(2)
    seen = Counter(str([as_dict(side) for side in points(layout, np.arange(5), source)[0]]) for _ in range(draws))
    assert len(seen) == choices
    assert all(200 < count < 400 for count in seen.values())  # 300 expected, standard deviation at most sqrt(300) = 17


def test_dtypes() -> None:
    for layout in IN_SEQUENCE:
        for pair in points(layout, np.arange(6, dtype=np.int32), rng()):
            for offsets, weights in pair:
                assert offsets.dtype == np.int64 and weights.dtype == np.float32 and offsets.shape == weights.shape
