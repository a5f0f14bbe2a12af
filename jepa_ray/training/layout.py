"""Which packing serves a data set best: decided by counted cost, never by timing, so that the same config gives the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import nn

from jepa_ray.config import TrialConfig
from jepa_ray.data.packing import Backend, make_batch
from jepa_ray.data.views import TokenTable

ROW_TOKENS_CPU = (128, 192, 256, 384, 512)
ROW_TOKENS_GPU = (4096,)


@dataclass(frozen=True)
class Layout:
    """A packing backend, and the tokens a trie's row may hold."""

    backend: Backend
    row_tokens: int = 256


def choose_layout(
    table: TokenTable,
    packing: Literal["auto", "trie", "flat", "plain"],
    *,
    k: int | None,
    batch_size: int,
    linear_weights: int,
    attention_width: int,
    on_gpu: bool,
) -> Layout:
    """The cheapest layout on the first examples of the table.

    Args:
        linear_weights: weights of all layers' matrices: 2 operations per token each.
        attention_width: heads * head size * layers: 4 operations per pair and unit of width.
        on_gpu: there trie rows are long and sparse (block masks), here short and dense.
    """
    if packing in ("flat", "plain"):
        return Layout(packing)
    rows = list(range(min(len(table), batch_size)))
    candidates = [Layout("trie", size) for size in (ROW_TOKENS_GPU if on_gpu else ROW_TOKENS_CPU)]
    if packing == "auto":
        candidates.append(Layout("flat"))

    def cost(layout: Layout) -> float:
        packed = make_batch(table, rows, backend=layout.backend, row_tokens=layout.row_tokens, k=k).packed
        if layout.backend == "flat" or on_gpu:
            computed, pairs = packed.num_tokens, float(((packed.position_ids + 1)).sum())
        else:
            computed, pairs = packed.input_ids.size, float(packed.input_ids.shape[0] * packed.input_ids.shape[1] ** 2)
        # Attention works far below the speed of matrix products; measured factor about 4 on a CPU for dense masked rows.
        return 2.0 * linear_weights * computed + 4.0 * attention_width * pairs * (4.0 if not on_gpu else 2.0)

    costs = [cost(layout) for layout in candidates]
    return candidates[int(np.argmin(costs))]


def layout_for(causal_lm: Any, table: TokenTable, config: TrialConfig, *, world_size: int = 1) -> Layout:
    """The layout of a trial: from its model's shape, its table and its share of a step."""
    objective = config.objective if config.objective is not None and config.objective.lambda_ > 0 else None
    shape = causal_lm.config
    size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    share = -(-config.optim.batch_size // world_size)
    return choose_layout(
        table,
        config.model.packing,
        k=objective.k if objective is not None else None,
        batch_size=min(share, config.optim.micro_batch_size or share),
        linear_weights=sum(m.weight.numel() for m in causal_lm.base_model.modules() if isinstance(m, nn.Linear)),
        attention_width=shape.num_attention_heads * size * shape.num_hidden_layers,
        on_gpu=causal_lm.device.type == "cuda",
    )
