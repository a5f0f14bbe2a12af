"""The sequences that the JEPA term encodes and the states it reads, as `Views` of a batch: one function of objective, table and rows.

    append          Text + k predictor tokens              ->  Code                       (the paper)
    prepend         k predictor tokens + Text              ->  Code
    reverse         Code + k predictor tokens              ->  Text
    shared_prefix   the sequence's own prompt + k tokens   ->  Code                       (one view fewer to encode)
    tube, ...       states of the training sequence itself (`in_sequence.py`), at the tokens of its question and its answer

Random draws use one stream per step and example, so they do not depend on micro-batches or workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from jepa_ray.config import ObjectiveConfig
from jepa_ray.data.packing import Readout, Views, predictor_tokens
from jepa_ray.data.ragged import Ids
from jepa_ray.data.views import TokenTable
from jepa_ray.objectives.in_sequence import count_pairs, points
from jepa_ray.streams import stream

Index = NDArray[np.int64]
Side = tuple[Ids, Index]
"""A path, and the positions on it whose states make up the embedding, with equal weights."""


def num_pairs(objective: ObjectiveConfig, table: TokenTable, rows: Sequence[int]) -> int:
    """Number of pairs of these examples, without building the batch."""
    if objective.encodes_views:
        return len(rows)
    return int(count_pairs(objective.layout, np.array([len(content(table, i)) for i in rows], dtype=np.int64)).sum())


def exchange(rows: Sequence[int], seed: int, step: int) -> dict[int, int]:
    """Example -> another example of the step, whose target it gets in the shuffled control: one random cycle, so none keeps its own."""
    order = stream(seed, "shuffled pairs", step).permutation(len(rows))
    return {int(rows[a]): int(rows[b]) for a, b in zip(order, np.roll(order, -1), strict=True)}


def views_of(
    objective: ObjectiveConfig,
    table: TokenTable,
    rows: Sequence[int],
    *,
    seed: int = 0,
    step: int = 0,
    partner: Mapping[int, int] | None = None,
) -> Views:
    """The views that a batch of these examples encodes for the JEPA term.

    `partner`: for the shuffled control, example -> the example whose target it is paired with (`exchange`); None: its own target.
    """
    if not objective.encodes_views:
        return _in_sequence(objective, table, rows, seed, step)
    sources = [_source(objective, table, i) for i in rows]
    targets = [_target(objective, table, partner[i] if partner is not None else i) for i in rows]
    n = len(rows)
    source, source_at = _read(objective, sources)
    target, target_at = _read(objective, targets)
    paths, target_paths = [path for path, _ in sources], [path for path, _ in targets]
    if objective.target == "ema":
        return Views(paths, source, n + source_at, target, target_at, frozen_paths=target_paths)
    return Views([*paths, *target_paths], source, n + source_at, target, 2 * n + target_at)


def content(table: TokenTable, row: int) -> Index:
    """Positions in the training sequence of the question's and the answer's tokens: no template, no end of turn."""
    first, stop = table.question[row]
    return np.concatenate([np.arange(first, stop), np.arange(table.prompt_length[row], table.lm.lengths[row] - 1)])


def _source(objective: ObjectiveConfig, table: TokenTable, row: int) -> Side:
    tokens = predictor_tokens(objective.k)
    k = len(tokens)
    match objective.layout:
        case "append":
            return np.concatenate([table.text[row], tokens]), np.arange(table.text_start[row], len(table.text[row]) + k)
        case "prepend":
            inside = np.arange(table.text_start[row], len(table.text[row]))
            return np.concatenate([tokens, table.text[row]]), np.concatenate([np.arange(k), k + inside])
        case "reverse":
            return np.concatenate([table.code[row], tokens]), np.arange(table.code_start[row], len(table.code[row]) + k)
        case "shared_prefix":
            prompt = table.prompt(row)
            return np.concatenate([prompt, tokens]), np.concatenate([np.arange(*table.question[row]), len(prompt) + np.arange(k)])
        case layout:
            raise AssertionError(layout)


def _target(objective: ObjectiveConfig, table: TokenTable, row: int) -> Side:
    if objective.layout == "reverse":
        return table.text[row], np.arange(table.text_start[row], len(table.text[row]))
    return table.code[row], np.arange(table.code_start[row], len(table.code[row]))


def _read(objective: ObjectiveConfig, sides: Sequence[Side]) -> tuple[Readout, Index]:
    """One embedding per side, the state of its path's last token or the mean over its positions, and the path index of each entry."""
    at = [np.array([len(path) - 1]) if objective.readout == "last" else positions for path, positions in sides]
    counts = np.array([len(positions) for positions in at], dtype=np.int64)
    owner = np.repeat(np.arange(len(sides)), counts)
    index = np.concatenate([np.empty(0, dtype=np.int64), *at])
    return Readout(index, owner, (1 / np.repeat(counts, counts)).astype(np.float32), len(sides)), owner


def _in_sequence(objective: ObjectiveConfig, table: TokenTable, rows: Sequence[int], seed: int, step: int) -> Views:
    none = np.empty(0, dtype=np.int64)
    sides: list[list[tuple[Index, Index, Index, NDArray[np.float32]]]] = [[], []]
    pair = 0
    for position, row in enumerate(rows):
        for both in points(objective.layout, content(table, row), stream(seed, "points", step, int(row))):
            for side, (offsets, weights) in zip(sides, both, strict=True):
                side.append((offsets, np.full(len(offsets), pair), np.full(len(offsets), position), weights))
            pair += 1
    readouts = []
    for side in sides:
        index, pairs, owner, weight = (np.concatenate([none, *part]) for part in zip(*side, strict=True)) if side else (none,) * 4
        readouts.append((Readout(index.astype(np.int64), pairs.astype(np.int64), weight.astype(np.float32), pair), owner.astype(np.int64)))
    (source, source_at), (target, target_at) = readouts
    return Views([], source, source_at, target, target_at)
