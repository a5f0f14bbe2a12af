"""Every objective on a real (tiny) network: packed equals separate computation, and gradients flow only where they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa_ray.config import IN_SEQUENCE, ObjectiveConfig
from jepa_ray.data.packing import PREDICTOR_BASE, make_batch
from jepa_ray.data.views import TokenTable
from jepa_ray.models.network import Network, final_norm
from jepa_ray.objectives.distances import distance
from jepa_ray.objectives.in_sequence import points
from jepa_ray.objectives.layouts import content, exchange, num_pairs
from jepa_ray.streams import stream
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.packing_check import separate_pass
from jepa_ray.training.step import lambda_from_gradients, losses, micro_batches, train_step
from tests import tiny_models as tiny

CPU = torch.device("cpu")
ROWS = [3, 0, 5, 1]
VARIANTS: dict[str, dict[str, Any]] = {
    "cosine": {"k": 1},
    "k 0": {"k": 0},
    "prepend": {"layout": "prepend", "k": 2},
    "reverse": {"layout": "reverse", "k": 2},
    "shared prefix": {"layout": "shared_prefix", "k": 2},
    "shared prefix, k 0": {"layout": "shared_prefix", "k": 0},
    "mean": {"readout": "mean", "k": 1},
    "prepend mean": {"layout": "prepend", "readout": "mean", "k": 2},
    "shared prefix mean": {"layout": "shared_prefix", "readout": "mean", "k": 1},
    "half the layers": {"layer": 0.5, "k": 1},
    "half the layers, no norm": {"layer": 0.5, "final_norm": False, "k": 1},
    "before the norm": {"final_norm": False, "k": 1},
    "stop target": {"target": "stop_target"},
    "stop source": {"target": "stop_source"},
    "ema": {"target": "ema"},
    "linear": {"predictor": "linear"},
    "mlp": {"predictor": "mlp", "predictor_width": 5, "k": 0},
    "l2": {"distance": "l2"},
    "mse": {"distance": "mse", "normalize": True},
    "smooth l1": {"distance": "smooth_l1"},
    "infonce": {"distance": "infonce", "symmetric": True},
    "tube": {"layout": "tube"},
    "tube patch": {"layout": "tube_patch"},
    "tube ends": {"layout": "tube_ends"},
    "tube means": {"layout": "tube_means"},
    "curvature": {"layout": "curvature"},
    "tube linear": {"layout": "tube", "predictor": "linear"},
    "tube patch mlp": {"layout": "tube_patch", "predictor": "mlp"},
    "shuffled": {"control": "shuffled"},
}


@pytest.fixture
def checkpoint(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["gemma2"]  # scaled embeddings and a sliding window make it the most error-prone family


@pytest.fixture
def table(checkpoint: Path) -> TokenTable:
    return tiny.table_of(checkpoint, tiny.EXAMPLES[:8])


def setting(checkpoint: Path, changes: dict[str, Any]) -> tuple[Any, Network, Term]:
    config = tiny.trial(checkpoint, objective=ObjectiveConfig.model_validate(changes))
    network = tiny.network_of(config)
    if network.head is not None:  # heads start as the identity, which would hide mistakes
        generator = torch.Generator().manual_seed(1)
        for parameter in network.head.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    term = Term.of(config, network)
    assert term is not None
    return config, network, term


def states_alone(network: Network, ids: np.ndarray, objective: ObjectiveConfig) -> Tensor:
    """States of one sequence alone at the objective's depth, from the model's own layers."""
    if objective.layer == 1 and objective.final_norm:
        return separate_pass(network, ids)
    base = network.causal_lm.base_model
    inputs: list[Tensor] = []
    handles = [layer.register_forward_hook(lambda m, i, o: inputs.append(o if isinstance(o, Tensor) else o[0])) for layer in base.layers]
    separate_pass(network, ids)
    for handle in handles:
        handle.remove()
    state = inputs[round(objective.layer * len(base.layers)) - 1][0]
    return final_norm(base)(state) if objective.final_norm else state


def source_of(objective: ObjectiveConfig, table: TokenTable, i: int, k: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The source's sequence, and the positions of its content and predictor tokens."""
    text, code, text_start, code_start = table.text[i], table.code[i], int(table.text_start[i]), int(table.code_start[i])
    if objective.layout == "append":
        return np.concatenate([text, k]), list(range(text_start, len(text) + len(k)))
    if objective.layout == "prepend":
        return np.concatenate([k, text]), [*range(len(k)), *range(len(k) + text_start, len(k) + len(text))]
    if objective.layout == "reverse":
        return np.concatenate([code, k]), list(range(code_start, len(code) + len(k)))
    prompt = table.prompt(i)
    return np.concatenate([prompt, k]), [*range(*table.question[i]), *range(len(prompt), len(prompt) + len(k))]


