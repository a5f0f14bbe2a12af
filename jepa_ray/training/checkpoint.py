"""A trial's working checkpoint, for resuming after any optimizer step. It contains trained tensors only; no pickled code is loaded.

`snapshot` copies everything to the CPU, so that training can go on while `write` stores the copy. `saving.py` decides when.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from jepa_ray.models.network import Network
from jepa_ray.system import atomic
from jepa_ray.training.parallel import is_sharded, like, whole

_FILE = "checkpoint.pt"


def snapshot(network: nn.Module, optimizer: torch.optim.Optimizer, **more: Any) -> dict[str, Any]:
    """CPU copies of the trained parameters, the optimizer's state and every tensor in `more`. Later steps do not change them.

    Shards are gathered: every rank calls this if the network is sharded, and rank 0's copies are whole. So a checkpoint does not depend
    on the number of workers.
    """
    trained = {name: parameter.detach() for name, parameter in network.named_parameters() if parameter.requires_grad}
    copies: dict[str, Any] = on_cpu({"trained": trained, "optimizer": optimizer.state_dict(), **more})
    return copies


def on_cpu(tree: Any) -> Any:
    """The same dicts, lists and tuples with a CPU copy of every tensor; pinned copies of those on a GPU, all of them complete."""
    devices: set[torch.device] = set()
    copies = _copied(tree, devices)
    for device in devices:
        torch.cuda.current_stream(device).synchronize()  # the copies run asynchronously
    return copies


def _copied(tree: Any, devices: set[torch.device]) -> Any:
    match tree:
        case DTensor():  # every rank takes part in gathering, one tensor at a time; only rank 0 keeps the copies
            gathered = whole(tree.detach())
            return _copied(gathered, devices) if dist.get_rank() == 0 else None
        case Tensor() if tree.is_cuda:
            devices.add(tree.device)
            return torch.empty(tree.shape, dtype=tree.dtype, pin_memory=True).copy_(tree.detach(), non_blocking=True)
        case Tensor():
            return tree.detach().to("cpu", copy=True)
        case dict():
            return {key: _copied(value, devices) for key, value in tree.items()}
        case list() | tuple():
            return type(tree)(_copied(value, devices) for value in tree)
        case _:
            return tree


def write(scratch: Path, copies: dict[str, Any]) -> None:
    """Write a snapshot atomically: a crash leaves the previous checkpoint intact."""
    with atomic.whole_file(scratch / _FILE) as temporary:
        torch.save(copies, temporary)


def load(scratch: Path, network: Network, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Load the last checkpoint into network and optimizer and return everything else it contains; None if there is no checkpoint."""
    state = read(scratch, None if is_sharded(network) else network.device)
    if state is None:
        return None
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in state.pop("trained").items():
            parameters[name].copy_(like(value, parameters[name]))
    saved = state.pop("optimizer")
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in saved["state"].items():
        values |= {name: like(value, order[number]) for name, value in values.items() if value.shape == order[number].shape}
    optimizer.load_state_dict(saved)
    return state


def read(scratch: Path, device: torch.device | None) -> dict[str, Any] | None:
    """The last snapshot that was written, its tensors on `device`, or mapped from the file if that is None; None if there is none."""
    path = scratch / _FILE
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device or "cpu", mmap=device is None, weights_only=True)
    return state
