"""Attention over packed rows, as an attention function that Transformers models call in place of their own.

`Layout` says which tokens see which; it travels through the model's keyword arguments and is never stored in it. Per batch the
masks are built once and shared by all layers. Covers grouped heads, logit soft-capping and sliding windows (a token's
ancestors on its path have distinct depths, so "at most w tokens back" is a bound on the difference of positions).

Not covered: attention dropout (no supported family uses it), attention sinks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from jepa_ray.data.packing import Packed

NAME = "jepa_ray_packed"
# Shape legend: R rows, T tokens per row, H heads, G key/value heads, D head size, S segments of a bucket, L its longest segment.


@dataclass
class Layout:
    """Which tokens see which, on the model's device, with what the attention kernels need prepared once per batch."""

    packed: Packed
    device: torch.device
    end_RT: Tensor = field(init=False)
    depth_RT: Tensor = field(init=False)
    _masks: dict[int | None, Any] = field(default_factory=dict)
    _buckets: list[Bucket] | None = None
    _varlen: tuple[Tensor, int] | None = None

    def __post_init__(self) -> None:
        self.end_RT = torch.from_numpy(self.packed.end).to(self.device)
        self.depth_RT = torch.from_numpy(self.packed.position_ids).to(self.device)

    def mask(self, window: int | None) -> Tensor:
        """(R, 1, T, T) boolean: True where the query (dim 2) may see the key (dim 3). No row is ever fully masked."""
        window = self._effective(window)
        if window not in self._masks:
            index_T = torch.arange(self.end_RT.shape[1], device=self.device)
            allow_RTT = (index_T[None, :] <= index_T[:, None]) & (index_T[:, None] < self.end_RT[:, None, :])
            if window is not None:
                allow_RTT &= self.depth_RT[:, :, None] - self.depth_RT[:, None, :] < window
            self._masks[window] = allow_RTT[:, None]
        mask: Tensor = self._masks[window]
        return mask

    def block_mask(self, window: int | None) -> Any:
        """The same rule as a FlexAttention block mask (GPU)."""
        from torch.nn.attention.flex_attention import create_block_mask

        window = self._effective(window)
        if window not in self._masks:
            end, depth = self.end_RT, self.depth_RT

            def allow(r: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                seen = (k <= q) & (q < end[r, k])
                return seen if window is None else seen & (depth[r, q] - depth[r, k] < window)

            rows, width = end.shape
            self._masks[window] = create_block_mask(allow, rows, None, width, width, device=self.device)
        return self._masks[window]

    def buckets(self) -> list[Bucket]:
        """Segments of a flat row, grouped by length so that little is padded."""
        if self._buckets is None:
            self._buckets = make_buckets(self.packed.segments, self.device)
        return self._buckets

    def varlen(self) -> tuple[Tensor, int]:
        """Cumulative segment starts (int32) and the longest segment, as variable-length kernels take them."""
        if self._varlen is None:
            starts = np.concatenate([[0], np.cumsum(self.packed.segments)]).astype(np.int32)
            self._varlen = torch.from_numpy(starts).to(self.device), int(self.packed.segments.max(initial=0))
        return self._varlen

    def _effective(self, window: int | None) -> int | None:
        """A window no path outgrows is no window: all layers then share one mask."""
        return window if window is not None and int(self.packed.position_ids.max(initial=0)) >= window else None


@dataclass
class Bucket:
    """Segments of similar length as a right-padded block."""

    gather_SL: Tensor
    """Index into the row; padding repeats the segment's first token (causal attention never lets it be seen)."""
    scatter_N: Tensor
    """Flat index into (S * L) of each real token ..."""
    tokens_N: Tensor
    """... and its index in the row."""
    longest: int


def make_buckets(lengths: np.ndarray[Any, Any], device: torch.device, waste: float = 0.12) -> list[Bucket]:
    """Group segments by length, opening a new bucket where padding the next, shorter one would waste more than `waste`."""
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    order = np.argsort(-lengths, kind="stable")
    groups: list[list[int]] = []
    for i in order:
        if not groups or lengths[i] < (1 - waste) * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(int(i))
    buckets = []
    for group in groups:
        longest = int(lengths[group[0]])
        offset_SL = np.arange(longest)[None, :]
        real_SL = offset_SL < lengths[group][:, None]
        gather_SL = starts[group][:, None] + np.where(real_SL, offset_SL, 0)
        scatter = np.flatnonzero(real_SL)
        buckets.append(
            Bucket(
                torch.from_numpy(gather_SL).to(device),
                torch.from_numpy(scatter).to(device),
                torch.from_numpy(gather_SL.reshape(-1)[scatter]).to(device),
                longest,
            )
        )
    return buckets


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
    """Transformers' attention interface: query (R, H, T, D), key and value (R, G, T, D) to (R, T, H, D)."""
    if layout is None:
        raise ValueError("packed attention was called without a layout; generation must use the model's own attention")
    assert attention_mask is None, "a mask was built beside the layout"
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if query.is_cuda:
        if layout.packed.backend == "flat" and softcap is None and query.dtype in (torch.bfloat16, torch.float16):
            return _varlen(query, key, value, scale, layout, sliding_window), None
        return _flex(query, key, value, scale, softcap, layout.block_mask(sliding_window)), None
    if layout.packed.backend == "flat":
        return _bucketed(query, key, value, scale, softcap, sliding_window, layout), None
    out_RHTD = _dense(query, key, value, scale, softcap, layout.mask(sliding_window))
    return out_RHTD.transpose(1, 2).contiguous(), None


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
    """Each segment of a flat row apart: gathered into padded blocks, attended causally, put back."""
    _, heads, tokens, size = query.shape
    out_THD = query.new_empty(tokens, heads, size)
    parts, places = [], []
    for bucket in layout.buckets():
        segments, longest = bucket.gather_SL.shape
        index = bucket.gather_SL.reshape(-1)
        block = [
            tensor[0].transpose(0, 1).index_select(0, index).view(segments, longest, tensor.shape[1], size).transpose(1, 2)
            for tensor in (query, key, value)
        ]
        mask = None
        if window is not None and window < longest:
            back = torch.arange(longest, device=query.device)
            mask = (back[:, None] >= back[None, :]) & (back[:, None] - back[None, :] < window)
        out_SLHD = _dense(*block, scale, softcap, mask).transpose(1, 2)
        parts.append(out_SLHD.reshape(segments * longest, heads, size).index_select(0, bucket.scatter_N))
        places.append(bucket.tokens_N)
    out_THD = torch.cat(parts).index_select(0, torch.argsort(torch.cat(places)))
    return out_THD[None]


def _varlen(query: Tensor, key: Tensor, value: Tensor, scale: float, layout: Layout, window: int | None) -> Tensor:
    """Flash attention on segments of different length (GPU, half precision)."""
    from torch.nn.attention.varlen import varlen_attn

    starts, longest = layout.varlen()
    groups = query.shape[1] // key.shape[1]
    q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    reach = -1 if window is None else window - 1
    out = varlen_attn(q, k, v, starts, starts, longest, longest, scale=scale, window_size=(reach, 0))
    assert isinstance(out, Tensor)
    return out[None]


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
