"""One trial of a masked encoder, from configuration to result: the counterpart of `run_trial`, with the same contract.

    context encoder <- checkpoint; target encoder <- its copy; predictor <- new
    probe the untrained encoder
    for each epoch:
        for each batch of the epoch's order:
            hide spans; one step on  gamma * CE(hidden tokens) + lambda * (1 - cos(Pred(Enc(hidden)), EMA(intact)))   (`step.py`)
        probe on validation; report (a working checkpoint is saved after any step, if it is time)
    at the end, in the confirmation stage only: probe once on the sealed test split; keep encoders, predictor and optimizer

Without an objective, this is masked-language-model training at the same positions. Probes see the frozen context encoder's states,
averaged over a text's ordinary tokens. Independent of Ray. Writes the working checkpoint and `progress.json` under `scratch`, and the
final checkpoint in `checkpoints/` next to the scratch folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_ray.config import TrialConfig
from jepa_ray.evaluation.embedding import anisotropy, effective_rank
from jepa_ray.evaluation.metrics import without_leaked
from jepa_ray.masked.checkpoint import load_working, save_final, working_snapshot
from jepa_ray.masked.corpus import Passages
from jepa_ray.masked.network import MaskedNetwork, load_encoder_tokenizer, load_masked_lm, states
from jepa_ray.masked.prepare import MaskedPrepared
from jepa_ray.masked.probe import linear_probe, nearest
from jepa_ray.masked.spans import masked_batch
from jepa_ray.masked.step import (
    MaskedFlops,
    MaskedState,
    TargetEncoder,
    TokenIds,
    make_masked_optimizer,
    masked_network,
    masked_step,
)
from jepa_ray.models.loading import uses_bf16
from jepa_ray.results import TrialResult, load_progress, now, provenance, save_progress
from jepa_ray.system.heartbeat import HEARTBEAT
from jepa_ray.training.cost import Spent
from jepa_ray.training.device import make_ready
from jepa_ray.training.epochs import EpochPart, all_epochs, train_epoch
from jepa_ray.training.packing_check import TOLERANCE, PackingError
from jepa_ray.training.parallel import data_parallel
from jepa_ray.training.runtime import NonFinite, Runtime
from jepa_ray.training.saving import Checkpoints
from jepa_ray.training.step_log import StepLog
from jepa_ray.training.trial import failed

Report = Callable[[dict[str, float]], None]
States = NDArray[np.float64]


def run_masked_trial(config: TrialConfig, prepared: MaskedPrepared, runtime: Runtime, report: Report, scratch: Path) -> TrialResult:
    """Train and evaluate one configuration; `trial.run_trial` documents the contract for callers, ranks and `report`."""
    began = time.perf_counter()
    make_ready(runtime.device)
    progress = _start(config, prepared, runtime, scratch)
    try:
        return _train(Run(config, prepared, runtime, report, scratch), progress, began)
    except (NonFinite, PackingError, torch.OutOfMemoryError, ValueError) as error:
        return failed(error, load_progress(scratch / "progress.json") or progress)


@dataclass(frozen=True)
class Run:
    """The arguments of `run_masked_trial`."""

    config: TrialConfig
    prepared: MaskedPrepared
    runtime: Runtime
    report: Report
    scratch: Path


def _train(run: Run, progress: TrialResult, began: float) -> TrialResult:
    config, prepared, runtime = run.config, run.prepared, run.runtime
    assert config.masked is not None
    torch.set_num_threads(runtime.num_threads)
    bf16, optim, objective = uses_bf16(config.model, torch.device(runtime.device)), config.optim, config.objective
    tokenizer = load_encoder_tokenizer(prepared.checkpoint, config.model, prepared.revision)
    ids = TokenIds(mask=tokenizer.mask_token_id, pad=tokenizer.pad_token_id)
    network = masked_network(load_masked_lm(prepared.checkpoint, config.model, config.seed, prepared.revision), config).to(runtime.device)
    target = TargetEncoder(network) if network.predictor is not None else None
    optimizer = make_masked_optimizer(network, optim, objective.predictor_lr_factor if objective is not None else 1.0)
    flop_model = MaskedFlops.of(network)
    judge = Judge(prepared, ids, config, bf16)
    summary = dict(progress.summary)
    summary["attention_error"] = padding_error(network, prepared.passages, ids, bf16=bf16)
    summary["num_parameters"] = sum(parameter.numel() for parameter in network.parameters())
    summary["num_trainable"] = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)

    saved, furthest = load_working(run.scratch, network, target, optimizer), int(progress.summary.get("steps") or 0)
    progress = replace(progress, metrics=[], predictions=[]) if saved is None else TrialResult.from_json(saved["progress"])
    metrics, predictions = list(progress.metrics), list(progress.predictions)
    part = EpochPart()
    if saved is not None:
        # An older version's checkpoint has the epoch in `spent`, and only one of the two FLOP counts.
        spent = Spent.of({"unpacked": saved["spent"]["flops"], **saved["spent"]})
        epoch, summary = saved["epoch"] if "epoch" in saved else saved["spent"]["epoch"], {**summary, **progress.summary}
        part = EpochPart.of(saved["part"], runtime) if "part" in saved else part
    else:
        spent, epoch = Spent(), 0
        untrained, _ = judge(network, prepared.val, "val")
        summary |= _untrained(untrained)
        metrics += _rows(untrained, 0, 0, spent.cost())
        if config.evaluation.test:
            scores, _ = judge(network, _test(prepared), "test")
            summary |= _untrained(scores)
    earlier: float = spent.wall
    validation_s: float | None = None  # of the latest validation
    progress = replace(progress, summary=dict(summary), metrics=metrics)
    state = MaskedState(
        config=config,
        passages=prepared.passages,
        ids=ids,
        network=network,
        optimizer=optimizer,
        target=target,
        runtime=runtime,
        parallel=data_parallel(network, runtime),
    )

    def wall() -> float:
        return earlier + time.perf_counter() - began

    def snapshot() -> dict[str, Any]:
        where = {"epoch": epoch, "part": part.saved(runtime), "spent": asdict(replace(spent, wall=wall())), "step_log": log.saved()}
        return working_snapshot(network, target, optimizer, **where, progress=progress.to_json()) if runtime.rank == 0 else {}

    epochs = all_epochs(len(prepared.passages), optim, config.seed)
    total_steps = sum(map(len, epochs))
    log = StepLog(runtime, optim, total_steps, len(epochs[0]), 0.0)
    log.resume(saved.get("step_log") if saved is not None else None, spent.train_seconds + part.seconds)
    rounds = sum(_validated(config, number) for number in range(epoch, optim.num_epochs)) + config.evaluation.test
    HEARTBEAT.plan(total_steps - spent.step - part.steps, rounds)  # counts whole evaluations: each one fits the probe again
    with Checkpoints(run.scratch, runtime, snapshot) as checkpoints:

        def after_step(step: int) -> None:
            log.after_step(spent, part, epoch, flop_model, last=part.steps == len(epochs[epoch]))
            checkpoints.after_step(step)

        for steps in epochs[epoch:]:
            network.train()
            totals = train_epoch(
                lambda rows, step: log.add(masked_step(state, rows, step, total_steps), state.grad_norm),
                steps,
                spent.step,
                total_steps,
                runtime,
                part=part,
                after_step=after_step,
            )
            values = {"train_ce": totals.ce_sum / totals.num_labels} if totals.num_labels else {}
            if totals.num_pairs:
                values["train_jepa"] = totals.jepa_sum / totals.num_pairs
            last = epoch + 1 == optim.num_epochs
            if validated := _validated(config, epoch):
                checkpoints.before(validation_s)
                started = time.perf_counter()
                scores, predictions = judge(network, prepared.val, "val")
                validation_s = time.perf_counter() - started
                spent.val_seconds += validation_s
                values |= scores
            spent.train(totals, flop_model, part.steps, part.seconds)
            spent.wall, epoch, part = wall(), epoch + 1, EpochPart()

            metrics += (lines := _rows(values, spent.step, epoch, spent.cost()))
            summary |= values | spent.cost() | spent.columns(epoch, runtime)
            progress = replace(progress, summary=dict(summary), metrics=metrics, predictions=predictions)
            HEARTBEAT.enter("save")
            if runtime.rank == 0 and spent.step >= furthest:
                save_progress(run.scratch / "progress.json", log.into(progress))
            if runtime.rank == 0:
                runtime.observe(lines)
            if not last:
                checkpoints.save_if_due()
                if validated:
                    run.report({"epoch": epoch, "step": spent.step, **spent.cost(), **values})
        if config.evaluation.test:
            checkpoints.save_if_due(validation_s)

    if config.evaluation.test:
        started = time.perf_counter()
        scores, test_rows = judge(network, _test(prepared), "test")
        cost = {name: progress.metrics[-1][name] for name in ("train_flops", "train_flops_unpacked", "train_seconds")}
        progress = replace(
            progress,
            summary={**progress.summary, **scores, "test_seconds": time.perf_counter() - started},
            metrics=[*progress.metrics, *_rows(scores, spent.step, optim.num_epochs, cost)],
            predictions=[*progress.predictions, *test_rows],
        )
    keep = config.masked.keep_checkpoints
    if runtime.rank == 0 and (keep == "all" or (keep == "confirmed" and config.evaluation.test)):
        folder = checkpoint_folder(run.scratch)
        save_final(folder, state, tokenizer, epoch=len(epochs), step=spent.step)
    final = {**progress.summary, "wall_seconds": wall(), "finished_at": now()}
    return log.into(replace(progress, state="COMPLETE", summary=final))


def _validated(config: TrialConfig, epoch: int) -> bool:
    """Whether `epoch` (from 0) ends with a validation."""
    return epoch + 1 == config.optim.num_epochs or (epoch + 1) % config.evaluation.every == 0


def checkpoint_folder(scratch: Path) -> Path:
    """Folder of a trial's final encoders: `results/<name>/checkpoints/<config_id>`, for scratch `results/<name>/scratch/<config_id>`."""
    return scratch.parent.parent / "checkpoints" / scratch.name


