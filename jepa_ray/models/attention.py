"""Attention over a packed row, as an attention function that Transformers models call in place of their own.

Everything in a layer works on each token of the row once. Attention gathers, for every path, its *own* tokens as queries (those
that no other path brought into the row) and all of its tokens as keys, attends causally within the path, and puts the results
back. No mask over the whole row is ever built, except for soft-capped families on a GPU, where FlexAttention takes the rule
`allow` itself.

`Layout` travels through the model's keyword arguments and is never stored in it. Covers grouped heads, logit soft-capping and
sliding windows (a path's positions count up by one, so a window is a bound on the difference of positions).

Not covered: attention dropout (no supported family uses it), attention sinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from jepa_ray.data.packing import Packed

NAME = "jepa_ray_packed"
# Shape legend: T tokens of the row, Q query slots, M key slots, H heads, G key/value heads, D head size,
# S paths of a block, O own tokens of one at most, L tokens of one at most.


@dataclass
class Layout:
    """Where the paths of a packed row stand, with what the attention kernels need prepared once per batch and shared by all layers."""

    packed: Packed
    device: torch.device
    _buckets: Buckets | None = None
    _paths: Paths | None = None
    _block_masks: dict[int | None, Any] = field(default_factory=dict)

    def buckets(self) -> Buckets:
        """Paths as padded blocks."""
        if self._buckets is None:
            self._buckets = make_buckets(self.packed, self.device)
        return self._buckets

    def paths(self) -> Paths:
        """Paths one behind the other, as variable-length kernels take them."""
        if self._paths is None:
            nodes, shared = self.packed.nodes, self.packed.shared
            queries = np.concatenate([path[first:] for path, first in zip(nodes, shared, strict=True)])
            lengths = np.array([len(path) for path in nodes])
            starts = [np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32) for sizes in (lengths - shared, lengths)]
            tensors = [torch.from_numpy(array).to(self.device) for array in (queries, np.argsort(queries), np.concatenate(nodes), *starts)]
            self._paths = Paths(*tensors, longest_own=int((lengths - shared).max()), longest=int(lengths.max()))
        return self._paths

    def block_mask(self, window: int | None) -> Any:
        """The rule `allow` of data/packing.py, with the window, as a FlexAttention block mask (GPU)."""
        from torch.nn.attention.flex_attention import create_block_mask

        if window is not None and int(self.packed.position_ids.max(initial=0)) < window:
            window = None  # a window no path outgrows is no window
        if window not in self._block_masks:
            end_T, depth_T = (torch.from_numpy(array[0]).to(self.device) for array in (self.packed.end, self.packed.position_ids))

            def allow(row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
                seen = (k <= q) & (q < end_T[k])
                return seen if window is None else seen & (depth_T[q] - depth_T[k] < window)

            self._block_masks[window] = create_block_mask(allow, None, None, len(end_T), len(end_T), device=self.device)
        return self._block_masks[window]


@dataclass(frozen=True)
class Paths:
    """Paths one behind the other: the own tokens of each as queries, all of its tokens as keys."""

    queries_T: Tensor
    """Token of the row in each query slot."""
    slots_T: Tensor
    """Query slot of each token of the row."""
    keys_M: Tensor
    """Token of the row in each key slot; a shared token stands in the slots of all its paths."""
    query_starts: Tensor
    """int32, first query slot of each path, and one past the last."""
    key_starts: Tensor
    longest_own: int
    longest: int


@dataclass(frozen=True)
class Block:
    """Paths of similar length, right-padded: S paths, O own tokens at most, L tokens at most."""

    shape: tuple[int, int, int]
    """(S, O, L)"""
    shared_S: Tensor
    """Tokens of each path in front of its own ones."""
    causal: bool
    """No path of the block shares anything: plain causal attention will do."""

    def mask(self, window: int | None) -> Tensor | None:
        """(S, 1, O, L) boolean: own token i of a path is its token shared + i, and sees those up to itself. None: plainly causal."""
        paths, own, longest = self.shape
        if self.causal and (window is None or window >= longest):
            return None
        query_SO = self.shared_S[:, None] + torch.arange(own, device=self.shared_S.device)
        back_SOL = query_SO[:, :, None] - torch.arange(longest, device=self.shared_S.device)
        allow_SOL = back_SOL >= 0 if window is None else (back_SOL >= 0) & (back_SOL < window)
        return allow_SOL[:, None]


@dataclass(frozen=True)
class Buckets:
    """All blocks, one behind the other."""

    blocks: tuple[Block, ...]
    queries_Q: Tensor
    """Token of the row in each query slot of all blocks."""
    slots_T: Tensor
    """Query slot of each token of the row."""
    keys_M: Tensor
    """Token of the row in each key slot of all blocks."""
    masks: dict[int | None, list[Tensor | None]] = field(default_factory=dict)

    def masks_of(self, window: int | None) -> list[Tensor | None]:
        """The blocks' masks, built once per batch."""
        if window not in self.masks:
            self.masks[window] = [block.mask(window) for block in self.blocks]
        return self.masks[window]


