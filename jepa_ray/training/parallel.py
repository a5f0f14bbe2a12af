"""Several workers on one trial: copies of the network (DDP), or one network in shards (FSDP2).

    ddp     each worker stores all weights, gradients and optimizer states; gradients are averaged at the end of a step
    fsdp    each worker stores a share of them; a layer's weights are gathered for its own passes, then freed again

Both train the same: the results differ by rounding. Under FSDP, parameters, gradients, optimizer states and moving averages are DTensors
that are sharded in their first dimension. Gradients are averaged after every micro-batch, because a worker that kept them until the last
one would store the gradient of the whole network.

FSDP gathers weights in module hooks, so every worker must make the same passes through the network as a whole. What does anything else
(generation, diagnostics, saving) works on `Shards.gathered`, a plain module with the whole weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from jepa_ray.models.device_batch import Rows
from jepa_ray.models.network import Network, layers_of
from jepa_ray.training.runtime import Runtime


def data_parallel(network: nn.Module, runtime: Runtime) -> nn.Module | None:
    """The network wrapped in DistributedDataParallel; None with a single worker, or if the network is sharded."""
    if runtime.world_size == 1 or is_sharded(network):
        return None
    device_ids = [torch.device(runtime.device)] if runtime.device.startswith("cuda") else None
    return nn.parallel.DistributedDataParallel(network, device_ids=device_ids)


def accumulating(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Context of a micro-batch's forward and backward pass: DDP exchanges gradients only after the `last` one of a step."""
    if last or not isinstance(model, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


def is_sharded(network: nn.Module) -> bool:
    """Whether FSDP shards the network."""
    return isinstance(network, FSDPModule)


@dataclass(frozen=True)
class Shards:
    """A network that FSDP shards over the workers."""

    network: Network
    """Its parameters are this worker's shares."""
    plain: Network
    """The same modules without FSDP's hooks. Its parameters have data only within `gathered`."""

    @contextmanager
    def gathered(self) -> Iterator[Network]:
        """The network as a plain module with the whole weights, in memory that is freed at the end. No pass through it exchanges anything.

        Every rank enters and leaves. The sharded network must not be called in between.
        """
        units = [module for module in self.network.modules() if isinstance(module, FSDPModule)]
        try:
            for unit in units:
                unit.unshard()
            for plain, module in zip(self.plain.modules(), self.network.modules(), strict=True):
                plain._parameters.update(module._parameters)
            self.plain.kernel = self.network.kernel  # it may have fallen back since
            yield self.plain
        finally:
            for unit in units:
                unit.reshard()


def shard_if_needed(network: Network, runtime: Runtime, fits: Callable[[], bool]) -> Shards | None:
    """Shard the network in place if `runtime.sharding` is `fsdp`, or if it is `auto` and the trial does not fit on one GPU; else None.

    `fits`: whether whole copies fit (`memory.fits_one_gpu`). Must precede everything that keeps references to parameters: optimizer and
    moving average. Every rank calls this.
    """
    if runtime.world_size == 1 or runtime.sharding == "ddp":
        return None
    return shard(network, runtime) if runtime.sharding == "fsdp" or not fits() else None


def shard(network: Network, runtime: Runtime) -> Shards:
    """Shard the network in place over all workers: each decoder layer is a unit, everything else another.

    ValueError that names a parameter if it cannot be sharded.
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim == 0:
            raise ValueError(f"the parameter {name} is a single number, which FSDP cannot shard; set resources.sharding=ddp")
    device = torch.device(runtime.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # FSDP uses the current device
    tensors: dict[int, Tensor] = {id(buffer): buffer for buffer in network.buffers()}
    tensors |= {id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad) for p in network.parameters()}
    plain = copy.deepcopy(network, tensors)  # modules are copied; buffers are shared, and parameters have no data
    mesh = init_device_mesh(device.type, (runtime.world_size,))
    for layer in layers_of(network.causal_lm.base_model):
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # The rest (embeddings, final norm, output layer, predictor) is needed again as soon as the backward pass begins.
    fully_shard(network, mesh=mesh, reshard_after_forward=False)
    return Shards(network, plain)


def call_with(network: Network, weights: Mapping[str, Tensor], rows: Rows) -> Tensor:
    """The network's states of the rows, computed with other values of some parameters; without gradient.

    Every rank calls this if the network or the weights are sharded.
    """
    if not is_sharded(network):
        gathered = {name: whole(tensor) for name, tensor in weights.items()}
        states_XD: Tensor = torch.func.functional_call(network, gathered, (rows,))
        return states_XD
    with _exchanged(network, weights):
        states_XD = network(rows)
    return states_XD


@contextmanager
def _exchanged(network: Network, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Exchange this rank's shares of some parameters: FSDP's hooks do not see the parameters of a `functional_call`."""
    parameters = dict(network.named_parameters())
    own = [local(parameters[name].detach()) for name in weights]
    kept = [tensor.clone() for tensor in own]
    torch._foreach_copy_(own, [local(tensor) for tensor in weights.values()])
    try:
        yield
    finally:
        assert isinstance(network, FSDPModule)
        network.reshard()  # the parameters outside the layers stay gathered after a pass
        torch._foreach_copy_(own, kept)


def local(tensor: Tensor) -> Tensor:
    """This rank's share of a sharded tensor, in the same memory; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The gathered or reduced value of a sharded tensor (every rank calls this); any other tensor itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, tensor: Tensor | None) -> Tensor:
    """`value`, sharded as `tensor` is; itself if that is not sharded. All ranks pass the same values; nothing is exchanged."""
    if not isinstance(tensor, DTensor):
        return value
    return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)
