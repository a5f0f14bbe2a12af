"""Estimate a sweep's cost before it runs: examples, tokens, FLOPs and disk of one trial per arm, from real tokenisation and shapes.

No weights are loaded and no network is trained: a tiny model's tokenizer is trained on the fly (about a second), a checkpoint's is
read, and the network exists on the meta device only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from jepa_ray.config import Arm, ModelConfig, ObjectiveConfig, ResourcesConfig, SweepConfig, TrialConfig, arms
from jepa_ray.data.datasets import OWN, first_stage, task_of
from jepa_ray.data.example import Example
from jepa_ray.data.packing import make_batch
from jepa_ray.data.report import labelled, of_family, of_task
from jepa_ray.data.views import TokenTable, tokenize_split
from jepa_ray.models.auto import resolved
from jepa_ray.models.families import AUTO, ModelFamily, get_family, published_family
from jepa_ray.models.loading import add_lora
from jepa_ray.models.network import Network
from jepa_ray.models.shapes import ARCHITECTURES, Shape
from jepa_ray.models.tiny import tiny_config
from jepa_ray.objectives.layouts import views_of
from jepa_ray.plan import Estimate, trial_config
from jepa_ray.preparation.demand import demand
from jepa_ray.preparation.prepare import check_lengths, found_report, token_report, usable_family
from jepa_ray.preparation.references import golds_lost, judged_references
from jepa_ray.preparation.rows import draw
from jepa_ray.preparation.stand_ins import PlannedData, planned_checkpoint, planned_data
from jepa_ray.preparation.tiny_base import base_tokenizer, split_for_base
from jepa_ray.training.cost import FlopModel
from jepa_ray.training.first_stage import stages
from jepa_ray.training.jepa_term import active_objective
from jepa_ray.training.runtime import StepTotals
from jepa_ray.training.state import backend_of
from jepa_ray.training.step import totals_of

SAMPLE = 256
"""Examples that are packed to estimate the tokens per example."""


@dataclass(frozen=True)
class _Workload:
    """Data and shapes of one family and task."""

    tokenizer: Any
    table: TokenTable
    """Tokenised fine-tuning split."""
    generated: bool
    """Whether the examples are stand-ins for data that this machine does not have."""
    scale: float
    """Examples of the data per example generated in their place; 1 if they are real."""
    first_stage_table: TokenTable | None
    """Tokenised training split of the first stage, if there is one."""
    first_stage_scale: float
    flops: FlopModel
    """Of the network with adapters."""
    whole_flops: FlopModel
    """Of the network without adapters, as the first stage trains it."""
    num_trainable: int
    shape: Shape | None
    """None if the architecture's memory cannot be computed."""
    num_val: int
    num_test: int
    note: str | None
    """Says that the checkpoint is not the real one; None if it is."""
    plain_because: str | None
    """Why sequences of this model cannot share rows, in words; None: they can."""


