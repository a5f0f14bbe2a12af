"""The training of one trial: epochs, validations, the test at the end, and where all of it is in between, for the working checkpoint.

A checkpoint is taken after any optimizer step (`saving.py`); a trial that resumes from it ends with the numbers of one that was never
interrupted. On a CPU they are the same bit for bit, because every random draw derives from the seed and the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from jepa_ray.config import TrialConfig
from jepa_ray.models.loading import load_tokenizer, uses_bf16
from jepa_ray.models.network import Network, compilable
from jepa_ray.results import TrialResult, now, save_progress
from jepa_ray.system.heartbeat import HEARTBEAT
from jepa_ray.training.build import build
from jepa_ray.training.chance import chance
from jepa_ray.training.cost import FlopModel, Spent
from jepa_ray.training.diagnostics.monitor import Watch
from jepa_ray.training.epochs import EpochPart, Rows, all_epochs, train_epoch, validated_after
from jepa_ray.training.evaluate import evaluate
from jepa_ray.training.flops_budget import Epochs, affordable
from jepa_ray.training.keeping import keep_model
from jepa_ray.training.micro_batches import packed_ahead
from jepa_ray.training.packing_check import attention_error, check_head
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.saving import Checkpoints
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import train_step
from jepa_ray.training.step_log import StepLog

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Run:
    """The arguments of `run_trial`, as the fine-tuning uses them."""

    config: TrialConfig
    prepared: Prepared
    runtime: Runtime
    report: Report
    scratch: Path


def fine_tune(run: Run, progress: TrialResult, began: float) -> TrialResult:
    """Train, validate and score a trial from its checkpoint or from the start. `began`: when the trial began, by `perf_counter`."""
    torch.set_num_threads(run.runtime.num_threads)
    tuning = FineTuning.begin(run, progress, began)
    with Checkpoints(run.scratch, run.runtime, tuning.snapshot) as checkpoints:
        for steps in tuning.epochs[tuning.epoch :]:
            for until in tuning.pauses(steps):
                tuning.train(steps, until, checkpoints)
        return tuning.end(checkpoints)


@dataclass
class FineTuning:
    """The training of one trial: what it works with, where it is, and what it has measured."""

    run: Run
    config: TrialConfig
    """That of the run, with the number of epochs that fit into its FLOPs budget."""
    state: TrainState
    tokenizer: Any
    epochs: Epochs
    flop_model: FlopModel
    watch: Watch
    progress: TrialResult
    began: float
    spent: Spent = field(default_factory=Spent)
    """The cost of the finished epochs."""
    earlier: float = 0.0
    """Seconds of earlier attempts."""
    epoch: int = 0
    """Finished epochs."""
    part: EpochPart = field(default_factory=EpochPart)
    """The epoch that has begun."""
    validated: int = 0
    """All validations due after this step or an earlier one are done."""
    furthest: int = 0
    """Step of the `progress.json` that an earlier attempt wrote after its last checkpoint. It stays until this attempt is as far, because a
    trial that the scheduler stops ends with what it has reported."""
    validation_s: float | None = None
    """Seconds of the latest validation."""
    log: StepLog = field(init=False)

    def __post_init__(self) -> None:
        optim = self.config.optim
        steps_per_epoch = -(-len(self.run.prepared.train) // optim.batch_size)
        self.log = StepLog(self.run.runtime, optim, self.total_steps, steps_per_epoch, self.spent.train_seconds)

    @classmethod
    def begin(cls, run: Run, progress: TrialResult, began: float) -> FineTuning:
        """Build the network and resume from the working checkpoint, or diagnose the untrained network."""
        config, prepared, runtime = run.config, run.prepared, run.runtime
        tokenizer = load_tokenizer(prepared.checkpoint, config.model, prepared.revision)
        state = build(config, prepared.checkpoint, prepared.train, runtime, run.scratch, prepared.revision)
        saved, flop_model = state.saved, FlopModel.of(state.network)
        epochs = affordable(all_epochs(len(prepared.train), config.optim, config.seed), prepared.train, config, flop_model, state.term)
        config = config.model_copy(update={"optim": config.optim.model_copy(update={"num_epochs": len(epochs)})})
        state.config = config
        watch = Watch(config, prepared.train, prepared.val, runtime, flop_model.per_token)
        furthest = int(progress.summary.get("steps") or 0)
        # The checkpoint contains its own progress, so the two always agree after a kill; progress.json is for other readers.
        progress = replace(progress, metrics=[], predictions=[]) if saved is None else TrialResult.from_json(saved["progress"])
        progress = replace(progress, summary={**_network_columns(state), **progress.summary})
        spent = _spent_before(prepared)
        tuning = cls(run, config, state, tokenizer, epochs, flop_model, watch, progress, began, spent, furthest=furthest)
        if saved is not None:
            tuning.resume(saved)
        HEARTBEAT.plan(tuning.total_steps - tuning.step, tuning.examples_left() // runtime.world_size)
        if saved is None:
            losses = prepared.first_stage.losses if prepared.first_stage is not None else []
            for number, epoch_losses in enumerate(losses, start=1):
                tuning.add(_lines(epoch_losses, 0, number - len(losses), tuning.spent.cost()))
            tuning.add(_lines(watch.look(0, state, 0, tuning.total_steps, 0.0), 0, 0, tuning.spent.cost()))
        return tuning

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Continue where a checkpoint was taken; an older version's was taken after an epoch and its validation."""
        self.epoch, self.spent = saved["epoch"], Spent.of(saved["spent"])
        self.earlier = self.spent.wall
        self.part = EpochPart.of(saved["part"], self.run.runtime) if "part" in saved else EpochPart()
        # Validations that were not due when their steps were trained are not made up for: the scheduler may have changed since.
        self.validated = max(saved.get("validated", self.step), self.step - 1)
        self.log.resume(saved.get("step_log"), self.spent.train_seconds + self.part.seconds)
        self.watch.resume(saved["watch"])
        # On a GPU the size of passes decides LoRA's dropout masks, so it stays, unless there is less memory now.
        sizes = [size for size in (self.state.tokens_that_fit, saved.get("tokens_that_fit")) if size is not None]
        self.state.tokens_that_fit = min(sizes) if self.state.tokens_that_fit is not None else None

    def snapshot(self) -> dict[str, Any]:
        """Everything needed to continue after the last step, for `checkpoint.write`. Every rank calls this."""
        self.spent.wall = self.earlier + time.perf_counter() - self.began
        return self.state.snapshot(
            epoch=self.epoch,
            part=self.part.saved(self.run.runtime),
            validated=self.validated,
            spent=asdict(self.spent),
            progress=self.progress.to_json(),
            step_log=self.log.saved(),
            watch=self.watch.state(),
            tokens_that_fit=self.state.tokens_that_fit,
        )

    @property
    def step(self) -> int:
        """Finished optimizer steps."""
        return self.spent.step + self.part.steps

    @property
    def total_steps(self) -> int:
        return sum(map(len, self.epochs))

    def add(self, lines: list[dict[str, Any]], **changes: Any) -> None:
        """Add rows of the metrics table, and replace other parts of the progress."""
        self.progress = replace(self.progress, metrics=[*self.progress.metrics, *lines], **changes)
        if self.run.runtime.rank == 0:
            self.run.runtime.observe(lines)

    def due(self) -> list[int]:
        """Steps after which validations are still due."""
        return [step for step in validated_after(self.epochs, self.config.evaluation) if step > self.validated]

    def examples_left(self) -> int:
        """Examples still to evaluate, in all validations and the test."""
        tested = len(self.run.prepared.test) if self.config.evaluation.test and self.run.prepared.test is not None else 0
        return len(self.due()) * len(self.run.prepared.val) + tested

    def pauses(self, steps: Sequence[Rows]) -> list[int]:
        """The numbers of steps of the current epoch after which training pauses: for validations, and at its end."""
        within = [step - self.spent.step for step in self.due()]
        return [*(step for step in within if step < len(steps)), len(steps)]

    def train(self, steps: Sequence[Rows], until: int, checkpoints: Checkpoints) -> None:
        """Train the current epoch up to its step `until`; validate if that is due, diagnose if the epoch ends, and report."""
        run, state, ends, total_steps = self.run, self.state, until == len(steps), self.total_steps
        state.network.train()

        def after_step(step: int) -> None:
            self.log.after_step(self.spent, self.part, self.epoch, self.flop_model, last=self.part.steps == len(steps))
            checkpoints.after_step(step)

        with packed_ahead(state, steps[self.part.steps : until], self.step) as packed:
            totals = train_epoch(
                lambda rows, step: self.log.add(train_step(state, rows, step, total_steps, next(packed)), state.grad_norm),
                steps,
                self.spent.step,
                total_steps,
                run.runtime,
                part=self.part,
                until=until,
                after_step=after_step,
            )
        step, predictions = self.spent.step + until, self.progress.predictions
        values: dict[str, float] = {}
        if ends:
            values["train_ce"] = totals.ce_sum / max(1, totals.num_labels)
            if totals.num_pairs:
                values["train_jepa"] = totals.jepa_sum / totals.num_pairs
        if validates := step in self.due():
            checkpoints.before(self.validation_s)
            started = time.perf_counter()
            with state.gathered() as network:
                scores, predictions = evaluate(
                    network, self.tokenizer, run.prepared.val, "val", self.config, run.runtime, run.prepared.labels
                )
            self.validation_s = time.perf_counter() - started
            self.spent.val_seconds += self.validation_s
            values |= scores
        spent = replace(self.spent, wall=self.earlier + time.perf_counter() - self.began)
        spent.train(totals, self.flop_model, self.part.steps, self.part.seconds)
        # Of a full epoch: a FLOPs budget may end within one.
        epoch = self.epoch + until / self.log.steps_per_epoch
        diagnostics: dict[str, float] = {}
        if ends:
            HEARTBEAT.enter("diagnose")
            diagnostics = self.watch.look(self.epoch + 1, state, step, total_steps, float(spent.flops))
            spent.wall = self.earlier + time.perf_counter() - self.began
            self.epoch, self.part, self.spent = self.epoch + 1, EpochPart(), spent
        self.validated = step
        how = {"compiled": state.network.compiled, "attention_used": _attention(state)}
        summary = self.progress.summary | values | spent.cost() | self.watch.columns() | spent.columns(int(epoch), run.runtime) | how
        self.add(_lines(values | diagnostics, step, epoch, spent.cost()), summary=summary, predictions=predictions)
        HEARTBEAT.enter("save")
        if run.runtime.rank == 0 and step >= self.furthest:
            save_progress(run.scratch / "progress.json", self.log.into(self.progress))
        if step < total_steps:
            checkpoints.save_if_due()
            if validates:
                run.report({"epoch": epoch, "step": step, **spent.cost(), **values})

    def end(self, checkpoints: Checkpoints) -> TrialResult:
        """The result; in the confirmation, after scoring the test split, before which a checkpoint is saved if too much could be lost."""
        progress, run = self.progress, self.run
        if self.config.evaluation.test:
            per_example = None if self.validation_s is None else self.validation_s / len(run.prepared.val)
            checkpoints.save_if_due(None if per_example is None else per_example * len(run.prepared.test or ()))
            with self.state.gathered() as network:
                progress = score_test(progress, network, self.tokenizer, run.prepared, self.config, run.runtime)
            progress = replace(progress, embeddings=self.watch.keep(self.state))
            progress = replace(progress, summary=progress.summary | self.watch.columns())
        HEARTBEAT.enter("save")
        kept = {"model_error": keep_model(self.state, self.tokenizer, run.prepared, run.config)}
        final = {**progress.summary, **kept, "wall_seconds": self.earlier + time.perf_counter() - self.began, "finished_at": now()}
        return self.log.into(replace(progress, state="COMPLETE", summary=final))