class Judge:
    """Linear probe and nearest neighbours on frozen states; every call fits the probe again."""

    def __init__(self, prepared: MaskedPrepared, ids: TokenIds, config: TrialConfig, bf16: bool) -> None:
        self._prepared, self._ids, self._bf16 = prepared, ids, bf16
        self._batch_size = config.evaluation.encoded_together
        self._seed = config.seed

    def __call__(self, network: MaskedNetwork, judged: Passages, split: str) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Accuracy, retrieval and geometry of a split's states, and one row of the predictions table per text."""
        train, labels = self._prepared.train, self._prepared.labels
        HEARTBEAT.enter("validate" if split == "val" else split)
        train_ND = pooled_states(network, train, self._ids, self._batch_size, bf16=self._bf16)
        judged_ND = pooled_states(network, judged, self._ids, self._batch_size, bf16=self._bf16)
        if not (np.isfinite(train_ND).all() and np.isfinite(judged_ND).all()):
            raise NonFinite("the encoder's states are not finite, so no probe can be fitted")
        answers = linear_probe(train_ND, train.classes, self._seed)(judged_ND)
        neighbours = train.classes[nearest(train_ND, judged_ND)]
        HEARTBEAT.evaluated(1)
        scores = {
            f"{split}_accuracy": float((answers == judged.classes).mean()),
            f"{split}_retrieval": float((neighbours == judged.classes).mean()),
            f"{split}_effective_rank": effective_rank(judged_ND),
            f"{split}_anisotropy": anisotropy(judged_ND),
        }
        rows = [
            {
                "split": split,
                "example_id": name,
                "question": self._prepared.questions[name],
                "cluster": self._prepared.clusters[name],
                "leaked": name in self._prepared.leaked,
                "prediction": labels[answer],
                "reference": labels[truth] if truth >= 0 else None,
                "correct": bool(answer == truth),
            }
            for name, answer, truth in zip(judged.ids, answers.tolist(), judged.classes.tolist(), strict=True)
        ]
        clean = without_leaked(rows) if split == "test" else {}
        return scores | {f"{split}_{name}": value for name, value in clean.items()}, rows


