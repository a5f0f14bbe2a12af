"""Attention over a packed row by FlexAttention: one kernel for all paths, whose inputs are tensors, so that a step is one compiled graph.

The rule of a packed row (see `data/packing.py`) is the kernel's mask, and `end` alone says which 128 x 128 tiles it visits:

    allow(q, k) = k <= q and q < end[k]                            and, in a layer with a sliding window, depth[q] - depth[k] < window

    tile (i, j) is visited       j < i and the largest end of tile j is beyond the first query of tile i, or i == j
    tile (i, j) needs no mask    j < i and the smallest end of tile j is at or beyond the end of tile i

Rows are padded to a multiple of 128 with tokens that see only themselves (`end = t + 1`).

FlexAttention has no backward pass on a CPU (PyTorch 2.13). There the same rule is a dense mask: exact, and quadratic in the row's length.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from jepa_ray.data.packing import Packed

TILE = 128
"""Tokens per side of a tile."""
# Shape legend: T tokens of the padded row, B tiles of it, H heads, G key/value heads, D head size.

Window = int | None
_NAMES = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
_TRANSPOSED = ("q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices")


@dataclass(frozen=True)
class FlexLayout:
    """A packed row on a device, as the kernel needs it. Prepared once per batch and shared by all layers."""

    end_T: Tensor
    depth_T: Tensor
    tiles: Mapping[Window, Mapping[str, Tensor]]
    """The tiles that are visited, for each window among the model's layers, as BlockMask's tensors."""

    @classmethod
    def of(cls, arrays: Mapping[str, Tensor], windows: Sequence[Window]) -> FlexLayout:
        """From the tensors of `row_arrays` on the device."""
        names = (*_NAMES, *_TRANSPOSED)
        return cls(arrays["end"], arrays["depth"], {window: {name: arrays[f"{window}.{name}"] for name in names} for window in windows})

    def block_mask(self, window: Window) -> BlockMask:
        """FlexAttention's form. Made anew in every layer, within the graph: the lengths in it must not be constants of the graph."""
        length = self.end_T.shape[0]
        allow = rule(self.end_T, self.depth_T, window)
        tiles: Any = self.tiles[window]
        return BlockMask((length, length), **tiles, BLOCK_SIZE=(TILE, TILE), mask_mod=allow)

    def lengths(self) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
        """All tensors, each with its dimensions that change with the row's length."""
        yield from ((tensor, (0,)) for tensor in (self.end_T, self.depth_T))
        for tensors in self.tiles.values():
            for name, tensor in tensors.items():
                yield tensor, (2,) if name.endswith("blocks") else (2, 3)

    def mask(self, window: Window) -> Tensor:
        """(T, T) boolean: query q sees key k."""
        token = torch.arange(self.end_T.shape[0], device=self.end_T.device)
        return rule(self.end_T, self.depth_T, window)(None, None, token[:, None], token[None])


def rule(end_T: Tensor, depth_T: Tensor, window: Window) -> Callable[[Any, Any, Tensor, Tensor], Tensor]:
    """FlexAttention's mask function of a packed row."""

    def allow(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end_T[key])

    if window is None:
        return allow

    def allow_near(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end_T[key]) & (depth_T[query] - depth_T[key] < window)

    return allow_near