def _network_columns(state: TrainState) -> dict[str, Any]:
    """Columns of `trials` that depend on the network only; PackingError if packed rows would train differently from separate ones."""
    bf16 = uses_bf16(state.config.model, torch.device(state.runtime.device))
    # Measured on the weights that training starts from.
    with state.gathered() as network:
        error = compilable(network, lambda: attention_error(network, state.table, state.backend, objective=state.objective, bf16=bf16))
        check_head(network, state.table, bf16=bf16)
    state.network.kernel = network.kernel  # it has fallen back if its kernel cannot be compiled
    parameters = list(state.network.parameters())
    return {
        "attention_error": error,
        "packing_used": state.backend,
        "attention_used": _attention(state),
        "num_parameters": sum(parameter.numel() for parameter in parameters),
        "num_trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "lambda_used": state.term.weight if state.term is not None and state.term.is_weighed else 0.0,
    }


def _attention(state: TrainState) -> str:
    return "plain" if state.backend == "plain" else state.network.kernel


def _spent_before(prepared: Prepared) -> Spent:
    """Cost of the first stage, if there was one."""
    first = prepared.first_stage
    if first is None:
        return Spent()
    return Spent(tokens=first.tokens, flops=first.flops, unpacked=first.unpacked_flops, train_seconds=first.seconds)