def estimate(sweep: SweepConfig) -> tuple[dict[str, Estimate], list[str]]:
    """Estimates by arm name, and facts about the data in words.

    Arms whose data or checkpoint cannot be used have no estimate; the facts contain the reason. ValueError if no arm can be run.
    """
    facts: list[str] = []
    workloads: dict[tuple[str, str], _Workload] = {}
    refused: list[str] = []
    stage: PlannedData | None = None
    if sweep.pretrain is not None:
        stage = planned_data(sweep.pretrain.data)
        facts += [f"first stage: {stage.note}"] if stage.note is not None else []
    for task in sweep.tasks:
        try:
            planned = planned_data(sweep.data_of(task))
            judged = judged_references(planned.data, sweep.base.evaluation, planned.splits) if planned.note is None else {}
        except ValueError as error:
            refused.append(f"{task} cannot be run: {error}")
            continue
        checked = {**planned.splits.report, **judged}
        facts += labelled(of_task(checked) if planned.note is None else [planned.note], task)
        for family in sweep.families:
            try:
                workload, report = _workload(sweep, family, task, planned, stage)
            except ValueError as error:
                refused.append(f"{family} {task} cannot be run: {error}")
                continue
            workloads[family, task] = workload
            told = [*([workload.note] if workload.note is not None else []), *of_family(report)]
            facts += labelled(told, task, family)
    if not workloads:
        raise ValueError("\n".join(refused))
    runnable = [(arm, workloads[pair]) for arm in arms(sweep) if (pair := (arm.family, arm.task)) in workloads]
    estimates = {arm.name: _one(_trial(sweep, arm, workload), workload, sweep.placement) for arm, workload in runnable}
    arm, workload = next(((arm, one) for arm, one in runnable if sweep.methods[arm.method] is not None), runnable[0])
    config = stages(_trial(sweep, arm, workload))[1]
    remarks = (
        (workload.generated, "generated in place of the data"),
        (workload.note is not None, "the tokens are those of a stand-in tokenizer"),
        (len(workloads) > 1, "other families and tasks are not shown"),
    )
    drawn = draw(arm.name, config, workload.table, workload.tokenizer, [remark for holds, remark in remarks if holds])
    estimates[arm.name] = replace(estimates[arm.name], rows=tuple(drawn))
    return estimates, [*refused, *facts]


def _trial(sweep: SweepConfig, arm: Arm, workload: _Workload) -> TrialConfig:
    """An arm's first trial, with `packing: auto` resolved for its model."""
    config = trial_config(sweep, arm, {})
    return config.model_copy(update={"model": resolved(config.model, workload.plain_because)})


def _workload(
    sweep: SweepConfig, family: str, task: str, planned: PlannedData, stage_data: PlannedData | None
) -> tuple[_Workload, dict[str, Any]]:
    """Data and shapes of a family and task, and the data report. `stage_data`: of the first stage, if there is one."""
    name, data, splits = sweep.model_of(family), planned.data, planned.splits
    model = ModelConfig(family=family, model=name, **sweep.base.model.model_dump())
    first, left_out = first_stage(stage_data.data, splits, planned.data) if stage_data is not None else ((), 0)
    examples: Sequence[Example] = splits.train
    base: Sequence[Example] = ()
    note: str | None = None
    checkpoint = name if name not in ("tiny", "paper") else get_family(family).paper_model
    if name == "tiny":
        record = get_family(family)
    else:
        record, tokenizer, shape, note = _checkpoint(sweep, model, checkpoint, [*examples, *first])
    if name == "tiny" and model.init == "random":
        tokenizer = base_tokenizer(record, [*examples, *first])
        shape = tiny_config(record, tokenizer)
    elif name == "tiny":
        base, examples = split_for_base(splits.train, data)
        tokenizer = base_tokenizer(record, base)
        shape = tiny_config(record, tokenizer)
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(shape)
        whole = FlopModel.of(Network(lm))
        if sweep.base.lora is not None:
            lm = add_lora(lm, record, sweep.base.lora, seed=0)
        network = Network(lm)
    table = tokenize_split(examples, tokenizer, record, data.max_length)
    stage = sweep.pretrain
    first_stage_table = tokenize_split(first, tokenizer, record, stage.data.max_length) if stage is not None and first else None
    num_trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    cap = sweep.max_new_tokens_of(task) or task_of(data).max_new_tokens
    check_lengths(record, sweep, [table, *([first_stage_table] if first_stage_table is not None else [])], cap)
    judged: list[TokenTable] = []
    if planned.note is None and note is None and data.task == OWN:
        judged = [tokenize_split([*splits.val, *splits.test], tokenizer, record, data.max_length, scored=True)]
    report = {
        "tokens": {"train": token_report(table, cap)},
        "golds_lost": golds_lost(task_of(data).judge, data, sweep.base.evaluation, judged, tokenizer),
        "base_examples": len(base),
        "max_length": data.max_length,
        "max_new_tokens": cap,
        "pretrain_left_out": left_out if stage_data is not None and stage_data.note is None else 0,
        **found_report(record, checkpoint),
        "unknown_memory": shape.model_type if shape.model_type not in ARCHITECTURES else None,
    }
    workload = _Workload(
        tokenizer=tokenizer,
        table=table,
        generated=planned.note is not None,
        scale=planned.num_train / len(splits.train),
        first_stage_table=first_stage_table,
        first_stage_scale=stage_data.num_train / len(stage_data.splits.train) if stage_data is not None else 1.0,
        flops=FlopModel.of(network),
        whole_flops=whole,
        num_trainable=num_trainable,
        shape=Shape.of(shape.to_dict()) if shape.model_type in ARCHITECTURES else None,
        num_val=planned.num_val,
        num_test=planned.num_test,
        note=note,
        plain_because=record.plain_because,
    )
    return workload, report


