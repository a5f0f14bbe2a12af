"""Which tokens of a passage are hidden: spans of exponential length, until a share of the tokens is reached.

Only candidates (neither special tokens nor padding) are hidden. A span runs over the candidates in order, so that a special token
inside a passage is stepped over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jepa_ray.masked.corpus import Passages


def span_length(rng: np.random.Generator, mean: float) -> int:
    """An exponential length in tokens, rounded up, so at least 1; its mean is `mean`.

    ceil(X) of X exponential with scale s has mean 1 / (1 - exp(-1/s)); that is `mean` for s = -1 / log(1 - 1/mean).
    """
    if mean == 1:
        return 1
    return max(1, math.ceil(rng.exponential(-1 / math.log1p(-1 / mean))))


def hidden_tokens(candidates_T: NDArray[np.bool_], mask_ratio: float, mean_span: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(T,) True where a token is hidden.

    Spans are added, each over a token that is not hidden yet, until `mask_ratio` of the candidates is reached: at least one token, and the
    last span is cut where the share is reached, or short passages would be hidden far beyond it. A span that would run over the end is
    moved back.
    """
    places = np.flatnonzero(candidates_T)
    hidden = np.zeros(len(places), dtype=bool)
    wanted = mask_ratio * len(places)
    while hidden.sum() < wanted:
        length = min(span_length(rng, mean_span), math.ceil(wanted - hidden.sum()))
        start = min(int(rng.choice(np.flatnonzero(~hidden))), len(places) - length)
        hidden[start : start + length] = True
    out = np.zeros(len(candidates_T), dtype=bool)
    out[places[hidden]] = True
    return out


@dataclass(frozen=True)
class MaskedBatch:
    """Passages side by side, padded to the longest. Legend: R rows, T tokens per row, M hidden tokens."""

    intact_RT: NDArray[np.int64]
    """What the target encoder sees."""
    hidden_RT: NDArray[np.int64]
    """What the context encoder sees: the mask token where a token is hidden."""
    real_RT: NDArray[np.int64]
    """1 where there is a token, 0 at padding: the attention mask."""
    index_M: NDArray[np.int64]
    """Where the hidden tokens stand in the flattened (R * T)."""
    label_ids_M: NDArray[np.int64]
    """The tokens that are hidden."""

    @property
    def attended(self) -> int:
        """Query-key pairs of separate passages."""
        return int((self.real_RT.sum(1) ** 2).sum())


def masked_batch(passages: Passages, rows: Sequence[int], hidden: Sequence[NDArray[np.bool_]], mask_id: int, pad_id: int) -> MaskedBatch:
    """A batch of passages with the tokens `hidden` (one array per row) hidden.

    Without any row it is one padding token that stands for a passage: a worker without a share of its own takes part in the step.
    """
    lengths = [int(passages.lengths[row]) for row in rows] or [1]
    intact_RT = np.full((len(lengths), max(lengths)), pad_id, dtype=np.int64)
    hidden_RT, real_RT, where_RT = intact_RT.copy(), np.zeros_like(intact_RT), np.zeros(intact_RT.shape, dtype=bool)
    for row, (passage, mask_T) in enumerate(zip(rows, hidden, strict=True)):
        ids_T = passages.tokens[passages.span(passage)]
        intact_RT[row, : len(ids_T)] = ids_T
        hidden_RT[row, : len(ids_T)] = np.where(mask_T, mask_id, ids_T)
        where_RT[row, : len(ids_T)] = mask_T
    for row, length in enumerate(lengths):
        real_RT[row, :length] = 1
    return MaskedBatch(intact_RT, hidden_RT, real_RT, np.flatnonzero(where_RT), intact_RT[where_RT])
