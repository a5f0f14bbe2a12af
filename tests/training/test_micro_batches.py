"""The micro-batches of a step: by number of examples, by tokens, evenly over ranks, and packed ahead of time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepa_ray.config import ObjectiveConfig, OptimConfig
from jepa_ray.training import step as step_module
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.micro_batches import balanced, micro_batches, one_ahead, packed_ahead, shares
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.state import StepInputs, TrainState
from jepa_ray.training.step import train_step
from tests import tiny_models as tiny


@pytest.fixture
def llama(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["llama3"]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 50, 120, 1000, 10**9])
def test_groups_hold_every_example_once_within_the_budget(world_size: int, budget: int) -> None:
    tokens = np.random.default_rng(budget).integers(1, 120, 37)
    groups = balanced(tokens, world_size, budget)
    assert sorted(at for group in groups for at in group) == list(range(37))
    assert len(groups) % world_size == 0, "ranks have different numbers of micro-batches"
    loads = [int(tokens[group].sum()) for group in groups]
    assert max(loads) <= max(budget, tokens.max())
    if budget >= 120:
        assert len(groups) <= world_size * (int(tokens.sum()) // (budget * world_size) + 2), "far more groups than are needed"
    if len(groups) <= 6:
        assert max(loads) <= 1.2 * min(loads), "groups are uneven"


def test_an_empty_step_and_too_long_an_example() -> None:
    assert balanced(np.array([500]), 1, 100) == [[0]]
    assert balanced(np.array([500]), 2, 100) == [[0], []], "the other rank takes part with an empty micro-batch"


def test_examples_that_share_all_their_tokens_are_one_group(llama: Path) -> None:
    """A table of a single example, or of equal ones: none has a token of its own."""
    assert balanced(np.array([0, 0]), 1, 100) == [[0, 1]]
    table = tiny.table_of(llama, [tiny.EXAMPLES[0]])
    assert shares(StepInputs(config=tiny.trial(llama), table=table, tokens_that_fit=300), np.arange(1), None) == [[0]]


@pytest.mark.parametrize("objective", [None, ObjectiveConfig(k=2), ObjectiveConfig(layout="prepend", k=3), ObjectiveConfig(layout="tube")])
@pytest.mark.parametrize("packing", ["trie", "flat"])
def test_no_packed_row_has_more_tokens_than_allowed(llama: Path, objective: ObjectiveConfig | None, packing: str) -> None:
    table = tiny.table_of(llama, tiny.EXAMPLES[:40])
    budget = 700
    config = tiny.trial(llama, objective=objective, model__packing=packing, optim__tokens_per_forward=budget)
    term = Term.of(config, tiny.network_of(config))
    batches = list(micro_batches(tiny.inputs_of(table, config, packing), np.arange(40), 0, term))  # type: ignore[arg-type]
    sizes = [batch.packed.num_tokens for batch in batches]
    assert len(sizes) > 1 and max(sizes) <= budget
    assert packing == "flat" or max(sizes) > 0.5 * budget, "the bound is far above what is needed"
    assert sum(batch.num_labels for batch in batches) == tiny.inputs_of(table, config).count_labels(np.arange(40))


@pytest.mark.parametrize("layout", ["append", "reverse"])
def test_shuffled_targets_are_counted(llama: Path, layout: Any) -> None:
    """A short example may get the longest one's target."""
    table = tiny.table_of(llama, [*tiny.EXAMPLES[:6], *tiny.long_examples(1, words=60)])
    budget = 400
    config = tiny.trial(llama, objective=ObjectiveConfig(layout=layout, control="shuffled"), optim__tokens_per_forward=budget)
    term, inputs = Term.of(config, tiny.network_of(config)), tiny.inputs_of(table, config)
    shared, own = inputs.token_counts(with_views=True)
    for step in range(8):
        for batch, chosen in zip(
            micro_batches(inputs, np.arange(7), step, term), shares(inputs, np.arange(7), config.objective), strict=True
        ):
            assert batch.packed.num_tokens <= shared + own[chosen].sum()


def test_a_term_that_compares_pairs_keeps_them_in_one_pass_unless_told_otherwise(llama: Path) -> None:
    table, rows = tiny.table_of(llama, tiny.EXAMPLES[:12]), np.arange(12)

    def passes(fits: int | None, **changes: object) -> int:
        config = tiny.trial(llama, **changes)
        inputs = StepInputs(config=config, table=table, tokens_that_fit=fits)
        return len(shares(inputs, rows, config.objective))

    assert passes(None, objective=ObjectiveConfig()) == 1, "on a CPU a step is one pass"
    assert passes(300, objective=ObjectiveConfig()) > 1
    assert passes(300, objective=ObjectiveConfig(), optim__micro_batch_size=12) == 1, "the user's size comes first"
    assert passes(300, objective=ObjectiveConfig(distance="infonce")) == 1
    assert passes(None, objective=ObjectiveConfig(distance="infonce"), optim__tokens_per_forward=300) > 1