def pooled_states(network: MaskedNetwork, passages: Passages, ids: TokenIds, batch_size: int, *, bf16: bool) -> States:
    """(N, D) context encoder's states of intact passages, averaged over their ordinary tokens, without dropout or gradient."""
    out = np.zeros((len(passages), network.lm.config.hidden_size))
    order = np.argsort(passages.lengths, kind="stable").tolist()
    was_training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(network.device.type, dtype=torch.bfloat16, enabled=bf16):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ordinary = [passages.candidates[passages.span(row)] for row in rows]
            batch = masked_batch(passages, rows, ordinary, ids.mask, ids.pad)
            intact_RT, real_RT = (torch.from_numpy(array).to(network.device) for array in (batch.intact_RT, batch.real_RT))
            weight_X = torch.zeros(intact_RT.numel(), device=network.device)
            weight_X[torch.from_numpy(batch.index_M).to(network.device)] = 1
            weight_RT = weight_X.view_as(intact_RT)
            summed_RD = torch.einsum("rtd,rt->rd", states(network.encoder, intact_RT, real_RT).float(), weight_RT)
            out[rows] = (summed_RD / weight_RT.sum(1, keepdim=True)).double().cpu().numpy()
    network.train(was_training)
    return out


def padding_error(network: MaskedNetwork, passages: Passages, ids: TokenIds, *, bf16: bool, rows: int = 4) -> float:
    """Largest relative error of a token's state in a padded batch compared with its passage alone, on a few passages.

    PackingError if it is above `packing_check.TOLERANCE`: the encoder attends to padding.
    """
    order = np.argsort(passages.lengths, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, rows).astype(int))].tolist()
    nothing = [np.zeros(int(passages.lengths[row]), dtype=bool) for row in chosen]

    def encode(picked: list[int], hidden: list[NDArray[np.bool_]]) -> torch.Tensor:
        batch = masked_batch(passages, picked, hidden, ids.mask, ids.pad)
        intact_RT, real_RT = (torch.from_numpy(array).to(network.device) for array in (batch.intact_RT, batch.real_RT))
        return states(network.encoder, intact_RT, real_RT).float()

    was_training = network.training
    network.eval()
    worst = 0.0
    with torch.inference_mode(), torch.autocast(network.device.type, dtype=torch.bfloat16, enabled=bf16):
        together_RTD = encode(chosen, nothing)
        for number, row in enumerate(chosen):
            alone_TD = encode([row], [nothing[number]])[0]
            error = ((together_RTD[number, : len(alone_TD)] - alone_TD).norm(dim=-1) / alone_TD.norm(dim=-1)).max()
            worst = max(worst, float(error)) if torch.isfinite(error) else float("inf")
    network.train(was_training)
    if worst > TOLERANCE[torch.bfloat16 if bf16 else torch.float32]:
        raise PackingError(f"a padded batch changes the states of its passages by {worst:.2g} of their norm; report this model")
    return worst


