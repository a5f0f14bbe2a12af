"""A masked encoder's step and trial: loss and average by hand, exact normalisation, resuming, kept files, and failures."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from jepa_ray.config import MaskedConfig, ModelConfig, ObjectiveConfig, SweepConfig, TrialConfig, arms
from jepa_ray.masked import trial
from jepa_ray.masked.network import MaskedNetwork, load_encoder_tokenizer, load_masked_lm
from jepa_ray.masked.prepare import MaskedPrepared, estimate_masked, prepare_masked
from jepa_ray.masked.step import (
    MaskedState,
    TargetEncoder,
    TokenIds,
    draw_hidden,
    loss_sums,
    make_masked_optimizer,
    masked_network,
    masked_step,
)
from jepa_ray.masked.trial import checkpoint_folder, padding_error, pooled_states, run_masked_trial
from jepa_ray.models.encoders import ENCODERS
from jepa_ray.plan import trial_config
from jepa_ray.results import SUMMARY, TrialResult, write_trial
from jepa_ray.training.packing_check import PackingError
from jepa_ray.training.runtime import NonFinite, Runtime, StepTotals
from jepa_ray.training.step_log import StepLog

TIMES = {"train_seconds", "val_seconds", "test_seconds", "wall_seconds", "peak_memory_bytes", "started_at", "finished_at"}
JEPA = {"gamma": 0, "target": "ema", "predictor": "mlp", "k": 0, "ema_momentum": 0.9, "predictor_width": 24}


class Interrupted(BaseException):
    """Stands for Ctrl-C or the scheduler, as a trial sees them."""


def sweep_of(family: str = "distilbert", **changes: Any) -> SweepConfig:
    tree: dict[str, Any] = {
        "name": "masked",
        "families": [family],
        "task": "rotten-tomatoes",
        "data": {"num_train": 60, "num_val": 40, "num_test": 50},
        "methods": {"mlm": None, "jepa": JEPA, "both": {**JEPA, "gamma": 1}},
        "base": {
            "model": {"init": "random"},
            "masked": {"mask_ratio": 0.3, "mean_span": 2},
            "optim": {"learning_rate": 2e-3, "num_epochs": 3, "batch_size": 16},
        },
    }
    for path, value in changes.items():
        *parts, leaf = path.split("__")
        branch = tree
        for part in parts:
            branch = branch[part]
        branch[leaf] = value
    return SweepConfig.model_validate(tree)


def config_of(sweep: SweepConfig, method: str, test: bool = False) -> TrialConfig:
    config = trial_config(sweep, next(arm for arm in arms(sweep) if arm.method == method), {})
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"test": test})})


@pytest.fixture(params=ENCODERS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sweep() -> SweepConfig:
    return sweep_of()


@pytest.fixture
def prepared(sweep: SweepConfig) -> MaskedPrepared:
    return prepare_masked(sweep, sweep.families[0], sweep.tasks[0])


@pytest.fixture(autouse=True)
def _no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "provenance", lambda: {"git_sha": None, "versions": "{}", "started_at": "then"})


def built(config: TrialConfig, prepared: MaskedPrepared) -> tuple[MaskedNetwork, TargetEncoder | None, torch.optim.Optimizer, TokenIds]:
    network = masked_network(load_masked_lm(prepared.checkpoint, config.model, config.seed), config)
    tokenizer = load_encoder_tokenizer(prepared.checkpoint, config.model)
    target = TargetEncoder(network) if network.predictor is not None else None
    return network, target, make_masked_optimizer(network, config.optim, 1.0), TokenIds(tokenizer.mask_token_id, tokenizer.pad_token_id)


def state_of(config: TrialConfig, prepared: MaskedPrepared, runtime: Runtime | None = None) -> MaskedState:
    network, target, optimizer, ids = built(config, prepared)
    return MaskedState(
        config=config,
        passages=prepared.passages,
        ids=ids,
        network=network,
        optimizer=optimizer,
        target=target,
        runtime=runtime or Runtime(),
    )


def gradients(
    config: TrialConfig, prepared: MaskedPrepared, rows: Any, runtime: Runtime | None = None
) -> tuple[StepTotals, dict[str, Any]]:
    """Totals and gradients of one step with a negligible learning rate."""
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"max_grad_norm": None})})
    state = state_of(config, prepared, runtime)
    state.network.eval()  # no dropout, so that the split into micro-batches must not matter
    totals = masked_step(state, np.asarray(rows), 0, 10)
    return totals, {name: p.grad.clone() for name, p in state.network.named_parameters() if p.grad is not None}


def numbers(result: TrialResult) -> dict[str, Any]:
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in result.metrics if row["split"] != "step"]
    summary = {key: value for key, value in result.summary.items() if key not in TIMES}
    return {"state": result.state, "summary": summary, "metrics": rows, "predictions": result.predictions}


def step_rows(result: TrialResult) -> list[dict[str, Any]]:
    """Step-level rows without what depends on the clock."""
    rows = [row for row in result.metrics if row["split"] == "step" and row["name"] not in ("step_tokens_per_second", "step_memory_bytes")]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


# --- the step


def test_the_loss_by_hand() -> None:
    """Orthogonal: 1. Opposite: 2. At 45 degrees: 1 - 1/sqrt(2). Cross-entropy of equal logits over 4 tokens: log 4 each."""
    source = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    target = torch.tensor([[0.0, 3.0], [-5.0, 0.0], [0.0, 0.5]])
    ce_sum, jepa_sum = loss_sums(torch.zeros(3, 4), torch.tensor([0, 3, 1]), source, target)
    assert ce_sum is not None and math.isclose(float(ce_sum), 3 * math.log(4), rel_tol=1e-6)
    assert jepa_sum is not None and math.isclose(float(jepa_sum), 1 + 2 + 1 - 1 / math.sqrt(2), rel_tol=1e-6)
    assert loss_sums(None, torch.tensor([0]), None, None) == (None, None)


def test_a_step_is_the_definition_passage_by_passage(family: str) -> None:
    """Both terms written out without batches: each passage alone, summed, divided by all hidden tokens of the step."""
    sweep = sweep_of(family)
    prepared = prepare_masked(sweep, family, "rotten-tomatoes")
    config, rows = config_of(sweep, "both"), [3, 11, 40, 7, 25]
    totals, batched = gradients(config, prepared, rows)
    network, target, _, ids = built(config, prepared)
    network.eval()
    assert target is not None and network.predictor is not None
    hidden = draw_hidden(prepared.passages, np.array(rows), config, 0)
    count = sum(int(mask.sum()) for mask in hidden)
    loss = torch.zeros(())
    for row, mask in zip(rows, hidden, strict=True):
        intact = torch.from_numpy(prepared.passages.tokens[prepared.passages.span(row)].astype(np.int64))
        seen = intact.clone()
        seen[torch.from_numpy(mask)] = ids.mask
        context = network.encoder(input_ids=seen[None]).last_hidden_state[0][torch.from_numpy(mask)]
        with torch.no_grad():
            wanted = target.encoder(input_ids=intact[None]).last_hidden_state[0][torch.from_numpy(mask)]
        logits = network.lm(input_ids=seen[None]).logits[0][torch.from_numpy(mask)]
        loss = loss + nn.functional.cross_entropy(logits, intact[torch.from_numpy(mask)], reduction="sum") / count
        loss = loss + (1 - nn.functional.cosine_similarity(network.predictor(context), wanted, dim=-1)).sum() / count
    loss.backward()
    assert totals.num_labels == totals.num_pairs == count
    assert math.isclose((totals.ce_sum + totals.jepa_sum) / count, float(loss.detach()), rel_tol=1e-5)
    assert set(batched) == {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    for name, parameter in network.named_parameters():
        assert torch.allclose(batched[name], parameter.grad, atol=2e-6), name


@pytest.mark.parametrize("method", ["mlm", "jepa"])
def test_micro_batches_change_nothing_but_rounding(sweep: SweepConfig, prepared: MaskedPrepared, method: str) -> None:
    config, rows = config_of(sweep, method), list(range(13))
    whole, expected = gradients(config, prepared, rows)
    cut = config.model_copy(update={"optim": config.optim.model_copy(update={"micro_batch_size": 4})})
    parts, found = gradients(cut, prepared, rows)
    assert (parts.num_labels, parts.num_pairs, parts.tokens, parts.attended) == (
        whole.num_labels,
        whole.num_pairs,
        whole.tokens,
        whole.attended,
    )
    assert all(torch.allclose(found[name], expected[name], atol=2e-6) for name in expected) and found.keys() == expected.keys()


def test_ranks_agree_on_what_is_hidden_and_their_mean_is_the_whole_step(
    sweep: SweepConfig, prepared: MaskedPrepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three ranks and two passages: the third rank has none, but takes part."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_: None)
    config, rows = config_of(sweep, "both"), [5, 9]
    whole, expected = gradients(config, prepared, rows)
    parts = [gradients(config, prepared, rows, Runtime(rank=rank, world_size=3)) for rank in range(3)]
    assert sum(totals.num_pairs for totals, _ in parts) == whole.num_pairs and parts[2][0].tokens == 0
    for name, gradient in expected.items():
        assert torch.allclose(sum(found[name] for _, found in parts) / 3, gradient, atol=2e-6), name
    assert all(not gradient.any() for gradient in parts[2][1].values())


def test_no_gradient_into_the_target_and_the_average_by_hand(sweep: SweepConfig, prepared: MaskedPrepared) -> None:
    config = config_of(sweep, "jepa")
    state = state_of(config, prepared)
    network, target = state.network, state.target
    assert target is not None
    before = {name: parameter.clone() for name, parameter in target.encoder.named_parameters()}
    context = dict(network.encoder.named_parameters())
    assert all(torch.equal(before[name], context[name]) for name in before), "the target starts as the context encoder"
    network.train()
    masked_step(state, np.arange(16), 0, 10)
    moved = 0
    for name, parameter in target.encoder.named_parameters():
        assert parameter.grad is None and not parameter.requires_grad
        assert torch.allclose(parameter, 0.9 * before[name] + 0.1 * context[name], atol=1e-7)
        moved += int(not torch.equal(parameter, before[name]))
    assert moved and not target.encoder.training, "the average has no dropout"


def test_hidden_tokens_belong_to_the_seed_the_step_and_the_passage(sweep: SweepConfig, prepared: MaskedPrepared) -> None:
    config = config_of(sweep, "jepa")

    def drawn(rows: list[int], step: int = 0, method: str = "jepa", seed: int = 1) -> list[list[bool]]:
        own = config_of(sweep, method).model_copy(update={"seed": seed})
        return [mask.tolist() for mask in draw_hidden(prepared.passages, np.array(rows), own, step)]

    assert drawn([4, 8]) == drawn([8, 4])[::-1] == drawn([4, 8], method="mlm")
    assert drawn([4, 8]) != drawn([4, 8], step=1) and drawn([4, 8]) != drawn([4, 8], seed=2)
    assert config.masked == MaskedConfig(mask_ratio=0.3, mean_span=2)


def test_the_predictor_has_a_learning_rate_of_its_own(sweep: SweepConfig, prepared: MaskedPrepared) -> None:
    config = config_of(sweep, "jepa")
    network, _, _, _ = built(config, prepared)
    groups = make_masked_optimizer(network, config.optim, 4.0).param_groups
    predictor_ids = {id(parameter) for parameter in network.predictor.parameters()} if network.predictor is not None else set()
    factors = {id(parameter): group["lr_factor"] for group in groups for parameter in group["params"]}
    assert predictor_ids and all((factors[key] == 4.0) == (key in predictor_ids) for key in factors)
    assert set(factors) == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}


# --- the trial


@pytest.mark.parametrize("method", ["mlm", "jepa", "both"])
def test_a_trial_fits_the_tables_and_keeps_its_encoders(family: str, method: str, tmp_path: Path) -> None:
    sweep = sweep_of(family)
    prepared = prepare_masked(sweep, family, "rotten-tomatoes")
    config, reports = config_of(sweep, method, test=True), []
    scratch = tmp_path / "scratch" / ("0" * 16)
    result = run_masked_trial(config, prepared, Runtime(), reports.append, scratch)
    assert result.state == "COMPLETE" and result.error is None and result.summary.keys() <= SUMMARY.keys()
    assert [report["epoch"] for report in reports] == [1, 2] and "val_accuracy" in reports[0] and "val_retrieval" in reports[0]
    assert {"val_accuracy", "test_accuracy", "test_retrieval", "test_accuracy_untrained", "chance"} <= result.summary.keys()
    assert sorted({row["epoch"] for row in result.metrics}) == [0, 1, 2, 3]
    assert [row["example_id"] for row in result.predictions if row["split"] == "test"] == list(prepared.test.ids if prepared.test else ())
    accuracy = np.mean([row["correct"] for row in result.predictions if row["split"] == "test"])
    assert math.isclose(accuracy, float(result.summary["test_accuracy"] or 0))
    losses = {name: [row["value"] for row in result.metrics if row["name"] == name] for name in ("train_ce", "train_jepa")}
    assert all(values[0] > values[-1] for values in losses.values() if values), "it does not learn"
    assert [bool(losses["train_ce"]), bool(losses["train_jepa"])] == [method != "jepa", method != "mlm"]
    write_trial(tmp_path, "0" * 16, config, f"{method}/x", "confirm", result)

    folder = checkpoint_folder(scratch)
    assert folder == tmp_path / "checkpoints" / ("0" * 16)
    context = AutoModelForMaskedLM.from_pretrained(folder / "context")
    tokenizer = AutoTokenizer.from_pretrained(folder / "context")
    assert tokenizer.mask_token == "[MASK]" and len(tokenizer) == context.config.vocab_size
    state = torch.load(folder / "optimizer.pt", weights_only=True)
    assert state["epoch"] == 3 and state["step"] == result.summary["steps"] and state["optimizer"]["state"]
    assert json.loads((folder / "trial.json").read_text())["masked"]["mask_ratio"] == 0.3
    names = {path.name for path in folder.iterdir()}
    assert {"target", "predictor.safetensors"} <= names if method != "mlm" else names == {"context", "optimizer.pt", "trial.json"}
    if method != "mlm":
        target, weights = AutoModel.from_pretrained(folder / "target"), load_file(folder / "predictor.safetensors")
        own = dict(context.base_model.named_parameters())
        averages = {name: value for name, value in target.named_parameters() if name in own}
        assert len(averages) == len(own) and any(not torch.equal(averages[name], own[name]) for name in own)
        assert weights["weight_HD"].shape == (24, 64)


def test_what_was_kept_is_what_was_judged_and_starts_another_trial(sweep: SweepConfig, prepared: MaskedPrepared, tmp_path: Path) -> None:
    config = config_of(sweep, "jepa")
    run_masked_trial(config, prepared, Runtime(), lambda _: None, tmp_path / "scratch" / "a")
    path = str(checkpoint_folder(tmp_path / "scratch" / "a") / "context")
    for more in ({}, {"model": path, "base__model": {}, "methods": {"mlm": None}, "data__num_train": 30}):
        again = sweep_of(**more)
        data = prepare_masked(again, "distilbert", "rotten-tomatoes")
        method = "mlm" if more else "jepa"
        result = run_masked_trial(config_of(again, method), data, Runtime(), lambda _: None, tmp_path / "scratch" / method)
        assert result.state == "COMPLETE", result.error
    first, second = (
        AutoModelForMaskedLM.from_pretrained(checkpoint_folder(tmp_path / "scratch" / name) / "context") for name in ("a", "jepa")
    )
    assert all(torch.equal(x, y) for x, y in zip(first.parameters(), second.parameters(), strict=True)), (
        "the same config gives different numbers"
    )


@pytest.mark.parametrize("method", ["mlm", "jepa"])
def test_an_interrupted_trial_goes_on_as_if_nothing_had_happened(
    sweep: SweepConfig, prepared: MaskedPrepared, method: str, tmp_path: Path
) -> None:
    config = config_of(sweep, method, test=True)

    def interrupt(metrics: dict[str, float]) -> None:
        if metrics["epoch"] == 2:
            raise Interrupted

    straight = run_masked_trial(config, prepared, Runtime(), lambda _: None, tmp_path / "a" / "scratch" / "x")
    with pytest.raises(Interrupted):
        run_masked_trial(config, prepared, Runtime(), interrupt, tmp_path / "b" / "scratch" / "x")
    torch.manual_seed(99)
    resumed = run_masked_trial(config, prepared, Runtime(), lambda _: None, tmp_path / "b" / "scratch" / "x")
    assert numbers(resumed) == numbers(straight)
    for part in ("context", "target") if method == "jepa" else ("context",):
        one, two = (load_file(tmp_path / side / "checkpoints" / "x" / part / "model.safetensors") for side in "ab")
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("method", ["mlm", "jepa"])
def test_killed_within_an_epoch_it_goes_on_as_if_nothing_had_happened(
    sweep: SweepConfig, prepared: MaskedPrepared, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the first epoch and in the last; a checkpoint after every step."""
    config, real, kill_at = config_of(sweep, method, test=True), trial.masked_step, -1

    def step(state: MaskedState, rows: Any, step: int, total_steps: int) -> StepTotals:
        if step == kill_at:
            raise Interrupted
        return real(state, rows, step, total_steps)

    monkeypatch.setattr(trial, "masked_step", step)
    monkeypatch.setattr(trial, "StepLog", functools.partial(StepLog, every_s=1e9))  # a row per epoch, whatever the clock says
    straight = run_masked_trial(config, prepared, Runtime(checkpoint_minutes=1e9), lambda _: None, tmp_path / "a" / "scratch" / "x")
    steps = int(straight.summary["steps"] or 0)
    for at, epoch, part in ((2, 0, 2), (steps - 1, config.optim.num_epochs - 1, steps // config.optim.num_epochs - 1)):
        kill_at = at
        with pytest.raises(Interrupted):
            run_masked_trial(config, prepared, Runtime(checkpoint_minutes=0), lambda _: None, tmp_path / "b" / "scratch" / "x")
        saved = torch.load(tmp_path / "b" / "scratch" / "x" / "checkpoint.pt", weights_only=True)
        assert (saved["epoch"], saved["part"]["steps"]) == (epoch, part)
    kill_at = -1
    torch.manual_seed(99)
    resumed = run_masked_trial(config, prepared, Runtime(), lambda _: None, tmp_path / "b" / "scratch" / "x")
    assert numbers(resumed) == numbers(straight)
    assert step_rows(resumed) == step_rows(straight) and len({row["step"] for row in step_rows(straight)}) == config.optim.num_epochs
    for part_name in ("context", "target") if method == "jepa" else ("context",):
        one, two = (load_file(tmp_path / side / "checkpoints" / "x" / part_name / "model.safetensors") for side in "ab")
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_lambda_zero_is_the_baseline_bit_for_bit(sweep: SweepConfig, prepared: MaskedPrepared, tmp_path: Path) -> None:
    baseline = config_of(sweep, "mlm")
    zero = ObjectiveConfig(target="ema", predictor="mlp", k=0, **{"lambda": 0.0})  # type: ignore[arg-type]
    results = [
        run_masked_trial(config, prepared, Runtime(), lambda _: None, tmp_path / str(number) / "scratch" / "x")
        for number, config in enumerate((baseline, baseline.model_copy(update={"objective": zero})))
    ]
    assert numbers(results[0]) == numbers(results[1])


@pytest.mark.parametrize(("keep", "test", "kept"), [("none", True, False), ("confirmed", False, False), ("confirmed", True, True)])
def test_what_is_kept_is_chosen(keep: str, test: bool, kept: bool, tmp_path: Path) -> None:
    sweep = sweep_of(base__masked={"keep_checkpoints": keep}, base__optim={"num_epochs": 1})
    prepared = prepare_masked(sweep, "distilbert", "rotten-tomatoes")
    run_masked_trial(config_of(sweep, "jepa", test=test), prepared, Runtime(), lambda _: None, tmp_path / "scratch" / "x")
    assert (tmp_path / "checkpoints" / "x").is_dir() == kept


def test_passages_of_a_file_train_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("\n".join(f"line {number} of the story was pleasant." for number in range(50)), encoding="utf-8")
    sweep = sweep_of(base__masked={"corpus": str(path)}, base__optim={"num_epochs": 1})
    prepared = prepare_masked(sweep, "distilbert", "rotten-tomatoes")
    assert len(prepared.passages) == 50 and set(prepared.passages.classes.tolist()) == {-1} and len(prepared.train) == 60
    result = run_masked_trial(config_of(sweep, "jepa"), prepared, Runtime(), lambda _: None, tmp_path / "scratch" / "x")
    assert result.state == "COMPLETE" and result.summary["train_examples"] == 50
    path.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="contains no passage"):
        prepare_masked(sweep, "distilbert", "rotten-tomatoes")


def test_the_text_of_a_special_token_in_a_passage_is_text(tmp_path: Path) -> None:
    """[MASK] quoted in a passage is not a hidden token."""
    path = tmp_path / "own.txt"
    path.write_text("\n".join(f"line {number} [MASK] was [SEP] pleasant." for number in range(50)), encoding="utf-8")
    sweep = sweep_of(base__masked={"corpus": str(path)})
    prepared = prepare_masked(sweep, "distilbert", "rotten-tomatoes")
    config = config_of(sweep, "mlm")
    tokenizer = load_encoder_tokenizer(prepared.checkpoint, config.model)
    ids = prepared.passages.tokens[: prepared.passages.starts[1]].tolist()
    assert tokenizer.mask_token_id not in ids and ids.count(tokenizer.sep_token_id) == 1 and "mask" in tokenizer.decode(ids).lower()


def test_states_are_means_over_ordinary_tokens(sweep: SweepConfig, prepared: MaskedPrepared) -> None:
    network, _, _, ids = built(config_of(sweep, "jepa"), prepared)
    pooled = pooled_states(network, prepared.val, ids, 7, bf16=False)
    assert network.training
    network.eval()
    for row in (0, 5, 39):
        tokens = torch.from_numpy(prepared.val.tokens[prepared.val.span(row)].astype(np.int64))
        with torch.no_grad():
            hidden = network.encoder(input_ids=tokens[None]).last_hidden_state[0][1:-1]  # without [CLS] and [SEP]
        assert np.allclose(pooled[row], hidden.mean(0).numpy(), atol=1e-5)


def test_an_encoder_that_sees_padding_is_refused(sweep: SweepConfig, prepared: MaskedPrepared, monkeypatch: pytest.MonkeyPatch) -> None:
    network, _, _, ids = built(config_of(sweep, "jepa"), prepared)
    assert padding_error(network, prepared.passages, ids, bf16=False) < 1e-5
    real = trial.states
    monkeypatch.setattr(trial, "states", lambda encoder, ids_RT, real_RT: real(encoder, ids_RT, torch.ones_like(real_RT)))
    with pytest.raises(PackingError, match="padded batch"):
        padding_error(network, prepared.passages, ids, bf16=False)


def test_failures_are_rows(sweep: SweepConfig, prepared: MaskedPrepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shut = run_masked_trial(
        config_of(sweep, "mlm", test=True),
        MaskedPrepared(**{**vars(prepared), "test": None}),
        Runtime(),
        lambda _: None,
        tmp_path / "scratch" / "a",
    )
    assert shut.state == "FAILED" and shut.error is not None and "no test split" in shut.error

    def broken(*_: Any) -> None:
        raise NonFinite("step 1: it is no number")

    monkeypatch.setattr(trial, "masked_step", broken)
    failed = run_masked_trial(config_of(sweep, "mlm"), prepared, Runtime(), lambda _: None, tmp_path / "scratch" / "b")
    assert failed.state == "FAILED" and failed.error == "NonFinite: step 1: it is no number; it was the first step of its epoch"
    assert failed.summary["alarms"] == "non-finite"
    write_trial(tmp_path, "1" * 16, config_of(sweep, "mlm"), "mlm/x", "search", failed)


def test_a_loss_that_is_no_number_names_its_step(sweep: SweepConfig, prepared: MaskedPrepared) -> None:
    config = config_of(sweep, "mlm")
    state = state_of(config, prepared)
    with torch.no_grad():
        next(state.network.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(NonFinite, match="step 5"):
        masked_step(state, np.arange(4), 4, 10)


def test_the_estimate_is_what_is_trained(sweep: SweepConfig, prepared: MaskedPrepared, tmp_path: Path) -> None:
    estimates, facts = estimate_masked(sweep)
    assert facts and set(estimates) == {arm.name for arm in arms(sweep)}
    for method in ("mlm", "jepa"):
        result = run_masked_trial(
            config_of(sweep, method), prepared, Runtime(checkpoint_minutes=0), lambda _: None, tmp_path / method / "scratch" / "x"
        )
        estimate = estimates[f"{method}/distilbert"]
        assert math.isclose(estimate.train_tokens, float(result.summary["train_tokens"] or 0), rel_tol=0.1)
        assert math.isclose(estimate.train_flops, float(result.summary["train_flops"] or 0), rel_tol=0.1)
        working = (tmp_path / method / "scratch" / "x" / "checkpoint.pt").stat().st_size
        assert math.isclose(estimate.checkpoint_bytes, working, rel_tol=0.1)


def test_a_causal_checkpoint_is_refused(tiny_checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="contains a 'llama' model"):
        prepare_masked(sweep_of(model=str(tiny_checkpoints["llama3"])), "distilbert", "rotten-tomatoes")
    assert ModelConfig(family="distilbert").model == "tiny"
