"""What every column of a sweep's tables contains, as a list for documentation.

Descriptions are in `schema.py`; those of a trial's settings are the docstrings of the fields in `config/`.
"""

from __future__ import annotations

import re
from typing import get_args

from jepa_ray.config import (
    OWN_DATA,
    DataConfig,
    EvaluationConfig,
    GradRatio,
    LoraConfig,
    MaskedConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    PretrainConfig,
    TrialConfig,
)
from jepa_ray.config.record import Record, docstrings
from jepa_ray.results.schema import ARMS, COLUMNS, CONFIG, EMBEDDINGS, IDENTITY, METRICS, PREDICTIONS, SUMMARY, TRIALS

TABLES = {
    "trials": "One row per trial that has ended: identity, configuration, final metrics, cost, provenance. A trial that ended early has "
    "null in every column whose value it did not reach.",
    "metrics": "Curves: one row per step, split and metric. The steps of the split `step` depend on the clock, so nothing compares them.",
    "predictions": "One row per evaluated example: all of test, and those of the last validation.",
    "embeddings": "One row per view of a pair, after training: only in the confirmation, and if `evaluation.embeddings` requests them.",
    "arms": "One row per arm: what is compared with what, declared before the first trial.",
}
"""What a row of each table is."""

_SCHEMAS = {"trials": TRIALS, "metrics": METRICS, "predictions": PREDICTIONS, "embeddings": EMBEDDINGS, "arms": ARMS}
_RENAMED: dict[tuple[type[Record], str], str] = {
    (DataConfig, "train"): "train_file",
    (DataConfig, "test"): "test_file",
    **{(DataConfig, name): f"data_{name}" for name in OWN_DATA},
    (EvaluationConfig, "batch_size"): "eval_batch_size",
    (EvaluationConfig, "every"): "eval_every",
    (EvaluationConfig, "at_steps"): "eval_at_steps",
    (EvaluationConfig, "test"): "evaluate_test",
    (ObjectiveConfig, "distance"): "objective",
}
"""Fields whose column is not the field's own name; see `config.columns`."""
_BASELINES = {
    "objective": "`none` for baselines.",
    "gamma": "1 for baselines.",
    "k": "0 for baselines.",
    "loss_dropout": "0 for baselines.",
}


def describe() -> list[tuple[str, str, str, str]]:
    """(table, column, type, description) of every column of every table, in the order of the files."""
    described = {"trials": _settings()} | {table: {} for table in COLUMNS}
    for table, columns in (("trials", IDENTITY), ("trials", SUMMARY), *COLUMNS.items()):
        described[table] |= {name: column.description for name, column in columns.items()}
    return [(table, field.name, str(field.type), described[table][field.name]) for table, schema in _SCHEMAS.items() for field in schema]


def _settings() -> dict[str, str]:
    """Column of CONFIG -> the docstring of its field, and when the column is null."""
    parts: tuple[tuple[type[Record], str, str], ...] = (
        (ModelConfig, "", ""),
        (DataConfig, "", ""),
        (OptimConfig, "", ""),
        (EvaluationConfig, "", ""),
        (ObjectiveConfig, "", "Null for baselines."),
        (MaskedConfig, "", "Null for causal models."),
        (LoraConfig, "lora_", "Null without LoRA."),
        (PretrainConfig, "pretrain_", "Null without a first stage."),
        (DataConfig, "pretrain_", "Null without a first stage."),
    )
    out = {"seed": docstrings(TrialConfig)["seed"]}
    for record, prefix, empty in parts:
        for name, text in docstrings(record).items():
            field = record.model_fields[name]
            column = _RENAMED.get((record, name), field.alias or name)
            if prefix == "pretrain_" and name not in PretrainConfig.__annotations__:
                about = f"As `{column}`, for the first stage."
            else:
                # Only the start of a sentence is capitalised.
                about = re.sub(r"(^|\. )None\b", r"\1Null", text).replace("None", "null")
                if type(None) in get_args(field.annotation) and "null" not in about.lower():
                    about += " Null if not given."
            ending = _BASELINES.get(column, empty) if record is ObjectiveConfig else empty
            out[prefix + column] = f"{about} {ending}".rstrip()
    out["lambda"] = "Weight of the JEPA term; 0 for baselines. Null if the first step's gradients decide it (`lambda_grad_ratio`)."
    out["lambda_grad_ratio"] = f"{docstrings(GradRatio)['grad_ratio']} Null if lambda is a number."
    out["eval_at_steps"] += " A list joined by `;`. Null if there are none."
    return {name: out[name] for name in CONFIG}
