"""A trial's working checkpoint, for resuming after the last finished epoch. It contains trained tensors only; no pickled code is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jepa_ray.models.network import Network
from jepa_ray.system import atomic

_FILE = "checkpoint.pt"


def save(scratch: Path, network: Network, optimizer: torch.optim.Optimizer, **state: Any) -> None:
    """Write atomically: a crash leaves the previous checkpoint intact."""
    trained = {name: parameter.detach() for name, parameter in network.named_parameters() if parameter.requires_grad}
    with atomic.whole_file(scratch / _FILE) as temporary:
        torch.save({"trained": trained, "optimizer": optimizer.state_dict(), **state}, temporary)


def load(scratch: Path, network: Network, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Load the last checkpoint into network and optimizer and return everything else it contains; None if there is no checkpoint."""
    path = scratch / _FILE
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location=network.device, weights_only=True)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in state.pop("trained").items():
            parameters[name].copy_(value)
    optimizer.load_state_dict(state.pop("optimizer"))
    return state
