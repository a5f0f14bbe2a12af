"""The resources of one trial, and where it runs: the section `resources` of a sweep file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from jepa_ray.config.record import Record, show

Sharding = Literal["auto", "ddp", "fsdp"]
"""How the workers of a trial share its network: each has a copy (ddp), or each has a part (fsdp)."""
Hardware = Literal["b200", "h200", "h100", "h100-pcie", "a100-80gb", "a100-40gb", "l40s", "a10", "a10g", "rtx4090", "v100", "t4"]
"""GPUs that a sweep can be planned for (`plan/hardware.py`)."""


class ResourcesConfig(Record):
    """The resources of one trial, and how many trials run at once."""

    workers_per_trial: int = Field(1, ge=1)
    """Data-parallel workers per trial."""
    sharding: Sharding = "auto"
    """How the workers of a trial share its network. `ddp`: each has all weights, gradients and optimizer states. `fsdp`: each has a
    share of them, which needs less memory and more communication; the results differ by rounding. `auto`: `fsdp` if they do not
    fit on one GPU together with a pass of the longest example, else `ddp`."""
    cpus_per_worker: int = Field(1, ge=1)
    """CPUs per worker; also its number of torch threads."""
    gpus_per_worker: float | None = Field(None, ge=0)
    """GPUs per worker. A fraction lets several trials share a GPU. If null, one if the cluster has GPUs, else none (and none for
    `model: tiny`, which is slower on a GPU)."""
    max_concurrent: int | None = Field(None, ge=1)
    """Most trials that run at once. If null, as many as fit."""
    address: str | None = None
    """Ray cluster to join: `auto`, or host and port. `local` starts one on this machine. If null, `local` unless RAY_ADDRESS is set."""
    dashboard: bool = True
    """Start Ray's dashboard and print its address."""
    max_failures: int = Field(2, ge=0)
    """How many times a trial whose process died is restarted, from its working checkpoint."""
    checkpoint_minutes: float = Field(5, gt=0)
    """Minutes between two working checkpoints of a trial, within an epoch too: the most training that a process loses when it dies, apart
    from a step and the writing of a checkpoint. Changes no result."""
    hardware: Hardware | None = None
    """GPU that the plan is made for: memory, hours and cost. If null, this machine's own GPU. Changes nothing in a trial."""
    price_per_gpu_hour: float | None = Field(None, ge=0)
    """Price of a GPU for one hour, in any currency; the plan then contains the sweep's. If null, it contains GPU-hours only."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> ResourcesConfig:
        gpus = self.gpus_per_worker or 0.0
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus_per_worker = {gpus:g}: Ray accepts a fraction of one GPU, or whole GPUs; give 1 or {int(gpus) + 1}")
        if self.workers_per_trial > 1 and 0 < gpus < 1:
            raise ValueError(
                f"gpus_per_worker = {gpus:g} with workers_per_trial = {self.workers_per_trial}: two workers of a trial cannot share a GPU, "
                f"because NCCL does not support it; give every worker a whole GPU, or every trial one worker"
            )
        if self.sharding == "fsdp" and self.workers_per_trial == 1:
            raise ValueError(
                "sharding = fsdp has no effect with one worker per trial, which holds the whole network; "
                "set workers_per_trial to at least 2, or drop sharding"
            )
        return self

    @field_validator("address")
    @classmethod
    def _no_client(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("ray://"):
            raise ValueError(f"got {show(value)}, but {client_refused()}")
        return value


def client_refused() -> str:
    """Why a sweep cannot run through Ray Client, and the remedy."""
    return (
        "Ray Client (ray://) is not supported, because a sweep keeps its study and tables in this process; "
        "start the sweep on a node of the cluster with resources.address=auto, or submit it with `ray job submit`"
    )
