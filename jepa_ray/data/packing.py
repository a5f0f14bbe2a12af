"""Packs token paths into rows: one attention rule for every layout, and three packings that satisfy it.

A *path* is one token sequence from its first token on: a training sequence, a Text view, a Code view. Paths with a common prefix
may share its tokens. A row contains the tokens in depth-first order of the prefix trie; `end[t]` is one past the last token of t's
subtree, and position = depth. Attention is then exactly that of separate passes if

    allow(q, k) = k <= q and q < end[k]

    paths   a b c     a b d     e f               a       e
    row     a b c d e f                           b       f
    end     4 4 3 4 6 6                          c d
    depth   0 1 2 2 0 1

`nodes[i]` lists the indices of path i's tokens, so an equivalent rule is: a token sees its path up to itself. Kernels may use
either form (see `models/attention.py`): a mask built from `end`, or gathering each path by its `nodes`.

Backends: `trie` shares prefixes between all paths of a batch; `flat` concatenates the paths without sharing; `plain` gives
each path its own padded row. NumPy only; independent of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jepa_ray.data.ragged import Ids
from jepa_ray.data.views import TokenTable

Backend = Literal["trie", "flat", "plain"]
Index = NDArray[np.int64]

PREDICTOR_BASE = 1 << 24
"""Token id of the first predictor token: above every vocabulary, so that it takes no row of the embedding table."""


@dataclass(frozen=True)
class Packed:
    """Rows of tokens. Legend: R rows, T tokens per row."""

    backend: Backend
    input_ids: NDArray[np.int64]
    """(R, T); R = 1 except for plain."""
    position_ids: NDArray[np.int64]
    """(R, T), the depth of each token on its path."""
    end: NDArray[np.int64]
    """(R, T), one past the last token of the subtree, counted within the row. Padding: one past itself."""
    nodes: tuple[Index, ...]
    """For each path, the flat index (row * T + column) of each of its tokens."""
    shared: Index
    """For each path, how many of its first tokens another path already put into the row; the rest are its *own*. 0 except for trie."""
    num_tokens: int
    """Tokens that are not padding: the sum of all paths' own tokens."""


@dataclass(frozen=True)
class Readout:
    """P embeddings as weighted sums of token states: embedding p is the sum of weight * state over the entries whose `pair` is p.

    A last-token readout has one entry of weight 1 per pair; a mean has n entries of weight 1 / n, one per token; a difference of two
    states has the weights 1 and -1.
    """

    index: Index
    """Place of each entry's token: in `Views` the position on its path, in a batch the flat index."""
    pair: Index
    weight: NDArray[np.float32]
    num_pairs: int

    @classmethod
    def single(cls, index: Index) -> Readout:
        """One token each."""
        return cls(index, np.arange(len(index)), np.ones(len(index), dtype=np.float32), len(index))

    @property
    def is_single(self) -> bool:
        """Whether embedding p is exactly the state of entry p."""
        return len(self.index) == self.num_pairs and bool((self.weight == 1).all() and (self.pair == np.arange(self.num_pairs)).all())


@dataclass(frozen=True)
class Views:
    """The sequences that a batch encodes in addition to the training sequences, and where states are read."""

    paths: Sequence[Ids]
    source: Readout
    source_path: Index
    """For each entry of `source`, its path: training sequences first, in the order of the rows, then `paths`."""
    target: Readout
    target_path: Index
    frozen_paths: Sequence[Ids] | None = None
    """Paths of a separate target encoder, which `target_path` then counts: they pass through it without gradient, and not through the
    network."""


@dataclass(frozen=True)
class ViewBatch:
    """One packed micro-batch: tokens, labels and the readouts of the two views. All indices are flat (row * T + column)."""

    packed: Packed
    label_index: Index
    """Tokens to which the LM head is applied."""
    label_ids: Index
    """The tokens to be predicted there."""
    source: Readout
    """Usually Text: its last content token, or its last predictor token. No pairs if the step encodes no views."""
    target: Readout
    """Usually Code: its last content token. Indices refer to `frozen` if that is given."""
    frozen: Packed | None = None
    """The tokens that pass through a separate target encoder."""

    @property
    def num_labels(self) -> int:
        return len(self.label_ids)

    @property
    def num_pairs(self) -> int:
        return self.source.num_pairs

    @property
    def source_index(self) -> Index:
        return self.source.index

    @property
    def target_index(self) -> Index:
        return self.target.index


def pack(paths: Sequence[Ids], backend: Backend) -> Packed:
    """Pack paths into rows.

    >>> import numpy as np
    >>> row = pack([np.array(p, dtype=np.int32) for p in ([7, 8, 9], [7, 8, 4], [5, 6])], "trie")
    >>> row.input_ids.tolist(), row.end.tolist(), row.position_ids.tolist()
    ([[5, 6, 7, 8, 4, 9]], [[2, 2, 6, 6, 5, 6]], [[0, 1, 0, 1, 2, 2]])
    >>> [nodes.tolist() for nodes in row.nodes]
    [[2, 3, 5], [2, 3, 4], [0, 1]]
    """
    return {"trie": _pack_trie, "flat": _pack_flat, "plain": _pack_plain}[backend](paths)


