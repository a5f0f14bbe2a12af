"""Cache and attention of generation: one row per prompt, padded on the left, and one new token per row and pass.

    prefill    one packed pass over the prompts, which share their common prefixes; its keys and values are dealt to the rows
    step       one pass over the newest token of every row; a row sees its own tokens (`RowCache.bias_R11L`)
    select     rows that are finished leave the cache

Only the first slots of a row are padding, so slots differ as positions do, and a sliding window is a slice of the last slots. Grouped
heads read the cache as it is: the queries of a group are treated like several queries of one key/value head, nothing is repeated.

Not supported: models that need `packing: plain`; Transformers' own generation serves them (`evaluation/padded.py`).

Legend: R rows, L slots in use, C slots allocated, H heads, G key/value heads, D head size (of states: the model's width), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from jepa_ray.data.packing import Packed, pack
from jepa_ray.data.ragged import Ids
from jepa_ray.models.network import Network

NAME = "jepa_ray_decoding"
GROWTH = 64
"""Slots by which a full cache grows: enough that copying it is rare, few enough that short answers do not pay for the cap."""
PREFILL_TOKENS = 8192
"""Prompt tokens per packed pass, at most (one longer prompt has its own): bounds the memory of a pass, whatever the number of rows."""


class _Recorder(Cache):
    """Keeps the keys and values of a pass without history, (rows, G, tokens, D) per layer, both in the values' dtype.

    Norms of keys (Qwen 3, OLMo 2) give fp32 under autocast, which attention would cast again at every later step.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.states: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.states[layer_idx] = key_states.to(value_states.dtype), value_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class RowCache(Cache):
    """Keys and values of every row and layer, in buffers with room for the tokens to come."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        """Rows of `lengths` tokens each, to be filled by `fill`."""
        super().__init__(layers=[])
        self.length = max(lengths)
        """Slots in use: the longest row's tokens."""
        self.padded = min(lengths) < self.length
        self.position_R = torch.tensor(lengths, device=device)
        """Position of each row's next token."""
        self._capacity = -(-(self.length + GROWTH) // 8) * 8  # kernels copy a bias whose rows do not begin at multiples of 8
        padding_RC = torch.arange(self._capacity, device=device) < (self.length - self.position_R)[:, None]
        self._bias_R11C = torch.zeros(padding_RC.shape, device=device).masked_fill(padding_RC, float("-inf"))[:, None, None]
        self._states: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def bias_R11L(self) -> Tensor | None:
        """Added to the scores of a row's slots: 0 for tokens, -inf for padding, in the cache's dtype. None: nothing is padding.

        A boolean mask would be turned into this in every layer.
        """
        return self._bias_R11C[..., : self.length] if self.padded else None

    def fill(self, row: int, slots_RL: Tensor, states: dict[int, tuple[Tensor, Tensor]]) -> None:
        """Deal a packed pass to the rows from `row` on: slot l of row r receives token `slots_RL[r, l]` of the pass."""
        rows = slots_RL.shape[0]
        self._bias_R11C = self._bias_R11C.to(states[0][1].dtype)
        for layer, pair in states.items():
            if layer not in self._states:
                shape = (len(self.position_R), pair[0].shape[1], self._capacity, pair[0].shape[3])
                self._states[layer] = pair[0].new_empty(shape), pair[1].new_empty((*shape[:3], pair[1].shape[3]))
            for buffer, state in zip(self._states[layer], pair, strict=True):
                tokens = state.transpose(1, 2).flatten(0, 1).index_select(0, slots_RL.flatten())
                buffer[row : row + rows, :, : self.length] = tokens.unflatten(0, slots_RL.shape).transpose(1, 2)

    def open_slot(self) -> None:
        """Make room for one more token per row; every layer's `update` then fills it."""
        if self.length == self._capacity:
            self._capacity += GROWTH
            self._bias_R11C = F.pad(self._bias_R11C, (0, GROWTH))
            for layer, (keys, values) in self._states.items():
                self._states[layer] = F.pad(keys, (0, 0, 0, GROWTH)), F.pad(values, (0, 0, 0, GROWTH))
        self.length += 1
        self.position_R = self.position_R + 1

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        keys, values = self._states[layer_idx]
        keys[:, :, self.length - 1] = key_states[:, :, 0]
        values[:, :, self.length - 1] = value_states[:, :, 0]
        return keys[:, :, : self.length], values[:, :, : self.length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def select(self, rows_S: Tensor) -> None:
        """Keep only these rows, in this order."""
        self.position_R, self._bias_R11C = self.position_R[rows_S], self._bias_R11C[rows_S]
        for layer, (keys, values) in self._states.items():
            self._states[layer] = keys[rows_S], values[rows_S]


def prefill(network: Network, prompts: Sequence[Ids]) -> tuple[RowCache, Tensor]:
    """A cache with one row per prompt, and the (R, V) logits of the first token to write. Prompts must not be empty."""
    lengths = [len(prompt) for prompt in prompts]
    cache = RowCache(lengths, network.device)
    last = []
    for start, stop in _chunks(lengths):
        packed = pack(prompts[start:stop], "trie")
        states_XD, computed = _packed_pass(network, packed)
        slots_RL = np.zeros((stop - start, cache.length), dtype=np.int64)  # padding repeats some token; no row sees it
        for row, nodes in enumerate(packed.nodes):
            slots_RL[row, cache.length - len(nodes) :] = nodes
        on_device = torch.from_numpy(slots_RL).to(network.device)
        cache.fill(start, on_device, computed)
        last.append(states_XD[on_device[:, -1]])
    return cache, network.logits(torch.cat(last))


def step(network: Network, cache: RowCache, token_R: Tensor) -> Tensor:
    """Append one token to every row: (R, V) logits of the next one. To be called within `network.attention(NAME)`."""
    position_R1 = cache.position_R[:, None]
    cache.open_slot()
    states_R1D = network.causal_lm.base_model(
        input_ids=token_R[:, None], position_ids=position_R1, past_key_values=cache, use_cache=True, bias_R11L=cache.bias_R11L
    ).last_hidden_state
    return network.logits(states_R1D[:, 0])


def bytes_per_token(network: Network) -> int:
    """Bytes that the cache needs for one token of one row, in the dtype in which the model computes it (autocast counts)."""
    _, computed = _packed_pass(network, pack([np.zeros(1, dtype=np.int32)], "trie"))
    return sum(state[:, :, 0].numel() * state.element_size() for pair in computed.values() for state in pair)


def _packed_pass(network: Network, packed: Packed) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
    """The last hidden state of every token, (tokens, D), and each layer's keys and values, (1, G, tokens, D)."""
    recorder = _Recorder()
    return network.states(network.place_rows(packed), recorder)[0], recorder.states


def decoding_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    bias_R11L: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query (R, H, 1, D), key and value (R, G, L, D) to (R, 1, H, D)."""
    assert attention_mask is None and query.shape[2] == 1 and not dropout
    if sliding_window is not None:  # one more than the slots before the newest
        key, value = key[:, :, -sliding_window:], value[:, :, -sliding_window:]
        bias_R11L = bias_R11L[..., -sliding_window:] if bias_R11L is not None else None
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    grouped = query[:, :, 0].unflatten(1, (key.shape[1], -1))
    if softcap is None:
        out = F.scaled_dot_product_attention(grouped, key, value, attn_mask=bias_R11L, scale=scale)
    else:
        scores = torch.tanh((grouped @ key.transpose(2, 3)).float() * (scale / softcap)) * softcap
        out = F.softmax(scores if bias_R11L is None else scores + bias_R11L, dim=-1).to(value.dtype) @ value
    return out.flatten(1, 2)[:, None], None


def _chunks(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of consecutive prompts with at most PREFILL_TOKENS tokens, or with one prompt."""
    starts, tokens = [0], 0
    for i, length in enumerate(lengths):
        tokens += length
        if tokens > PREFILL_TOKENS and i > starts[-1]:
            starts.append(i)
            tokens = length
    return list(zip(starts, [*starts[1:], len(lengths)], strict=True))


ALL_ATTENTION_FUNCTIONS.register(NAME, decoding_attention)
