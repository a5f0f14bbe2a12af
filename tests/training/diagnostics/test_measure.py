"""Diagnostics of a network: numbers equal those of separate passes, gradients those of the step, and training is unaffected."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jepa_ray.config import LoraConfig, ObjectiveConfig, TrialConfig
from jepa_ray.evaluation.embedding import describe
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.network import Network
from jepa_ray.training import fine_tuning, trial
from jepa_ray.training.diagnostics.measure import (
    GRADIENT_ROWS,
    PAIRS,
    diagnose,
    diagnostic_rows,
    due,
    embeddings,
    gradient_metrics,
    gradient_terms,
    reads_last_state,
)
from jepa_ray.training.evaluate import evaluate
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.packing_check import separate_pass
from jepa_ray.training.runtime import Runtime
from tests import tiny_models as tiny

ROWS = [5, 0, 3, 7, 1, 6, 2, 4, 9, 8]


def jepa(**changes: Any) -> ObjectiveConfig:
    """An objective; `lambda_` is its weight."""
    if "lambda_" in changes:
        changes["lambda"] = changes.pop("lambda_")
    return ObjectiveConfig(**{"k": 1, **changes})


@pytest.fixture
def llama(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["llama3"]


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[request.param]


def table_of(checkpoint: Path) -> Any:
    return tiny.table_of(checkpoint, tiny.EXAMPLES[:12])


def run(config: TrialConfig, network: Network, rows: Sequence[int] = ROWS) -> dict[str, float]:
    return diagnose(network, table_of(Path(config.model.model)), config, Runtime(), rows)


def last_states(network: Network, paths: Sequence[np.ndarray]) -> torch.Tensor:
    """(P, D) state of each path's last token, from one pass per path."""
    network.eval()
    with torch.no_grad():
        states = torch.stack([separate_pass(network, np.asarray(path))[-1] for path in paths])
    network.train()
    return states


@pytest.mark.parametrize("k", [0, 2])
def test_the_numbers_are_those_of_separate_passes(checkpoint: Path, k: int) -> None:
    config = tiny.trial(checkpoint, objective=jepa(k=k, distance="mse"), evaluation__batch_size=4)
    network, table = tiny.network_of(config), table_of(checkpoint)
    metrics = run(config, network)
    text = last_states(network, [table.text[i] for i in ROWS])
    code = last_states(network, [table.code[i] for i in ROWS])
    tokens = np.arange(1 << 24, (1 << 24) + k, dtype=np.int32)
    pred = last_states(network, [np.concatenate([table.text[i], tokens]) for i in ROWS])
    wanted = describe(text.double().numpy(), code.double().numpy(), pred.double().numpy())
    assert {name: metrics[f"diag_{name}"] for name in wanted} == pytest.approx(wanted, rel=2e-3, abs=1e-4, nan_ok=True)
    assert metrics["diag_val_jepa"] == pytest.approx(float((pred - code).square().mean()), rel=1e-4)
    assert (metrics["diag_pred_distance"] != pytest.approx(1 - metrics["diag_paired_cosine"])) == (k > 0)

    ce, labels, end = 0.0, 0, 0.0
    for i in ROWS:
        with torch.no_grad():
            network.eval()
            logits = network.logits(separate_pass(network, table.lm[i]))
        answer = torch.from_numpy(table.lm[i][table.prompt_length[i] :].astype(np.int64))
        log_probs = F.log_softmax(logits[table.prompt_length[i] - 1 : -1], dim=-1)[torch.arange(len(answer)), answer]
        ce, labels, end = ce - float(log_probs.sum()), labels + len(answer), end + float(log_probs[-1].exp())
    assert metrics["diag_val_ce"] == pytest.approx(ce / labels, rel=1e-4)
    assert metrics["diag_end_of_turn"] == pytest.approx(end / len(ROWS), rel=1e-3) and 0 < end / len(ROWS) < 1
    assert metrics["diag_pairs"] == len(ROWS)