def _pack_trie(paths: Sequence[Ids]) -> Packed:
    # Sorted paths are the trie in depth-first order: path i adds only the tokens after its longest common prefix with path i - 1.
    # Big-endian bytes sort like the numbers that they encode.
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
        end[0, open_at[lcp:depth_open]] = cursor  # close the nodes that are not on this path
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


def predictor_tokens(k: int) -> Ids:
    """Ids of the k predictor tokens."""
    return np.arange(PREDICTOR_BASE, PREDICTOR_BASE + k, dtype=np.int32)


def appended(table: TokenTable, rows: Sequence[int], k: int) -> Views:
    """The paper's layout: each Text followed by k predictor tokens, and each Code; both are read at their last token."""
    n = len(rows)
    texts = [np.concatenate([table.text[i], predictor_tokens(k)]) for i in rows]
    codes = [table.code[i] for i in rows]
    return Views(
        paths=[*texts, *codes],
        source=Readout.single(np.array([len(path) - 1 for path in texts], dtype=np.int64)),
        source_path=np.arange(n, 2 * n),
        target=Readout.single(np.array([len(path) - 1 for path in codes], dtype=np.int64)),
        target_path=np.arange(2 * n, 3 * n),
    )


def make_batch(
    table: TokenTable,
    rows: Sequence[int],
    *,
    backend: Backend,
    k: int | None = None,
    views: Views | None = None,
    loss_on: Literal["answer", "all"] = "answer",
    train_end_of_turn: bool = True,
) -> ViewBatch:
    """The packed batch of some examples of a table.

    `views`: additional sequences to encode; `k` is short for the views of `appended`. With neither there are no views (the baseline,
    lambda = 0, or a step that loss dropout skips). The last token of a training sequence is only a label, not an input, unless a
    readout is there. Empty `rows` give one padding token, so that a worker without examples still takes part in the step.
    """
    if views is None and k is not None:
        views = appended(table, rows, k)
    paths: list[Ids] = []
    spans: list[tuple[int, int]] = []  # depths [first, stop) of the inputs whose next token is a label
    for i in rows:
        sequence = table.lm[i]
        stop = len(sequence) - 1 if train_end_of_turn else len(sequence) - 2
        first = int(table.prompt_length[i]) - 1 if loss_on == "answer" else 0
        paths.append(sequence[: max(stop, first + 1)])
        spans.append((first, stop))
    if views is not None:
        for readout, owner in ((views.source, views.source_path), (views.target, views.target_path)):
            if readout is views.source or views.frozen_paths is None:
                for j in np.unique(owner[owner < len(rows)]):
                    longest = int(readout.index[owner == j].max()) + 1
                    if longest > len(paths[j]):
                        paths[j] = table.lm[rows[j]][:longest]
        paths += views.paths
    if not paths:
        paths = [np.zeros(1, dtype=np.int32)]

    packed = pack(paths, backend)
    nodes = packed.nodes
    empty = np.empty(0, dtype=np.int64)
    label_index = [nodes[j][first:stop] for j, (first, stop) in enumerate(spans)]
    label_ids = [table.lm[i][first + 1 : stop + 1].astype(np.int64) for i, (first, stop) in zip(rows, spans, strict=True)]
    source = target = Readout.single(empty)
    frozen = None
    if views is not None:
        frozen = pack(views.frozen_paths, backend) if views.frozen_paths else None
        source = _placed(views.source, views.source_path, nodes)
        target = _placed(views.target, views.target_path, frozen.nodes if frozen is not None else nodes)
    return ViewBatch(packed, np.concatenate([empty, *label_index]), np.concatenate([empty, *label_ids]), source, target, frozen)


def _placed(readout: Readout, owner: Index, nodes: tuple[Index, ...]) -> Readout:
    """The readout with positions on paths converted to flat indices."""
    index = np.array([nodes[path][at] for path, at in zip(owner, readout.index, strict=True)], dtype=np.int64)
    return Readout(index, readout.pair, readout.weight, readout.num_pairs)


def count_labels(table: TokenTable, rows: Sequence[int], *, loss_on: Literal["answer", "all"], train_end_of_turn: bool) -> int:
    """Number of labels in the batch that `make_batch` would build from these examples."""
    index = np.asarray(rows, dtype=np.int64)
    sequence = table.lm.lengths[index] - (1 if train_end_of_turn else 2)
    first = table.prompt_length[index] - 1 if loss_on == "answer" else 0
    return int(np.maximum(sequence - first, 0).sum())
