"""The FLOP model compared with PyTorch's own count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from jepa_ray.config import LoraConfig, ObjectiveConfig
from jepa_ray.conformance.forms import FORMS, SHAPE
from jepa_ray.data.packing import make_batch
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.network import Network
from jepa_ray.models.structure import without_weights
from jepa_ray.training.cost import FlopModel
from jepa_ray.training.runtime import StepTotals
from tests import tiny_models as tiny

ROWS = [0, 1, 2, 3, 4]


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[request.param]


Matrix = tuple[int, int]
GATED: list[Matrix] = [(64, 192), (64, 192), (192, 64)]
LLAMA: list[Matrix] = [(64, 64), (64, 32), (64, 32), (64, 64), *GATED]
MATRICES: dict[str, list[list[Matrix]]] = {
    # OpenELM: q, k and v with 2 + 1 + 1 and 4 + 2 + 2 heads in one matrix; gate and value of 64 and 192 in one matrix.
    "openelm": [[(64, 64), (32, 64), (64, 128), (64, 64)], [(64, 128), (64, 64), (64, 384), (192, 64)]],
    "phi": 2 * [[*4 * [(64, 64)], (64, 256), (256, 64)]],
}
"""(in, out) of every matrix of each layer; other families have those of LLAMA."""
FIRST_READERS = {"openelm": 64 * 64, "phi": 3 * 64 * 64 + 64 * 256}
"""Weights of the matrices that read the first layer's input: q, k, v; in phi, whose two blocks are parallel, the MLP's first too."""
HEADS = {"openelm": 2 + 4}
"""Over both layers."""


def matrices_of(checkpoint: Path) -> list[Matrix]:
    return [matrix for layer in MATRICES.get(checkpoint.name, 2 * [LLAMA]) for matrix in layer]


@pytest.mark.parametrize(
    ("lora", "k"),
    [(None, None), (None, 2), (LoraConfig(r=4, dropout=0.0), 2), (LoraConfig(r=4, dropout=0.0), None)],
)
def test_counts_are_pytorchs(checkpoint: Path, lora: LoraConfig | None, k: int | None) -> None:
    # With adapters and without predictor tokens, nothing below the first layer is trained, so its input needs no gradient, which saves 2
    # of 4 operations of the matrices that read it. For Llama this is 2 * 8,192 / (4 * 98,304) = 4 %, less with adapters and head.
    spared = 2 * FIRST_READERS.get(checkpoint.name, 64 * 64 + 2 * 64 * 32)
    every = 4 * sum(rows * columns for rows, columns in matrices_of(checkpoint))
    tolerance = 1.1 * spared / every if lora is not None and k is None else 1e-3
    config = tiny.trial(checkpoint, lora=lora, objective=ObjectiveConfig(k=k) if k is not None else None)
    network = tiny.network_of(config)
    table = tiny.table_of(checkpoint, tiny.EXAMPLES[:5])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        tiny.one_step(network, table, config, ROWS, backend="plain")
    batch = make_batch(table, ROWS, backend="plain", k=k)
    rows, width = batch.packed.input_ids.shape
    # PyTorch also counts padding and the half of each attention square that causality discards.
    computed = StepTotals(tokens=rows * width, attended=rows * width**2, num_labels=batch.num_labels)
    wanted = FlopModel.of(network).train_flops(computed)
    counted = counter.get_total_flops()
    assert counted == pytest.approx(wanted, rel=tolerance)
    assert counted <= wanted * (1 + 1e-3)


def test_by_hand(checkpoint: Path) -> None:
    full, adapted = (FlopModel.of(tiny.network_of(tiny.trial(checkpoint, lora=lora))) for lora in (None, LoraConfig(r=4)))
    weights = sum(rows * columns for rows, columns in matrices_of(checkpoint))
    adapters = sum(4 * (rows + columns) for rows, columns in matrices_of(checkpoint))  # of rank 4
    assert (full.per_token, adapted.per_token) == (6 * weights, 4 * weights + 6 * adapters)
    assert full.per_pair == adapted.per_pair == 12 * 16 * HEADS.get(checkpoint.name, 4 * 2)  # head size, heads of all layers
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


def test_transposed_layers_and_chosen_experts_are_counted() -> None:
    """Per token and layer, GPT-2: query, key and value, output, and a feed-forward part of 4 x 64. OLMoE: four matrices of attention with
    half as many key and value heads, the router's 4 rows, and 2 of 4 experts, each gate, value and output of 96."""
    gpt2 = 2 * (64 * 192 + 64 * 64 + 2 * 64 * 256)
    olmoe = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 4 * 64 + 2 * 3 * 64 * 96)
    for name, weights in (("GPT-2", gpt2), ("OLMoE", olmoe)):
        form = FORMS[name]
        keys = {key: value for key, value in {**SHAPE, **form.config}.items() if value is not None}
        network = Network(without_weights(AutoConfig.for_model(form.model_type, **keys, vocab_size=100)))
        made = FlopModel.of(network)
        assert (made.per_token_forward, made.per_token, made.per_label) == (2 * weights, 6 * weights, 6 * 64 * 100)
