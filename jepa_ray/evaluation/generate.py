"""Batched greedy generation: prompts sorted by length, padded on the left, stopped by the family's end of turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from jepa_ray.data.views import Ids
from jepa_ray.models.network import Network
from jepa_ray.system.heartbeat import HEARTBEAT


@dataclass(frozen=True)
class Generation:
    """What the model wrote after a prompt."""

    text: str
    """Decoded without special tokens, up to the end of turn or the cap."""
    stopped: bool
    """The end of turn came before the token cap."""
    num_tokens: int


def generate(
    network: Network, tokenizer: Any, prompts: Sequence[Ids], *, turn_end: str, batch_size: int, max_new_tokens: int, bf16: bool = False
) -> list[Generation]:
    """Greedy continuations, in the order of the prompts.

    Prompts of similar length share a batch, so there is little padding; it is masked and affects only rounding.
    """
    stop_id = tokenizer.convert_tokens_to_ids(turn_end)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_id
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=stop_id, pad_token_id=pad_id, use_cache=True, bos_token_id=None
    )
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[Generation | None] = [None] * len(prompts)
    was_training, own_settings = network.training, network.causal_lm.generation_config
    # A checkpoint's own settings (a repetition penalty, suppressed tokens) would apply to everything that `settings` leaves open.
    network.causal_lm.generation_config = GenerationConfig()
    network.eval()
    device = network.device
    with torch.inference_mode(), network.attention(None), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            width = max(len(prompts[i]) for i in chosen)
            input_ids = torch.full((len(chosen), width), pad_id, dtype=torch.long)
            mask = torch.zeros((len(chosen), width), dtype=torch.long)
            for row, i in enumerate(chosen):
                input_ids[row, width - len(prompts[i]) :] = torch.from_numpy(prompts[i].astype("int64"))
                mask[row, width - len(prompts[i]) :] = 1
            written = network.causal_lm.generate(
                input_ids=input_ids.to(device), attention_mask=mask.to(device), generation_config=settings
            )[:, width:].tolist()
            for i, ids in zip(chosen, written, strict=True):
                stopped = stop_id in ids
                ids = ids[: ids.index(stop_id)] if stopped else ids
                out[i] = Generation(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False), stopped, len(ids))
            HEARTBEAT.evaluated(len(chosen))
    network.train(was_training)
    network.causal_lm.generation_config = own_settings
    return [generation for generation in out if generation is not None]
