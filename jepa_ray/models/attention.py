"""Attention over a packed row, as an attention function that Transformers models call in place of their own.

The other operations of a layer process each token of the row once. For every path, attention gathers the path's *own* tokens
(those that no other path brought into the row) as queries and all of its tokens as keys, attends causally within the path, and
scatters the results back. It never builds a mask over the whole row. CPU and GPU run the same code: PyTorch's fused attention.

`Layout` is passed through the model's keyword arguments and is never stored in the model. Grouped heads, logit soft-capping and
sliding windows are supported (a path's positions increase by one, so a window bounds the difference of positions).

Not supported: attention dropout (refused; no supported checkpoint uses it), attention sinks, variable-length flash kernels (on a
GPU they would save the padding within blocks).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from jepa_ray.data.packing import Packed
from jepa_ray.models.flex import FlexLayout, flex

NAME = "jepa_ray_packed"
# Shape legend: T tokens of the row, Q query slots, M key slots, H heads, G key/value heads, D head size,
# S paths of a block, O own tokens of one at most, L tokens of one at most.


@dataclass
class Layout:
    """The paths of a packed row, and the inputs of the attention kernels, prepared once per batch and shared by all layers."""

    packed: Packed
    device: torch.device
    _buckets: Buckets | None = None

    def buckets(self) -> Buckets:
        """Paths as padded blocks."""
        if self._buckets is None:
            self._buckets = make_buckets(self.packed, self.device)
        return self._buckets


@dataclass(frozen=True)
class Block:
    """Paths of similar length, right-padded: S paths, O own tokens at most, L tokens at most."""

    shape: tuple[int, int, int]
    """(S, O, L)"""
    shared_S: Tensor
    """Number of tokens of each path before its own ones."""
    causal: bool
    """No path of the block shares any tokens, so plain causal attention is enough."""

    def mask(self, window: int | None) -> Tensor | None:
        """(S, 1, O, L) boolean: own token i of a path is its token shared + i and sees tokens up to itself. None: plain causal."""
        _, num_own, longest = self.shape
        if self.causal and (window is None or window >= longest):
            return None
        query_SO = self.shared_S[:, None] + torch.arange(num_own, device=self.shared_S.device)
        back_SOL = query_SO[:, :, None] - torch.arange(longest, device=self.shared_S.device)
        allow_SOL = back_SOL >= 0 if window is None else (back_SOL >= 0) & (back_SOL < window)
        return allow_SOL[:, None]


@dataclass(frozen=True)
class Buckets:
    """All blocks, concatenated."""

    blocks: tuple[Block, ...]
    queries_Q: Tensor
    """Index in the row of the token in each query slot of all blocks."""
    slots_T: Tensor
    """Query slot of each token of the row."""
    keys_M: Tensor
    """Index in the row of the token in each key slot of all blocks."""
    masks: dict[int | None, list[Tensor | None]] = field(default_factory=dict)

    def masks_of(self, window: int | None) -> list[Tensor | None]:
        """The blocks' masks, built once per batch."""
        if window not in self.masks:
            self.masks[window] = [block.mask(window) for block in self.blocks]
        return self.masks[window]


def make_buckets(packed: Packed, device: torch.device) -> Buckets:
    """Group paths of similar length and with similar numbers of own tokens into blocks, so that there is little padding.

    Padding repeats a path's last token. Own tokens never attend to it as a key; its output as a query is dropped.
    """
    groups = _groups(np.array([len(path) for path in packed.nodes]), packed.shared)
    blocks, queries, keys = [], [], []
    slots, used = np.empty(packed.input_ids.size, dtype=np.int64), 0
    for group in groups:
        paths = [packed.nodes[i] for i in group]
        shared = packed.shared[group]
        longest = max(map(len, paths))
        num_own = int(max(len(path) - first for path, first in zip(paths, shared, strict=True)))
        for path, first in zip(paths, shared, strict=True):
            mine = path[first:]
            slots[mine] = used + np.arange(len(mine))
            used += num_own
            queries.append(np.concatenate([mine, np.full(num_own - len(mine), mine[-1])]))
            keys.append(np.concatenate([path, np.full(longest - len(path), path[-1])]))
        blocks.append(Block((len(group), num_own, longest), torch.from_numpy(shared).to(device), causal=not shared.any()))
    queries_Q, slots_T, keys_M = (torch.from_numpy(array).to(device) for array in (np.concatenate(queries), slots, np.concatenate(keys)))
    return Buckets(tuple(blocks), queries_Q, slots_T, keys_M)


