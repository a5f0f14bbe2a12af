"""When a working checkpoint is written, and the thread that writes it while training goes on.

A checkpoint is due after any optimizer step once `Runtime.checkpoint_minutes` have passed since the last one, and earlier before a phase
that cannot be interrupted (a validation) if the two together would take longer. So a process that dies loses at most that much training,
plus what a step (with several workers AGREE_EVERY of them) and a write take; a phase that is longer by itself is repeated. A phase that
has not been measured is expected to take as long as what the last checkpoint lacks.

A report needs no checkpoint: an interrupted trial trains from its last one again, to the same numbers, and reports an epoch that it has
reported before once more. The scheduler and the study keep the first report of each epoch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jepa_ray.training import checkpoint
from jepa_ray.training.runtime import Runtime, rank_zero_says

AGREE_EVERY = 8
"""Steps between two questions of several workers whether a checkpoint is due: every answer makes the host wait for the device."""


class Checkpoints:
    """Writes a trial's working checkpoint when one is due; a context manager that waits for the last write at its end.

    `take` returns a snapshot, see `checkpoint.snapshot`; all ranks call it together, and rank 0 writes what its own call returns. Every
    rank makes the same calls of this object, and rank 0's clock decides.

    An error of a write (a full disk) is raised at the next call, or at the end of the block, in the place of an Exception of the block.
    """

    def __init__(
        self, scratch: Path, runtime: Runtime, take: Callable[[], dict[str, Any]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._scratch, self._runtime, self._take, self._clock = scratch, runtime, take, clock
        self._since, self._trained = clock(), False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def after_step(self, step: int) -> None:
        """Save if it is time; `step` counts the optimizer steps so far."""
        self._trained = True
        if self._runtime.world_size == 1 or step % AGREE_EVERY == 0:
            self.save_if_due()

    def before(self, seconds: float | None) -> None:
        """Save if a kill at the end of a phase of this length would lose too much. Not if the last step is in the last checkpoint.
        None: the length is not known yet."""
        if self._trained:
            self.save_if_due(seconds)

    def save_if_due(self, ahead: float | None = 0.0) -> None:
        """Save if the time is up, or will be in `ahead` seconds (None: in as many as have passed)."""
        self._raise_error()
        passed = self._clock() - self._since
        if rank_zero_says(passed + (passed if ahead is None else ahead) >= 60 * self._runtime.checkpoint_minutes, self._runtime):
            self.save()

    def save(self) -> None:
        """Take a snapshot, and write it in the background once the write before it has ended: there are never two copies."""
        self._wait()
        copies = self._take()
        self._since, self._trained = self._clock(), False
        if self._runtime.rank == 0:
            self._thread = threading.Thread(target=self._write, args=(copies,), daemon=True, name="checkpoint")
            self._thread.start()

    def _write(self, copies: dict[str, Any]) -> None:
        try:
            checkpoint.write(self._scratch, copies)
        except BaseException as error:  # nobody else would learn of it
            self._error = error

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._wait()
        except Exception:
            # A trial that is stopped (TrialStopped, KeyboardInterrupt) does not need the checkpoint.
            if error is None or isinstance(error, Exception):
                raise