def padded(packed: Packed) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Tokens (T,), depths (T,) and ends (T,) of a row, padded to whole tiles.

    At least two tiles: torch.compile treats a length of 1 as a constant, so a single tile would be another graph.
    """
    assert packed.input_ids.shape[0] == 1, "plain rows use the model's own attention"
    count = packed.input_ids.shape[1]
    size = max(2, -(-count // TILE)) * TILE
    ids, depth = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    end = np.arange(1, size + 1, dtype=np.int32)
    ids[:count], depth[:count], end[:count] = packed.input_ids[0], packed.position_ids[0], packed.end[0]
    return ids, depth, end


def row_arrays(end: NDArray[np.int32], depth: NDArray[np.int64], windows: Sequence[Window]) -> dict[str, NDArray[Any]]:
    """Everything that `FlexLayout.of` needs, by name, as arrays to be copied to the device together."""
    arrays: dict[str, NDArray[Any]] = {"end": end, "depth": depth.astype(np.int32)}
    for window in windows:
        partial, full = tiles(end, depth, window)
        for names, some, whole in ((_NAMES, partial, full), (_TRANSPOSED, partial.T, full.T)):
            values = (*_listed(some), *_listed(whole))
            arrays |= {f"{window}.{name}": value for name, value in zip(names, values, strict=True)}
    return arrays


def tiles(end: NDArray[np.int32], depth: NDArray[np.int64], window: Window) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(B, B) booleans: tile (i, j) of queries i and keys j is visited with the mask, or without it because every pair is allowed.

    With a window some of the tiles that are visited may allow no pair; their mask is then empty.
    """
    ends, depths = end.reshape(-1, TILE), depth.reshape(-1, TILE)
    first = np.arange(len(ends)) * TILE
    below = np.tri(len(ends), k=-1, dtype=bool)
    visited = below & (ends.max(1)[None] > first[:, None])
    full = below & (ends.min(1)[None] >= first[:, None] + TILE)
    if window is not None:
        # On a path the depth grows by one per token, so the distance of an allowed pair is the difference of its depths.
        full &= depths.max(1)[:, None] - depths.min(1)[None] < window
        visited &= depths.min(1)[:, None] - depths.max(1)[None] < window
    return (visited & ~full) | np.eye(len(ends), dtype=bool), full


def _listed(chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(1, 1, B) number of chosen tiles in each row, and (1, 1, B, B) their columns, followed by the others."""
    order = np.argsort(~chosen, axis=1, kind="stable").astype(np.int32)
    return chosen.sum(1, dtype=np.int32)[None, None], order[None, None]


def flex(query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None, window: Window, layout: FlexLayout) -> Tensor:
    """Query (1, H, T, D), key and value (1, G, T, D) to (1, T, H, D), in the dtype of `value`."""
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotations may have made them fp32, and the kernel wants one dtype
    return _attention(query.device)(query, key, value, scale, softcap, window, layout).transpose(1, 2)


def _attention(device: torch.device) -> Callable[..., Tensor]:
    """What computes attention on a device. Within a compiled graph the kernel becomes part of that graph."""
    if device.type != "cuda":
        return dense
    return fused if torch.compiler.is_compiling() else kernel()


def fused(query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None, window: Window, layout: FlexLayout) -> Tensor:
    """(1, H, T, D) by FlexAttention, with the model's soft-cap. Scores are fp32, whatever the dtype."""

    def capped(score: Tensor, batch: Any, head: Any, q: Any, k: Any) -> Tensor:
        assert softcap is not None
        return softcap * torch.tanh(score / softcap)

    attended: Tensor = flex_attention(
        query,
        key,
        value,
        capped if softcap is not None else None,
        layout.block_mask(window),
        scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended


@functools.cache
def kernel() -> Callable[..., Tensor]:
    """`fused`, compiled: without compilation it would write out all scores."""
    # OpenELM's layers differ in their numbers of heads; beyond the limit torch would write out the scores without a word.
    compile: Any = torch.compile  # its overloads lack `recompile_limit`
    compiled: Callable[..., Tensor] = compile(fused, dynamic=True, recompile_limit=64)
    return compiled


def dense(query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None, window: Window, layout: FlexLayout) -> Tensor:
    """What `fused` computes, with all scores written out: the stand-in on a CPU."""
    mask = layout.mask(window)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if softcap is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    scores = torch.tanh((query.float() @ key.float().transpose(2, 3)) * (scale / softcap)) * softcap
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return F.softmax(scores, dim=-1).to(value.dtype) @ value
