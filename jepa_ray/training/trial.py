"""One trial, from configuration to result; the paper's procedure as one function.

    network  <- checkpoint (+ LoRA) (+ k predictor tokens)
    for each epoch (as far as a FLOPs budget goes):
        for each batch of the epoch's order:
            one step on  gamma * CE(answer) + lambda * d(Pred(Enc(Text)), Enc(Code))        (`step.py`)
        generate and judge on validation; save; report
    at the end, in the confirmation stage only: generate and judge once on the sealed test split

Ray is not known here: `runtime` says which worker this is, `report` passes metrics on. Nothing is written but the working
checkpoint under `scratch`; the caller owns the tables.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from jepa_ray.config import TrialConfig
from jepa_ray.data.datasets import DATASETS
from jepa_ray.data.views import TokenTable
from jepa_ray.evaluation.metrics import guessing
from jepa_ray.models.loading import load_tokenizer, uses_bf16
from jepa_ray.models.network import Network
from jepa_ray.results import TrialResult, load_progress, now, provenance, save_progress
from jepa_ray.system.heartbeat import HEARTBEAT
from jepa_ray.training.cost import FlopModel
from jepa_ray.training.device import make_ready
from jepa_ray.training.diagnostics.alarms import add_alarm
from jepa_ray.training.diagnostics.monitor import Watch
from jepa_ray.training.evaluate import evaluate
from jepa_ray.training.first_stage import pretrain, stages
from jepa_ray.training.flops_budget import affordable
from jepa_ray.training.jepa_term import active_objective
from jepa_ray.training.packing_check import PackingError, attention_error
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.spent import cost_so_far, spent_columns
from jepa_ray.training.state import build
from jepa_ray.training.step import (
    NonFinite,
    Runtime,
    StepTotals,
    backend_of,
    epoch_steps,
    over_ranks,
    train_step,
    unwrap,
)

Report = Callable[[dict[str, float]], None]


def run_trial(config: TrialConfig, prepared: Prepared, runtime: Runtime, report: Report, scratch: Path) -> TrialResult:
    """Train and evaluate one configuration.

    Called by every worker of a trial; all return the same metrics, and rank 0's result counts. Goes on from `scratch` where that
    holds a checkpoint. `report` is called on every rank after each validated epoch, once the checkpoint is safe on disk.

    Returns:
        state COMPLETE, or FAILED with the reason where training itself failed (non-finite loss, packing self-check, out of memory).
    """
    began = time.perf_counter()
    make_ready(runtime.device)
    progress = _start(config, prepared, runtime, scratch)
    try:
        first, config = stages(config)
        if first is not None:
            prepared, progress = _first_stage(first, prepared, runtime, scratch, progress)
        return _train(config, prepared, runtime, report, scratch, progress, began)
    except (NonFinite, PackingError, torch.OutOfMemoryError, ValueError) as error:
        latest = load_progress(scratch / "progress.json") or progress
        last = {name: value for name, value in latest.summary.items() if name in ("train_ce", "train_jepa", "val_accuracy")}
        text = f"{type(error).__name__}: {error}" + (f" (last finite values: {last})" if last else "")
        alarms = {"alarms": add_alarm(latest.summary.get("alarms"), "non-finite")} if isinstance(error, NonFinite) else {}
        return replace(latest, state="FAILED", error=text, summary=latest.summary | alarms | {"finished_at": now()})


def _train(
    config: TrialConfig, prepared: Prepared, runtime: Runtime, report: Report, scratch: Path, progress: TrialResult, began: float
) -> TrialResult:
    torch.set_num_threads(runtime.num_threads)
    objective = active_objective(config)
    bf16 = uses_bf16(config.model, torch.device(runtime.device))

    tokenizer = load_tokenizer(prepared.checkpoint, config.model, prepared.revision)
    backend = backend_of(config)
    training = build(config, prepared.checkpoint, prepared.train, runtime, scratch, prepared.revision)
    network, saved = training.network, training.saved
    flop_model = FlopModel.of(network)
    error = attention_error(network, prepared.train, backend, objective=objective, bf16=bf16)
    first_epoch = saved["epoch"] if saved is not None else 0
    # The checkpoint holds its own progress, so that the two cannot disagree after a kill; progress.json is for others to read.
    progress = replace(progress, metrics=[], predictions=[]) if saved is None else TrialResult.from_json(saved["progress"])
    summary = {
        "attention_error": error,  # of the weights that training starts from
        "packing_used": backend,
        "num_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "num_trainable": sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        "lambda_used": training.term.weight if training.term is not None and training.term.is_weighed else 0.0,
        **progress.summary,
    }
    metrics, predictions = list(progress.metrics), list(progress.predictions)
    spent: dict[str, Any] = {"step": 0, "tokens": 0, "flops": 0, "unpacked": 0, "train_seconds": 0.0, "val_seconds": 0.0, "wall": 0.0}
    if saved is not None:
        spent = {"unpacked": math.nan, **saved["spent"]}  # an older version's checkpoint does not know it
    elif prepared.stage is not None:
        spent |= {"tokens": prepared.stage.tokens, "flops": prepared.stage.flops, "unpacked": prepared.stage.unpacked_flops}
        spent["train_seconds"] = prepared.stage.seconds
    earlier = spent["wall"]
    epochs = [epoch_steps(len(prepared.train), config.optim, config.seed, epoch) for epoch in range(config.optim.num_epochs)]
    epochs = affordable(epochs, prepared.train, config, flop_model, training.term)
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"num_epochs": len(epochs)})})
    watch = Watch(config, prepared.train, prepared.val, runtime, flop_model.per_token)
    if saved is not None:
        watch.resume(saved["watch"])

    total_steps = sum(map(len, epochs))
    HEARTBEAT.plan(total_steps - spent["step"], _to_evaluate(config, prepared, first_epoch) // runtime.world_size)
    if saved is None:
        for before, losses in enumerate(prepared.stage.losses if prepared.stage is not None else (), start=1):
            metrics += _lines(losses, 0, before - len(prepared.stage.losses), cost_so_far(spent))  # type: ignore[union-attr]
        values = watch.look(0, training, 0, total_steps, 0.0)
        metrics += _lines(values, 0, 0, cost_so_far(spent))
    for epoch in range(first_epoch, config.optim.num_epochs):
        started = time.perf_counter()
        network.train()
        totals = StepTotals()
        HEARTBEAT.enter("train")
        for rows in epochs[epoch]:
            try:
                at = (spent["step"], total_steps)
                of_step = train_step(training.model, training.optimizer, prepared.train, rows, config, *at, backend, runtime, training.term)
            except NonFinite as error:
                raise NonFinite(f"{error}; {_means(totals)}") from error
            totals.add(of_step)
            spent["step"] += 1
            HEARTBEAT.trained(*(spent["step"], total_steps), *of_step.shown(runtime))
        totals = over_ranks(totals, runtime)
        spent["tokens"] += totals.tokens
        spent["flops"] += flop_model.train_flops(totals)
        spent["unpacked"] += flop_model.unpacked_flops(totals)
        spent["train_seconds"] += time.perf_counter() - started

        values = {"train_ce": totals.ce_sum / max(1, totals.num_labels)}
        if totals.num_pairs:
            values["train_jepa"] = totals.jepa_sum / totals.num_pairs
        last = epoch + 1 == config.optim.num_epochs
        if last or (epoch + 1) % config.evaluation.every == 0:
            started = time.perf_counter()
            scores, rows_of_epoch = evaluate(network, tokenizer, prepared.val, "val", config, runtime)
            spent["val_seconds"] += time.perf_counter() - started
            values |= scores
            predictions = rows_of_epoch
        HEARTBEAT.enter("diagnose")
        diagnostics = watch.look(epoch + 1, training, spent["step"], total_steps, float(spent["flops"]))
        spent["wall"] = earlier + time.perf_counter() - began

        cost = cost_so_far(spent)
        metrics += _lines(values | diagnostics, spent["step"], epoch + 1, cost)
        summary |= values | cost | watch.columns()
        summary |= spent_columns(spent, epoch + 1, runtime)
        progress = replace(progress, summary=dict(summary), metrics=metrics, predictions=predictions)
        HEARTBEAT.enter("save")
        if runtime.rank == 0:
            training.save(scratch, epoch=epoch + 1, spent=spent, progress=progress.to_json(), watch=watch.state())
            save_progress(scratch / "progress.json", progress)
        if "val_accuracy" in values and not last:
            report({"epoch": epoch + 1, "step": spent["step"], **cost, **values})

    if config.evaluation.test:  # after the loop: also where a crash came between the last epoch and here
        progress = _score_test(progress, network, tokenizer, prepared, config, runtime)
        progress = replace(progress, embeddings=watch.keep(training))
        progress = replace(progress, summary=progress.summary | watch.columns())
    final = {**progress.summary, "wall_seconds": earlier + time.perf_counter() - began, "finished_at": now()}
    return replace(progress, state="COMPLETE", summary=final)


def _to_evaluate(config: TrialConfig, prepared: Prepared, first_epoch: int) -> int:
    """Examples that are still to be evaluated from `first_epoch` (from 0) on, all validations and the test together."""
    epochs, every = config.optim.num_epochs, config.evaluation.every
    rounds = sum(epoch + 1 == epochs or (epoch + 1) % every == 0 for epoch in range(first_epoch, epochs))
    tested = len(prepared.test) if config.evaluation.test and prepared.test is not None else 0
    return rounds * len(prepared.val) + tested


def _lines(values: Mapping[str, float], step: int, epoch: int, cost: Mapping[str, float]) -> list[dict[str, Any]]:
    """Rows of the metrics table; the first word of a metric's name is its split (`val_exact`, `diag_rank_text`)."""
    return [
        {"step": step, "epoch": epoch, "split": name.split("_")[0], "name": name, "value": value, **cost} for name, value in values.items()
    ]


