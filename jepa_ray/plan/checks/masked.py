"""Checks of a sweep of masked encoders: settings that are not supported, and settings that are required."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jepa_ray.config import MASKED_KNOBS, DataConfig, ObjectiveConfig, OptimConfig, masked_misfit
from jepa_ray.config.messages import Finding, leaves_of
from jepa_ray.plan.checks.data import judge_in
from jepa_ray.plan.checks.tree import at


def check_masked(tree: dict[str, Any]) -> Iterator[Finding]:
    """Settings that a sweep of masked encoders does not support, or requires."""
    from jepa_ray.data.datasets import DATASETS

    labelled = [name for name in DATASETS if judge_in(tree, name) == "label"]
    task = tree.get("task", at(tree, "data", "task", default=DataConfig().task))
    for name in task if isinstance(task, (dict, list)) else [task]:
        if isinstance(name, str) and name in DATASETS and name not in labelled:
            yield (
                ["task"],
                f"{name} has no labels, but masked encoders are scored by probes that predict labels; choose from {', '.join(labelled)}",
            )
    for place, reason in (
        (["base", "lora"], "adapters are not supported for masked encoders, which are trained whole; drop it"),
        (["pretrain"], "a first stage is not supported for masked encoders; drop it, and start from its checkpoint with model=FOLDER"),
    ):
        if at(tree, *place) is not None:
            yield place, reason
    for key in ("loss_on", "train_end_of_turn"):
        usual = OptimConfig.model_fields[key].default
        if at(tree, "base", "optim", key, default=usual) != usual:
            yield ["base", "optim", key], "has no effect with base.masked, which takes the loss over hidden tokens; drop it"
    if at(tree, "base", "optim", "max_train_flops") is not None:
        yield ["base", "optim", "max_train_flops"], "a FLOPs budget is not supported for masked encoders; set base.optim.num_epochs instead"
    if at(tree, "base", "optim", "tokens_per_forward") is not None:
        yield ["base", "optim", "tokens_per_forward"], "is not supported for masked encoders; set base.optim.micro_batch_size instead"
    for key in ("attention", "compile"):
        if at(tree, "base", "model", key, default="auto") != "auto":
            yield ["base", "model", key], "has no effect with base.masked, whose rows are padded and run eagerly; drop it"
    if at(tree, "confirm", "keep") == "all":
        yield ["confirm", "keep"], "has no effect on masked encoders; drop it, and choose with base.masked.keep_checkpoints"
    if at(tree, "base", "evaluation", "embeddings", default=0):
        yield ["base", "evaluation", "embeddings"], "has no effect, since embeddings of masked encoders are not kept; drop it"
    if at(tree, "scheduler", "time_attr") == "step":
        yield ["scheduler", "time_attr"], "masked encoders are validated after whole epochs only; set scheduler.time_attr=epoch"
    if at(tree, "resources", "sharding") == "fsdp":
        yield ["resources", "sharding"], "fsdp is not supported for masked encoders, which every worker holds whole; drop it"
    corpus = at(tree, "base", "masked", "corpus")
    if isinstance(corpus, str) and not Path(corpus).is_file():
        yield ["base", "masked", "corpus"], f"the file {corpus} does not exist (relative paths start from {Path.cwd()}); give another one"
    methods, space = tree.get("methods"), tree.get("space")
    for name, spec in methods.items() if isinstance(methods, dict) else ():
        try:
            objective = None if at(spec) is None else ObjectiveConfig.model_validate(spec)
        except ValidationError:
            continue  # reported when the whole sweep is validated
        if objective is not None and (misfit := masked_misfit(objective)):
            yield ["methods", name], misfit
    for path in space if isinstance(space, dict) else ():
        part, _, leaf = str(path).partition(".")
        if part == "objective" and leaf in leaves_of(part) and leaf not in MASKED_KNOBS:
            yield ["space", path], f"cannot be searched with base.masked; of the objective, choose from {', '.join(MASKED_KNOBS)}"
