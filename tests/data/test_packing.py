"""Packing: a token sees the prefix of its path and nothing else, for all paths and backends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from jepa_ray.data.packing import PREDICTOR_BASE, Backend, Packed, count_labels, make_batch, pack
from jepa_ray.data.ragged import Ragged
from jepa_ray.data.views import TokenTable

BACKENDS: tuple[Backend, ...] = ("trie", "flat", "plain")


def ids(*paths: Sequence[int]) -> list[np.ndarray]:
    return [np.array(path, dtype=np.int32) for path in paths]


def allowed(packed: Packed) -> np.ndarray:
    """(R, T, T): the attention rule; query, then key."""
    q, k = np.arange(packed.end.shape[1])[:, None], np.arange(packed.end.shape[1])[None, :]
    return (k <= q) & (q < packed.end[:, None, :])


def check(paths: Sequence[np.ndarray], packed: Packed) -> None:
    """All conditions under which packed attention equals separate passes."""
    width = packed.input_ids.shape[1]
    assert packed.input_ids.shape == packed.position_ids.shape == packed.end.shape
    assert len(packed.nodes) == len(paths)
    seen = allowed(packed).reshape(-1, width) if packed.input_ids.size else np.zeros((0, 0), bool)
    used: set[int] = set()
    for path, nodes in zip(paths, packed.nodes, strict=True):
        assert packed.input_ids.reshape(-1)[nodes].tolist() == path.tolist()
        assert packed.position_ids.reshape(-1)[nodes].tolist() == list(range(len(path)))
        assert len({node // width for node in nodes}) <= 1, "a path spans several rows"
        for depth, node in enumerate(nodes):
            row = node // width
            assert (np.flatnonzero(seen[node]) + row * width).tolist() == nodes[: depth + 1].tolist()
        used.update(nodes.tolist())
    assert packed.num_tokens == len(used)
    own = [node for nodes, shared in zip(packed.nodes, packed.shared, strict=True) for node in nodes[shared:].tolist()]
    assert len(own) == len(used) and set(own) == used, "every token is the own token of exactly one path"
    for node in sorted(set(range(packed.input_ids.size)) - used):
        assert np.flatnonzero(seen[node]).tolist() == [node % width], "padding sees itself, and only itself"
        assert not seen[[n for n in used if n // width == node // width], node % width].any(), "padding is seen"
    if packed.backend == "trie":  # one token per distinct prefix
        assert packed.num_tokens == len({tuple(path[: depth + 1]) for path in paths for depth in range(len(path))}) == packed.input_ids.size


def random_paths(seed: int) -> list[np.ndarray]:
    """Paths of few distinct tokens, so that prefixes are often shared, with copies and prefixes of other paths."""
    rng = np.random.default_rng(seed)
    paths = [rng.integers(0, 3, rng.integers(1, 14)) for _ in range(rng.integers(1, 12))]
    for _ in range(rng.integers(0, 5)):
        path = paths[rng.integers(len(paths))]
        paths.append(path[: rng.integers(1, len(path) + 1)])
        paths.append(np.concatenate([path, rng.integers(PREDICTOR_BASE, PREDICTOR_BASE + 2, 2)]))
    rng.shuffle(paths := [path.astype(np.int32) for path in paths])  # type: ignore[arg-type]
    return paths


def test_a_hand_drawn_trie() -> None:
    packed = pack(ids([7, 8, 9], [5, 6], [7, 8, 4]), "trie")
    #   row      5 6 | 7 8 4 9      4 and 9 hang below 8
    assert packed.input_ids.tolist() == [[5, 6, 7, 8, 4, 9]]
    assert packed.position_ids.tolist() == [[0, 1, 0, 1, 2, 2]]
    assert packed.end.tolist() == [[2, 2, 6, 6, 5, 6]]
    assert [nodes.tolist() for nodes in packed.nodes] == [[2, 3, 5], [0, 1], [2, 3, 4]]
    assert packed.num_tokens == 6


def test_hand_drawn_segments_and_padded_rows() -> None:
    flat = pack(ids([1, 2, 3], [4, 5]), "flat")
    assert flat.input_ids.tolist() == [[1, 2, 3, 4, 5]] and flat.end.tolist() == [[3, 3, 3, 5, 5]]
    assert flat.position_ids.tolist() == [[0, 1, 2, 0, 1]] and flat.num_tokens == 5
    plain = pack(ids([1, 2, 3], [4, 5]), "plain")
    assert plain.input_ids.tolist() == [[1, 2, 3], [4, 5, 0]] and plain.end.tolist() == [[3, 3, 3], [2, 2, 3]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_token_sees_exactly_the_prefix_of_its_path(backend: Backend) -> None:
    for seed in range(60):
        paths = random_paths(seed)
        check(paths, pack(paths, backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "paths",
    [
        pytest.param([[1, 2, 3]] * 3, id="equal"),
        pytest.param([[1, 2, 3], [1], [1, 2]], id="prefixes of another"),
        pytest.param([[1] * 9, [1] * 10, [2], [1] * 9], id="repeated tokens"),
        pytest.param([[256, 1], [1, 256], [255], [65536]], id="ids over one byte"),
        pytest.param([[1]], id="one token"),
        pytest.param([], id="none"),
    ],
)
def test_corner_cases(backend: Backend, paths: list[list[int]]) -> None:
    packed = pack(ids(*paths), backend)
    check(ids(*paths), packed)


def test_a_trie_shares_and_the_others_do_not() -> None:
    paths = ids([1, 2, 3], [1, 2, 4], [1, 2, 3])
    assert pack(paths, "trie").num_tokens == 4
    assert pack(paths, "flat").num_tokens == pack(paths, "plain").num_tokens == 9


def table() -> TokenTable:
    """Two examples; 9 is the end of turn. Prompts of 2 and 3 tokens, answers of 2 and 1."""
    return TokenTable(
        ("a", "b"),
        ("which a", "which b"),
        ("x", "y"),
        (False, False),
        Ragged.of([[1, 2, 5, 6, 9], [1, 3, 2, 7, 9]]),
        np.array([2, 3]),
        Ragged.of([[1, 2], [1, 3]]),
        Ragged.of([[8, 5, 6], [8, 7]]),
        np.array([1, 1]),
        np.array([1, 1]),
        np.array([[1, 2], [1, 3]]),
        ({}, {}),
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("loss_on", "train_end_of_turn", "inputs", "labels"),
    [
        ("answer", True, [2, 5, 6, 2, 7], [5, 6, 9, 7, 9]),
        ("answer", False, [2, 5, 2], [5, 6, 7]),
        ("all", True, [1, 2, 5, 6, 1, 3, 2, 7], [2, 5, 6, 9, 3, 2, 7, 9]),
        ("all", False, [1, 2, 5, 1, 3, 2], [2, 5, 6, 3, 2, 7]),
    ],
)
def test_labels_by_hand(backend: Backend, loss_on: str, train_end_of_turn: bool, inputs: list[int], labels: list[int]) -> None:
    batch = make_batch(table(), [0, 1], backend=backend, loss_on=loss_on, train_end_of_turn=train_end_of_turn)  # type: ignore[arg-type]
    assert batch.packed.input_ids.reshape(-1)[batch.label_index].tolist() == inputs
    assert batch.label_ids.tolist() == labels
    assert batch.num_labels == len(labels) == count_labels(table(), [0, 1], loss_on=loss_on, train_end_of_turn=train_end_of_turn)  # type: ignore[arg-type]
    assert batch.num_pairs == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_readouts_by_hand(backend: Backend) -> None:
    for k, source in ((0, [2, 3]), (2, [PREDICTOR_BASE + 1] * 2)):
        batch = make_batch(table(), [0, 1], backend=backend, k=k)
        read = batch.packed.input_ids.reshape(-1)
        assert read[batch.source_index].tolist() == source and read[batch.target_index].tolist() == [6, 7]
        assert batch.packed.position_ids.reshape(-1)[batch.source_index].tolist() == [1 + k, 1 + k]
        assert batch.num_pairs == 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [None, 0, 2])
def test_a_worker_without_examples_still_has_a_token(backend: Backend, k: int | None) -> None:
    batch = make_batch(table(), [], backend=backend, k=k)
    assert batch.packed.input_ids.shape == (1, 1) and batch.num_labels == batch.num_pairs == 0