def _first_stage(
    first: TrialConfig, prepared: Prepared, runtime: Runtime, scratch: Path, progress: TrialResult
) -> tuple[Prepared, TrialResult]:
    """The data and the record for the fine-tuning, which starts from the checkpoint of the first stage."""
    assert prepared.pretrain is not None, "the first stage's data were not prepared"
    torch.set_num_threads(runtime.num_threads)
    stage = pretrain(first, prepared.pretrain, prepared.checkpoint, prepared.pretrain_sha, runtime, scratch, prepared.revision)
    summary = {**progress.summary, "pretrained_sha": stage.sha, **stage.losses[-1]}
    progress = replace(progress, summary=summary)
    return replace(prepared, checkpoint=stage.folder, revision=None, stage=stage), progress


def _score_test(
    progress: TrialResult, network: Network, tokenizer: Any, prepared: Prepared, config: TrialConfig, runtime: Runtime
) -> TrialResult:
    if prepared.test is None:
        raise ValueError("evaluation.test is on, but no test split was loaded; set data.test")
    started = time.perf_counter()
    scores, rows = evaluate(network, tokenizer, prepared.test, "test", config, runtime)
    last = progress.metrics[-1]
    cost = {name: last[name] for name in ("step", "epoch", "train_flops", "train_flops_unpacked", "train_seconds")}
    return replace(
        progress,
        summary={
            **progress.summary,
            **scores,
            "chance": _chance(config, prepared, prepared.test),
            "test_seconds": time.perf_counter() - started,
        },
        metrics=[*progress.metrics, *({**cost, "split": "test", "name": name, "value": value} for name, value in scores.items())],
        predictions=[*progress.predictions, *rows],
    )


