"""The plan's section on hardware as text: memory, hours and cost per arm, and of the whole sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jepa_ray.config import Arm, SweepConfig
from jepa_ray.plan import cpu
from jepa_ray.plan.cpu import Cpus
from jepa_ray.plan.hardware import Card
from jepa_ray.plan.requirements import Requirement, Speed, cost
from jepa_ray.plan.table import table

MB, GB = 1e6, 1e9


def lines(
    sweep: SweepConfig, declared: Sequence[Arm], card: Card | None, needed: Mapping[str, Requirement], cpus: Cpus | None = None
) -> list[str]:
    """One table with a row per arm, and the sweep's cost. Empty if nothing is known. `cpus`: of this machine, if trials would run there."""
    if not needed:
        return []
    budget, gpus = next(iter(needed.values())).budget, sweep.placement.gpus_per_worker
    if card is not None and budget is not None:
        share = f", {gpus:g} of it per worker" if gpus and gpus < 1 else ""
        where = f"{card.name}{share}, {budget / GB:.1f} GB for use"
    else:
        where = _cpu(sweep) if gpus == 0 else "not known: no GPU on this machine; resources.hardware=h100, for example, plans for one"
    header = ("    arm", "weights", "gradients", "optimizer", "activations", "logits", "generation", "peak", "", "time a trial")
    unit, name = (GB, "GB") if max(one.memory.peak for one in needed.values()) >= GB else (MB, "MB")
    rows = [_row(arm.name, needed[arm.name], unit) for arm in declared if arm.name in needed]
    out = [f"  hardware  {where}; memory in {name} per worker", *table([header, *rows], right=(*range(1, 8), 9))]
    for arm in declared:
        one = needed.get(arm.name)
        if one is not None and one.remedies and one.possible:
            out.append(f"    {arm.name} does not fit as configured; it does with {', or with '.join(one.remedies)}")
    on_cpus = cpu.total(sweep, declared, needed, cpus) if cpus is not None else None
    sentence = on_cpus or total(sweep, declared, needed, Speed())
    return [*out, f"  time      {sentence}"] if sentence is not None else out


def total(sweep: SweepConfig, declared: Sequence[Arm], needed: Mapping[str, Requirement], speed: Speed) -> str | None:
    """Hours and cost of the whole sweep in words; None if they are unknown."""
    whole = cost(sweep, declared, needed)
    if whole is None:
        return None
    hours, gpu_hours = (f"about {value:.3g}" if value >= 0.01 else "less than 0.01" for value in (whole.hours, whole.gpu_hours))
    price = f", price {whole.price:,.2f}" if whole.price is not None else ""
    basis = "measured in the first trial" if speed.measured else "assumed until the first trial is measured"
    return (
        f"{hours} h one trial at a time, {gpu_hours.removeprefix('about ')} GPU-hours{price}, with evaluation, at an MFU of "
        f"{speed.mfu:.2f} ({basis})" + ("; early stopping takes less" if sweep.scheduler.name != "none" else "")
    )


def _row(name: str, one: Requirement, unit: float) -> tuple[str, ...]:
    memory = one.memory
    parts = (memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.logits, memory.generation, memory.peak)
    verdict = "" if one.budget is None else "fits" if one.fits else "too large" if one.possible else "cannot fit"
    return (f"    {name}", *(f"{part / unit:.1f}" for part in parts), verdict, _time(one.trial_seconds))


def _cpu(sweep: SweepConfig) -> str:
    """Where trials run without a GPU, and why not on the one that the sweep names."""
    if sweep.resources.hardware is None:
        return "CPU"
    why = "gpus_per_worker is 0" if sweep.resources.gpus_per_worker == 0 else "model is tiny"
    return f"CPU, because {why}; resources.gpus_per_worker=1 plans for hardware = {sweep.resources.hardware}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1:
        return "< 1 s"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
