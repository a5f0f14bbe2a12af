"""Semantic Tube and its variants: pairs of differences between states of one sequence, without any additional encoding.

The hypothesis: as far as meaning is concerned, the states h of a sequence follow a straight curve, so two steps along it point in
the same direction (Semantic Tube Prediction, arXiv 2602.22617). With positions s < r < t, and spans 1, 2, 3 that make up the sequence:

    layout        source                              target            positions
    tube          h_t - h_r                           h_r - h_s         drawn uniformly from all triples
    tube_ends     h_t - h_r                           h_r - h_s         s first, t last, r drawn in between
    tube_patch    h_s - h_first + h_last - h_t        h_t - h_s         the patch (s, t] drawn, never the whole sequence
    tube_means    mean_3 - mean_2                     mean_2 - mean_1   two cuts drawn, no span empty
    curvature     h_(i+1) - h_i                       h_i - h_(i-1)     every three consecutive tokens, one pair each

tube_patch is the form in the released code, 1 - cos(before + after, patch), within one sequence. Each source or target is thus a sparse
signed sum of token states. Sequences of fewer than three tokens give no pair. This module uses only NumPy and handles only positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Combination = tuple[Index, NDArray[np.float32]]
"""Offsets on the path, without repetition, and their weights."""
Pair = tuple[Combination, Combination]
"""Source and target."""

FEWEST = 3
"""Minimum number of tokens for a pair."""


def count_pairs(layout: str, num_content: NDArray[Any]) -> Index:
    """Number of pairs that `points` returns for sequences with these numbers of tokens."""
    if layout == "curvature":
        return np.maximum(num_content.astype(np.int64) - (FEWEST - 1), 0)
    return (num_content >= FEWEST).astype(np.int64)


def points(layout: str, content: NDArray[Any], rng: np.random.Generator) -> list[Pair]:
    """The pairs of one sequence.

    Args:
        layout: one of `config.IN_SEQUENCE`.
        content: positions on the path of the tokens whose states are used, ascending.
        rng: used only if the layout is random and there are enough tokens.
    """
    at: Index = content.astype(np.int64)
    n = len(at)
    if n < FEWEST:
        return []
    match layout:
        case "tube":
            s, r, t = at[_ascending(n, 3, rng)]
            return [_steps(s, r, t)]
        case "tube_ends":
            return [_steps(at[0], at[rng.integers(1, n - 1)], at[-1])]
        case "tube_patch":
            s, t = _ascending(n, 2, rng)
            while t - s == n - 1:  # the whole sequence: no tokens before or after it
                s, t = _ascending(n, 2, rng)
            rest = _sum((at[s], 1), (at[0], -1), (at[-1], 1), (at[t], -1))
            return [(rest, _sum((at[t], 1), (at[s], -1)))]
        case "tube_means":
            first, second = _ascending(n - 1, 2, rng) + 1
            spans = at[:first], at[first:second], at[second:]
            return [(_means(spans[2], spans[1]), _means(spans[1], spans[0]))]
        case "curvature":
            return [_steps(*at[i : i + 3]) for i in range(n - 2)]
        case _:
            raise AssertionError(layout)


def _ascending(n: int, size: int, rng: np.random.Generator) -> Index:
    """`size` distinct numbers below n in ascending order, drawn uniformly from all choices."""
    return np.sort(rng.choice(n, size, replace=False)).astype(np.int64)


def _steps(s: int, r: int, t: int) -> Pair:
    """The step from r to t, and the one before it."""
    return _sum((t, 1), (r, -1)), _sum((r, 1), (s, -1))


def _sum(*terms: tuple[int, int]) -> Combination:
    """A signed sum of states; terms that cancel are left out."""
    weights: dict[int, int] = {}
    for offset, weight in terms:
        weights[int(offset)] = weights.get(int(offset), 0) + weight
    left = {offset: weight for offset, weight in weights.items() if weight}
    return np.array(list(left), dtype=np.int64), np.array(list(left.values()), dtype=np.float32)


def _means(later: Index, earlier: Index) -> Combination:
    """Mean state of one span minus the mean state of another."""
    weights = np.concatenate([np.full(len(later), 1 / len(later)), np.full(len(earlier), -1 / len(earlier))])
    return np.concatenate([later, earlier]), weights.astype(np.float32)