def _test(prepared: MaskedPrepared) -> Passages:
    if prepared.test is None:
        raise ValueError("evaluation.test is on, but no test split was loaded; set data.test")
    return prepared.test


def _untrained(scores: dict[str, float]) -> dict[str, float]:
    """Columns of the trials table for the untrained encoder; the metrics table has all its values at epoch 0."""
    return {f"{name}_untrained": value for name, value in scores.items() if name.endswith(("_accuracy", "_retrieval"))}


def _rows(values: dict[str, float], step: int, epoch: int, cost: dict[str, float]) -> list[dict[str, Any]]:
    """Rows of the metrics table; epoch 0 is the untrained encoder."""
    return [
        {"step": step, "epoch": epoch, "split": name.split("_")[0], "name": name, "value": value, **cost} for name, value in values.items()
    ]


def _start(config: TrialConfig, prepared: MaskedPrepared, runtime: Runtime, scratch: Path) -> TrialResult:
    """The progress so far, or a new record with the facts known before training."""
    progress = load_progress(scratch / "progress.json")
    if progress is not None:
        return progress
    facts = {
        "dataset_sha": prepared.dataset_sha,
        "device": runtime.device,
        "num_workers": runtime.world_size,
        "train_examples": len(prepared.passages),
        **prepared.facts,
    }
    return TrialResult(state="RUNNING", error=None, summary={**provenance(), **facts}, metrics=[], predictions=[])
