"""The copy that evaluations run on: the network's numbers bit for bit, its tensors wherever they can be shared, nothing cast twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_ray.config import LoraConfig
from jepa_ray.models.evaluation_copy import Adapted, evaluation_copy
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import add_lora
from jepa_ray.models.network import Network
from jepa_ray.training.packing_check import separate_pass
from tests import tiny_models as tiny

IDS = np.arange(20, 60, dtype=np.int32)
FULL, LORA = None, LoraConfig(r=4, dropout=0.3)


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[request.param]


def network_of(checkpoint: Path, lora: LoraConfig | None, half_base: bool) -> Network:
    """As `load_network` makes them: under LoRA in bf16, frozen weights are bf16."""
    network = tiny.network_of(tiny.trial(checkpoint, lora=lora), k=2).eval()
    if half_base and lora is not None:
        for parameter in network.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()
    return network


def logits_of(network: Network, bf16: bool) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        return network.logits(separate_pass(network, IDS))


@pytest.mark.parametrize("lora", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_it_computes_the_networks_numbers_and_leaves_it_alone(checkpoint: Path, lora: LoraConfig | None, bf16: bool) -> None:
    network = network_of(checkpoint, lora, bf16)
    before = {name: (id(p), p.dtype, p.requires_grad, p.detach().clone()) for name, p in network.named_parameters()}
    wanted = logits_of(network, bf16)
    copied = evaluation_copy(network, bf16)
    assert torch.equal(logits_of(copied, bf16), wanted) and copied.training == network.training
    assert torch.equal(logits_of(network, bf16), wanted)
    for name, parameter in network.named_parameters():
        identity, dtype, trained, value = before[name]
        assert (id(parameter), parameter.dtype, parameter.requires_grad) == (identity, dtype, trained) and torch.equal(parameter, value)
    if lora is not None:
        assert sum(isinstance(module, Adapted) for module in copied.modules()) == sum("lora_A" in name for name in before)
        with torch.no_grad():  # the adapters do something: without them the logits differ
            for name, parameter in network.named_parameters():
                if "lora_B" in name:
                    parameter.zero_()
        assert not torch.equal(logits_of(network, bf16), wanted)


def test_only_linear_weights_are_copied(checkpoint: Path) -> None:
    network = network_of(checkpoint, FULL, False)
    assert evaluation_copy(network, bf16=False) is network
    own = {p.data_ptr() for p in network.parameters()}
    copied = evaluation_copy(network, bf16=True)
    linear = {p.data_ptr() for module in copied.lm.modules() if isinstance(module, nn.Linear) for p in module.parameters()}
    assert linear and not linear & own
    others = [p for p in copied.parameters() if p.data_ptr() not in linear]
    assert others and {p.data_ptr() for p in others} <= own
    assert {p.dtype for module in copied.lm.modules() if isinstance(module, nn.Linear) for p in module.parameters()} == {torch.bfloat16}

    lora = network_of(checkpoint, LORA, True)
    shared = {p.data_ptr() for p in evaluation_copy(lora, bf16=True).parameters()}
    frozen = [p for p in lora.parameters() if not p.requires_grad]
    assert frozen and all(p.data_ptr() in shared for p in frozen), "frozen bf16 weights need no copy"


class Casts(TorchDispatchMode):
    """Counts casts of matrices of the given shapes."""

    def __init__(self, shapes: set[torch.Size]) -> None:
        super().__init__()
        self.shapes, self.count = shapes, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.name() == "aten::_to_copy" and args[0].shape in self.shapes
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("lora", [FULL, LORA], ids=["full", "lora"])
def test_no_weight_is_cast_in_a_pass(checkpoint: Path, lora: LoraConfig | None) -> None:
    network = network_of(checkpoint, lora, True)
    shapes = {p.shape for module in network.modules() if isinstance(module, nn.Linear) for p in module.parameters() if p.ndim == 2}
    counts = []
    for evaluated in (network, evaluation_copy(network, bf16=True)):
        with Casts(shapes) as casts:
            logits_of(evaluated, bf16=True)
        counts.append(casts.count)
    assert counts[0] > 0 and counts[1] == 0


def test_a_factor_that_is_no_power_of_two_changes_only_rounding(checkpoint: Path) -> None:
    network = network_of(checkpoint, LoraConfig(r=3, alpha=4, dropout=0.0), False)
    wanted = logits_of(network, False)
    assert float((logits_of(evaluation_copy(network, False), False) - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_a_predictor_head_stays_in_fp32(tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    network = network_of(checkpoint, FULL, False)
    network.head = nn.Linear(64, 64)
    copied = evaluation_copy(network, bf16=True)
    assert copied.head is not None and all(p.dtype == torch.float32 for p in copied.head.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(copied.mapped(torch.ones(2, 64)), network.mapped(torch.ones(2, 64)))


def test_adapters_that_are_more_than_a_product_are_refused(tiny_checkpoints: dict[str, Path]) -> None:
    network = network_of(tiny_checkpoints["llama3"], FULL, False)
    lm = add_lora(network.causal_lm, FAMILIES["llama3"], LORA, seed=0)
    lm.merge_adapter()
    with pytest.raises(AssertionError):
        evaluation_copy(Network(lm), bf16=False)
