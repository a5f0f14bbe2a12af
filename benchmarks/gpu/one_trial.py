"""A trial in this process: `python -m benchmarks.gpu.one_trial --scratch DIR --result FILE ...`, which `trials.py` kills and restarts.

The network is the tiny Llama with random weights, even on a GPU: the only question is whether a trial resumes where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.gpu import data, models
from benchmarks.gpu.form import Form, write
from jepa_ray.config import EvaluationConfig, LoraConfig, ModelConfig, ObjectiveConfig, OptimConfig, SweepConfig, TrialConfig
from jepa_ray.preparation.prepare import prepare
from jepa_ray.results import TrialResult
from jepa_ray.training import fine_tuning
from jepa_ray.training.epochs import Rows
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.runtime import StepTotals
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import train_step
from jepa_ray.training.trial import run_trial

EPOCHS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trial, or the rest of it, and write its result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.one_trial", description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path)
    options = parser.parse_args(argv)
    form = Form(options.scratch.parent, options.device, data=options.data)
    prepared = prepared_for(form, "tiny", train=96, val=16)
    config = config_for(prepared, lora=LoraConfig(), epochs=EPOCHS, batch_size=8, max_new_tokens=8, learning_rate=1e-3)
    trained: list[int] = []

    def counted(state: TrainState, rows: Rows, step: int, *others: Any) -> StepTotals:
        trained.append(step)
        return train_step(state, rows, step, *others)

    with mock.patch.object(fine_tuning, "train_step", counted):
        runtime = replace(models.runtime(form), checkpoint_minutes=0.0)  # a checkpoint after every step
        result = run_trial(config, prepared, runtime, lambda metrics: None, options.scratch)
    write(options.result, {"state": result.state, "error": result.error, "trained": trained, **outcome(result)})
    return int(result.state != "COMPLETE")


def prepared_for(form: Form, model: str, *, train: int, val: int) -> Prepared:
    """Tokenised regexes for a network with random weights: `tiny`, or a folder with a configuration and a tokenizer."""
    file = data.file_of("nl-rx", form.data)
    sweep = SweepConfig.model_validate(
        {
            "name": "trial",
            "methods": {"jepa": models.JEPA},
            "model": model,
            "base": {"model": {"init": "random"}},
            "data": {"num_train": train, "num_val": val, **({"train": str(file)} if file is not None else {"num_test": 1})},
        }
    )
    return prepare(sweep, "llama3", "nl-rx")


def config_for(
    prepared: Prepared, *, lora: LoraConfig | None, epochs: int, batch_size: int, max_new_tokens: int, learning_rate: float
) -> TrialConfig:
    """The trial's configuration."""
    return TrialConfig(
        model=ModelConfig(family="llama3", model=prepared.checkpoint, init="random"),
        lora=lora,
        objective=ObjectiveConfig.model_validate(models.JEPA),
        optim=OptimConfig(learning_rate=learning_rate, num_epochs=epochs, batch_size=batch_size),
        evaluation=EvaluationConfig(max_new_tokens=max_new_tokens, diagnostic_pairs=16),
    )


def outcome(result: TrialResult) -> dict[str, Any]:
    """The results that must not depend on an interruption of the trial."""
    names = [name for name in result.summary if name.startswith(("val_", "train_ce", "train_jepa")) and not name.endswith("_seconds")]
    lines = [[row["epoch"], row["name"], row["value"]] for row in result.metrics if row["split"] in ("train", "val")]
    return {
        "numbers": {name: result.summary[name] for name in names},
        "lines": lines,
        "predictions": [row["prediction"] for row in result.predictions],
    }


if __name__ == "__main__":
    sys.exit(main())
