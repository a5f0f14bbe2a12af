"""The micro-batches of an optimizer step: which examples pass through the network together, and their packed rows.

    micro_batch_size        that many examples, in the order of the step
    tokens_per_forward      groups of about equal numbers of tokens, none above that many, evened out over micro-batches and ranks
    neither                 the rank's whole share of the step; on a GPU as many tokens as its memory allows

Every rank has the same number of micro-batches, of which some may be empty: data-parallel training exchanges gradients after the last.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from jepa_ray.config import ObjectiveConfig
from jepa_ray.data.packing import ViewBatch, make_batch
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.state import StepInputs, TrainState

Rows = NDArray[np.int64]
T = TypeVar("T")


def micro_batches(inputs: StepInputs, rows: Rows, step: int, term: Term | None) -> Iterator[ViewBatch]:
    """This rank's share of a step, packed.

    `term`: the JEPA term; None if there is none, or if loss dropout skips it.
    """
    table, optim = inputs.table, inputs.config.optim
    partner = term.partners(rows.tolist(), step) if term is not None else None
    for chosen in shares(inputs, rows, term.objective if term is not None else None):
        yield make_batch(
            table,
            chosen,
            backend=inputs.backend,
            views=term.views(table, chosen, step, partner) if term is not None else None,
            loss_on=optim.loss_on,
            train_end_of_turn=optim.train_end_of_turn,
        )


def shares(inputs: StepInputs, rows: Rows, objective: ObjectiveConfig | None) -> list[list[int]]:
    """The examples of each of this rank's micro-batches. `objective`: that of the step; None if it has no JEPA term."""
    rank, world_size, optim = inputs.runtime.rank, inputs.runtime.world_size, inputs.config.optim
    budget = inputs.tokens_that_fit if inputs.sized_by_memory(objective) else optim.tokens_per_forward
    if budget is not None:
        views = objective is not None and objective.encodes_views
        shared, own = inputs.token_counts(with_views=views)
        groups = balanced(own[rows], world_size, max(1, budget - shared))
        return [[int(rows[at]) for at in group] for group in groups[rank::world_size]]
    mine, share = rows[rank::world_size], -(-len(rows) // world_size)
    size = min(optim.micro_batch_size or share, share)
    return [mine[start : start + size].tolist() for start in range(0, share, size)]


def balanced(tokens: NDArray[np.int64], world_size: int, budget: int) -> list[list[int]]:
    """Indices of the examples in each group: a multiple of `world_size` groups, as few as possible, with at most `budget` tokens each.

    The longest example goes first, always into the emptiest group, so groups are about equal. If one example is longer than the budget, its
    length is the budget, since its pass needs that memory anyway.
    """
    budget = max(budget, int(tokens.max()))
    order = np.argsort(-tokens, kind="stable")
    # At least one: equal sequences share all their tokens.
    for rounds in itertools.count(max(1, -(-int(tokens.sum()) // (budget * world_size)))):
        heap = [(0, group) for group in range(rounds * world_size)]
        groups: list[list[int]] = [[] for _ in heap]
        for at in order:
            used, group = heapq.heappop(heap)
            groups[group].append(int(at))
            heapq.heappush(heap, (used + int(tokens[at]), group))
        if max(used for used, _ in heap) <= budget:
            return [sorted(group) for group in groups]
    raise AssertionError("unreachable: with one example per group, none exceeds the budget")


@contextmanager
def packed_ahead(state: TrainState, steps: Sequence[Rows], done: int) -> Iterator[Iterator[list[ViewBatch]]]:
    """The packed micro-batches of each step in turn. On a GPU the next step is packed on a thread while this one runs.

    `done`: steps before the first of `steps`. On a CPU the thread would only take time from the step.
    """

    def packed(rows: Rows, step: int) -> list[ViewBatch]:
        dropped = state.term is None or state.term.is_dropped(step)
        return list(micro_batches(state, rows, step, None if dropped else state.term))

    def ahead(rows: Rows, step: int) -> tuple[int | None, list[ViewBatch]]:
        return state.tokens_that_fit, packed(rows, step)

    numbered = [(rows, step) for step, rows in enumerate(steps, start=done)]
    if state.runtime.device == "cpu":
        yield (packed(rows, step) for rows, step in numbered)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="pack") as pool:
        results = one_ahead(pool.submit(ahead, rows, step) for rows, step in numbered)
        # A step that runs out of memory changes the size of the passes after it.
        yield (
            batches if size == state.tokens_that_fit else packed(rows, step)
            for (rows, step), (size, batches) in zip(numbered, results, strict=True)
        )


def one_ahead(futures: Iterable[Future[T]]) -> Iterator[T]:
    """Results in order; the next future is drawn, and so started, before the present result is handed over."""
    waiting: Future[T] | None = None
    for future in futures:
        if waiting is not None:
            yield waiting.result()
        waiting = future
    if waiting is not None:
        yield waiting.result()
