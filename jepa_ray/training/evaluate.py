"""Score a network on a split: generate (or choose) an answer for every example, judge it, and measure how probable the reference is.

Ranks share the work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from jepa_ray.config import TrialConfig
from jepa_ray.data.clusters import cluster_of
from jepa_ray.data.datasets import task_of
from jepa_ray.data.views import TokenTable
from jepa_ray.evaluation.choices import choose
from jepa_ray.evaluation.generate import generate
from jepa_ray.evaluation.judges import judge_of
from jepa_ray.evaluation.likelihood import reference_logprobs
from jepa_ray.evaluation.metrics import summarise, without_leaked
from jepa_ray.models.evaluation_copy import evaluation_copy
from jepa_ray.models.loading import uses_bf16
from jepa_ray.models.network import Network
from jepa_ray.system.heartbeat import HEARTBEAT
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.state import backend_of


def evaluate(
    network: Network,
    tokenizer: Any,
    table: TokenTable,
    split: str,
    config: TrialConfig,
    runtime: Runtime,
    labels: Sequence[str] = (),
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Answer every example (each rank its share) and judge, by `labels` (`Prepared.labels`) if the answers are labels; return metrics
    named `<split>_accuracy` etc., and one row per example. `<split>_logprob` is the mean of `reference_logprob`, in nats.

    For the test split, metrics include the accuracy without leaked examples. ValueError if the judge lacks its databases.
    """
    mine = list(range(runtime.rank, len(table), runtime.world_size))
    judge = judge_of(task_of(config.data).judge, config.data, config.evaluation, labels)
    rows = []
    HEARTBEAT.enter("validate" if split == "val" else split, len(mine))
    bf16 = uses_bf16(config.model, torch.device(runtime.device))
    network = evaluation_copy(network, bf16)
    answers = _answers(network, tokenizer, table, mine, config, bf16)
    together, packing = config.evaluation.encoded_together, backend_of(config)
    probable = reference_logprobs(network, table, mine, batch_size=together, bf16=bf16, packing=packing)
    for i, (prediction, stopped), (logprob, tokens) in zip(mine, answers, probable, strict=True):
        score = judge(prediction, table.references[i], table.extras[i])
        example = {"split": split, "example_id": table.example_ids[i], "question": table.questions[i], "leaked": table.leaked[i]}
        answer = {"prediction": prediction, "reference": table.references[i], "stopped": stopped}
        likelihood = {"reference_logprob": logprob, "reference_tokens": tokens}
        source = {"cluster": cluster_of(config.data, table.extras[i])}
        rows.append({**example, **answer, **vars(score), **likelihood, **source})
    if runtime.world_size > 1:
        shares: list[Any] = [None] * runtime.world_size
        dist.all_gather_object(shares, list(zip(mine, rows, strict=True)))
        rows = [row for _, row in sorted((pair for share in shares for pair in share), key=lambda pair: pair[0])]
    scores = summarise(rows) | (without_leaked(rows) if split == "test" else {})
    scores["logprob"] = math.fsum(row["reference_logprob"] for row in rows) / len(rows)
    return {f"{split}_{name}": value for name, value in scores.items()}, rows


def _answers(
    network: Network, tokenizer: Any, table: TokenTable, rows: list[int], config: TrialConfig, bf16: bool
) -> list[tuple[str, bool | None]]:
    """(answer, whether generation stopped on its own) per row; for a choice task the most probable option, and None."""
    evaluation = config.evaluation
    if table.options:
        chosen = choose(network, table, rows, batch_size=evaluation.encoded_together, bf16=bf16, packing=backend_of(config))
        return [(str(table.extras[i]["options"][choice]), None) for i, choice in zip(rows, chosen, strict=True)]
    written = generate(
        network,
        tokenizer,
        [table.prompt(i) for i in rows],
        turn_end=table.turn_end,
        batch_size=evaluation.batch_size,
        max_new_tokens=evaluation.max_new_tokens or task_of(config.data).max_new_tokens,
        bf16=bf16,
        packing=backend_of(config),
    )
    return [(generation.text, generation.stopped) for generation in written]
