"""One trial, from configuration to result: the paper's procedure in one function.

    network  <- checkpoint (+ LoRA) (+ k predictor tokens)
    for each epoch (within the FLOPs budget):
        for each batch of the epoch's order:
            one step on  gamma * CE(answer) + lambda * d(Pred(Enc(Text)), Enc(Code))        (`step.py`)
        generate and judge on validation; save; report
    at the end, in the confirmation stage only: generate and judge once on the sealed test split

Independent of Ray: `runtime` identifies the worker, `report` receives metrics. Writes only the working checkpoint and `progress.json`
under `scratch`; the caller writes the tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
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
from jepa_ray.training import checkpoint
from jepa_ray.training.build import build
from jepa_ray.training.cost import FlopModel, Spent
from jepa_ray.training.device import make_ready
from jepa_ray.training.diagnostics.alarms import add_alarm
from jepa_ray.training.diagnostics.monitor import Watch
from jepa_ray.training.epochs import all_epochs, train_epoch
from jepa_ray.training.evaluate import evaluate
from jepa_ray.training.first_stage import stages, train_first_stage
from jepa_ray.training.flops_budget import affordable
from jepa_ray.training.packing_check import PackingError, attention_error
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.runtime import NonFinite, Runtime
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import train_step

Report = Callable[[dict[str, float]], None]


def run_trial(config: TrialConfig, prepared: Prepared, runtime: Runtime, report: Report, scratch: Path) -> TrialResult:
    """Train and evaluate one configuration.

    Every worker of a trial calls this; all return the same metrics, and rank 0's result counts. Resumes from the checkpoint in
    `scratch`, if any. Every rank calls `report` after each validated epoch except the last, once the checkpoint is on disk.

    Returns:
        state COMPLETE, or FAILED with the reason if training itself failed (non-finite loss, packing self-check, out of memory).
    """
    began = time.perf_counter()
    make_ready(runtime.device)
    progress = _start(config, prepared, runtime, scratch)
    try:
        first, config = stages(config)
        if first is not None:
            prepared, progress = _first_stage(first, prepared, runtime, scratch, progress)
        return _train(Run(config, prepared, runtime, report, scratch), progress, began)
    except (NonFinite, PackingError, torch.OutOfMemoryError, ValueError) as error:
        return failed(error, load_progress(scratch / "progress.json") or progress)


def failed(error: Exception, latest: TrialResult) -> TrialResult:
    """The result of a trial that failed in training: what it had reached, the reason, and the alarm of a loss that is not finite."""
    last = {name: value for name, value in latest.summary.items() if name in ("train_ce", "train_jepa", "val_accuracy")}
    text = f"{type(error).__name__}: {error}" + (f" (last finite values: {last})" if last else "")
    alarms = {"alarms": add_alarm(latest.summary.get("alarms"), "non-finite")} if isinstance(error, NonFinite) else {}
    return replace(latest, state="FAILED", error=text, summary=latest.summary | alarms | {"finished_at": now()})


@dataclass(frozen=True)
class Run:
    """The arguments of `run_trial`, as the fine-tuning uses them."""

    config: TrialConfig
    prepared: Prepared
    runtime: Runtime
    report: Report
    scratch: Path


def _train(run: Run, progress: TrialResult, began: float) -> TrialResult:
    config, prepared, runtime = run.config, run.prepared, run.runtime
    torch.set_num_threads(runtime.num_threads)
    tokenizer = load_tokenizer(prepared.checkpoint, config.model, prepared.revision)
    state = build(config, prepared.checkpoint, prepared.train, runtime, run.scratch, prepared.revision)
    network, saved, flop_model = state.network, state.saved, FlopModel.of(state.network)
    # The checkpoint contains its own progress, so the two always agree after a kill; progress.json is for other readers.
    progress = replace(progress, metrics=[], predictions=[]) if saved is None else TrialResult.from_json(saved["progress"])
    summary = {**_network_columns(state), **progress.summary}
    metrics, predictions = list(progress.metrics), list(progress.predictions)
    spent = Spent.of(saved["spent"]) if saved is not None else _spent_before(prepared)
    first_epoch, earlier = saved["epoch"] if saved is not None else 0, spent.wall
    epochs = affordable(all_epochs(len(prepared.train), config.optim, config.seed), prepared.train, config, flop_model, state.term)
    total_steps = sum(map(len, epochs))
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"num_epochs": len(epochs)})})
    state.config = config
    watch = Watch(config, prepared.train, prepared.val, runtime, flop_model.per_token)
    if saved is not None:
        watch.resume(saved["watch"])
    HEARTBEAT.plan(total_steps - spent.step, _to_evaluate(config, prepared, first_epoch) // runtime.world_size)
    if saved is None:
        losses = prepared.first_stage.losses if prepared.first_stage is not None else []
        for number, epoch_losses in enumerate(losses, start=1):
            metrics += _lines(epoch_losses, 0, number - len(losses), spent.cost())
        metrics += _lines(watch.look(0, state, 0, total_steps, 0.0), 0, 0, spent.cost())

    for epoch, steps in enumerate(epochs[first_epoch:], start=first_epoch):
        started = time.perf_counter()
        network.train()
        totals = train_epoch(lambda rows, step: train_step(state, rows, step, total_steps), steps, spent.step, total_steps, runtime)
        spent.train(totals, flop_model, len(steps), time.perf_counter() - started)
        values = {"train_ce": totals.ce_sum / max(1, totals.num_labels)}
        if totals.num_pairs:
            values["train_jepa"] = totals.jepa_sum / totals.num_pairs
        last = epoch + 1 == len(epochs)
        if last or (epoch + 1) % config.evaluation.every == 0:
            started = time.perf_counter()
            scores, predictions = evaluate(network, tokenizer, prepared.val, "val", config, runtime)
            spent.val_seconds += time.perf_counter() - started
            values |= scores
        HEARTBEAT.enter("diagnose")
        diagnostics = watch.look(epoch + 1, state, spent.step, total_steps, float(spent.flops))
        spent.wall = earlier + time.perf_counter() - began

        metrics += _lines(values | diagnostics, spent.step, epoch + 1, spent.cost())
        summary |= values | spent.cost() | watch.columns() | spent.columns(epoch + 1, runtime)
        progress = replace(progress, summary=dict(summary), metrics=metrics, predictions=predictions)
        HEARTBEAT.enter("save")
        if runtime.rank == 0:
            more = {"epoch": epoch + 1, "spent": asdict(spent), "progress": progress.to_json(), "watch": watch.state()}
            checkpoint.write(run.scratch, state.snapshot(**more))
            save_progress(run.scratch / "progress.json", progress)
        if "val_accuracy" in values and not last:
            run.report({"epoch": epoch + 1, "step": spent.step, **spent.cost(), **values})

    if config.evaluation.test:  # after the loop, so that a crash between the last epoch and this line repeats only the test
        progress = _score_test(progress, network, tokenizer, prepared, config, runtime)
        progress = replace(progress, embeddings=watch.keep(state))
        progress = replace(progress, summary=progress.summary | watch.columns())
    final = {**progress.summary, "wall_seconds": earlier + time.perf_counter() - began, "finished_at": now()}
    return replace(progress, state="COMPLETE", summary=final)


def _network_columns(state: TrainState) -> dict[str, Any]:
    """Columns of `trials` that depend on the network only; PackingError if packed rows would train differently from separate ones."""
    bf16 = uses_bf16(state.config.model, torch.device(state.runtime.device))
    # Measured on the weights that training starts from.
    error = attention_error(state.network, state.table, state.backend, objective=state.objective, bf16=bf16)
    parameters = list(state.network.parameters())
    return {
        "attention_error": error,
        "packing_used": state.backend,
        "num_parameters": sum(parameter.numel() for parameter in parameters),
        "num_trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "lambda_used": state.term.weight if state.term is not None and state.term.is_weighed else 0.0,
    }


def _spent_before(prepared: Prepared) -> Spent:
    """Cost of the first stage, if there was one."""
    first = prepared.first_stage
    if first is None:
        return Spent()
    return Spent(tokens=first.tokens, flops=first.flops, unpacked=first.unpacked_flops, train_seconds=first.seconds)


def _to_evaluate(config: TrialConfig, prepared: Prepared, first_epoch: int) -> int:
    """Examples still to evaluate from `first_epoch` (counted from 0) on, in all validations and the test."""
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
    """Train the first stage; return the inputs of the fine-tuning, which starts from its checkpoint, and the progress with its losses."""
    torch.set_num_threads(runtime.num_threads)
    first_stage = train_first_stage(first, prepared, runtime, scratch)
    summary = {**progress.summary, "pretrained_sha": first_stage.sha, **first_stage.losses[-1]}
    progress = replace(progress, summary=summary)
    return replace(prepared, checkpoint=first_stage.folder, revision=None, first_stage=first_stage), progress


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
    """Accuracy of guessing on a split; 0 if answers are not labels. Measured, because the task's number is for its public data only."""
    if not DATASETS[config.data.task].chance:
        return 0.0
    return guessing(prepared.train.references, judged.references)


def _start(config: TrialConfig, prepared: Prepared, runtime: Runtime, scratch: Path) -> TrialResult:
    """The progress so far, or a new record with the facts known before training."""
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