def test_the_grouping_changes_only_rounding(llama: Path) -> None:
    table, losses, weights = tiny.table_of(llama, tiny.EXAMPLES[:16]), [], []
    for budget in (None, 400):
        config = tiny.trial(llama, objective=ObjectiveConfig(k=1), optim__tokens_per_forward=budget)
        network = tiny.network_of(config)
        totals = train_step(tiny.state_of(network, table, config, term=Term.of(config, network)), np.arange(16), 0, 4)
        losses.append((totals.ce_sum, totals.jepa_sum, totals.num_labels, totals.num_pairs))
        weights.append(tiny.weights(network))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert tiny.largest_error(*weights) < 1e-5


def test_ranks_share_a_step(llama: Path) -> None:
    table, rows = tiny.table_of(llama, tiny.EXAMPLES[:20]), np.random.default_rng(0).permutation(20)
    config = tiny.trial(llama, optim__tokens_per_forward=300)
    parts = [shares(tiny.inputs_of(table, config, runtime=Runtime(rank=rank, world_size=3)), rows, None) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(at for part in parts for group in part for at in group) == sorted(rows)


def test_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="micro_batch_size = 4 and tokens_per_forward = 99 both set the size of a forward pass; drop one"):
        OptimConfig(micro_batch_size=4, tokens_per_forward=99)


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_steps_packed_ahead_are_the_steps(llama: Path, where: str) -> None:
    """Also with a thread, and with loss dropout, under which some steps have no views."""
    table = tiny.table_of(llama, tiny.EXAMPLES[:12])
    config = tiny.trial(llama, objective=ObjectiveConfig(k=1, loss_dropout=0.5), optim__micro_batch_size=2)
    network = tiny.network_of(config)
    state = tiny.state_of(network, table, config, term=Term.of(config, network))
    state.runtime = Runtime(device=where)
    steps = [np.arange(4) + start for start in (0, 4, 8)]
    with packed_ahead(state, steps, 7) as ahead:
        found = list(ahead)
    assert state.term is not None
    for step, (rows, batches) in enumerate(zip(steps, found, strict=True), start=7):
        wanted = list(micro_batches(state, rows, step, None if state.term.is_dropped(step) else state.term))
        assert [batch.packed.input_ids.tolist() for batch in batches] == [batch.packed.input_ids.tolist() for batch in wanted]
    assert len({batches[0].num_pairs > 0 for batches in found}) == 2, "loss dropout was not exercised"


def test_the_next_step_is_packed_while_the_present_one_runs() -> None:
    started = [threading.Event() for _ in range(3)]

    def work(number: int) -> list[int]:
        started[number].set()
        return [number]

    with ThreadPoolExecutor(1) as pool:
        results = one_ahead(pool.submit(work, number) for number in range(3))  # type: ignore[arg-type, misc]
        assert next(results) == [0]
        assert started[1].wait(10), "the next step waits for the present one"
        assert not started[2].is_set(), "more than one step ahead"
        assert list(results) == [[1], [2]]


def test_an_error_of_the_packing_thread_reaches_the_step() -> None:
    def fails() -> list[int]:
        raise MemoryError("no room")

    with ThreadPoolExecutor(1) as pool, pytest.raises(MemoryError, match="no room"):
        list(one_ahead(pool.submit(fails) for _ in range(2)))  # type: ignore[arg-type, misc]


class TestOutOfMemory:
    def little_memory(self, monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
        """Passes of more than so many tokens fail in the backward pass, after some gradients are in place. Returns the sizes tried."""
        tried: list[int] = []
        right = step_module.losses

        def losses(model: Any, batch: Any, *args: Any) -> Any:
            tried.append(batch.packed.num_tokens)
            if batch.packed.num_tokens > tokens:
                right(model, batch, *args)[0].backward()
                raise torch.OutOfMemoryError("out of memory")
            return right(model, batch, *args)

        monkeypatch.setattr(step_module, "losses", losses)
        return tried

    def trained(self, llama: Path, fits: int | None, **changes: Any) -> tuple[TrainState, list[float]]:
        config = tiny.trial(llama, objective=ObjectiveConfig(k=1), **changes)
        state = tiny.state_of(tiny.network_of(config), tiny.table_of(llama, tiny.EXAMPLES[:16]), config)
        state.term, state.tokens_that_fit = Term.of(config, state.network), fits
        totals = [train_step(state, np.arange(16), step, 3) for step in range(3)]
        return state, [each.ce_sum for each in totals]

    def test_a_step_is_run_again_in_smaller_passes(self, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted, expected = self.trained(llama, None)
        tried = self.little_memory(monkeypatch, 500)
        state, losses = self.trained(llama, 4000)
        assert state.tokens_that_fit == 500 and tried[0] > 500
        assert [size > 500 for size in tried] == sorted((size > 500 for size in tried), reverse=True), "only the first step had to find out"
        assert losses == pytest.approx(expected, rel=1e-5)
        assert tiny.largest_error(tiny.weights(state.network), tiny.weights(wanted.network)) < 1e-5

    @pytest.mark.parametrize("changes", [{"optim__micro_batch_size": 16}, {"optim__tokens_per_forward": 4000}, {}])
    def test_sizes_that_the_user_set_and_single_examples_fail(
        self, llama: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
    ) -> None:
        self.little_memory(monkeypatch, 10)
        with pytest.raises(torch.OutOfMemoryError):
            self.trained(llama, 4000, **changes)