def test_kept_embeddings_are_the_states_of_separate_passes(checkpoint: Path) -> None:
    config = tiny.trial(checkpoint, objective=jepa(k=2), evaluation__batch_size=4)
    network, table = tiny.network_of(config), table_of(checkpoint)
    lines = embeddings(network, table, config, Runtime(), ROWS)
    assert [(line["example_id"], line["view"]) for line in lines] == [
        (table.example_ids[i], view) for i in ROWS for view in ("text", "code")
    ]
    for view, paths in (("text", table.text), ("code", table.code)):
        wanted = last_states(network, [paths[i] for i in ROWS])  # Text ends with its own last token: no predictor tokens
        kept = torch.tensor([line["vector"] for line in lines if line["view"] == view])
        assert torch.allclose(kept, wanted, rtol=2e-3, atol=1e-3)  # half precision has 11 bits, a relative error of 5e-4
    assert network.training


def test_chunks_rows_order_and_mode_change_nothing(llama: Path) -> None:
    network = tiny.network_of(tiny.trial(llama, objective=jepa(k=2), lora=LoraConfig(r=2, dropout=0.3)))
    results = []
    for size, mode in ((64, True), (3, False), (1, True)):
        config = tiny.trial(llama, objective=jepa(k=2), lora=LoraConfig(r=2, dropout=0.3), evaluation__batch_size=size)
        network.train(mode)
        results.append(run(config, network))
        assert network.training == mode
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-3, abs=1e-5, nan_ok=True)
    backwards = run(config, network, ROWS[::-1])
    assert backwards["diag_val_ce"] == pytest.approx(results[0]["diag_val_ce"]) and backwards["diag_r1"] == results[0]["diag_r1"]


def test_what_is_trained_decides_what_cross_entropy_means_but_not_the_end_of_turn(llama: Path) -> None:
    network, table = tiny.network_of(tiny.trial(llama)), table_of(llama)
    both = run(tiny.trial(llama), network)
    without = run(tiny.trial(llama, optim__train_end_of_turn=False), network)
    every = run(tiny.trial(llama, optim__loss_on="all"), network)
    assert both["diag_end_of_turn"] == pytest.approx(without["diag_end_of_turn"]) == pytest.approx(every["diag_end_of_turn"])
    labels = int((table.lm.lengths - table.prompt_length)[ROWS].sum())
    with_end, others = both["diag_val_ce"] * labels, without["diag_val_ce"] * (labels - len(ROWS))
    assert with_end > others and every["diag_val_ce"] != pytest.approx(both["diag_val_ce"])
    # By Jensen, -log of the mean probability is at most the mean of -log, the cross-entropy of the end-of-turn labels.
    assert -math.log(both["diag_end_of_turn"]) <= (with_end - others) / len(ROWS) + 1e-6


def test_the_baseline_is_monitored_with_the_cosine_and_no_predictor(llama: Path) -> None:
    """lambda = 0 is too, regardless of its k; and a JEPA arm with the same settings gives the same numbers."""
    network = tiny.network_of(tiny.trial(llama))
    found = run(tiny.trial(llama), network)
    assert found["diag_val_jepa"] == pytest.approx(1 - found["diag_paired_cosine"]) == pytest.approx(found["diag_pred_distance"])
    same = [jepa(k=3, lambda_=0.0), jepa(k=0)]
    for objective in same:
        assert run(tiny.trial(llama, objective=objective), network) == pytest.approx(found, nan_ok=True)
    table, baseline = table_of(llama), tiny.trial(llama)
    assert gradient_terms(network, table, baseline, ROWS) == gradient_terms(network, table, tiny.trial(llama, objective=same[1]), ROWS)


