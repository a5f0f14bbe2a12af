"""What a trial needs memory for is counted from the micro-batches that training makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_ray.config import LoraConfig, ObjectiveConfig, ResourcesConfig
from jepa_ray.models.footprint import Training
from jepa_ray.models.loading import load_config
from jepa_ray.models.shapes import Shape
from jepa_ray.plan import Demand
from jepa_ray.preparation.demand import demand
from jepa_ray.training.step import micro_batches, totals_of
from tests import tiny_models as tiny

JEPA = ObjectiveConfig(k=2)


def demand_of(checkpoint: Path, resources: dict[str, Any], **changes: Any) -> Demand:
    config = tiny.trial(checkpoint, optim__batch_size=32, **changes)
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:96], scored=True)
    shape = Shape.of(load_config(str(checkpoint), config.model).to_dict())
    return demand(config, shape, table, None, ResourcesConfig(**resources), num_val=70, num_test=33)


def test_the_largest_micro_batch_is_one_that_training_makes(tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    stage = demand_of(checkpoint, {"gpus_per_worker": 0}, objective=None, optim__micro_batch_size=8).stages[0]
    assert (stage.examples, stage.accumulates) == (8, True)
    config = tiny.trial(checkpoint, optim__batch_size=32, optim__micro_batch_size=8)
    inputs = tiny.inputs_of(tiny.table_of(checkpoint, tiny.EXAMPLES[:96]), config)
    made = [
        totals_of(batch)
        for start in range(0, 96, 32)
        for batch in micro_batches(inputs, np.arange(start, start + 32, dtype=np.int64), 0, None)
    ]
    largest = max(made, key=lambda totals: totals.tokens)
    assert (stage.largest.tokens, stage.largest.path_tokens) == (largest.tokens, largest.path_tokens)
    assert stage.largest.tokens / 8 < stage.single.tokens < stage.largest.tokens, "examples of a micro-batch share a prefix"


def test_the_network_on_a_gpu_is_trained_in_bf16_and_on_a_cpu_in_fp32(tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    on_gpu = demand_of(checkpoint, {"gpus_per_worker": 1, "workers_per_trial": 2}, objective=JEPA, lora=LoraConfig(r=4))
    assert on_gpu.stages[0].training == Training(rank=4, dropout=0.1, precision="bf16", workers=2, kernel="flex", device="cuda")
    assert on_gpu.stages[0].examples <= 16, "a worker's share of the batch"
    on_cpu = demand_of(checkpoint, {"gpus_per_worker": 0}, objective=ObjectiveConfig(target="ema"))
    assert on_cpu.stages[0].training == Training(dropout=0.0, precision="fp32", average=True, device="cpu")
    assert not on_cpu.stages[0].accumulates, "on a CPU a step is one pass"
    assert on_gpu.stages[0].automatic and not on_cpu.stages[0].automatic, "on a GPU its size follows from the memory"
    set_by_hand = demand_of(checkpoint, {"gpus_per_worker": 1}, objective=JEPA, optim__tokens_per_forward=200)
    assert not set_by_hand.stages[0].automatic and set_by_hand.stages[0].largest.tokens <= 200


def test_prompts_and_answers_of_the_evaluation(tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    evaluation = demand_of(checkpoint, {}, evaluation__max_new_tokens=8, evaluation__batch_size=16, optim__num_epochs=5).evaluation
    assert (evaluation.prompts, evaluation.test_prompts, evaluation.validations) == (70, 33, 5)
    assert (evaluation.batch_size, evaluation.answer_tokens) == (16, 8), "the cap is shorter than the longest answer"
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:96])
    assert evaluation.prompt_tokens == pytest.approx(np.mean(table.prompt_length))
