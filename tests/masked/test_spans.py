"""Which tokens are hidden: properties of span masking, and the batch it goes into."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jepa_ray.masked.corpus import Passages, tokenize_passages
from jepa_ray.masked.spans import hidden_tokens, masked_batch, span_length
from jepa_ray.streams import stream

RATIOS, MEANS = (0.1, 0.3, 0.75), (1.0, 2.0, 4.5)


def lengths_of(hidden_T: np.ndarray) -> list[int]:
    """Lengths of the runs of hidden tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hidden_T, [False]]).astype(int)))
    return [int(end - start) for start, end in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("mean", [1.0, 1.5, 3.0, 10.0])
def test_span_lengths_are_at_least_one_and_have_the_mean_asked_for(mean: float) -> None:
    rng = stream(0, "lengths")
    drawn = np.array([span_length(rng, mean) for _ in range(20_000)])
    assert drawn.min() >= 1
    # A rounded-up exponential is geometric: its standard deviation is sqrt(m (m - 1)).
    error = 5 * math.sqrt(mean * (mean - 1) / len(drawn))
    assert abs(drawn.mean() - mean) <= error + 1e-12
    tail = (drawn > mean).mean()
    assert mean == 1 or abs(tail - (1 - 1 / mean) ** math.floor(mean)) < 0.02, "not exponential"


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("mean", MEANS)
def test_the_ratio_is_reached_and_passed_by_less_than_one_span(ratio: float, mean: float) -> None:
    seen = 0
    for size in (1, 2, 5, 17, 60, 200):
        for number in range(40):
            candidates = np.ones(size + 4, dtype=bool)
            candidates[[0, size // 2, -2, -1]] = False  # [CLS], one inside, [SEP], padding
            hidden = hidden_tokens(candidates, ratio, mean, stream(2, "mask", size, number))
            count, ordinary = int(hidden.sum()), int(candidates.sum())
            assert not hidden[~candidates].any(), "a special token or padding is hidden"
            assert count >= ratio * ordinary and count >= 1
            # The ratio was not reached before the last span, so the excess is less than that span; the same stream gives its length.
            again, longest = stream(2, "mask", size, number), 0
            trial = np.zeros(ordinary, dtype=bool)
            while trial.sum() < ratio * ordinary:
                longest = min(span_length(again, mean), ordinary)
                start = min(int(again.choice(np.flatnonzero(~trial))), ordinary - longest)
                trial[start : start + longest] = True
            assert count - ratio * ordinary < longest
            seen += 1
    assert seen == 240


def test_spans_are_spans() -> None:
    """At a low ratio, spans rarely touch, and in long passages few are cut: runs average about the mean, and single tokens stay single."""
    for mean in (1.0, 4.0):
        runs = [
            length
            for number in range(60)
            for length in lengths_of(hidden_tokens(np.ones(3000, dtype=bool), 0.02, mean, stream(3, "runs", number)))
        ]
        assert abs(np.mean(runs) - mean) < 0.25 * mean, np.mean(runs)


def test_every_place_is_hidden_equally_often_but_for_the_ends() -> None:
    counts = sum(hidden_tokens(np.ones(40, dtype=bool), 0.2, 3.0, stream(4, "places", n)).astype(int) for n in range(3000))
    share = np.asarray(counts) / 3000
    assert share[5:-5].min() > 0.8 * share[5:-5].mean() and share.min() > 0


def passages() -> Passages:
    """Three passages with 0 = pad, 1 = [CLS], 2 = [SEP], 9 = [MASK]; ordinary tokens from 10 on."""
    rows = [[1, 10, 11, 12, 2], [1, 13, 2], [1, 14, 15, 16, 17, 18, 2]]
    return tokenize_passages(["a", "b", "c"], [0, 1, 0], ["a", "b", "c"], lambda texts: rows, frozenset({0, 1, 2, 9}), 7)


def test_a_batch_by_hand() -> None:
    table = passages()
    hidden = [np.array([False, False, True, True, False]), np.array([False, True, False])]
    batch = masked_batch(table, [0, 1], hidden, mask_id=9, pad_id=0)
    assert batch.intact_RT.tolist() == [[1, 10, 11, 12, 2], [1, 13, 2, 0, 0]]
    assert batch.hidden_RT.tolist() == [[1, 10, 9, 9, 2], [1, 9, 2, 0, 0]]
    assert batch.real_RT.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.index_M.tolist() == [2, 3, 6] and batch.label_ids_M.tolist() == [11, 12, 13]
    assert batch.attended == 25 + 9


def test_a_share_without_passages_is_a_row_that_hides_nothing() -> None:
    batch = masked_batch(passages(), [], [], mask_id=9, pad_id=0)
    assert batch.intact_RT.tolist() == [[0]] and batch.real_RT.tolist() == [[1]] and len(batch.index_M) == 0