def make_buckets(packed: Packed, device: torch.device) -> Buckets:
    """Group paths into blocks: of similar length, and within that of similar numbers of own tokens, so that little is padded.

    Padding repeats a path's last token. As a key it is never seen by an own token; what it computes as a query is dropped.
    """
    groups = _groups(np.array([len(path) for path in packed.nodes]), packed.shared)
    blocks, queries, keys = [], [], []
    slots, used = np.empty(packed.input_ids.size, dtype=np.int64), 0
    for group in groups:
        paths = [packed.nodes[i] for i in group]
        shared = packed.shared[group]
        longest = max(map(len, paths))
        own = max(len(path) - first for path, first in zip(paths, shared, strict=True))
        for path, first in zip(paths, shared, strict=True):
            mine = path[first:]
            slots[mine] = used + np.arange(len(mine))
            used += own
            queries.append(np.concatenate([mine, np.full(own - len(mine), mine[-1])]))
            keys.append(np.concatenate([path, np.full(longest - len(path), path[-1])]))
        blocks.append(Block((len(group), own, longest), torch.from_numpy(shared).to(device), causal=not shared.any()))
    index = [torch.from_numpy(array).to(device) for array in (np.concatenate(queries), slots, np.concatenate(keys))]
    return Buckets(tuple(blocks), *index)


def _groups(lengths: NDArray[np.int64], shared: NDArray[np.int64]) -> list[list[int]]:
    """Indices of the paths of each block. A path without own tokens is in none: what it computes, another path does."""
    own = lengths - shared
    groups: list[list[int]] = []
    classes: list[list[int]] = []
    for i in np.argsort(-lengths, kind="stable"):
        if own[i] == 0:
            continue
        if not classes or lengths[i] < 0.85 * lengths[classes[-1][0]]:
            classes.append([])
        classes[-1].append(int(i))
    for members in classes:
        for number, i in enumerate(sorted(members, key=lambda i: -own[i])):
            if number == 0 or own[i] < 0.6 * own[groups[-1][0]]:
                groups.append([])
            groups[-1].append(i)
    return groups


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
    layout: Layout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query (1, H, T, D), key and value (1, G, T, D) to (1, T, H, D)."""
    if layout is None:
        raise ValueError("packed attention was called without a layout; generation must use the model's own attention")
    assert attention_mask is None, "a mask was built beside the layout"
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if not query.is_cuda or query.dtype == torch.float32:
        return _bucketed(query, key, value, scale, softcap, sliding_window, layout), None
    if softcap is None:
        return _varlen(query, key, value, scale, layout, sliding_window), None
    return _flex(query, key, value, scale, softcap, layout.block_mask(sliding_window)), None


def _dense(query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None, mask: Tensor | None) -> Tensor:
    """Attention under a boolean mask, or plainly causal where `mask` is None."""
    if softcap is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.tanh(query @ key.transpose(2, 3) * (scale / softcap)) * softcap
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype) @ value


def _bucketed(
    query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None, window: int | None, layout: Layout
) -> Tensor:
    """Each path apart: gathered into padded blocks, attended, put back."""
    heads, size = query.shape[1], query.shape[3]
    buckets = layout.buckets()
    own_slots = [paths * own for paths, own, _ in (block.shape for block in buckets.blocks)]
    key_slots = [paths * longest for paths, _, longest in (block.shape for block in buckets.blocks)]
    # One gather for all blocks: its backward fills one buffer instead of one per block.
    queries = query[0].transpose(0, 1).index_select(0, buckets.queries_Q).split(own_slots)
    keys, values = (tensor[0].transpose(0, 1).index_select(0, buckets.keys_M).split(key_slots) for tensor in (key, value))
    parts = []
    for block, mask, q, k, v in zip(buckets.blocks, buckets.masks_of(window), queries, keys, values, strict=True):
        paths, own, longest = block.shape
        q = q.view(paths, own, heads, size).transpose(1, 2)
        k, v = (part.view(paths, longest, -1, size).transpose(1, 2) for part in (k, v))
        parts.append(_dense(q, k, v, scale, softcap, mask).transpose(1, 2).reshape(paths * own, heads, size))
    return torch.cat(parts).index_select(0, buckets.slots_T)[None]


def _varlen(query: Tensor, key: Tensor, value: Tensor, scale: float, layout: Layout, window: int | None) -> Tensor:
    """Flash attention on paths of different length (GPU, half precision)."""
    from torch.nn.attention.varlen import varlen_attn

    paths = layout.paths()
    q = query[0].transpose(0, 1).index_select(0, paths.queries_T)
    k, v = (tensor[0].transpose(0, 1).index_select(0, paths.keys_M) for tensor in (key, value))
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    reach = -1 if window is None else window - 1
    # The kernel aligns queries with the last keys of their path, which is where a path's own tokens stand.
    out = varlen_attn(q, k, v, paths.query_starts, paths.key_starts, paths.longest_own, paths.longest, scale=scale, window_size=(reach, 0))
    assert isinstance(out, Tensor)
    return out.index_select(0, paths.slots_T)[None]


_compiled_flex: Any = None


def _flex(query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None, block_mask: Any) -> Tensor:
    """FlexAttention under a block mask (GPU)."""
    from torch.nn.attention.flex_attention import flex_attention

    global _compiled_flex
    if _compiled_flex is None:
        _compiled_flex = torch.compile(flex_attention, dynamic=True)

    def cap(score: Tensor, *_: Tensor) -> Tensor:
        return score if softcap is None else torch.tanh(score / softcap) * softcap

    out = _compiled_flex(
        query, key, value, score_mod=None if softcap is None else cap, block_mask=block_mask, scale=scale, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous()  # type: ignore[no-any-return]


ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, lambda *args, **kwargs: None)