def _checkpoint(
    sweep: SweepConfig, model: ModelConfig, checkpoint: str, examples: Sequence[Example]
) -> tuple[ModelFamily, Any, Any, str | None]:
    """(family, tokenizer, Transformers config, note) of a checkpoint. One that `auto` cannot read here has the record in which it is."""
    try:
        tokenizer, shape, note = planned_checkpoint(checkpoint, model, examples)
        return usable_family(sweep, model, checkpoint, None), tokenizer, shape, note
    except ValueError:
        known = published_family(checkpoint) if model.family == AUTO else None
        if known is None:
            raise
        tokenizer, shape, note = planned_checkpoint(checkpoint, model.model_copy(update={"family": known}), examples)
        if note is None:  # it can be read, so the error is about something else
            raise
        return get_family(known), tokenizer, shape, note


def _one(config: TrialConfig, workload: _Workload, resources: ResourcesConfig) -> Estimate:
    first, second = stages(config)
    tokens, operations = _cost(second, workload.table, workload.flops, workload.scale)
    if first is not None and workload.first_stage_table is not None:
        more_tokens, more_operations = _cost(first, workload.first_stage_table, workload.whole_flops, workload.first_stage_scale)
        tokens, operations = tokens + more_tokens, operations + more_operations
    return Estimate(
        train_examples=round(len(workload.table) * workload.scale),
        train_tokens=tokens,
        train_flops=operations,
        checkpoint_bytes=3.0 * 4 * workload.num_trainable,  # fp32 weights and two moments
        test_examples=workload.num_test,
        demand=demand(config, workload.shape, workload.table, workload.first_stage_table, resources, workload.num_val, workload.num_test)
        if workload.shape is not None
        else None,
    )


def _cost(config: TrialConfig, table: TokenTable, flops: FlopModel, examples: float) -> tuple[float, float]:
    """Tokens and operations of training with this configuration on `examples` times as many examples as the table has."""
    size = min(config.optim.batch_size, len(table))
    objective = active_objective(config)
    count = min(len(table), max(size, SAMPLE))

    def totals(objective: ObjectiveConfig | None) -> StepTotals:
        sums = StepTotals()
        for start in range(0, count, size):
            rows = list(range(start, min(start + size, count)))
            batch = make_batch(
                table,
                rows,
                backend=backend_of(config),
                views=views_of(objective, table, rows) if objective is not None else None,
                loss_on=config.optim.loss_on,
                train_end_of_turn=config.optim.train_end_of_turn,
            )
            sums.add(totals_of(batch))
        return sums

    share = objective.active_share if objective is not None else 0.0
    parts = [(1 - share, totals(None))] + ([(share, totals(objective))] if objective is not None else [])
    scale = config.optim.num_epochs * examples * len(table) / count
    return scale * sum(weight * part.tokens for weight, part in parts), scale * sum(
        weight * flops.train_flops(part) for weight, part in parts
    )