def _chance(config: TrialConfig, prepared: Prepared, judged: TokenTable) -> float:
    """What guessing reaches on a split; 0 where answers are no labels. The task's number is that of its public data, not of a user's."""
    if not DATASETS[config.data.task].chance:
        return 0.0
    return guessing(prepared.train.references, judged.references)


def _start(config: TrialConfig, prepared: Prepared, runtime: Runtime, scratch: Path) -> TrialResult:
    """The progress so far, or a new record with what is known before training."""
    progress = load_progress(scratch / "progress.json")
    if progress is not None:
        return progress
    facts = {
        "dataset_sha": prepared.dataset_sha,
        "device": runtime.device,
        "num_workers": runtime.world_size,
        "train_examples": len(prepared.train),
        "chance": _chance(config, prepared, prepared.val),
        **prepared.facts,
    }
    return TrialResult(state="RUNNING", error=None, summary={**provenance(), **facts}, metrics=[], predictions=[])


def _means(totals: StepTotals) -> str:
    """Mean losses of an epoch's steps so far, in words: the last finite values."""
    if not totals.num_labels:
        return "it was the first step of its epoch"
    jepa = f", JEPA {totals.jepa_sum / totals.num_pairs:.4g}" if totals.num_pairs else ""
    return f"the steps before it in its epoch were finite (mean cross-entropy {totals.ce_sum / totals.num_labels:.4g}{jepa})"


__all__ = ["NonFinite", "Report", "Runtime", "run_trial", "unwrap"]
