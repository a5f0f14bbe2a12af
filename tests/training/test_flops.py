"""The FLOP model against what PyTorch counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jepa_ray.config import LoraConfig, ObjectiveConfig
from jepa_ray.data.packing import make_batch
from jepa_ray.models.families import FAMILIES
from jepa_ray.training.flops import FlopModel
from jepa_ray.training.step import StepTotals
from tests import tiny_models as tiny

ROWS = [0, 1, 2, 3, 4]


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[request.param]


@pytest.mark.parametrize(
    ("lora", "k", "tolerance"),
    [
        (None, None, 1e-3),
        (None, 2, 1e-3),
        (LoraConfig(r=4, dropout=0.0), 2, 1e-3),
        # Nothing below the first layer is trained then, so its input needs no gradient: 2 of 4 operations of 3 of its 7 matrices,
        # which hold 8,192 of the two layers' 98,304 weights: 2 * 8,192 / (4 * 98,304) = 4 %, less what adapters and head add.
        (LoraConfig(r=4, dropout=0.0), None, 0.045),
    ],
)
def test_counts_are_pytorchs(checkpoint: Path, lora: LoraConfig | None, k: int | None, tolerance: float) -> None:
    config = tiny.trial(checkpoint, lora=lora, objective=ObjectiveConfig(k=k) if k is not None else None)
    network = tiny.network_of(config)
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:5])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        tiny.one_step(network, table, config, ROWS, backend="plain")
    batch = make_batch(table, ROWS, backend="plain", k=k)
    rows, width = batch.packed.input_ids.shape
    # PyTorch counts what is computed: padding, and the half of each square that causality throws away.
    computed = StepTotals(tokens=rows * width, attended=rows * width**2, num_labels=batch.num_labels)
    wanted = FlopModel.of(network).train_flops(computed)
    found = counter.get_total_flops()
    assert found == pytest.approx(wanted, rel=tolerance)
    assert found <= wanted * (1 + 1e-3)


def test_by_hand(checkpoint: Path) -> None:
    full, adapted = (FlopModel.of(tiny.network_of(tiny.trial(checkpoint, lora=lora))) for lora in (None, LoraConfig(r=4)))
    # Per layer: q and o 64 x 64, k and v 64 x 32, gate, up and down 64 x 192.
    weights = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192)
    # Adapters of rank 4: 4 x (in + out) per matrix.
    adapters = 2 * 4 * (2 * 128 + 2 * 96 + 3 * 256)
    assert (full.per_token, adapted.per_token) == (6 * weights, 4 * weights + 6 * adapters)
    assert full.per_pair == adapted.per_pair == 12 * 16 * 4 * 2  # head size, heads, layers
    words = tiny.network_of(tiny.trial(checkpoint)).causal_lm.config.vocab_size
    assert (full.per_label, adapted.per_label) == (6 * 64 * words, 4 * 64 * words)


def test_more_views_cost_more_and_a_trie_less(checkpoint: Path) -> None:
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:5])
    model = FlopModel.of(tiny.network_of(tiny.trial(checkpoint)))
    cost = {}
    for backend in tiny.BACKENDS:
        for objective in (None, ObjectiveConfig(k=1)):
            config = tiny.trial(checkpoint, objective=objective)
            network = tiny.network_of(config)
            totals = tiny.one_step(network, table, config, ROWS, backend=backend)
            cost[backend, objective is None] = model.train_flops(totals)
    assert cost["flat", True] == cost["plain", True] and cost["flat", False] == cost["plain", False], "padding is not counted"
    assert cost["trie", True] < cost["flat", True] and cost["trie", False] < cost["flat", False]
    assert cost["trie", True] < cost["trie", False]
    assert all(isinstance(value, (int, np.integer)) for value in cost.values())
    assert torch.get_num_threads() == 1
