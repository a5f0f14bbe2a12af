"""Greedy decoding of one batch by Transformers' own `generate`: for models that need `packing: plain`, and as a reference.

Every row stays until the last one has ended, common prefixes are computed for every row, and attention is the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from jepa_ray.data.ragged import Ids
from jepa_ray.models.network import Network
from jepa_ray.system.heartbeat import HEARTBEAT


def decode_padded(network: Network, prompts: Sequence[Ids], *, stop_id: int, pad_id: int, max_new_tokens: int) -> list[list[int]]:
    """The tokens that follow each prompt, up to and including `stop_id` or to the cap. Call under `inference_mode`, in eval mode."""
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=stop_id, pad_token_id=pad_id, use_cache=True, bos_token_id=None
    )
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype("int64"))
        mask[row, width - len(prompt) :] = 1
    own_settings = network.causal_lm.generation_config
    # A checkpoint's own settings (a repetition penalty, suppressed tokens) would apply to everything that `settings` leaves open.
    network.causal_lm.generation_config = GenerationConfig()
    try:
        with network.attention(None):
            written = network.causal_lm.generate(
                input_ids=input_ids.to(network.device), attention_mask=mask.to(network.device), generation_config=settings
            )[:, width:].tolist()
    finally:
        network.causal_lm.generation_config = own_settings
    HEARTBEAT.evaluated(len(prompts))
    return [ids[: ids.index(stop_id) + 1] if stop_id in ids else ids for ids in written]
