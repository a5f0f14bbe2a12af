"""Batched greedy generation: prompts sorted by length, padded on the left, stopped by the family's end of turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jepa_ray.data.packing import Backend
from jepa_ray.data.ragged import Ids
from jepa_ray.evaluation.decode import decode, rows_per_batch
from jepa_ray.evaluation.padded import decode_padded
from jepa_ray.models.network import Network


@dataclass(frozen=True)
class Generation:
    """What the model wrote after a prompt."""

    text: str
    """Decoded without special tokens, up to the end of turn or the cap."""
    stopped: bool
    """The end of turn came before the token cap."""
    num_tokens: int


def generate(
    network: Network,
    tokenizer: Any,
    prompts: Sequence[Ids],
    *,
    turn_end: str,
    batch_size: int | None,
    max_new_tokens: int,
    bf16: bool = False,
    packing: Backend = "trie",
) -> list[Generation]:
    """Greedy continuations, in the order of the prompts. `batch_size` None: as many at a time as memory allows.

    Prompts of similar length share a batch, so there is little padding; it is masked and affects only rounding.
    """
    stop_id = tokenizer.convert_tokens_to_ids(turn_end)
    own_pad = tokenizer.pad_token_id
    pad_id = own_pad if own_pad is not None and own_pad != stop_id else int(stop_id == 0)  # masked, and never the end of turn
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[Generation | None] = [None] * len(prompts)
    was_training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(network.device.type, dtype=torch.bfloat16, enabled=bf16):
        size = batch_size or rows_per_batch(network, max(map(len, prompts), default=0), max_new_tokens)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            batch = [prompts[i] for i in chosen]
            if packing == "plain":
                written = decode_padded(network, batch, stop_id=stop_id, pad_id=pad_id, max_new_tokens=max_new_tokens)
            else:
                written = decode(network, batch, stop_id=stop_id, max_new_tokens=max_new_tokens)
            for i, ids in zip(chosen, written, strict=True):
                stopped = ids[-1] == stop_id
                ids = ids[:-1] if stopped else ids
                out[i] = Generation(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False), stopped, len(ids))
    network.train(was_training)
    return [generation for generation in out if generation is not None]
