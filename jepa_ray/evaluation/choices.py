"""Multiple choice by probability: choose the option of an example that the model finds most probable after the prompt.

All options of an example share its prompt in one packed row, so scoring four costs little more than reading the prompt once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from jepa_ray.data.packing import Backend, Readout, ViewBatch, pack
from jepa_ray.data.views import TokenTable
from jepa_ray.models.network import Network
from jepa_ray.system.heartbeat import HEARTBEAT


def choose(
    network: Network, table: TokenTable, rows: Sequence[int], *, batch_size: int, bf16: bool = False, packing: Backend = "trie"
) -> list[int]:
    """Index of the most probable option of each example; the first one if several are equal.

    An option's score is the sum of the log-probabilities of its tokens after the prompt, without the end of turn.
    """
    was_training = network.training
    network.eval()
    chosen: list[int] = []
    with torch.inference_mode(), torch.autocast(network.device.type, dtype=torch.bfloat16, enabled=bf16):
        for start in range(0, len(rows), batch_size):
            for scores in option_scores(network, table, rows[start : start + batch_size], packing):
                chosen.append(max(range(len(scores)), key=scores.__getitem__))
            HEARTBEAT.evaluated(len(rows[start : start + batch_size]))
    network.train(was_training)
    return chosen


def option_scores(network: Network, table: TokenTable, rows: Sequence[int], packing: Backend = "trie") -> list[list[float]]:
    """Log-probability of each option of each example, natural logarithm."""
    options = [(table.prompt(i), option) for i in rows for option in table.options[i]]
    packed = pack([np.concatenate([prompt, option]) for prompt, option in options], packing)
    before = [nodes[len(prompt) - 1 : -1] for nodes, (prompt, _) in zip(packed.nodes, options, strict=True)]
    none = Readout.single(np.empty(0, dtype=np.int64))
    batch = ViewBatch(
        packed=packed,
        label_index=np.concatenate(before),
        label_ids=np.concatenate([option for _, option in options]).astype(np.int64),
        source=none,
        target=none,
    )
    on_device = network.place(batch)
    log_prob_N = -network.label_losses(network.encode(on_device)[on_device.label_index_N], on_device.label_ids_N)
    owner_N = torch.from_numpy(np.repeat(np.arange(len(options)), [len(option) for _, option in options])).to(network.device)
    sums = torch.zeros(len(options), device=network.device).index_add(0, owner_N, log_prob_N).tolist()
    scores = iter(sums)
    return [[next(scores) for _ in table.options[i]] for i in rows]
