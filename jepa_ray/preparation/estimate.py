"""Estimate a sweep's cost before it runs: examples, tokens, FLOPs and disk of one trial per arm, from real tokenisation and shapes.

No weights are loaded and no network is trained: a tiny model's tokenizer is trained on the fly (about a second), a checkpoint's is
read, and the network exists on the meta device only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from jepa_ray.config import ModelConfig, ObjectiveConfig, SweepConfig, TrialConfig, arms
from jepa_ray.data.datasets import DATASETS, Splits, first_stage, load_splits
from jepa_ray.data.example import Example
from jepa_ray.data.packing import make_batch
from jepa_ray.data.report import of_family, of_task
from jepa_ray.data.views import TokenTable, tokenize_split
from jepa_ray.models.families import get_family
from jepa_ray.models.loading import add_lora, check_rows, load_config, load_tokenizer
from jepa_ray.models.network import Network
from jepa_ray.models.tiny import tiny_config
from jepa_ray.objectives.layouts import views_of
from jepa_ray.plan import Estimate, trial_config
from jepa_ray.preparation.prepare import golds_unscored, token_report
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

    table: TokenTable
    """Tokenised fine-tuning split."""
    first_stage_table: TokenTable | None
    """Tokenised training split of the first stage, if there is one."""
    flops: FlopModel
    """Of the network with adapters."""
    whole_flops: FlopModel
    """Of the network without adapters, as the first stage trains it."""
    num_trainable: int
    num_test: int


def estimate(sweep: SweepConfig) -> tuple[dict[str, Estimate], list[str]]:
    """Estimates by arm name, and facts about the data in words.

    Arms whose data or checkpoint cannot be used have no estimate; the facts contain the reason. ValueError if no arm can be run.
    """
    facts: list[str] = []
    workloads: dict[tuple[str, str], _Workload] = {}
    refused: list[str] = []
    for task in sweep.tasks:
        try:
            splits = load_splits(sweep.data_of(task))
            unscored = golds_unscored(DATASETS[task].judge, sweep.data_of(task), sweep.base.evaluation, [*splits.val, *splits.test])
        except ValueError as error:
            refused.append(f"{task} cannot be run: {error}")
            continue
        facts += [f"{task}: {sentence}" for sentence in of_task({**splits.report, "golds_unscored": unscored})]
        for family in sweep.families:
            try:
                workload, report = _workload(sweep, family, task, splits)
            except ValueError as error:
                refused.append(f"{family} {task} cannot be run: {error}")
                continue
            workloads[family, task] = workload
            facts += [f"{family} {task}: {sentence}" for sentence in of_family(report)]
    if not workloads:
        raise ValueError("\n".join(refused))
    runnable = [(arm, workloads[pair]) for arm in arms(sweep) if (pair := (arm.family, arm.task)) in workloads]
    return {arm.name: _one(trial_config(sweep, arm, {}), workload) for arm, workload in runnable}, [*refused, *facts]


def _workload(sweep: SweepConfig, family: str, task: str, splits: Splits) -> tuple[_Workload, dict[str, Any]]:
    """Data and shapes of a family and task, and the data report."""
    name, data, record = sweep.model_of(family), sweep.data_of(task), get_family(family)
    model = ModelConfig(family=family, model=name, **sweep.base.model.model_dump())
    first, left_out = first_stage(sweep.pretrain.data, splits, task) if sweep.pretrain is not None else ((), 0)
    examples: Sequence[Example] = splits.train
    base: Sequence[Example] = ()
    if name == "tiny" and model.init == "random":
        tokenizer = base_tokenizer(record, [*examples, *first])
        shape = tiny_config(record, tokenizer)
    elif name == "tiny":
        base, examples = split_for_base(splits.train, data)
        tokenizer = base_tokenizer(record, base)
        shape = tiny_config(record, tokenizer)
    else:
        checkpoint = record.paper_model if name == "paper" else name
        tokenizer = load_tokenizer(checkpoint, model)
        shape = load_config(checkpoint, model)
        check_rows(tokenizer, shape, checkpoint)
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
    cap = sweep.max_new_tokens_of(task) or DATASETS[task].max_new_tokens
    report = {
        "tokens": {"train": token_report(table, cap)},
        "base_examples": len(base),
        "max_length": data.max_length,
        "max_new_tokens": cap,
        "pretrain_left_out": left_out,
    }
    return _Workload(table, first_stage_table, FlopModel.of(network), whole, num_trainable, len(splits.test)), report


def _one(config: TrialConfig, workload: _Workload) -> Estimate:
    first, second = stages(config)
    tokens, operations = _cost(second, workload.table, workload.flops)
    if first is not None and workload.first_stage_table is not None:
        more_tokens, more_operations = _cost(first, workload.first_stage_table, workload.whole_flops)
        tokens, operations = tokens + more_tokens, operations + more_operations
    return Estimate(
        train_examples=len(workload.table),
        train_tokens=tokens,
        train_flops=operations,
        checkpoint_bytes=3.0 * 4 * workload.num_trainable,  # fp32 weights and two moments
        test_examples=workload.num_test,
    )


def _cost(config: TrialConfig, table: TokenTable, flops: FlopModel) -> tuple[float, float]:
    """Tokens and operations of training with this configuration."""
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
    scale = config.optim.num_epochs * len(table) / count
    return scale * sum(weight * part.tokens for weight, part in parts), scale * sum(
        weight * flops.train_flops(part) for weight, part in parts
    )