OBJECTIVES = {
    "infonce": jepa(distance="infonce"),
    "head": jepa(predictor="mlp", distance="smooth_l1"),
    "prepend": jepa(layout="prepend"),
    "reverse": jepa(layout="reverse"),
    "shared prefix": jepa(layout="shared_prefix"),
    "tube": jepa(layout="tube", k=0),
    "mean readout": jepa(readout="mean"),
    "middle layer": jepa(layer=0.5),
    "before the norm": jepa(final_norm=False, distance="mse"),
    "ema": jepa(target="ema"),
    "stopped target": jepa(target="stop_target"),
    "regularised": jepa(variance=0.1, sigreg=0.1),
    "shuffled": jepa(control="shuffled"),
    "monitor": jepa(control="monitor"),
    "constant target": jepa(control="constant_target"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_diagnosed_by_the_same_names(llama: Path, name: str) -> None:
    config = tiny.trial(llama, objective=OBJECTIVES[name])
    network, table = tiny.network_of(config), table_of(llama)
    term = Term.of(config, network, weight=1.0)
    metrics = diagnose(network, table, config, Runtime(), ROWS, term)
    plain = run(tiny.trial(llama, objective=jepa()), tiny.network_of(tiny.trial(llama, objective=jepa())))
    assert list(metrics) == list(plain) and math.isfinite(metrics["diag_val_jepa"])
    shared = [key for key in plain if key.endswith(("_text", "_code")) or key in ("diag_val_ce", "diag_contrast", "diag_r1")]
    assert {key: metrics[key] for key in shared} == pytest.approx({key: plain[key] for key in shared}), (
        "geometry is of Text and Code in any arm"
    )
    distinct = metrics["diag_val_jepa"] != pytest.approx(plain["diag_val_jepa"])
    same_reading = {"stopped target", "regularised", "monitor"}
    assert distinct == (name not in same_reading | {"ema"}), "an average that starts at the weights gives the same states"
    metrics = gradient_metrics(network, table, config, ROWS, term)
    assert -1 <= metrics["diag_grad_cosine"] <= 1 and metrics["diag_grad_ratio"] > 0
    assert math.isnan(metrics["diag_grad_weighted"]) == (name == "monitor")


@pytest.mark.parametrize("target", ["online", "ema"])
def test_the_terms_own_value_agrees_with_the_one_read_off_the_pass(llama: Path, target: str) -> None:
    """If both ways exist: an average that starts at the weights, and the states themselves."""
    config = tiny.trial(llama, objective=jepa(target=target))
    network = tiny.network_of(config)
    assert config.objective is not None and reads_last_state(config.objective) == (target == "online")
    found = run(config, network)
    assert found["diag_val_jepa"] == pytest.approx(found["diag_pred_distance" if target == "online" else "diag_val_jepa"], rel=1e-4)
    online = run(tiny.trial(llama, objective=jepa()), network)
    assert found["diag_val_jepa"] == pytest.approx(online["diag_val_jepa"], rel=1e-4)


def gradients_of(checkpoint: Path, gamma: float, weight: float, **changes: Any) -> dict[str, torch.Tensor]:
    """Gradients of one of the terms alone, as in a training step."""
    config = tiny.trial(checkpoint, objective=jepa(k=2, gamma=gamma, lambda_=weight), optim__max_grad_norm=None, **changes)
    network = tiny.network_of(config, k=2)
    tiny.one_step(network, table_of(checkpoint), config, ROWS)
    return tiny.gradients(network)


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2, dropout=0.0)], ids=["full", "lora"])
@pytest.mark.parametrize("size", [None, 3])
def test_gradients_are_those_of_the_training_step(llama: Path, lora: LoraConfig | None, size: int | None) -> None:
    ce, term = (gradients_of(llama, gamma, weight, lora=lora) for gamma, weight in ((1.0, 1e-30), (0.0, 1.0)))
    shared = [name for name in term if name.startswith("lm.")]  # predictor tokens have a gradient of one term only
    assert len(shared) == len(term) - 1
    a, b = (torch.cat([part[name].double().flatten() for name in shared]) for part in (ce, term))
    config = tiny.trial(llama, objective=jepa(k=2, gamma=0.5, lambda_=3.0), lora=lora, optim__micro_batch_size=size)
    network = tiny.network_of(config)
    cosine, ratio = gradient_terms(network, table_of(llama), config, ROWS)
    assert cosine == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-4) and abs(cosine) < 0.999
    assert ratio == pytest.approx(float(b.norm() / a.norm()), rel=1e-4)
    metrics = gradient_metrics(network, table_of(llama), config, ROWS)
    assert metrics["diag_grad_weighted"] == pytest.approx(ratio * 3 / 0.5)
    assert gradient_metrics(network, table_of(llama), config, ROWS, lambda_=1.5)["diag_grad_weighted"] == pytest.approx(ratio * 1.5 / 0.5)
    assert math.isnan(gradient_metrics(network, table_of(llama), config, ROWS, lambda_=0.0)["diag_grad_weighted"])
    assert all(parameter.grad is None for parameter in network.parameters()) and network.training


