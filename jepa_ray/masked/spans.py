"""Which tokens of a passage are hidden: spans of exponential length, until a given share of the tokens is hidden.

Only candidates (neither special tokens nor padding) are hidden. A span covers consecutive candidates and skips special tokens inside
a passage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jepa_ray.masked.corpus import Passages


def span_length(rng: np.random.Generator, mean: float) -> int:
    """Draw an exponential length in tokens with mean `mean`, rounded up and therefore at least 1.

    For X exponential with scale s, ceil(X) has mean 1 / (1 - exp(-1/s)), which equals `mean` for s = -1 / log(1 - 1/mean).
    """
    if mean == 1:
        return 1
    return max(1, math.ceil(rng.exponential(-1 / math.log1p(-1 / mean))))


def hidden_tokens(candidates_T: NDArray[np.bool_], mask_ratio: float, mean_span: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(T,) True where a token is hidden.

    Adds spans, each starting at a token that is not hidden yet, until `mask_ratio` of the candidates is hidden, at least one token. The
    last span is cut as soon as the share is reached; otherwise it would far exceed the share in short passages. A span that would extend
    past the end is moved back.
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
    """Input of the target encoder."""
    hidden_RT: NDArray[np.int64]
    """Input of the context encoder: hidden tokens are replaced by the mask token."""
    real_RT: NDArray[np.int64]
    """Attention mask: 1 for a token, 0 for padding."""
    index_M: NDArray[np.int64]
    """Positions of the hidden tokens in the flattened (R * T)."""
    label_ids_M: NDArray[np.int64]
    """Ids of the hidden tokens."""

    @property
    def attended(self) -> int:
        """Query-key pairs, with each passage attended separately."""
        return int((self.real_RT.sum(1) ** 2).sum())


def masked_batch(passages: Passages, rows: Sequence[int], hidden: Sequence[NDArray[np.bool_]], mask_id: int, pad_id: int) -> MaskedBatch:
    """A batch of passages with the tokens `hidden` (one array per row) hidden.

    Without rows, the batch is one padding token in place of a passage, so that a worker without passages takes part in the step.
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
