"""Data of a masked encoder: passages of text for training, and three splits of labelled texts for the probes.

Passages are the texts of the task's training split, or the lines of a text file. Labels are the task's answers (of the built-in
reviews, for example) and never enter training. Lines of a file that also occur in validation or test are omitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_ray.config import DataConfig, MaskedConfig
from jepa_ray.data.datasets import Splits, load_splits
from jepa_ray.data.jsonl import decode, read_bytes
from jepa_ray.data.sameness import key

Tokenize = Callable[[list[str]], list[list[int]]]
"""Texts -> token ids, with special tokens and without truncation."""


@dataclass(frozen=True)
class Corpus:
    """The resolved data of a masked sweep."""

    passages: tuple[str, ...]
    splits: Splits
    """Labelled texts: `text` of an example, with the label in `code`."""
    labels: tuple[str, ...]
    """Labels of the training split, in order; a class is an index into them."""
    dataset_sha: str
    removed: int
    """Lines of the text file omitted because they occur in validation or test."""


@dataclass(frozen=True)
class Passages:
    """Token ids of passages, concatenated in flat arrays, which Ray's object store shares without copying."""

    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    """Start of each passage, followed by the end of the last one."""
    candidates: NDArray[np.bool_]
    """Per token: whether it may be hidden, that is, is not a special token."""
    classes: NDArray[np.int64]
    """Per passage: index of its label; -1 if it has none, or one that no training text has."""
    ids: tuple[str, ...]
    dropped: int
    """Passages that were too long, or consisted of special tokens only."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each passage."""
        return np.diff(self.starts)

    def span(self, row: int) -> slice:
        """Position of a passage's tokens."""
        return slice(int(self.starts[row]), int(self.starts[row + 1]))


def load_corpus(data: DataConfig, masked: MaskedConfig) -> Corpus:
    """Read or generate the data that `data` and `masked` describe. ValueError with one clear sentence on bad input."""
    splits = load_splits(data)
    labels = tuple(sorted({example.code for example in splits.train}))
    if len(labels) < 2:
        raise ValueError(
            f"every training text of {data.train or data.task} has the label {labels[0]!r}, but a probe needs two; use other data"
        )
    if masked.corpus is None:
        return Corpus(tuple(example.text for example in splits.train), splits, labels, splits.dataset_sha, 0)
    lines = read_passages(Path(masked.corpus))
    judged = {key(example.text) for split in (splits.val, splits.test) for example in split}
    passages = tuple(line for line in lines if key(line) not in judged)
    if not passages:
        raise ValueError(f"{masked.corpus}: all of its {len(lines):,} passages are in validation or test; use another file")
    sha = hashlib.sha256("\n".join([splits.dataset_sha, *passages]).encode()).hexdigest()
    return Corpus(passages, splits, labels, sha, len(lines) - len(passages))


def read_passages(path: Path) -> list[str]:
    """The non-blank lines of a text file. ValueError if the file is missing, not UTF-8, or has no such line."""
    if not path.is_file():
        raise ValueError(f"the file {path} does not exist; base.masked.corpus must be a text file with one passage per line")
    lines = [line.strip() for line in decode(read_bytes(path), str(path)).split("\n")]
    passages = [line for line in lines if line]
    if not passages:
        raise ValueError(f"{path} contains no passage; base.masked.corpus must be a text file with one passage per line")
    return passages


def tokenize_passages(
    texts: Sequence[str], labels: Sequence[int], ids: Sequence[str], tokenize: Tokenize, special: frozenset[int], max_length: int
) -> Passages:
    """Token table of texts, without those that exceed `max_length` tokens or have no ordinary token."""
    kept: list[int] = []
    rows: list[list[int]] = []
    for index, row in enumerate(tokenize(list(texts))):
        if len(row) <= max_length and not special.issuperset(row):
            kept.append(index)
            rows.append(row)
    tokens = np.array([token for row in rows for token in row], dtype=np.int32)
    return Passages(
        tokens=tokens,
        starts=np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64),
        candidates=~np.isin(tokens, sorted(special)),
        classes=np.array([labels[index] for index in kept], dtype=np.int64),
        ids=tuple(ids[index] for index in kept),
        dropped=len(texts) - len(kept),
    )


def corpus_report(corpus: Corpus, masked: MaskedConfig) -> dict[str, Any]:
    """Counts for the plan and the tables: the data report of the labelled splits and the passages."""
    return {**corpus.splits.report, "corpus": masked.corpus, "passages": len(corpus.passages), "passages_removed": corpus.removed}