def separate(network: Network, table: TokenTable, objective: ObjectiveConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Source and target embeddings by definition, one sequence at a time."""
    k = np.arange(PREDICTOR_BASE, PREDICTOR_BASE + objective.k)
    partner = exchange(ROWS, seed, 0) if objective.control == "shuffled" else {i: i for i in ROWS}
    sources, targets = [], []
    for i in ROWS:
        if objective.layout in IN_SEQUENCE:
            states = states_alone(network, table.lm[i], objective)
            for pair in points(objective.layout, content(table, i), stream(seed, "points", 0, i)):
                both = [sum(float(w) * states[int(at)] for at, w in zip(*side, strict=True)) for side in pair]
                sources.append(both[0])
                targets.append(both[1])
            continue
        other = partner[i]
        path, used = source_of(objective, table, i, k)
        goal, start = (
            (table.text[other], table.text_start[other]) if objective.layout == "reverse" else (table.code[other], table.code_start[other])
        )
        source, target = states_alone(network, path, objective), states_alone(network, goal, objective)
        mean = objective.readout == "mean"
        sources.append(source[used].mean(0) if mean else source[-1])
        targets.append(target[int(start) :].mean(0) if mean else target[-1])
    source_PD, target_PD = torch.stack(sources), torch.stack(targets)
    if network.head is not None:
        source_PD = network.head(source_PD)
    if objective.target in ("stop_target", "ema"):
        target_PD = target_PD.detach()
    if objective.target == "stop_source":
        source_PD = source_PD.detach()
    return source_PD, target_PD


@pytest.mark.parametrize("backend", ["trie", "plain"])
@pytest.mark.parametrize("name", VARIANTS)
def test_packed_equals_separate_in_loss_and_gradients(checkpoint: Path, table: TokenTable, name: str, backend: Any) -> None:
    config, network, term = setting(checkpoint, VARIANTS[name])
    (batch,) = micro_batches(tiny.inputs_of(table, config, backend), np.array(ROWS), 0, term)
    assert batch.num_pairs == num_pairs(term.objective, table, ROWS) >= len(ROWS)
    _, packed_sum = losses(network, batch, config, CPU, term)
    packed_sum.backward()
    packed = tiny.gradients(network)
    network.zero_grad(set_to_none=True)
    wanted = distance(term.objective, *separate(network, table, term.objective, config.seed)).sum()
    wanted.backward()
    assert float(packed_sum.detach()) == pytest.approx(float(wanted.detach()), rel=2e-4) and float(packed_sum.detach()) != 0
    apart = {key: value for key, value in tiny.gradients(network).items() if key in packed}
    for key in packed.keys() - apart.keys():
        assert not packed[key].any(), key
    assert tiny.largest_error({key: packed[key] for key in apart}, apart) < 2e-3
    assert all(bool(torch.isfinite(value).all()) for value in packed.values()) and any(bool(value.any()) for value in packed.values())


def test_nothing_flows_into_what_is_stopped(checkpoint: Path, table: TokenTable) -> None:
    """Predictor tokens are in the source, so they have a gradient even if the target is stopped. Averaged weights have none."""
    for target, has in (("stop_target", True), ("ema", True), ("online", True)):
        config, network, term = setting(checkpoint, {"target": target, "k": 2})
        (batch,) = micro_batches(tiny.inputs_of(table, config), np.array(ROWS), 0, term)
        losses(network, batch, config, CPU, term)[1].backward()
        assert network.predictor is not None and network.predictor.grad is not None
        assert bool(network.predictor.grad.any()) == has, target
    # Under ema, the target side has no gradient.
    config, network, term = setting(checkpoint, {"target": "ema", "k": 1})
    (batch,) = micro_batches(tiny.inputs_of(table, config), np.array(ROWS), 0, term)
    assert batch.frozen is not None and term.average is not None
    assert not any(average.requires_grad for average in term.average.parameters().values())


def test_the_moving_average_follows_the_trained_weights(checkpoint: Path, table: TokenTable) -> None:
    config, network, term = setting(checkpoint, {"target": "ema", "ema_momentum": 0.75, "k": 1})
    before = {name: value.clone() for name, value in term.average.parameters().items()}  # type: ignore[union-attr]
    train_step(tiny.state_of(network, table, config, term=term), np.array(ROWS), 0, 4)
    after = {name: p.detach() for name, p in network.named_parameters() if name in before}
    assert before.keys() == {name for name, _ in network.named_parameters() if name.startswith("lm.")}
    for name, average in term.average.parameters().items():  # type: ignore[union-attr]
        torch.testing.assert_close(average, 0.75 * before[name] + 0.25 * after[name])
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_micro_batches_and_workers_change_nothing_but_rounding(checkpoint: Path, table: TokenTable) -> None:
    for changes in ({"layout": "tube"}, {"layout": "curvature"}, {"control": "shuffled"}, {"target": "ema", "readout": "mean"}):
        outcomes = []
        for size in (None, 1, 3):
            config = tiny.trial(checkpoint, objective=ObjectiveConfig.model_validate(changes), optim__micro_batch_size=size)
            network = tiny.network_of(config)
            totals = tiny.one_step(network, table, config, ROWS)
            outcomes.append((totals.jepa_sum, totals.num_pairs, tiny.gradients(network)))
        for jepa_sum, pairs, gradients in outcomes[1:]:
            assert pairs == outcomes[0][1] and jepa_sum == pytest.approx(outcomes[0][0], rel=1e-4)
            assert tiny.largest_error(gradients, outcomes[0][2]) < 2e-3


def test_controls(checkpoint: Path, table: TokenTable) -> None:
    """monitor and zero measure the term and train like the baseline; a constant target and shuffled pairs change the term."""
    baseline = tiny.network_of(tiny.trial(checkpoint))
    tiny.one_step(baseline, table, tiny.trial(checkpoint), ROWS)
    wanted = tiny.weights(baseline)
    for control in ("monitor", "zero"):
        config, network, term = setting(checkpoint, {"control": control, "k": 1})
        totals = train_step(tiny.state_of(network, table, config, term=term), np.array(ROWS), 0, 10)
        assert totals.jepa_sum > 0
        found = tiny.weights(network)
        assert max(float((found[name] - wanted[name]).abs().max()) for name in wanted) < 1e-5
    sums = {}
    for control in ("none", "shuffled", "constant_target"):
        config, network, term = setting(checkpoint, {"control": control, "k": 1})
        (batch,) = micro_batches(tiny.inputs_of(table, config), np.array(ROWS), 0, term)
        sums[control] = float(losses(network, batch, config, CPU, term)[1].detach())
    assert len(set(sums.values())) == 3
    partner = exchange(ROWS, 1, 0)
    assert sorted(partner) == sorted(partner.values()) == sorted(ROWS) and all(a != b for a, b in partner.items())


def test_lambda_from_the_gradients_gives_the_ratio_that_was_asked_for(checkpoint: Path, table: TokenTable) -> None:
    config = tiny.trial(checkpoint, objective=ObjectiveConfig.model_validate({"lambda": {"grad_ratio": 0.5}, "gamma": 2.0}))
    network = tiny.network_of(config)
    weight = lambda_from_gradients(tiny.state_of(network, table, config), np.array(ROWS), 0.5)
    term = Term.of(config, network, weight)
    assert term is not None and term.lambda_at(0, 10) == weight
    (batch,) = micro_batches(tiny.inputs_of(table, config), np.array(ROWS), 0, term)
    norms = []
    for which in (0, 1):
        network.zero_grad(set_to_none=True)
        sums = losses(network, batch, config, CPU, term)
        (sums[which] / (batch.num_labels, batch.num_pairs)[which]).backward()
        norms.append(float(torch.stack([p.grad.norm() for p in network.lm.parameters() if p.grad is not None]).norm()))
    assert weight * norms[1] == pytest.approx(0.5 * 2.0 * norms[0], rel=1e-4)


def test_the_predictor_has_its_own_learning_rate(checkpoint: Path, table: TokenTable) -> None:
    moved = {}
    for factor in (1.0, 4.0):
        config = tiny.trial(checkpoint, objective=ObjectiveConfig(k=1, predictor="linear", predictor_lr_factor=factor))
        network = tiny.network_of(config)
        before = tiny.weights(network)
        tiny.one_step(network, table, config, ROWS)
        after = tiny.weights(network)
        moved[factor] = {
            name: float((after[name] - before[name]).abs().max()) for name in ("predictor", "head.bias_D", "lm.model.norm.weight")
        }
    assert moved[4.0]["predictor"] == pytest.approx(4 * moved[1.0]["predictor"], rel=1e-3)
    assert moved[4.0]["head.bias_D"] == pytest.approx(4 * moved[1.0]["head.bias_D"], rel=1e-3)
    assert moved[4.0]["lm.model.norm.weight"] == pytest.approx(moved[1.0]["lm.model.norm.weight"], rel=1e-3)


def test_a_frozen_target_costs_a_forward_pass_only(checkpoint: Path, table: TokenTable) -> None:
    plain, frozen = (
        make_batch(table, ROWS, backend="trie", views=setting(checkpoint, {"target": t})[2].views(table, ROWS, 0, None))
        for t in ("online", "ema")
    )
    assert frozen.frozen is not None and plain.frozen is None
    assert frozen.packed.num_tokens < plain.packed.num_tokens
    assert frozen.frozen.num_tokens == make_batch_tokens(table)


def make_batch_tokens(table: TokenTable) -> int:
    """Tokens of a trie of the Code views alone, counted by their distinct prefixes."""
    return len({tuple(table.code[i][:n].tolist()) for i in ROWS for n in range(1, len(table.code[i]) + 1)})
