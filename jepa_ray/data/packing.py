"""Token paths into rows: the one rule that carries every layout, and three ways to use it.

A *path* is one token sequence from its first token on: a training sequence, a Text view, a Code view. Paths that begin alike
may share tokens. In a row, tokens stand in depth-first order of the prefix trie; `end[t]` is one past the last token of t's
subtree, and position = depth. Then attention is exactly that of separate passes when

    allow(q, k) = k <= q and q < end[k]

    paths   a b c     a b d     e f          a
    row     a b c d e f .                    b   \\          '.' is padding: end = own index + 1, it sees itself only
    end     4 4 3 4 6 6 7                    c    d
    depth   0 1 2 2 0 1 0                            e f

Backends: `trie` shares prefixes within rows of bounded length (attention is dense per row); `flat` lays all paths side by side
in one row without sharing (attention works on each segment apart); `plain` gives each path a padded row of its own.
NumPy only; nothing here knows of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jepa_ray.data.views import Ids, TokenTable

Backend = Literal["trie", "flat", "plain"]
Index = NDArray[np.int64]

PREDICTOR_BASE = 1 << 24
"""Token id of the first predictor token: above every vocabulary, so that no row of the embedding table is spent on it."""


@dataclass(frozen=True)
class Packed:
    """Rows of tokens. Legend: R rows, T tokens per row."""

    backend: Backend
    input_ids: NDArray[np.int64]
    """(R, T)"""
    position_ids: NDArray[np.int64]
    """(R, T), the depth of each token on its path."""
    end: NDArray[np.int64]
    """(R, T), one past the last token of the subtree, counted within the row."""
    nodes: tuple[Index, ...]
    """For each path, the flat index (row * T + column) of each of its tokens."""
    segments: Index
    """flat and plain: number of tokens of each path, in the order of the input; trie: empty."""
    num_tokens: int
    """Tokens that are not padding."""


@dataclass(frozen=True)
class ViewBatch:
    """One packed micro-batch: tokens, where labels are, where the two views are read out. All indices are flat (row * T + column)."""

    packed: Packed
    label_index: Index
    """Where the LM head is applied."""
    label_ids: Index
    """The token to be predicted there."""
    source_index: Index
    """Readout of Text: its last content token, or its last predictor token. Empty when the step carries no views."""
    target_index: Index
    """Readout of Code: its last content token."""

    @property
    def num_labels(self) -> int:
        return len(self.label_ids)

    @property
    def num_pairs(self) -> int:
        return len(self.source_index)


def pack(paths: Sequence[Ids], backend: Backend, row_tokens: int = 256) -> Packed:
    """Lay paths out in rows. `row_tokens` bounds a trie's rows (a longer single path gets a row of its own length).

    >>> import numpy as np
    >>> rows = pack([np.array(p, dtype=np.int32) for p in ([7, 8, 9], [7, 8, 4], [5, 6])], "trie", row_tokens=8)
    >>> rows.input_ids.tolist(), rows.end.tolist(), rows.position_ids.tolist()
    ([[5, 6, 7, 8, 4, 9]], [[2, 2, 6, 6, 5, 6]], [[0, 1, 0, 1, 2, 2]])
    """
    if backend == "trie":
        return _pack_trie(paths, row_tokens)
    return _pack_flat(paths) if backend == "flat" else _pack_plain(paths)


def _pack_trie(paths: Sequence[Ids], row_tokens: int) -> Packed:
    # Sorted paths are the trie in depth-first order: path i adds only what follows its longest common prefix with path i - 1.
    # Big-endian bytes sort like the numbers they hold.
    order = sorted(range(len(paths)), key=[path.astype(">i4").tobytes() for path in paths].__getitem__)
    lengths = np.array([len(path) for path in paths], dtype=np.int64)
    shared = _common_prefixes([paths[i] for i in order])

    rows: list[list[tuple[int, int]]] = []  # per row: (path, tokens shared with its predecessor in the row)
    used = row_tokens + 1
    for rank, i in enumerate(order):
        new = int(lengths[i] - shared[rank])
        if used + new > row_tokens:
            rows.append([])
            used, new = 0, int(lengths[i])
        rows[-1].append((i, int(lengths[i]) - new))
        used += new

    counts = [sum(int(lengths[i]) - lcp for i, lcp in row) for row in rows]
    width = max(counts, default=0)
    input_ids = np.zeros((len(rows), width), dtype=np.int64)
    position_ids = np.zeros((len(rows), width), dtype=np.int64)
    end = np.tile(np.arange(1, width + 1, dtype=np.int64), (len(rows), 1))
    nodes: list[Index] = [np.empty(0, dtype=np.int64)] * len(paths)
    for r, row in enumerate(rows):
        open_at = np.zeros(max(int(lengths[i]) for i, _ in row), dtype=np.int64)  # column of the open node at each depth
        depth_open, cursor = 0, 0
        for i, lcp in row:
            length = int(lengths[i])
            end[r, open_at[lcp:depth_open]] = cursor  # what this path leaves behind is closed
            stop = cursor + length - lcp
            open_at[lcp:length] = np.arange(cursor, stop)
            input_ids[r, cursor:stop] = paths[i][lcp:]
            position_ids[r, cursor:stop] = np.arange(lcp, length)
            nodes[i] = open_at[:length] + r * width
            depth_open, cursor = max(lcp, length), stop
        end[r, open_at[:depth_open]] = cursor
    return Packed("trie", input_ids, position_ids, end, tuple(nodes), np.empty(0, dtype=np.int64), sum(counts))


def _common_prefixes(ordered: Sequence[Ids]) -> Index:
    """Length of the common prefix of each path with the one before it (0 for the first)."""
    shared = np.zeros(len(ordered), dtype=np.int64)
    for rank in range(1, len(ordered)):
        a, b = ordered[rank - 1], ordered[rank]
        n = min(len(a), len(b))
        differ = np.flatnonzero(a[:n] != b[:n])
        shared[rank] = differ[0] if len(differ) else n
    return shared


def _pack_flat(paths: Sequence[Ids]) -> Packed:
    lengths = np.array([len(path) for path in paths], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    input_ids = np.concatenate(list(paths)).astype(np.int64)[None] if len(paths) else np.zeros((1, 0), dtype=np.int64)
    nodes = tuple(np.arange(starts[i], starts[i + 1]) for i in range(len(paths)))
    position_ids = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    end = np.repeat(starts[1:], lengths)
    return Packed("flat", input_ids, position_ids[None], end[None], nodes, lengths, int(starts[-1]))


def _pack_plain(paths: Sequence[Ids]) -> Packed:
    lengths = np.array([len(path) for path in paths], dtype=np.int64)
    width = int(lengths.max(initial=0))
    input_ids = np.zeros((len(paths), width), dtype=np.int64)
    end = np.tile(np.arange(1, width + 1, dtype=np.int64), (len(paths), 1))
    for r, path in enumerate(paths):
        input_ids[r, : len(path)] = path
        end[r, : len(path)] = len(path)
    position_ids = np.tile(np.arange(width, dtype=np.int64), (len(paths), 1))
    nodes = tuple(np.arange(length) + r * width for r, length in enumerate(lengths))
    return Packed("plain", input_ids, position_ids, end, nodes, lengths, int(lengths.sum()))


def make_batch(
    table: TokenTable,
    rows: Sequence[int],
    *,
    backend: Backend,
    row_tokens: int = 256,
    k: int | None = None,
    loss_on: Literal["answer", "all"] = "answer",
    train_end_of_turn: bool = True,
) -> ViewBatch:
    """The packed batch of some examples of a table.

    `k`: predictor tokens after each Text view; None: no views at all (the baseline, lambda = 0, or a step that loss dropout skips).
    The last token of a training sequence is only ever a label, so it is not an input. An empty `rows` gives one padding token,
    so that a worker without examples still takes part in the step.
    """
    paths: list[Ids] = []
    spans: list[tuple[int, int]] = []  # depths [first, stop) of the inputs whose next token is a label
    for i in rows:
        sequence = table.lm[i]
        stop = len(sequence) - 1 if train_end_of_turn else len(sequence) - 2
        first = int(table.prompt_length[i]) - 1 if loss_on == "answer" else 0
        paths.append(sequence[: max(stop, first + 1)])
        spans.append((first, stop))
    if k is not None:
        predictors = np.arange(PREDICTOR_BASE, PREDICTOR_BASE + k, dtype=np.int32)
        paths += [np.concatenate([table.text[i], predictors]) for i in rows] + [table.code[i] for i in rows]
    if not paths:
        paths = [np.zeros(1, dtype=np.int32)]

    packed = pack(paths, backend, row_tokens)
    nodes, n = packed.nodes, len(rows)
    empty = np.empty(0, dtype=np.int64)
    label_index = [nodes[j][first:stop] for j, (first, stop) in enumerate(spans)]
    label_ids = [table.lm[i][first + 1 : stop + 1].astype(np.int64) for i, (first, stop) in zip(rows, spans, strict=True)]
    views = n if k is not None else 0
    return ViewBatch(
        packed=packed,
        label_index=np.concatenate([empty, *label_index]),
        label_ids=np.concatenate([empty, *label_ids]),
        source_index=np.array([nodes[n + j][-1] for j in range(views)], dtype=np.int64),
        target_index=np.array([nodes[2 * n + j][-1] for j in range(views)], dtype=np.int64),
    )


def count_labels(table: TokenTable, rows: Sequence[int], *, loss_on: Literal["answer", "all"], train_end_of_turn: bool) -> int:
    """Labels that `make_batch` would make of these examples, without making it."""
    index = np.asarray(rows, dtype=np.int64)
    sequence = table.lm.lengths[index] - (1 if train_end_of_turn else 2)
    first = table.prompt_length[index] - 1 if loss_on == "answer" else 0
    return int(np.maximum(sequence - first, 0).sum())
