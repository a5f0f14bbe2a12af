"""Token paths into one row: the rule that carries every layout, and three ways to use it.

A *path* is one token sequence from its first token on: a training sequence, a Text view, a Code view. Paths that begin alike
may share tokens. In the row, tokens stand in depth-first order of the prefix trie; `end[t]` is one past the last token of t's
subtree, and position = depth. Then attention is exactly that of separate passes when

    allow(q, k) = k <= q and q < end[k]

    paths   a b c     a b d     e f               a       e
    row     a b c d e f                           b       f
    end     4 4 3 4 6 6                          c d
    depth   0 1 2 2 0 1

`nodes[i]` lists where the tokens of path i stand, so the same rule reads: a token sees its path up to itself. Kernels may use
either form (see `models/attention.py`): a mask made of `end`, or gathering each path by its `nodes`.

Backends: `trie` shares prefixes between all paths of a batch; `flat` lays the paths side by side without sharing; `plain` gives
each path a padded row of its own. NumPy only; nothing here knows of models.
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
    """(R, T); R = 1 but for plain."""
    position_ids: NDArray[np.int64]
    """(R, T), the depth of each token on its path."""
    end: NDArray[np.int64]
    """(R, T), one past the last token of the subtree, counted within the row. Padding: one past itself."""
    nodes: tuple[Index, ...]
    """For each path, the flat index (row * T + column) of each of its tokens."""
    shared: Index
    """For each path, how many of its first tokens another path brought into the row; the others are its *own*. (0 but for trie.)"""
    num_tokens: int
    """Tokens that are not padding: the own tokens of all paths."""


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


def pack(paths: Sequence[Ids], backend: Backend) -> Packed:
    """Lay paths out.

    >>> import numpy as np
    >>> row = pack([np.array(p, dtype=np.int32) for p in ([7, 8, 9], [7, 8, 4], [5, 6])], "trie")
    >>> row.input_ids.tolist(), row.end.tolist(), row.position_ids.tolist()
    ([[5, 6, 7, 8, 4, 9]], [[2, 2, 6, 6, 5, 6]], [[0, 1, 0, 1, 2, 2]])
    >>> [nodes.tolist() for nodes in row.nodes]
    [[2, 3, 5], [2, 3, 4], [0, 1]]
    """
    return {"trie": _pack_trie, "flat": _pack_flat, "plain": _pack_plain}[backend](paths)


def _pack_trie(paths: Sequence[Ids]) -> Packed:
    # Sorted paths are the trie in depth-first order: path i adds only what follows its longest common prefix with path i - 1.
    # Big-endian bytes sort like the numbers they hold.
    order = sorted(range(len(paths)), key=[path.astype(">i4").tobytes() for path in paths].__getitem__)
    shared = np.zeros(len(paths), dtype=np.int64)
    shared[order] = _common_prefixes([paths[i] for i in order])
    size = sum(map(len, paths)) - int(shared.sum())
    input_ids = np.empty((1, size), dtype=np.int64)
    position_ids = np.empty((1, size), dtype=np.int64)
    end = np.empty((1, size), dtype=np.int64)
    nodes: list[Index] = [np.empty(0, dtype=np.int64)] * len(paths)
    open_at = np.zeros(max(map(len, paths), default=0), dtype=np.int64)  # index of the open node at each depth
    depth_open, cursor = 0, 0
    for i in order:
        path, lcp = paths[i], int(shared[i])
        stop = cursor + len(path) - lcp
        end[0, open_at[lcp:depth_open]] = cursor  # what this path leaves behind is closed
        open_at[lcp : len(path)] = np.arange(cursor, stop)
        input_ids[0, cursor:stop] = path[lcp:]
        position_ids[0, cursor:stop] = np.arange(lcp, len(path))
        nodes[i] = open_at[: len(path)].copy()
        depth_open, cursor = len(path), stop
    end[0, open_at[:depth_open]] = cursor
    return Packed("trie", input_ids, position_ids, end, tuple(nodes), shared, size)


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
    return Packed("flat", input_ids, position_ids[None], end[None], nodes, np.zeros(len(paths), dtype=np.int64), int(starts[-1]))


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
    return Packed("plain", input_ids, position_ids, end, nodes, np.zeros(len(paths), dtype=np.int64), int(lengths.sum()))


def make_batch(
    table: TokenTable,
    rows: Sequence[int],
    *,
    backend: Backend,
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

    packed = pack(paths, backend)
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
