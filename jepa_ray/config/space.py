"""Search distributions: the values of `space:` in a YAML file, and how a value is drawn.

One class with four spellings:

    optim.learning_rate: {float: [1e-4, 1e-2], log: true}
    objective.lambda:    {float: [0, 4], step: 0.5}
    objective.k:         {int: [0, 4]}
    objective.loss_dropout: {choice: [0, 0.5, 0.75], when: {objective.k: [1, 2]}}

`when` names parameters that appear earlier in the space, and their values at which this parameter is searched. Otherwise it keeps
its value from the method or from `base`. Optuna is imported only when a value is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from jepa_ray.config.record import Record, Value, is_a, show

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


class Distribution(Record):
    """A set of values and how to draw from it. Takes exactly one of `float`, `int` and `choice`."""

    model_config = ConfigDict(serialize_by_alias=True)

    float_: tuple[float, float] | None = Field(None, alias="float")
    """Range of real numbers [low, high], both included."""
    int_: tuple[int, int] | None = Field(None, alias="int")
    """Range of whole numbers [low, high], both included."""
    choice: tuple[Value, ...] | None = None
    """List of values without order."""
    log: bool = False
    """Draw uniformly in the logarithm."""
    step: float | None = None
    """Draw only low, low + step, low + 2 step, ... up to high. If null, any value of the range."""
    when: dict[str, tuple[Value, ...]] | None = None
    """Search this parameter only if each parameter named here has one of the given values. If null, always."""

    @model_validator(mode="before")
    @classmethod
    def _single_when_value(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("when"), dict):
            when = {name: wanted if isinstance(wanted, (list, tuple)) else [wanted] for name, wanted in value["when"].items()}
            return {**value, "when": when}
        return value

    @field_validator("float_", "int_", mode="before")
    @classmethod
    def _two_ends(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, (list, tuple)) and len(value) == 2):
            raise ValueError(f"a range is written [low, high], got {show(value)}")
        return value

    @model_validator(mode="after")
    def _lawful(self) -> Distribution:
        kinds = [kind for kind, given in (("float", self.float_), ("int", self.int_), ("choice", self.choice)) if given is not None]
        if len(kinds) != 1:
            raise ValueError(f"needs exactly one of float, int and choice, got {' and '.join(kinds) or 'none of them'}")
        if self.choice is not None:
            if not self.choice:
                raise ValueError("choice is empty; give at least one value")
            if self.log or self.step is not None:
                raise ValueError("choice takes neither log nor step; list the values")
            if len({_key(value) for value in self.choice}) < len(self.choice):
                raise ValueError(f"choice contains a value twice: {show(self.choice)}; drop one")
            return self
        low, high = self.bounds
        if low > high:
            raise ValueError(f"the range is empty, since low = {low:g} is above high = {high:g}; swap them")
        if self.log and low <= 0:
            raise ValueError(f"a log range needs low > 0, got low = {low:g}; raise low or drop log")
        if self.step is not None:
            if self.log:
                raise ValueError("log and step exclude each other; drop one")
            if self.step <= 0:
                raise ValueError(f"step must be above 0, got {self.step:g}")
            if self.int_ is not None and self.step != int(self.step):
                raise ValueError(f"step of an int range must be whole, got {self.step:g}")
        return self

    @model_serializer(mode="wrap")
    def _without_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    @property
    def bounds(self) -> tuple[float, float]:
        """(low, high) of a range."""
        pair = self.float_ if self.float_ is not None else self.int_
        assert pair is not None, "a choice has no bounds"
        return pair

    def probes(self) -> list[Any]:
        """Values whose legality implies that of all: the lowest and highest of a range, or every choice."""
        if self.choice is not None:
            return list(self.choice)
        low, high = self.bounds
        return list(dict.fromkeys([low, high if self.step is None else self.snap(low + self._steps() * self.step)]))

    def _steps(self) -> int:
        """How many steps fit into the range."""
        (low, high), step = self.bounds, self.step or 1
        return int((high - low) / step + 1e-9)

    def snap(self, value: Any) -> Any:
        """The value without rounding errors of `low + n * step`: 0.3, not 0.30000000000000004, which would give another config_id."""
        if self.float_ is None or self.step is None or not isinstance(value, float):
            return value
        return float(f"{value:.12g}")

    def contains(self, value: Any) -> bool:
        """Whether a value can be drawn."""
        if self.choice is not None:
            return any(_key(value) == _key(option) for option in self.choice)
        if not is_a(value, float if self.int_ is None else int):
            return False
        low, high = self.bounds
        on_grid = self.step is None or math.isclose((value - low) / self.step, round((value - low) / self.step), abs_tol=1e-9)
        return low <= value <= high and on_grid

    def is_continuous(self) -> bool:
        """Whether it has infinitely many values, so that no value is drawn twice."""
        return self.float_ is not None and self.step is None and self.float_[0] < self.float_[1]

    def applies(self, drawn: Mapping[str, Any]) -> bool:
        """Whether the parameter is searched, given the values drawn (or fixed) before it."""
        return self.when is None or all(
            name in drawn and any(_key(drawn[name]) == _key(value) for value in wanted) for name, wanted in self.when.items()
        )

    def grid(self) -> Iterable[Any]:
        """All values, in order and lazily. Raises ValueError if there are infinitely many."""
        if self.choice is not None:
            return self.choice
        low, high = self.bounds
        if self.int_ is not None:
            return range(int(low), int(high) + 1, int(self.step or 1))
        if self.step is None:
            raise ValueError(f"a grid needs finitely many values; give the range [{low:g}, {high:g}] a step, or list values with choice")
        step = self.step
        return (self.snap(low + number * step) for number in range(self._steps() + 1))

    def to_optuna(self) -> BaseDistribution:
        """The equivalent Optuna distribution."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choice is not None:
            return CategoricalDistribution(self.choice)
        low, high = self.bounds[0], self.probes()[-1]  # Optuna warns if a range is not a multiple of its step
        if self.int_ is not None:
            return IntDistribution(int(low), int(high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(low, high, log=self.log, step=self.step)

    def suggest(self, trial: Trial, path: str) -> Any:
        """Draw a value through an Optuna trial."""
        return self.snap(trial._suggest(path, self.to_optuna()))

    def text(self) -> str:
        """One line for the plan."""
        if self.choice is not None:
            values = "one of " + ", ".join(map(_format, self.choice))
        else:
            low, high = self.bounds
            values = f"{low:g} to {high:g}" + (", whole" if self.int_ is not None else "") + (", log" if self.log else "")
            values += f", step {self.step:g}" if self.step is not None else ""
        conditions = [f"{name} in {', '.join(map(_format, wanted))}" for name, wanted in (self.when or {}).items()]
        return values + (f"   when {' and '.join(conditions)}" if conditions else "")


def enumerate_grid(space: Mapping[str, Distribution], drawn: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Every distinct assignment of a space, in order. A parameter is left out if its `when` does not apply.

    Lazy, since there may be billions. Raises ValueError if a range has no step.
    """
    point = dict(drawn or {})
    path = next(iter(space), None)
    if path is None:
        yield point
        return
    rest = {name: distribution for name, distribution in space.items() if name != path}
    if not space[path].applies(point):
        yield from enumerate_grid(rest, point)
        return
    for value in space[path].grid():
        yield from enumerate_grid(rest, {**point, path: value})


def _key(value: Any) -> tuple[bool, Any]:
    return isinstance(value, bool), value  # True is not 1 here


def _format(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
