"""The optimizer step: normalisation, loss dropout, schedule and clipping, regardless of micro-batches and workers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepa_ray.config import LoraConfig, ObjectiveConfig, OptimConfig
from jepa_ray.data.packing import Packed, ViewBatch, make_batch
from jepa_ray.models import attention
from jepa_ray.models.device_batch import DeviceBatch, Placement
from jepa_ray.models.families import FAMILIES
from jepa_ray.objectives.schedules import is_dropped
from jepa_ray.training.epochs import epoch_steps
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.optimizer import lr_factor, make_optimizer
from jepa_ray.training.packing_check import PackingError, attention_error
from jepa_ray.training.runtime import NonFinite, Runtime, StepTotals
from jepa_ray.training.step import attended_pairs, micro_batches, train_step
from tests import tiny_models as tiny


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[request.param]


JEPA = ObjectiveConfig(k=1, **{"lambda": 2.0})  # type: ignore[arg-type]
ROWS = [3, 0, 6, 4, 1, 5, 2]
"""Seven examples: only the micro-batch sizes one and seven divide them."""


def after_step(
    checkpoint: Path, k: int | None = None, step: int = 0, **changes: Any
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], StepTotals]:
    """Gradients, weights and totals of one step on ROWS."""
    config = tiny.trial(checkpoint, **changes)
    network = tiny.network_of(config, k)
    totals = tiny.one_step(network, tiny.table_of(checkpoint, tiny.EXAMPLES[:8]), config, ROWS, step=step)
    return tiny.gradients(network), tiny.weights(network), totals


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2, dropout=0.0)], ids=["full", "lora"])
def test_gradient_accumulation_changes_nothing_but_rounding(checkpoint: Path, lora: LoraConfig | None) -> None:
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:8])
    labels = table.lm.lengths - table.prompt_length
    assert len(set(labels[ROWS].tolist())) > 2, "answers of equal length would hide a mean of means"
    wanted, _, whole = after_step(checkpoint, objective=JEPA, lora=lora)
    for size in (1, 3, 100):
        found, _, totals = after_step(checkpoint, objective=JEPA, lora=lora, optim__micro_batch_size=size)
        assert tiny.largest_error(found, wanted) < 1e-5
        assert (totals.num_labels, totals.num_pairs) == (whole.num_labels, whole.num_pairs) == (labels[ROWS].sum(), 7)
        assert totals.ce_sum == pytest.approx(whole.ce_sum, rel=1e-5) and totals.jepa_sum == pytest.approx(whole.jepa_sum, rel=1e-5)


def test_the_loss_is_a_mean_over_labels_plus_lambda_times_a_mean_over_pairs(checkpoint: Path) -> None:
    """The gradient is the sum of its two parts, weighted by gamma and lambda."""
    none = {"max_grad_norm": None}
    parts = {}
    for gamma, weight in ((1.0, 0.0), (0.0, 1.0), (0.5, 3.0)):
        objective = ObjectiveConfig(k=1, gamma=gamma, **{"lambda": weight})  # type: ignore[arg-type]
        parts[gamma, weight], _, _ = after_step(checkpoint, objective=objective, **{f"optim__{key}": value for key, value in none.items()})
    for name, value in parts[0.5, 3.0].items():
        ce = parts[1.0, 0.0].get(name, torch.zeros_like(value))
        torch.testing.assert_close(value, 0.5 * ce + 3.0 * parts[0.0, 1.0][name], rtol=1e-3, atol=1e-6)
    twice = tiny.trial(checkpoint, objective=JEPA)
    table, rows = tiny.table_of(checkpoint, tiny.EXAMPLES[:8]), [*ROWS, *ROWS]
    network = tiny.network_of(twice)
    tiny.one_step(network, table, twice, rows)  # every example twice: sums double, means and gradients do not change
    assert tiny.largest_error(tiny.gradients(network), after_step(checkpoint, objective=JEPA)[0]) < 1e-5


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_two_workers_change_nothing_but_rounding(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """DistributedDataParallel over gloo: unequal shares and labels, micro-batches, a batch of one, a dropped step, a whole trial."""
    names = list(tiny_checkpoints)
    cases: list[tiny.Case] = [
        (tiny_checkpoints[names[0]], None, ROWS, None, 0, {}),
        (tiny_checkpoints[names[-1]], LoraConfig(r=2, dropout=0.0), ROWS, 2, 0, {}),
        (tiny_checkpoints[names[-1]], LoraConfig(r=2, dropout=0.0), [2], None, 0, {}),  # one worker has no example
        (tiny_checkpoints[names[0]], None, ROWS, 1, dropped_step(), {"predictor": "mlp"}),
        (tiny_checkpoints[names[0]], None, ROWS, None, 0, {"distance": "infonce", "symmetric": True}),
        (tiny_checkpoints[names[0]], None, [2], None, 0, {"distance": "infonce", "symmetric": True}),  # the exchange, with nothing to send
        (tiny_checkpoints[names[0]], None, ROWS, None, 0, {"control": "monitor", "predictor": "linear"}),
        (tiny_checkpoints[names[0]], None, ROWS, 2, 0, {"target": "ema", "control": "shuffled"}),
        (tiny_checkpoints[names[0]], None, ROWS, None, 0, {"sigreg": 0.5}),
        (tiny_checkpoints[names[0]], None, ROWS, None, 0, {"variance": 1.0, "covariance": 2.0, "target": "stop_target"}),
        (tiny_checkpoints[names[0]], None, ROWS, None, 0, {"variance": 1.0, "sigreg": 0.5, "distance": "infonce"}),
        (tiny_checkpoints[names[0]], None, [2], None, 0, {"variance": 1.0, "sigreg": 0.5, "predictor": "mlp"}),  # one worker has no state
        (tiny_checkpoints[names[0]], None, ROWS, None, 0, {"layout": "tube", "k": 0, "sigreg": 0.5, "covariance": 1.0}),
    ]
    torch.multiprocessing.spawn(tiny.run_data_parallel, (tmp_path, cases, tiny_checkpoints[names[0]]), nprocs=2)  # type: ignore[no-untyped-call]
    for number, case in enumerate(cases):
        wanted = tiny.data_parallel_case(case, Runtime())
        for rank in range(2):
            parallel = torch.load(tmp_path / f"{number}.{rank}.pt")
            assert tiny.largest_error(parallel["gradients"], wanted["gradients"]) < 1e-5, case
            assert tiny.largest_error(parallel["weights"], wanted["weights"]) < 1e-3, case
        shares = [torch.load(tmp_path / f"{number}.{rank}.pt")["totals"] for rank in range(2)]
        assert [shares[0][name] + shares[1][name] for name in ("num_labels", "num_pairs")] == [
            wanted["totals"][name] for name in ("num_labels", "num_pairs")
        ]
        for name in ("ce_sum", "jepa_sum"):
            assert shares[0][name] + shares[1][name] == pytest.approx(wanted["totals"][name], rel=1e-5), case
    one = tiny.small_trial(tiny_checkpoints[names[0]], tmp_path / "one", Runtime())
    two = [torch.load(tmp_path / f"trial.{rank}.pt") for rank in range(2)]
    assert two[0] == two[1], "ranks disagree on the result"
    tiny.assert_same_answers(two[0]["predictions"], one["predictions"])
    assert (
        two[0]["metrics"] == pytest.approx(one["metrics"], rel=1e-4) and {"train_ce", "train_jepa", "val_accuracy"} < one["metrics"].keys()
    )


def dropped_step(p: float = 0.5) -> int:
    """The first step from 1 on that loss dropout skips."""
    return next(step for step in range(1, 100) if is_dropped(ObjectiveConfig(loss_dropout=p), 1, step))


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2, dropout=0.1)], ids=["full", "lora with dropout"])
def test_a_dropped_step_is_a_step_of_the_baseline_bit_for_bit(checkpoint: Path, lora: LoraConfig | None) -> None:
    dropped = ObjectiveConfig(k=3, loss_dropout=0.5)
    _, wanted, totals = after_step(checkpoint, step=dropped_step(), lora=lora, optim__max_grad_norm=0.01)
    _, found, totals_found = after_step(checkpoint, step=dropped_step(), lora=lora, optim__max_grad_norm=0.01, objective=dropped)
    assert totals_found == totals and totals.num_pairs == 0
    before = tiny.weights(tiny.network_of(tiny.trial(checkpoint, objective=dropped)))["predictor"]
    assert torch.equal(found.pop("predictor"), before)
    assert found.keys() == wanted.keys() and [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


def test_lambda_zero_is_the_baseline_bit_for_bit(checkpoint: Path) -> None:
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:8])
    runs = []
    for objective in (None, ObjectiveConfig(k=2, **{"lambda": 0.0})):  # type: ignore[arg-type]
        config = tiny.trial(checkpoint, lora=LoraConfig(r=2, dropout=0.1), objective=objective)
        network = tiny.network_of(config, k=0)
        state = tiny.state_of(network, table, config)
        totals = [train_step(state, np.array(ROWS), step, 5) for step in range(4)]
        runs.append((tiny.weights(network), totals))
    assert runs[0][1] == runs[1][1] and all(torch.equal(runs[0][0][name], runs[1][0][name]) for name in runs[0][0])


def test_loss_dropout_depends_on_seed_and_step_only() -> None:
    def drops(p: float, seed: int = 1, **changes: Any) -> list[bool]:
        return [is_dropped(ObjectiveConfig(loss_dropout=p, **changes), seed, step) for step in range(2000)]

    assert not any(drops(0.0))
    half = drops(0.5)
    assert half == drops(0.5, k=4, **{"lambda": 7.0}, distance="mse")
    assert half != drops(0.5, seed=2)
    for p in (0.25, 0.5, 0.75):  # a share of 2,000 has a standard deviation of at most 0.011
        assert abs(np.mean(drops(p)) - p) < 0.045
    assert all(b for a, b in zip(half, drops(0.75), strict=True) if a), "a higher rate drops every step that a lower rate drops"


def test_the_data_order_knows_nothing_of_the_objective() -> None:
    optim = OptimConfig(batch_size=4)
    steps = epoch_steps(10, optim, seed=1, epoch=0)
    assert [len(rows) for rows in steps] == [4, 4, 2] and sorted(np.concatenate(steps).tolist()) == list(range(10))
    assert np.concatenate(epoch_steps(10, optim, 1, 1)).tolist() != np.concatenate(steps).tolist()
    assert np.concatenate(epoch_steps(10, optim, 2, 0)).tolist() != np.concatenate(steps).tolist()
    torch.rand(5), np.random.rand(5)
    again = epoch_steps(10, OptimConfig(batch_size=10, learning_rate=1.0, micro_batch_size=1), 1, 0)
    assert again[0].tolist() == np.concatenate(steps).tolist()


def test_all_ranks_have_equally_many_micro_batches_and_share_the_step(checkpoint: Path) -> None:
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:8])
    for world, size, count in ((2, 2, 2), (3, None, 1), (8, None, 1), (2, 1, 4)):
        config = tiny.trial(checkpoint, objective=JEPA, optim__micro_batch_size=size)
        term = Term.of(config, tiny.network_of(config))
        per_rank = [
            list(micro_batches(tiny.inputs_of(table, config, runtime=Runtime(rank, world)), np.array(ROWS), 0, term))
            for rank in range(world)
        ]
        assert {len(batches) for batches in per_rank} == {count}
        assert sum(batch.num_pairs for batches in per_rank for batch in batches) == len(ROWS)


def test_learning_rates_by_hand() -> None:
    def factors(total: int, **changes: Any) -> list[float]:
        return [lr_factor(step, total, OptimConfig(**changes)) for step in range(total)]

    assert factors(4) == [1, 0.75, 0.5, 0.25]
    assert factors(4, warmup_ratio=0.5) == [0.5, 1, 1, 0.5]
    assert factors(5, warmup_ratio=0.2) == [1, 1, 0.75, 0.5, 0.25]
    assert factors(3, schedule="constant") == [1, 1, 1]
    root = math.sqrt(0.5)
    assert factors(4, schedule="cosine") == pytest.approx([1, (1 + root) / 2, 0.5, (1 - root) / 2])
    assert factors(1) == factors(1, schedule="cosine") == [1]


def test_the_first_step_of_adam_moves_weights_by_the_learning_rate(checkpoint: Path) -> None:
    """Bias-corrected moments of one gradient are g and g^2, so the update is lr * g / (|g| + eps). At step 5 of 10, the rate is half."""
    config = tiny.trial(checkpoint, optim__learning_rate=1e-2)
    network = tiny.network_of(config)
    before = tiny.weights(network)
    tiny.one_step(network, tiny.table_of(checkpoint, tiny.EXAMPLES[:8]), config, ROWS, step=5, total=10)
    for name, gradient in tiny.gradients(network).items():
        moved = tiny.weights(network)[name] - before[name]
        large = gradient.abs() > 1e-4
        torch.testing.assert_close(moved[large], -5e-3 * gradient[large].sign(), rtol=1e-3, atol=1e-6)


def test_clipping_scales_all_gradients_by_one_factor(checkpoint: Path) -> None:
    free, _, _ = after_step(checkpoint, objective=JEPA, optim__max_grad_norm=None)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in free.values()))
    clipped, _, _ = after_step(checkpoint, objective=JEPA, optim__max_grad_norm=norm / 4)
    assert all(torch.allclose(clipped[name], free[name] / 4, rtol=1e-4, atol=1e-9) for name in free)
    loose, _, _ = after_step(checkpoint, objective=JEPA, optim__max_grad_norm=norm * 2)
    assert all(torch.equal(loose[name], free[name]) for name in free)


def test_weight_decay_on_matrices_only(checkpoint: Path) -> None:
    network = tiny.network_of(tiny.trial(checkpoint, objective=JEPA))
    config = tiny.trial(checkpoint, objective=JEPA, optim__weight_decay=0.1)
    groups = make_optimizer(network, config).param_groups
    for group in groups:
        of_predictor = any(p is network.predictor for p in group["params"])
        assert of_predictor or {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] > 0}
        assert not of_predictor or group["weight_decay"] == 0
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2, dropout=0.0)], ids=["full", "lora"])
def test_what_moves_and_what_does_not(checkpoint: Path, lora: LoraConfig | None) -> None:
    config = tiny.trial(checkpoint, lora=lora, objective=ObjectiveConfig(k=2))
    network = tiny.network_of(config)
    before = tiny.weights(network)
    tiny.one_step(network, tiny.table_of(checkpoint, tiny.EXAMPLES[:8]), config, ROWS)
    moved = {name for name, value in tiny.weights(network).items() if not torch.equal(value, before[name])}
    if lora is None:
        assert moved == set(before)
    else:
        assert moved == {name for name in before if "lora_" in name} | {"predictor"}
    rows_moved = (tiny.weights(network)["predictor"] != before["predictor"]).any(1)
    assert rows_moved.tolist() == [True, True]
    assert network.causal_lm.get_input_embeddings().num_embeddings == network.causal_lm.config.vocab_size


def test_dropout_masks_depend_on_seed_and_step_not_on_the_generator(checkpoint: Path) -> None:
    options: dict[str, Any] = {"lora": LoraConfig(r=2, dropout=0.5), "objective": JEPA}
    torch.manual_seed(1)
    first, _, _ = after_step(checkpoint, **options)
    torch.manual_seed(2)
    assert tiny.largest_error(after_step(checkpoint, **options)[0], first) == 0
    assert tiny.largest_error(after_step(checkpoint, **options, step=1)[0], first) > 1e-3
    assert tiny.largest_error(after_step(checkpoint, objective=JEPA, lora=LoraConfig(r=2, dropout=0.0))[0], first) > 1e-3


def test_non_finite_losses_and_gradients_stop_before_the_update(checkpoint: Path) -> None:
    config = tiny.trial(checkpoint, objective=JEPA)
    network = tiny.network_of(config)
    [p for name, p in network.named_parameters() if p.ndim == 2 and ".layers.0." in name][-1].data[0, 0] = math.inf
    before = tiny.weights(network)
    with pytest.raises(NonFinite, match="step 4"):
        tiny.one_step(network, tiny.table_of(checkpoint, tiny.EXAMPLES[:8]), config, ROWS, step=3)
    assert all(torch.equal(value, before[name]) for name, value in tiny.weights(network).items())


def test_attended_pairs_by_hand(checkpoint: Path) -> None:
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:3])
    for backend in ("flat", "plain"):
        batch = make_batch(table, [0, 1, 2], backend=backend, k=2)  # type: ignore[arg-type]
        assert attended_pairs(batch.packed) == sum(n * (n + 1) // 2 for n in map(len, batch.packed.nodes))
    batch = make_batch(table, [0, 0], backend="trie")
    length = len(table.lm[0]) - 1  # the same path twice is stored once
    assert attended_pairs(batch.packed) == length * (length + 1) // 2


class TestSelfCheck:
    @pytest.mark.parametrize("backend", tiny.BACKENDS)
    @pytest.mark.parametrize("k", [None, 0, 2])
    def test_passes_on_what_is_right(self, checkpoint: Path, backend: Any, k: int | None) -> None:
        network = tiny.network_of(tiny.trial(checkpoint), k=k or 0)
        for table in (tiny.table_of(checkpoint, tiny.EXAMPLES[:9]), tiny.table_of(checkpoint, tiny.long_examples(3, 120))):
            assert attention_error(network, table, backend, k=k, bf16=False) < 1e-5
            assert attention_error(network, table, backend, k=k, bf16=True) < 0.03
        assert network.training, "the mode was not restored"

    def plant(self, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
        """Give attention and positions a wrong layout, while the check itself keeps the right one."""
        from jepa_ray.models import device_batch

        def layout(packed: Packed, device: torch.device) -> attention.Layout:
            if fault == "causal over the whole row":
                wrong = replace(packed, nodes=(np.arange(packed.num_tokens),), shared=np.zeros(1, dtype=np.int64))
            elif fault == "one token of another path":
                other = packed.nodes[0][-1:]
                paths = (packed.nodes[0], *(np.concatenate([other, path]) for path in packed.nodes[1:]))
                wrong = replace(packed, nodes=paths, shared=packed.shared + (np.arange(len(paths)) > 0))
            elif fault == "the future":
                own = zip(packed.nodes, packed.shared, strict=True)
                wrong = replace(packed, nodes=tuple(np.concatenate([path[:n], path[n:][::-1]]) for path, n in own))
            else:
                return attention.Layout(packed, device)
            return attention.Layout(wrong, device)

        def batch(made: ViewBatch, placement: Placement) -> DeviceBatch:
            depth = made.packed.position_ids
            wrong = np.arange(depth.size).reshape(depth.shape) if fault == "positions of the row" else depth + (depth > 3)
            return right(replace(made, packed=replace(made.packed, position_ids=wrong)), placement)

        right = DeviceBatch.of
        monkeypatch.setattr(device_batch, "Layout", layout)
        if fault.startswith("positions"):
            monkeypatch.setattr(DeviceBatch, "of", batch)

    @pytest.mark.parametrize("backend", ["trie", "flat"])
    @pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
    @pytest.mark.parametrize(
        "fault",
        ["causal over the whole row", "one token of another path", "the future", "positions of the row", "positions off by one"],
    )
    def test_refuses_planted_faults(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, backend: Any, fault: str, bf16: bool) -> None:
        if fault == "positions of the row" and backend == "flat":
            pytest.skip("rotary positions are relative: where no token is shared, a whole path may be shifted")
        network = tiny.network_of(tiny.trial(checkpoint), k=1)
        self.plant(monkeypatch, fault)
        with pytest.raises(PackingError, match="packing=plain"):
            attention_error(network, tiny.table_of(checkpoint, tiny.EXAMPLES[:6]), backend, k=1, bf16=bf16)

    @pytest.mark.parametrize("backend", ["trie", "flat"])
    def test_refuses_attention_that_ignores_the_sliding_window(
        self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, backend: Any
    ) -> None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        network = tiny.network_of(tiny.trial(checkpoint), k=1)
        if not getattr(network.causal_lm.config, "sliding_window", None):
            pytest.skip("this family has no sliding window")
        monkeypatch.setitem(
            ALL_ATTENTION_FUNCTIONS._global_mapping,
            attention.NAME,
            lambda *args, sliding_window=None, **kwargs: attention.packed_attention(*args, **kwargs),
        )
        # One long example among many short ones, which an even spread over the table would miss.
        examples = [*tiny.EXAMPLES[:10], *tiny.long_examples(1, 150), *tiny.EXAMPLES[10:40]]
        with pytest.raises(PackingError):
            attention_error(network, tiny.table_of(checkpoint, examples), backend, k=1, bf16=False)

    def test_refuses_what_is_not_finite(self, checkpoint: Path) -> None:
        network = tiny.network_of(tiny.trial(checkpoint))
        [p for name, p in network.named_parameters() if p.ndim == 2 and ".layers.0." in name][-1].data[0, 0] = math.nan
        with pytest.raises(PackingError):
            attention_error(network, tiny.table_of(checkpoint, tiny.EXAMPLES[:3]), "trie", k=None, bf16=False)
