"""Step-level rows of the metrics table: losses, learning rate, gradient norm, speed and memory within an epoch.

The steps since the last row become a new one after EVERY_S seconds of training, and at the last step of each epoch. All numbers are on the
host already, so a row makes it wait for nothing; with several workers, losses are those of the first worker's share.

When the rows are made depends on the clock, so nothing that decides, compares or resumes reads them. They are part of the working
checkpoint: steps that are trained again after an interruption have one row, not two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jepa_ray.config import OptimConfig
from jepa_ray.results import TrialResult
from jepa_ray.training.cost import CountsFlops, Spent
from jepa_ray.training.device import peak_memory
from jepa_ray.training.epochs import EpochPart
from jepa_ray.training.optimizer import lr_factor
from jepa_ray.training.runtime import Runtime, StepTotals

EVERY_S = 5.0
"""Seconds of training between two rows, until there are too many."""
NAMES = ("step_ce", "step_jepa", "step_learning_rate", "step_grad_norm", "step_tokens_per_second", "step_memory_bytes")
MOST_ROWS = 2000
"""Rows of the table per trial. One more, and neighbours are joined and the time between two rows is doubled."""


@dataclass
class Point:
    """The steps between two rows; sums over steps, and the state after the last of them."""

    steps: int = 0
    ce_sum: float = 0.0
    num_labels: int = 0
    jepa_sum: float = 0.0
    num_pairs: int = 0
    grad_norm_sum: float = 0.0
    tokens: int = 0
    """Over all workers."""
    seconds: float = 0.0
    """Of training."""
    step: int = 0
    epoch: float = 0.0
    learning_rate: float = 0.0
    memory_bytes: float = 0.0
    cost: dict[str, float] = field(default_factory=dict)

    def joined(self, later: Point) -> Point:
        """One point for the steps of both."""
        sums = ("steps", "ce_sum", "num_labels", "jepa_sum", "num_pairs", "grad_norm_sum", "tokens", "seconds")
        return replace(later, **{name: getattr(self, name) + getattr(later, name) for name in sums})

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the metrics table, one per value. A loss that no step computed has none."""
        values = {
            "step_ce": self.ce_sum / self.num_labels if self.num_labels else None,
            "step_jepa": self.jepa_sum / self.num_pairs if self.num_pairs else None,
            "step_learning_rate": self.learning_rate,
            "step_grad_norm": self.grad_norm_sum / self.steps,
            "step_tokens_per_second": self.tokens / self.seconds if self.seconds > 0 else None,
            "step_memory_bytes": self.memory_bytes,
        }
        where = {"step": self.step, "epoch": self.epoch, "split": "step"}
        return [{**where, "name": name, "value": value, **self.cost} for name, value in values.items() if value is not None]


@dataclass
class StepLog:
    """The step-level rows of one trial; rank 0 keeps them, the other ranks none."""

    runtime: Runtime
    optim: OptimConfig
    total_steps: int
    steps_per_epoch: int
    """Of a full epoch: a FLOPs budget may end within one."""
    logged_s: float
    """Seconds of training at the last row (at first: before the first step)."""
    every_s: float = EVERY_S
    points: list[Point] = field(default_factory=list)
    open: Point = field(default_factory=Point)
    """The steps since the last row."""

    def add(self, totals: StepTotals, grad_norm: float) -> StepTotals:
        """Add an optimizer step: this rank's totals, which are returned, and the norm of the gradients before clipping."""
        open = self.open
        open.steps += 1
        open.ce_sum += totals.ce_sum
        open.num_labels += totals.num_labels
        open.jepa_sum += totals.jepa_sum
        open.num_pairs += totals.num_pairs
        open.grad_norm_sum += grad_norm
        open.tokens += totals.tokens * self.runtime.world_size
        return totals

    def after_step(self, spent: Spent, part: EpochPart, epoch: int, flop_model: CountsFlops, *, last: bool) -> None:
        """Make a row if one is due, and show it to `Runtime.observe`.

        Args:
            spent: the cost of the finished epochs, of which there are `epoch`; part: the steps of the current one.
            last: this was the last step of the epoch.
        """
        seconds = spent.train_seconds + part.seconds
        if self.runtime.rank != 0 or not (last or seconds - self.logged_s >= self.every_s):
            return
        so_far = replace(spent)
        so_far.train(part.totals, flop_model, part.steps, part.seconds)
        # With several workers, the FLOPs of the others are not known without communication.
        cost = so_far.cost() if self.runtime.world_size == 1 else {"train_seconds": seconds}
        point = replace(
            self.open,
            seconds=seconds - self.logged_s,
            step=so_far.step,
            epoch=epoch + part.steps / self.steps_per_epoch,
            learning_rate=self.optim.learning_rate * lr_factor(so_far.step - 1, self.total_steps, self.optim),
            memory_bytes=peak_memory(self.runtime.device),
            cost=cost,
        )
        self.points.append(point)
        self.open, self.logged_s = Point(), seconds
        if len(self.points) * len(NAMES) > MOST_ROWS:
            self._thin()
        self.runtime.observe(point.rows())

    def _thin(self) -> None:
        """Join every two neighbours, from the first on: the last point stays where it is."""
        pairs = zip(self.points[0::2], self.points[1::2], strict=False)
        self.points = [first.joined(second) for first, second in pairs] + self.points[len(self.points) // 2 * 2 :]
        self.every_s *= 2

    def into(self, progress: TrialResult) -> TrialResult:
        """The progress with the step-level rows so far, which the working checkpoint keeps apart."""
        return replace(progress, metrics=[*progress.metrics, *(row for point in self.points for row in point.rows())])

    def saved(self) -> dict[str, Any]:
        """For the working checkpoint."""
        return {"points": list(map(asdict, self.points)), "open": asdict(self.open), "logged_s": self.logged_s, "every_s": self.every_s}

    def resume(self, saved: Mapping[str, Any] | None, seconds: float) -> None:
        """Continue as saved. None: by an earlier version, after so many seconds of training."""
        self.logged_s = seconds
        if saved is not None:
            self.points, self.open = _points(saved["points"]), Point(**saved["open"])
            self.logged_s, self.every_s = saved["logged_s"], saved["every_s"]


def _points(saved: Sequence[Mapping[str, Any]]) -> list[Point]:
    return [Point(**values) for values in saved]
