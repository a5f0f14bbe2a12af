"""The network as evaluations run it: the same function, without the work that autocast and PEFT repeat at every pass.

    bf16    autocast casts every fp32 weight of a linear layer at every pass, which for one new token costs more than the layer itself.
            The copy holds those weights in bf16. All others (embeddings, norms, frozen bf16 weights) are the network's own tensors.
    LoRA    PEFT's layer takes eight operations; `Adapted` takes three: x A, times B, added with the factor to the layer's output.

Adapters are not merged into the weights. Both replacements give the network's numbers bit for bit, whereas merging changes them: under
LoRA the weights are bf16, so the sum would be rounded to bf16 (measured on a 6-layer Llama: the logits' error against fp32 grows by 1 to
6 %) and would need a second copy of all adapted weights; in fp32 it would change the last digits to save 10 to 20 % of a pass.
(If the factor alpha / r is no power of two, `Adapted` rounds the product once less than PEFT.)
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from jepa_ray.models.network import Network


class Adapted(nn.Module):
    """A linear layer with one LoRA adapter, without dropout."""

    def __init__(self, base: nn.Module, down: nn.Module, up: nn.Module, factor: float) -> None:
        super().__init__()
        self.base, self.down, self.up, self.factor = base, down, up, factor

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.base(x), self.up(self.down(x)), alpha=self.factor)


def evaluation_copy(network: Network, bf16: bool) -> Network:
    """The network to evaluate with, under autocast if `bf16`; the network itself if there is nothing to gain.

    It shares every tensor that it does not hold in bf16, so it is valid until the next optimizer step. The network is not changed.
    """
    if not bf16 and network.causal_lm is network.lm:
        return network
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    out: Network = copy.deepcopy(network, shared)  # modules are copied, tensors are not
    if out.causal_lm is not out.lm:
        _replace_adapters(out.causal_lm)
    if bf16:
        half: dict[int, nn.Parameter] = {}
        for module in out.lm.modules():  # not the predictor head, which computes in fp32
            if isinstance(module, nn.Linear):
                for name, parameter in list(module.named_parameters(recurse=False)):
                    setattr(module, name, _half(parameter, half))
    return out


def _half(parameter: nn.Parameter, half: dict[int, nn.Parameter]) -> nn.Parameter:
    """The parameter in bf16: itself if it already is, and one copy however many layers share it."""
    if parameter.dtype != torch.float32:
        return parameter
    if id(parameter) not in half:
        half[id(parameter)] = nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
    return half[id(parameter)]


def _replace_adapters(causal_lm: Any) -> None:
    from peft.tuners.lora import Linear as LoraLinear

    for name, module in list(causal_lm.named_modules()):
        if isinstance(module, LoraLinear):
            (adapter,) = module.active_adapters
            assert not module.merged and not module.lora_variant and not module.lora_bias[adapter]
            replaced = Adapted(module.base_layer, module.lora_A[adapter], module.lora_B[adapter], module.scaling[adapter])
            parent, _, leaf = name.rpartition(".")
            setattr(causal_lm.get_submodule(parent), leaf, replaced.train(module.training))
