"""How the best configuration of each arm is confirmed: seeds, looks, the margin that matters, the models that are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from jepa_ray.config.record import Record, show


class ConfirmConfig(Record):
    """Retrains the best configuration of each arm on fresh seeds and scores it once on the test split."""

    seeds: tuple[int, ...] = (82, 23, 37, 84, 4)
    """Fresh seeds, the same for all arms so that differences are paired; the paper's five by default. If empty, no confirmation."""
    margin: float = Field(0.01, gt=0, lt=1)
    """Smallest difference that matters, as a share of the test examples: 0.01 is one percentage point."""
    equal_flops: bool = True
    """For each seed, retrain the more expensive of a method and its baseline with the cheaper one's counted training FLOPs and a schedule
    that ends there (stage `matched`). Skipped for controls, and if the two costs are within 2 % of each other."""
    race: tuple[int, ...] = ()
    """Interim looks, as numbers of seeds such as [3, 5, 10]: comparisons that are decided or hopeless at a look are not continued. The last
    look is all seeds. If empty, every arm runs on every seed."""
    until: Literal["planned", "decided"] = "planned"
    """planned: the verdict is on `seeds`. decided: further seeds run by themselves, as many as the verdict asks for, until every claim is
    better, worse, equivalent or hopeless, or has `max_seeds`."""
    max_seeds: int = Field(40, ge=2)
    """Most seeds of an arm if `until` is `decided`."""
    keep: Literal["best", "all", "none"] = "best"
    """Which trained models stay in `results/NAME/models/` (causal models; for masked encoders see `base.masked.keep_checkpoints`). best: of
    each arm, that of the seed with the median test accuracy (of an even number of seeds the lower median, of equal seeds the first). As the
    median is known at the end only, the disk must hold the models of all seeds during the confirmation. all: those of every seed. none: no
    weights. May change from one run to the next; a model that was not kept is not trained again."""
    pilot: str | None = None
    """Folder of an earlier sweep from which `--dry-run` takes the spread over seeds and examples. If null, `sd_seed` and `discordance`."""
    sd_seed: float | None = Field(None, ge=0, lt=1)
    """For the plan: standard deviation over seeds of the paired difference in accuracy. If null, the assumption of `analysis.planning`."""
    discordance: float | None = Field(None, gt=0, le=1)
    """For the plan: share of test examples on which two arms disagree. If null, the assumption of `analysis.planning`."""

    @property
    def most(self) -> int:
        """Most seeds that an arm may run."""
        return self.max_seeds if self.until == "decided" else len(self.seeds)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"must be distinct seeds, got {show(value)}; drop the repeated one")
        if any(seed < 0 for seed in value):
            raise ValueError(f"must all be at least 0, got {show(value)}")
        return value

    @model_validator(mode="after")
    def _looks_at_seeds(self) -> ConfirmConfig:
        if self.race and (list(self.race) != sorted(set(self.race)) or self.race[0] < 2 or self.race[-1] != len(self.seeds)):
            raise ValueError(
                f"race must rise from at least 2 seeds to all {len(self.seeds)} of confirm.seeds, got {show(self.race)}; "
                f"e.g. race: [{min(3, len(self.seeds))}, {len(self.seeds)}]"
            )
        return self

    @model_validator(mode="after")
    def _goes_on_from_the_plan(self) -> ConfirmConfig:
        if self.until == "decided" and self.race:
            raise ValueError("until: decided looks at all seeds of `seeds` first, so it cannot be combined with race; drop one of the two")
        if self.until == "decided" and self.max_seeds < len(self.seeds):
            raise ValueError(f"max_seeds is {self.max_seeds}, fewer than the {len(self.seeds)} of confirm.seeds; raise it, or drop seeds")
        if self.until == "decided" and len(self.seeds) < 2:
            raise ValueError("until: decided starts from at least two seeds; add to confirm.seeds")
        return self
