"""Small sweeps for tests of figures, tables and the page, written by the real writer, so that they match a real sweep's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ray import results
from jepa_ray.config import (
    Arm,
    DataConfig,
    EvaluationConfig,
    Kind,
    LoraConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    PretrainConfig,
    TrialConfig,
    config_id,
)
from jepa_ray.results import TrialResult

SEEDS = (82, 23, 37)
SWEEP = "search: {metric: val_accuracy, mode: max}\nconfirm: {seeds: [82, 23, 37]}\n"
ANSWERS = [("e:1", "[a-z]", "[a-z]"), ("e:2", "(<x>&)+", "(<x>&)+.*"), ("e:3", "\\b<x>&", "\\b")]
"""Example id, reference, prediction: one right, one with extra tokens, one with missing tokens; `<x>&` must be escaped in HTML."""


def add(
    folder: Path,
    method: str,
    stage: str,
    accuracy: float,
    *,
    seed: int = 1,
    state: str = "COMPLETE",
    family: str = "llama3",
    task: str = "nl-rx",
    objective: dict[str, Any] | None = None,
    lora_r: int | None = None,
    epochs: int = 3,
    diagnostics: bool = True,
    learning_rate: float = 1e-3,
    right: int = 1,
    cost: float = 1e9,
    max_train_flops: float | None = None,
    examples: int = 0,
    embeddings: int = 0,
    pretrain: int | None = None,
    kind: Kind = "claim",
    **summary: Any,
) -> str:
    """Write one trial with curves, diagnostics, answers (the first `right` are correct) and `embeddings` pairs; returns its id.

    `cost`: FLOPs per epoch. `examples`: number of answers, of which those are right whose hardness (the same in every trial) is below
    `accuracy`. `pretrain`: the seed of a first stage; -1 for a first stage without its own seed.
    """
    config = TrialConfig(
        model=ModelConfig(family=family, model="tiny"),
        data=DataConfig(task=task, num_val=9),
        pretrain=None if pretrain is None else PretrainConfig(data=DataConfig(task="paraphrase"), seed=None if pretrain < 0 else pretrain),
        lora=None if lora_r is None else LoraConfig(r=lora_r),
        objective=None if method.startswith("baseline") else ObjectiveConfig(**(objective or {})),
        optim=OptimConfig(learning_rate=learning_rate, max_train_flops=max_train_flops),
        evaluation=EvaluationConfig(test=stage != "search"),
        seed=seed,
    )
    splits = ("val",) if stage == "search" else ("val", "test")
    figures: dict[str, Any] = {"train_flops": cost * epochs, "train_seconds": 2.0, "wall_seconds": 3.0, "train_tokens": 1e3}
    figures |= {"epochs_done": epochs, "dataset_sha": "d", "started_at": "2026-01-01", "finished_at": "2026-01-02T03:04:05+00:00"}
    figures |= {"steps": 10 * epochs, "device": "cpu", "num_workers": 1}
    names = ("accuracy", "exact", "prefix", "contains", "stopped")
    figures |= {f"{split}_{name}": accuracy for split in splits for name in names} | summary
    result = TrialResult(
        state,  # type: ignore[arg-type]
        "Traceback ...\nRuntimeError: out of memory" if state == "FAILED" else None,
        figures,
        _metrics(accuracy, epochs, diagnostics, cost),
        [row for split in splits for row in (_drawn(split, examples, accuracy) if examples else _answers(split, right))],
        _embeddings(embeddings, seed),
    )
    trial_id = config_id(config, method)
    results.write_trial(folder, trial_id, config, f"{method}/{family}", stage, result)  # type: ignore[arg-type]
    declare(folder, method, family, task, kind)
    return trial_id


def declare(folder: Path, method: str, family: str = "llama3", task: str = "nl-rx", kind: Kind = "claim") -> None:
    """Add an arm to the arms table unless it is there: `X` is compared with `baseline`, `X-Y` with `baseline-Y` if that exists."""
    before = {arm.name: arm for arm in results.read_arms(folder)} if (folder / "arms.parquet").exists() else {}
    name = f"{method}/{family}"
    if name in before:
        return
    kind = "baseline" if method.startswith("baseline") else kind
    declared = {**before, name: Arm(method, family, task, name, kind)}
    rows = [replace(arm, baseline=None if arm.kind == "baseline" else _baseline(arm, declared)) for arm in declared.values()]
    results.write_arms(folder, rows)


def _baseline(arm: Arm, declared: Mapping[str, Arm]) -> str | None:
    _, dash, suffix = arm.method.partition("-")
    names = (f"baseline{dash}{suffix}/{arm.family}", f"baseline/{arm.family}")
    return next((name for name in names if name in declared), None)


def full(folder: Path) -> Path:
    """A sweep with everything: two families, a pruned and a failed trial, confirmation on three seeds."""
    for family in ("llama3", "gemma2"):
        for k, lambda_, accuracy in ((0, 1.0, 0.3), (1, 1.0, 0.5), (2, 4.0, 0.4)):
            add(folder, "jepa", "search", accuracy, family=family, objective={"k": k, "lambda": lambda_})
            add(folder, "baseline", "search", accuracy - 0.1, family=family, learning_rate=1e-3 * (k + 1))
        add(folder, "jepa", "search", 0.1, family=family, objective={"k": 4}, state="PRUNED", epochs=1, alarms="contraction")
        for seed, ours, theirs in zip(SEEDS, (0.5, 0.6, 0.55), (0.45, 0.50, 0.52), strict=True):
            add(folder, "jepa", "confirm", ours, seed=seed, family=family, objective={"k": 1}, right=2, embeddings=8)
            add(folder, "baseline", "confirm", theirs, seed=seed, family=family, learning_rate=2e-3, embeddings=8)
    add(folder, "jepa", "search", 0.2, objective={"k": 3}, state="FAILED", epochs=1)
    (folder / "sweep.yaml").write_text(SWEEP)
    return folder


def select(folder: Path, name: str, **arms: str) -> None:
    """Write the selection file `name`: method of llama3 -> frozen search trial."""
    frozen = {f"{method}/llama3": {"trial_id": trial_id} for method, trial_id in arms.items()}
    (folder / name).write_text(json.dumps({"arms": frozen}))


def _metrics(accuracy: float, epochs: int, diagnostics: bool, cost: float) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(epochs + 1):
        values = {} if epoch == 0 else {"val_accuracy": accuracy * epoch / epochs, "train_ce": 1.0 / epoch, "train_jepa": 0.5 / epoch}
        if diagnostics:
            values |= {"diag_val_ce": 1.0 / (epoch + 1), "diag_val_jepa": 0.5 / (epoch + 1), "diag_r1": 0.1, "diag_r1_chance": 0.05}
            values |= {f"diag_{name}": 2.0 + epoch for name in ("rank_text", "rank_code", "linearity", "linearity_relative", "sv_mean")}
            values |= {f"diag_{name}": 0.1 * epoch for name in ("anisotropy_text", "anisotropy_code", "contrast")}
            values |= {"diag_ridge_r2": 0.25 * epoch, "diag_pairs": 32.0}
            values |= {f"diag_sv_{index}": 10.0 / index for index in (1, 2, 3)}
        rows += [
            {"step": 10 * epoch, "epoch": float(epoch), "split": _split(name), "name": name, "value": value}
            | {"train_flops": cost * epoch, "train_seconds": 1.0 * epoch}
            for name, value in values.items()
        ]
    return rows


def _split(name: str) -> str:
    return name.partition("_")[0]


def _answers(split: str, right: int) -> list[dict[str, Any]]:
    return [
        _answer(split, example, reference if place < right else prediction, reference)
        for place, (example, reference, prediction) in enumerate(ANSWERS)
    ]


def _drawn(split: str, examples: int, accuracy: float) -> list[dict[str, Any]]:
    hardness = (np.random.default_rng(0).permutation(examples) + 0.5) / examples
    return [_answer(split, f"e:{place}", "a" if hard < accuracy else "b", "a") for place, hard in enumerate(hardness)]


def _answer(split: str, example: str, prediction: str, reference: str) -> dict[str, Any]:
    shared = dict.fromkeys(("correct", "exact", "prefix_correct", "contains"), prediction == reference)
    return {
        "split": split,
        "example_id": example,
        "question": f"lines with {example} & <b>",
        "prediction": prediction,
        "reference": reference,
        "stopped": True,
        **shared,
    }


def _embeddings(pairs: int, seed: int) -> list[dict[str, Any]]:
    """Random states of width 4; a Code is half its Text, so that every pair has cosine 1."""
    text_PD = np.random.default_rng(seed).normal(size=(pairs, 4)).astype(np.float16)
    return [
        {"split": "val", "example_id": f"e:{place}", "view": view, "vector": (text_PD[place] * scale).tolist()}
        for place in range(pairs)
        for view, scale in (("text", 1.0), ("code", 0.5))
    ]
