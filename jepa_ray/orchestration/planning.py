"""What a sweep takes on the GPU or CPUs that it will run on, before it starts; and its cost once the first trial has been measured."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jepa_ray.config import SweepConfig, arms
from jepa_ray.orchestration.environment import allowed_cpus
from jepa_ray.orchestration.recipes import estimate
from jepa_ray.plan import Estimate
from jepa_ray.plan.budget import lines, total
from jepa_ray.plan.cpu import Cpus, precision_of, timed
from jepa_ray.plan.hardware import CARDS, Card, of_gpu
from jepa_ray.plan.requirements import Requirement, Speed, gpu_share, recomputed, refusals, requirements
from jepa_ray.system.gpus import Gpu, local_gpus


@dataclass(frozen=True)
class Planned:
    """Estimates of a sweep, and what they mean on a card."""

    sweep: SweepConfig
    estimates: Mapping[str, Estimate]
    facts: list[str]
    """About the data, in words."""
    card: Card | None
    """None: a CPU, or a GPU that is not known yet."""
    cpus: Cpus | None = None
    """CPUs of this machine, if trials would run on them and hours can be estimated."""

    @cached_property
    def needed(self) -> Mapping[str, Requirement]:
        """What trials need, by arm."""
        needed = requirements(self.sweep, self.estimates, self.card)
        return timed(self.sweep, self.estimates, needed, self.cpus) if self.cpus is not None else needed

    @property
    def hardware(self) -> list[str]:
        """Lines of the plan: memory, hours and cost."""
        return lines(self.sweep, arms(self.sweep), self.card, self.needed, self.cpus)

    def check(self) -> None:
        """ValueError, with the remedies, if the card cannot run the sweep."""
        if refused := refusals(self.sweep, self.card, self.needed):
            raise ValueError("\n".join(refused))

    def measured(self, arm: str, outcome: Mapping[str, Any]) -> str | None:
        """The cost of the sweep at the speed of a finished trial, in words; None if the trial does not tell.

        `outcome`: the trial's row, with its computed FLOPs and its seconds of training and validation.
        """
        needed, card = self.needed.get(arm), self.card
        demand = self.estimates[arm].demand if arm in self.estimates else None
        flops, seconds, evaluated = (float(outcome.get(name) or 0) for name in ("train_flops", "train_seconds", "val_seconds"))
        if card is None or needed is None or demand is None:
            return None
        training = demand.stages[-1].training
        peak = card.peak_of(training.precision)
        if peak is None or not needed.evaluation_seconds or not (flops > 0 and seconds > 0):
            return None
        resources = self.sweep.placement
        computed = recomputed(training) * flops
        mfu = computed / (seconds * peak * gpu_share(resources) * resources.workers_per_trial)
        speed = Speed(mfu, evaluated / needed.evaluation_seconds if evaluated > 0 else 1.0, measured=True)
        return total(self.sweep, arms(self.sweep), requirements(self.sweep, self.estimates, card, speed), speed)


def plan(sweep: SweepConfig) -> Planned:
    """Estimate a sweep. ValueError if no arm can be run. Reads data and tokenizers, but no weights; uses no GPU."""
    estimates, facts = estimate(sweep)
    card = card_of(sweep)
    return Planned(sweep, estimates, facts, card, cpus_of(sweep) if card is None else None)


def at_start(sweep: SweepConfig, gpus: float) -> Planned | None:
    """The plan of a sweep whose trials are about to run with `gpus` GPUs per worker. None on CPUs, or if nothing can be estimated: the
    preparation then says why. ValueError, with the remedies, if the card cannot run the sweep.
    """
    if not gpus:
        return None
    here = smallest(local_gpus())
    hardware = None if here is not None else sweep.resources.hardware  # the card itself counts where it is known
    placed = sweep.model_copy(update={"resources": sweep.resources.model_copy(update={"gpus_per_worker": gpus, "hardware": hardware})})
    card = here if here is not None else card_of(placed)
    if card is None:
        return None
    if refused := refusals(placed, card, {}):  # before any data is read
        raise ValueError("\n".join(refused))
    try:
        planned = Planned(placed, *estimate(placed), card)
    except ValueError:
        return None
    planned.check()
    return planned


def card_of(sweep: SweepConfig) -> Card | None:
    """The card to plan for: what `resources.hardware` names, or this machine's own; None for trials on CPUs and without a GPU here."""
    if sweep.placement.gpus_per_worker == 0:
        return None
    if sweep.resources.hardware is not None:
        return CARDS[sweep.resources.hardware]
    return smallest(local_gpus())


def cpus_of(sweep: SweepConfig) -> Cpus | None:
    """This machine's CPUs with their measured rate, if a sweep without a known GPU would run on them. None for a cluster, whose CPUs may be
    others, for trials that need a GPU, and for tiny models, whose time is not that of their matrix products."""
    from jepa_ray.preparation.cpu_rate import matmul_rate

    elsewhere = (sweep.resources.address or os.environ.get("RAY_ADDRESS") or "local") != "local"
    small = sweep.base.masked is not None or any(sweep.model_of(family) == "tiny" for family in sweep.families)
    if elsewhere or small or sweep.placement.gpus_per_worker:
        return None
    precision = precision_of(sweep)
    return Cpus(allowed_cpus(), matmul_rate(precision, sweep.placement.cpus_per_worker), precision)


def smallest(gpus: Sequence[Gpu]) -> Card | None:
    """The card with the least memory; None without one."""
    return of_gpu(min(gpus, key=lambda gpu: gpu.memory)) if gpus else None