def test_a_term_without_gradient_has_no_direction(llama: Path) -> None:
    """With Text equal to Code, the cosine distance is at its minimum, where its gradient vanishes."""
    config = tiny.trial(llama, objective=jepa(k=0, distance="mse"))
    table = table_of(llama)
    cosine, ratio = gradient_terms(tiny.network_of(config), replace(table, code=table.text, code_start=table.text_start), config, ROWS)
    assert math.isnan(cosine) and ratio == 0


def numpy_state() -> list[int]:
    state: Any = np.random.get_state(legacy=False)
    return [*state["state"]["key"].tolist(), state["state"]["pos"]]


def test_nothing_random_is_touched_and_the_same_weights_give_the_same_numbers(llama: Path) -> None:
    config = tiny.trial(llama, objective=jepa(k=2, sigreg=0.1), lora=LoraConfig(r=2, dropout=0.5))
    network, table = tiny.network_of(config), table_of(llama)
    before = tiny.weights(network)
    torch.manual_seed(11)
    np.random.seed(11)
    results = []
    for _ in range(2):
        torch.rand(3)  # advance the generator before the second run
        states = torch.get_rng_state(), numpy_state()
        results.append(run(config, network) | gradient_metrics(network, table, config, ROWS))
        assert torch.equal(torch.get_rng_state(), states[0]) and numpy_state() == states[1]
    assert {name: value for name, value in results[0].items() if not math.isnan(value)} == {
        name: value for name, value in results[1].items() if not math.isnan(value)
    }
    after = tiny.weights(network)
    assert all(torch.equal(before[name], after[name]) for name in before) and all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("objective", [None, jepa(k=2, loss_dropout=0.3)], ids=["baseline", "jepa"])
def test_a_trial_ends_at_the_same_weights_with_and_without_diagnostics(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: ObjectiveConfig | None
) -> None:
    config = tiny.trial(llama, objective=objective, lora=LoraConfig(r=2, dropout=0.3), optim__num_epochs=3, optim__learning_rate=1e-2)
    prepared = tiny.prepared_of(llama)
    seen: dict[bool, list[dict[str, torch.Tensor]]] = {False: [], True: []}
    for watched in (False, True):

        def spy(network: Network, *rest: Any, watched: bool = watched) -> Any:
            if watched:
                diagnose(network, prepared.val, config, Runtime(), range(len(prepared.val)))
                gradient_terms(network, prepared.train, config, range(4))
            seen[watched].append(tiny.weights(network))
            return evaluate(network, *rest)

        monkeypatch.setattr(fine_tuning, "evaluate", spy)
        result = trial.run_trial(config, prepared, Runtime(), lambda _: None, tmp_path / str(watched))
        assert result.state == "COMPLETE", result.error
    for without, with_diagnostics in zip(seen[False], seen[True], strict=True):
        assert all(torch.equal(without[name], with_diagnostics[name]) for name in without)
    assert len(seen[True]) == 3 and not all(torch.equal(seen[True][0][name], seen[True][2][name]) for name in seen[True][0])


