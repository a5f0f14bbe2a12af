"""Sequences of token ids of different lengths in one flat array, which workers share without copying. Imports nothing of the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths in one flat array: sequence i is `flat[offsets[i]:offsets[i + 1]]`."""

    flat: Ids
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Ragged:
        lengths = [len(sequence) for sequence in sequences]
        flat = np.fromiter((token for sequence in sequences for token in sequence), dtype=np.int32, count=sum(lengths))
        return cls(flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Ids:
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


def common_prefix(sequences: Ragged) -> int:
    """Number of first tokens that all sequences have in common; 0 if there are none."""
    if not len(sequences):
        return 0
    first, starts, shortest = sequences[0], sequences.offsets[:-1], int(sequences.lengths.min())
    return next((at for at in range(shortest) if (sequences.flat[starts + at] != first[at]).any()), shortest)