_BLOCK_OVERHEAD = 3000
"""Cost of one more block, in query-key pairs: two blocks are merged if that wastes fewer pairs than this. Measured on a CPU core;
it affects only speed."""


def _groups(lengths: NDArray[np.int64], shared: NDArray[np.int64]) -> list[list[int]]:
    """Indices of the paths of each block. A path without own tokens is in no block: other paths compute all its states."""
    num_own = lengths - shared
    groups: list[list[int]] = []
    first = -1  # current class of lengths
    for i in np.lexsort((-num_own, -np.floor(np.log(lengths) / np.log(1 / 0.85)))):
        if num_own[i] == 0:
            continue
        size = np.floor(np.log(lengths[i]) / np.log(1 / 0.85))
        if size != first or num_own[i] < 0.6 * num_own[groups[-1][0]]:
            groups.append([])
            first = size
        groups[-1].append(int(i))

    def pairs(group: list[int]) -> int:
        return len(group) * int(num_own[group].max()) * int(lengths[group].max())

    merged: list[list[int]] = []
    for group in groups:
        if merged and pairs(merged[-1] + group) - pairs(merged[-1]) - pairs(group) < _BLOCK_OVERHEAD:
            merged[-1] = merged[-1] + group
        else:
            merged.append(group)
    return merged


def packed_attention(
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
    layout: Layout | FlexLayout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query (1, H, T, D), key and value (1, G, T, D) to (1, T, H, D)."""
    if layout is None:
        raise ValueError("packed attention was called without a layout; generation must use the model's own attention")
    if dropout:
        raise ValueError(f"packed attention does not support attention dropout (this model has {dropout:g}); set base.model.packing=plain")
    assert attention_mask is None, "a mask was built in addition to the layout"
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if isinstance(layout, FlexLayout):
        return flex(query, key, value, scale, softcap, sliding_window, layout), None
    return _bucketed(query, key, value, scale, softcap, sliding_window, layout), None


def _dense(query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None, mask: Tensor | None) -> Tensor:
    """Attention with a boolean mask, or plain causal attention if `mask` is None."""
    groups = query.shape[1] // key.shape[1]
    # With a mask and grouped heads a GPU falls back to the kernel that writes out all scores: the memory-efficient one has no groups.
    if softcap is not None or (mask is not None and query.device.type != "cpu"):
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if softcap is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True)
    scores = torch.tanh(query @ key.transpose(2, 3) * (scale / softcap)) * softcap
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype) @ value


def _bucketed(query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None, window: int | None, layout: Layout) -> Tensor:
    """Attention within each path: gather into padded blocks, attend, scatter back."""
    heads, size = query.shape[1], query.shape[3]
    buckets = layout.buckets()
    own_slots = [paths * num_own for paths, num_own, _ in (block.shape for block in buckets.blocks)]
    key_slots = [paths * longest for paths, _, longest in (block.shape for block in buckets.blocks)]
    # One gather for all blocks: its backward fills one buffer instead of one per block.
    queries = query[0].transpose(0, 1).index_select(0, buckets.queries_Q).split(own_slots)
    keys, values = (tensor[0].transpose(0, 1).index_select(0, buckets.keys_M).split(key_slots) for tensor in (key, value))
    parts = []
    for block, mask, q, k, v in zip(buckets.blocks, buckets.masks_of(window), queries, keys, values, strict=True):
        paths, num_own, longest = block.shape
        q = q.view(paths, num_own, heads, size).transpose(1, 2)
        k, v = (part.view(paths, longest, -1, size).transpose(1, 2) for part in (k, v))
        parts.append(_dense(q, k, v, scale, softcap, mask).transpose(1, 2).reshape(paths * num_own, heads, size))
    return torch.cat(parts).index_select(0, buckets.slots_T)[None]


ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
