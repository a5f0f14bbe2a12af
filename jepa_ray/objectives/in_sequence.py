"""Semantic Tube and its variants: pairs of differences between states of one sequence, which nothing else need be encoded for.

The hypothesis: the states h of a sequence run along a curve that is straight as far as meaning goes, so that two steps along it point the
same way (Semantic Tube Prediction, arXiv 2602.22617). With positions s < r < t, and spans 1, 2, 3 that make up the sequence:

    layout        source                              target            positions
    tube          h_t - h_r                           h_r - h_s         drawn, each triple as likely as any other
    tube_ends     h_t - h_r                           h_r - h_s         s first, t last, r drawn between
    tube_patch    h_s - h_first + h_last - h_t        h_t - h_s         the patch (s, t] drawn, never the whole
    tube_means    mean_3 - mean_2                     mean_2 - mean_1   two cuts drawn, no span empty
    curvature     h_(i+1) - h_i                       h_i - h_(i-1)     every three that follow each other, one pair each

tube_patch is the released code's form, 1 - cos(before + after, patch), within one sequence. Each state is therefore a sparse signed sum of
token states. Sequences of fewer than three tokens give no pair. NumPy only; positions are all that is known here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Combination = tuple[Index, NDArray[np.float32]]
"""Offsets on the path, each once, and their weights."""
Pair = tuple[Combination, Combination]
"""Source and target."""

FEWEST = 3
"""Tokens that a pair needs."""


def count_pairs(layout: str, num_content: NDArray[Any]) -> Index:
    """Pairs that `points` gives for sequences of these numbers of tokens."""
    if layout == "curvature":
        return np.maximum(num_content.astype(np.int64) - (FEWEST - 1), 0)
    return (num_content >= FEWEST).astype(np.int64)


def points(layout: str, content: NDArray[Any], rng: np.random.Generator) -> list[Pair]:
    """The pairs of one sequence.

    Args:
        layout: one of `config.IN_SEQUENCE`.
        content: positions on the path of the tokens whose states take part, ascending.
        rng: drawn from only if the layout is a random one and there are enough tokens.
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
            while t - s == n - 1:  # the whole sequence: nothing before or after it
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
    """`size` distinct numbers below n in ascending order, every choice as likely as any other."""
    return np.sort(rng.choice(n, size, replace=False)).astype(np.int64)


def _steps(s: int, r: int, t: int) -> Pair:
    """The step from r to t, and the one before it."""
    return _sum((t, 1), (r, -1)), _sum((r, 1), (s, -1))


def _sum(*terms: tuple[int, int]) -> Combination:
    """A signed sum of states; what cancels is left out."""
    weights: dict[int, int] = {}
    for offset, weight in terms:
        weights[int(offset)] = weights.get(int(offset), 0) + weight
    left = {offset: weight for offset, weight in weights.items() if weight}
    return np.array(list(left), dtype=np.int64), np.array(list(left.values()), dtype=np.float32)


def _means(later: Index, earlier: Index) -> Combination:
    """Mean state of one span minus that of another."""
    weights = np.concatenate([np.full(len(later), 1 / len(later)), np.full(len(earlier), -1 / len(earlier))])
    return np.concatenate([later, earlier]), weights.astype(np.float32)
