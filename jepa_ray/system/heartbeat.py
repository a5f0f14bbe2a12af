"""The progress of a process: what a trial (or the preparation of data and models) reports about itself while it runs.

The training code writes plain numbers into `HEARTBEAT`, which the host already has: no synchronisation with the device, no
communication, and nothing here raises. Another thread of the process reads them and sends them on (`orchestration/progress.py`).

For display only: nothing here is stored or affects a decision. Metrics go through `report`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 64
"""Number of steps over which the speed is averaged."""


@dataclass(frozen=True)
class Beat:
    """The displayed progress of a running trial or a preparation."""

    phase: str
    """train, validate, test, save, or the name of a phase of the preparation."""
    done: int = 0
    """Finished units of the phase: optimizer steps of the whole training, or examples of a split."""
    total: int = 0
    """Units of the phase; 0 if unknown."""
    tokens_per_second: float | None = None
    """Over all workers; None before the second step."""
    loss: float | None = None
    """Cross-entropy per label of the latest step, in nats."""
    seconds_left: float | None = None
    """Until training and evaluation end, as far as their speed is known; None if it is not."""


class Heartbeat:
    """Written by the working thread, read by another one; a reader may see a value that is one step old.

    Only ints and floats are assigned, so no lock is needed. `clock` is replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.start("start")

    def start(self, phase: str) -> None:
        """Reset everything: another trial or preparation begins in this process."""
        self._phase, self._done, self._total, self._since = phase, 0, 0, self._clock()
        self._planned, self._steps_left, self._examples_left = False, 0, 0
        self._seconds_per_step: float | None = None
        self._tokens_per_second: float | None = None
        self._seconds_per_example: float | None = None
        self._loss: float | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    def plan(self, steps: int, examples: int) -> None:
        """Set the work that is left in the trial: optimizer steps, and examples that this process evaluates (all rounds together)."""
        self._planned, self._steps_left, self._examples_left = True, steps, examples

    def enter(self, phase: str, total: int = 0) -> None:
        """A phase of `total` units begins."""
        self._phase, self._done, self._total, self._since = phase, 0, total, self._clock()
        self._recent.clear()  # the time between two phases does not count as a step

    def advance(self, done: int) -> None:
        """`done` units of the phase are finished."""
        self._done = done

    def evaluated(self, examples: int) -> None:
        """`examples` more of the planned examples are evaluated."""
        self._done += examples
        self._examples_left = max(0, self._examples_left - examples)
        self._seconds_per_example = (self._clock() - self._since) / max(1, self._done)

    def trained(self, step: int, total: int, tokens: int, loss: float) -> None:
        """Optimizer step `step` (from 1) of `total` is finished; `tokens` over all workers, `loss` as cross-entropy per label."""
        self._done, self._total, self._loss = step, total, loss
        if self._planned:  # a first stage is trained before the trial knows how much is left
            self._steps_left = total - step
        self._recent.append((self._clock(), tokens))
        elapsed = self._recent[-1][0] - self._recent[0][0]
        if len(self._recent) > 1 and elapsed > 0:
            # The first step of the window only starts the clock; its tokens were trained before that.
            self._seconds_per_step = elapsed / (len(self._recent) - 1)
            self._tokens_per_second = sum(tokens for _, tokens in list(self._recent)[1:]) / elapsed

    def beat(self) -> Beat:
        """The current state."""
        loss = self._loss if self._loss is not None and math.isfinite(self._loss) else None
        return Beat(self._phase, self._done, self._total, self._tokens_per_second, loss, self._seconds_left())

    def _seconds_left(self) -> float | None:
        if self._steps_left and self._seconds_per_step is None:
            return None
        if not self._steps_left and not (self._examples_left and self._seconds_per_example is not None):
            return None
        return self._steps_left * (self._seconds_per_step or 0.0) + self._examples_left * (self._seconds_per_example or 0.0)


HEARTBEAT = Heartbeat()
"""The heartbeat of this process, which runs one trial or one preparation at a time."""
