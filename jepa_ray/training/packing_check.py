"""Start-up self-check: compares packed rows with separate passes on the model that will be trained.

Each path runs alone, unpadded, through the model's own attention. A leak between segments, a wrong position or a mask that the model
ignores causes an error of the order of the states themselves; rounding does not. Any such error stops the trial before training.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jepa_ray.config import ObjectiveConfig
from jepa_ray.data.packing import Backend, make_batch
from jepa_ray.data.views import TokenTable
from jepa_ray.models.network import Network
from jepa_ray.objectives.layouts import views_of

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest relative error of a token's state (norm of the difference over its norm) that passes as rounding."""


HEAD_TOKENS = 16
"""Tokens on which the head is compared."""


class PackingError(RuntimeError):
    """On this model, packed rows do not give the results of separate passes."""


def attention_error(
    network: Network,
    table: TokenTable,
    backend: Backend,
    *,
    k: int | None = None,
    objective: ObjectiveConfig | None = None,
    bf16: bool,
    examples: int = 4,
    alone: dict[bytes, Tensor] | None = None,
) -> float:
    """Largest relative error of a token's packed hidden state on a few examples, with the objective's views (or k predictor tokens).

    `alone`: states of separate passes by their token ids, read and extended, so that several backends are compared with the same passes.
    Valid for one network, unchanged, and one precision.

    Raises:
        PackingError: the error is above TOLERANCE, or not finite.
    """
    longest = int(table.lm.lengths.argmax())  # most likely to exceed a sliding window
    rows = list(np.unique([*np.linspace(0, len(table) - 1, min(examples, len(table))).astype(int), longest]))
    views = views_of(objective, table, rows) if objective is not None else None
    batch = make_batch(table, rows, backend=backend, k=k, views=views)
    alone = {} if alone is None else alone
    was_training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(network.device.type, dtype=torch.bfloat16, enabled=bf16):
        packed_XD = network.encode(network.place(batch)).float()
        worst = 0.0
        for path_nodes in batch.packed.nodes:
            ids = batch.packed.input_ids.reshape(-1)[path_nodes].astype(np.int32)
            key = ids.tobytes()
            if key not in alone:
                alone[key] = separate_pass(network, ids)
            alone_LD = alone[key]
            if not torch.isfinite(alone_LD).all():
                raise PackingError(
                    "the model's own hidden states are not finite before any training: its weights contain NaN or infinity, or overflow "
                    "in this precision; use other weights, or set base.model.precision=fp32"
                )
            difference_LD = packed_XD[torch.from_numpy(path_nodes).to(network.device)] - alone_LD
            # Per token: averaging over a long path would hide a leak at its last few tokens.
            error = (difference_LD.norm(dim=-1) / alone_LD.norm(dim=-1)).max()
            worst = max(worst, float(error)) if torch.isfinite(error) else float("inf")
    network.train(was_training)
    tolerance = TOLERANCE[torch.bfloat16 if bf16 else torch.float32]
    if worst > tolerance:
        raise PackingError(
            f"packed rows ({backend}) differ from separate passes by {worst:.2g} of a hidden state's norm (at most {tolerance:g} is "
            f"allowed), so tokens attend to the wrong tokens; set base.model.packing=plain and report this model"
        )
    return worst


def check_head(network: Network, table: TokenTable, *, bf16: bool) -> None:
    """PackingError unless the logits of labels are those of the model's own forward pass, which some models scale."""
    ids = torch.from_numpy(table.lm[0][:HEAD_TOKENS].astype(np.int64))[None].to(network.device)
    was_training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(network.device.type, dtype=torch.bfloat16, enabled=bf16), network.attention(None):
        own_LV = network.causal_lm(input_ids=ids, use_cache=False).logits[0].float()
        ours_LV = network.logits(network.causal_lm.base_model(input_ids=ids, use_cache=False).last_hidden_state[0])
    network.train(was_training)
    error = float((ours_LV - own_LV).norm() / own_LV.norm())
    if not error <= TOLERANCE[torch.bfloat16 if bf16 else torch.float32]:  # also fails for NaN
        raise PackingError(
            f"the logits of this model are not its head's output: they differ by {error:.2g} of their norm, so the loss would be another "
            f"one; this architecture is not supported, report it"
        )


def separate_pass(network: Network, ids: np.ndarray) -> Tensor:
    """(L, D) hidden states of one sequence alone, with the model's own causal attention: the reference for packed rows."""
    device = network.device
    with network.attention(None):
        states: Tensor = network.causal_lm.base_model(
            inputs_embeds=network.embed(torch.from_numpy(ids.astype(np.int64))[None].to(device)), use_cache=False
        ).last_hidden_state
    return states[0].float()
