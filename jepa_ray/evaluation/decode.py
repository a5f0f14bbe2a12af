"""Greedy decoding of one batch: the prompts are prefilled together, and rows that have ended leave the batch.

The texts are those of one prompt at a time: a row never sees another one, and padding, sharing and leaving change only rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from jepa_ray.data.ragged import Ids
from jepa_ray.models.decoding import NAME, bytes_per_token, prefill, step
from jepa_ray.models.network import Network
from jepa_ray.system.heartbeat import HEARTBEAT

CPU_ROWS = 64
GPU_ROWS = 512
"""Rows per batch at most. Beyond that a step computes longer, and launching its kernels no longer matters."""
CHECK_EVERY = {"cpu": 1, "cuda": 8}
"""Steps from one look at which rows have ended to the next. On a GPU a look makes the host wait; nothing else in a step does."""
KEEP_ABOVE = 0.75
"""Ended rows stay in the batch while more than this share of its rows is unfinished, because leaving copies the cache."""


def decode(network: Network, prompts: Sequence[Ids], *, stop_id: int, max_new_tokens: int) -> list[list[int]]:
    """The tokens that follow each prompt, up to and including `stop_id` or to the cap. Call under `inference_mode`, in eval mode."""
    device = network.device
    cache, logits_RV = prefill(network, prompts)
    written = torch.full((len(prompts), max_new_tokens), stop_id, device=device)
    place_R = torch.arange(len(prompts), device=device)  # of each row, among the prompts
    ended_R = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    with network.attention(NAME):
        for number in range(max_new_tokens):
            token_R = logits_RV.argmax(-1)
            written[place_R, number] = token_R
            ended_R |= token_R == stop_id
            if number + 1 == max_new_tokens:
                break
            if (number + 1) % CHECK_EVERY[device.type] == 0:
                going_S = ended_R.logical_not().nonzero()[:, 0]
                if len(going_S) == 0:
                    break
                if len(going_S) <= KEEP_ABOVE * len(ended_R):
                    HEARTBEAT.evaluated(len(ended_R) - len(going_S))
                    cache.select(going_S)
                    place_R, ended_R, token_R = place_R[going_S], ended_R[going_S], token_R[going_S]
            logits_RV = step(network, cache, token_R)
    HEARTBEAT.evaluated(len(place_R))
    return [ids[: ids.index(stop_id) + 1] if stop_id in ids else ids for ids in written.tolist()]


def rows_per_batch(network: Network, longest: int, max_new_tokens: int) -> int:
    """Rows of at most `longest` prompt tokens to decode together: 64 on a CPU, on a GPU what half of its free memory holds, up to 512."""
    device = network.device
    if device.type != "cuda":
        return CPU_ROWS
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + unused
    vocabulary = int(network.causal_lm.config.vocab_size)
    return fitting_rows(free, bytes_per_token(network), longest + max_new_tokens, vocabulary)


def fitting_rows(free_bytes: int, token_bytes: int, tokens: int, vocabulary: int) -> int:
    """Rows of `tokens` tokens whose cache, with the logits of one step in two precisions, takes half of the free memory; 1 to 512.

    The other half is for the passes themselves, and for a layer's cache while it grows.
    """
    return max(1, min(GPU_ROWS, free_bytes // 2 // (tokens * token_bytes + 8 * vocabulary)))
