"""What a trial needs memory and time for: its micro-batches, packed from a sample of the tokenised data, and its prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jepa_ray.config import ResourcesConfig, TrialConfig
from jepa_ray.data.packing import make_batch
from jepa_ray.data.views import TokenTable
from jepa_ray.evaluation.decode import CPU_ROWS, GPU_ROWS
from jepa_ray.models.footprint import Training, labels_at_once
from jepa_ray.models.shapes import Shape
from jepa_ray.objectives.layouts import views_of
from jepa_ray.plan import Demand, EvaluationDemand, Pass, StageDemand
from jepa_ray.training.first_stage import stages
from jepa_ray.training.jepa_term import active_objective
from jepa_ray.training.micro_batches import shares
from jepa_ray.training.placement import kernel_of
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.state import StepInputs, backend_of
from jepa_ray.training.step import totals_of

SAMPLE = 256
"""Examples whose micro-batches are packed."""


def demand(
    config: TrialConfig,
    shape: Shape,
    table: TokenTable,
    first_stage_table: TokenTable | None,
    resources: ResourcesConfig,
    num_val: int,
    num_test: int,
) -> Demand:
    """What a trial of this configuration needs memory and time for. `num_val`, `num_test`: examples of these splits."""
    first, second = stages(config)
    on_gpu = resources.gpus_per_worker != 0
    out = []
    if first is not None and first_stage_table is not None:
        out.append(_stage(first, shape, first_stage_table, resources, on_gpu))
    out.append(_stage(second, shape, table, resources, on_gpu))
    evaluation, cap = config.evaluation, config.evaluation.max_new_tokens
    answers = table.lm.lengths - table.prompt_length
    longest = int(answers.max()) if cap is None else min(int(answers.max()), cap)
    return Demand(
        shape=shape,
        stages=tuple(out),
        evaluation=EvaluationDemand(
            prompts=num_val,
            test_prompts=num_test,
            validations=math.ceil(config.optim.num_epochs / evaluation.every),
            prompt_tokens=float(np.mean(table.prompt_length)),
            answer_tokens=0 if table.options else longest,
            batch_size=evaluation.batch_size or (min(GPU_ROWS, max(1, num_val)) if on_gpu else CPU_ROWS),
            automatic=on_gpu and evaluation.batch_size is None,
        ),
    )


def _stage(config: TrialConfig, shape: Shape, table: TokenTable, resources: ResourcesConfig, on_gpu: bool) -> StageDemand:
    model, lora, objective = config.model, config.lora, active_objective(config)
    device, workers = "cuda" if on_gpu else "cpu", resources.workers_per_trial
    count = min(len(table), max(config.optim.batch_size, SAMPLE))
    inputs = StepInputs(config=config, table=table, runtime=Runtime(world_size=workers, device=device))
    steps = [np.arange(start, min(start + config.optim.batch_size, count)) for start in range(0, count, config.optim.batch_size)]
    groups = [shares(inputs, step, objective) for step in steps]
    packed = [_pass(config, table, group) for step in groups for group in step if group]
    return StageDemand(
        training=Training(
            rank=lora.r if lora is not None else None,
            dropout=lora.dropout if lora is not None else 0.0,
            precision="bf16" if model.precision == "bf16" or (model.precision == "auto" and on_gpu) else "fp32",
            average=objective is not None and objective.target == "ema",
            gradient_checkpointing=model.gradient_checkpointing,
            workers=workers,
            kernel=kernel_of(model, device) if inputs.backend != "plain" else "bucketed",
            sharding="fsdp" if resources.sharding == "fsdp" else "ddp",
            device="cuda" if on_gpu else "cpu",
        ),
        largest=max(packed, key=lambda one: one.tokens),
        examples=max(len(group) for step in groups for group in step),
        single=_pass(config, table, [int(table.lm.lengths.argmax())]),
        accumulates=max(map(len, groups)) > 1,
        labels_at_once=labels_at_once(shape.vocabulary),
        automatic=on_gpu and inputs.sized_by_memory(objective),
    )


def _pass(config: TrialConfig, table: TokenTable, rows: Sequence[int]) -> Pass:
    objective = active_objective(config)
    batch = make_batch(
        table,
        list(rows),
        backend=backend_of(config),
        views=views_of(objective, table, rows) if objective is not None else None,
        loss_on=config.optim.loss_on,
        train_end_of_turn=config.optim.train_end_of_turn,
    )
    totals = totals_of(batch)
    return Pass(tokens=totals.tokens, path_tokens=totals.path_tokens, labels=totals.num_labels, pairs=totals.path_attended)
