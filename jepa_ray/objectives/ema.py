"""An exponential moving average of the trained weights, used by a separate target encoder (`target: ema`).

Only parameters that require a gradient are averaged: under LoRA the adapters; frozen weights are shared with the online network.
Sources: Mean Teacher, arXiv 1703.01780; BYOL, arXiv 2006.07733, eq. 1; I-JEPA, arXiv 2301.08243.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Average:
    """average <- momentum * average + (1 - momentum) * parameter, in fp32, initialised with the parameters.

    `Average(network.named_parameters())` keeps references to the parameters and reads them at each `update`, so they must be changed in
    place, as optimizers do. To encode with the average: `torch.func.functional_call(network, average.parameters(), args)` under `no_grad`.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self._online = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
        self._average = {name: parameter.detach().float().clone() for name, parameter in self._online.items()}

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """One step; momentum 1 changes nothing, 0 copies the parameters. (fp32 distinguishes momenta up to about 1 - 1e-6 from 1.)"""
        assert 0 <= momentum <= 1
        if self._average:
            online = [parameter.detach().float() for parameter in self._online.values()]
            torch._foreach_lerp_(list(self._average.values()), online, 1 - momentum)

    def parameters(self) -> Mapping[str, Tensor]:
        """Parameter name -> average, without gradient, as `torch.func.functional_call` expects."""
        return dict(self._average)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the averages."""
        return {name: average.clone() for name, average in self._average.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Resume from `state`, which may be on any device.

        Raises:
            ValueError: `state` is the average of other parameters.
        """
        differing = {name for name in self._average.keys() | state.keys() if _shape(self._average, name) != _shape(state, name)}
        if differing:
            name = min(differing)
            raise ValueError(
                f"the saved average must contain the {len(self._average)} trained parameters, but {len(differing)} differ, first {name}: "
                f"{_shape(state, name) or 'absent'} saved, {_shape(self._average, name) or 'absent'} here; "
                f"restart the trial, or restore the configuration that saved the average"
            )
        for name, average in self._average.items():
            average.copy_(state[name])


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(list(tensors[name].shape)) if name in tensors else ""