def test_a_planted_collapse_is_seen_through_the_network(llama: Path) -> None:
    """A bias dominates every state, so that the final norm's input has one direction for all."""
    config = tiny.trial(llama)
    network = tiny.network_of(config)
    healthy = run(config, network)
    last = network.causal_lm.base_model.layers[-1]
    push = 1e4 * torch.randn(network.causal_lm.config.hidden_size, generator=torch.Generator().manual_seed(0))
    handle = last.register_forward_hook(lambda module, inputs, output: output + push)
    collapsed = run(config, network)
    handle.remove()
    assert collapsed["diag_anisotropy_code"] > 0.99 > healthy["diag_anisotropy_code"]
    assert collapsed["diag_mean_energy_text"] > 0.99 > healthy["diag_mean_energy_text"]
    assert collapsed["diag_val_jepa"] < 0.01 < healthy["diag_val_jepa"], "the JEPA loss alone looks like success"


def test_r1_cannot_pass_the_share_of_distinct_answers(llama: Path) -> None:
    config, table = tiny.trial(llama), table_of(llama)
    found = diagnose(tiny.network_of(config), table, config, Runtime(), [0, 0, 1, 1, 2, 3])
    assert found["diag_r1_ceiling"] == pytest.approx(4 / 6) and found["diag_r1"] <= 4 / 6 + 1e-12


def test_rows_are_fixed_by_the_split_and_all_where_there_are_few() -> None:
    assert diagnostic_rows(5, 128, 0) == [0, 1, 2, 3, 4] and diagnostic_rows(0, 128, 0) == []
    rows = diagnostic_rows(1000, 128, 7)
    assert len(set(rows)) == 128 and rows == sorted(rows) == diagnostic_rows(1000, 128, 7) != diagnostic_rows(1000, 128, 8)
    assert max(rows) > 500, "not the first rows of the table, which may be sorted"
    assert set(diagnostic_rows(1000, 16, 7)) < set(rows)


def test_due_at_both_ends_and_in_between_while_it_is_cheap() -> None:
    assert due(0, 4, 0.0, 0.0) and due(4, 4, 10.0, 10.0) and due(5, 4, 10.0, 10.0)
    assert due(1, 4, 100.0, 2.9) and not due(1, 4, 100.0, 3.0) and due(1, 4, 100.0, 3.0, share=0.5)
    assert not due(1, 4, 0.0, 0.0)
    for cost in (0.01, 1.0, 50.0):  # at any cost, the total stays below the bound plus the excess named in the docstring
        spent, epochs, number = 0.0, 50, 0
        for epoch in range(epochs + 1):
            if due(epoch, epochs, 10.0 * epoch, spent):
                spent, number = spent + cost, number + 1
        assert spent <= 0.03 * 10 * epochs + 3 * cost and number >= 2
        assert (number == epochs + 1) == (cost == 0.01)


def test_speed(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, not asserted: machines differ."""
    config = tiny.trial(llama, objective=jepa())
    network, table = tiny.network_of(config), tiny.table_of(llama, tiny.EXAMPLES)
    rows, few = diagnostic_rows(len(table), PAIRS, 0), diagnostic_rows(len(table), GRADIENT_ROWS, 0)
    seconds = []
    for call in (lambda: diagnose(network, table, config, Runtime(), rows), lambda: gradient_terms(network, table, config, few)):
        started = time.perf_counter()
        assert call()
        seconds.append(time.perf_counter() - started)
    with capsys.disabled():
        print(f"\n  diagnose, {len(rows)} pairs, tiny llama3: {seconds[0]:.3f} s; gradient_terms, {len(few)} examples: {seconds[1]:.3f} s")