def _lines(values: Mapping[str, float], step: int, epoch: float, cost: Mapping[str, float]) -> list[dict[str, Any]]:
    """Rows of the metrics table; the first word of a metric's name is its split (`val_exact`, `diag_rank_text`)."""
    return [
        {"step": step, "epoch": epoch, "split": name.split("_")[0], "name": name, "value": value, **cost} for name, value in values.items()
    ]


def score_test(
    progress: TrialResult, network: Network, tokenizer: Any, prepared: Prepared, config: TrialConfig, runtime: Runtime
) -> TrialResult:
    if prepared.test is None:
        raise ValueError("evaluation.test is on, but no test split was loaded; set data.test")
    started = time.perf_counter()
    scores, rows = evaluate(network, tokenizer, prepared.test, "test", config, runtime, prepared.labels)
    last = progress.metrics[-1]
    cost = {name: last[name] for name in ("step", "epoch", "train_flops", "train_flops_unpacked", "train_seconds")}
    return replace(
        progress,
        summary={
            **progress.summary,
            **scores,
            "chance": chance(config, prepared, prepared.test),
            "test_seconds": time.perf_counter() - started,
        },
        metrics=[*progress.metrics, *({**cost, "split": "test", "name": name, "value": value} for name, value in scores.items())],
        predictions=[*progress.predictions, *rows],
    )
