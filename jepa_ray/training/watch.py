"""When a trial is diagnosed, what that costs, and what it amounts to: metrics, a few columns, alarms.

At the start and at the end always; at the end of the epochs between while all diagnostics together have cost no more FLOPs than
`evaluation.diagnostic_share` of training. Where training is so short that start and end alone would cost more, fewer pairs are
looked at, but FEWEST at least. FLOPs and not seconds, and the number of pairs by next-token training's: the same on any machine, and
the same pairs in all arms.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from jepa_ray.config import TrialConfig
from jepa_ray.data.views import TokenTable
from jepa_ray.training.alarms import alarms, names
from jepa_ray.training.build import Training
from jepa_ray.training.diagnose import diagnose, diagnostic_rows, due, embeddings, gradient_metrics
from jepa_ray.training.step import NonFinite, Runtime

FEWEST = 32
"""Pairs that embeddings can be judged by at all."""
GRADIENT_SHARE = 1 / 8
"""Training examples whose gradients are compared, per pair."""


@dataclass
class Watch:
    """The diagnostics of one trial."""

    config: TrialConfig
    train: TokenTable
    val: TokenTable
    runtime: Runtime
    flops_per_token: int
    """Of training: forward and backward."""
    pairs: int = 0
    """Validation pairs that are looked at."""
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    flops: float = 0.0

    def __post_init__(self) -> None:
        if wanted := self.config.evaluation.diagnostic_pairs:
            planned = self.config.optim.num_epochs * float(self.train.lm.lengths.sum())
            affordable = self.config.evaluation.diagnostic_share * planned / (2 * self._tokens(1.0))
            self.pairs = int(min(wanted, max(FEWEST, affordable), len(self.val)))

    def _tokens(self, pairs: float) -> float:
        """What a look at so many pairs costs, in tokens of training: a forward pass is a third of one's cost, and the gradients of two
        terms over an eighth as many examples are a forward and two backward passes."""
        val, train = (float((table.lm.lengths + table.text.lengths + table.code.lengths).mean()) for table in (self.val, self.train))
        return pairs * (val / 3 + GRADIENT_SHARE * train * 5 / 3)

    def look(self, epoch: int, training: Training, step: int, total_steps: int, train_flops: float) -> dict[str, float]:
        """Metrics `diag_*` after `epoch` epochs (0: before training); none where it is not their turn. NonFinite where a loss is not."""
        evaluation = self.config.evaluation
        wanted = due(epoch, self.config.optim.num_epochs, train_flops, self.flops, evaluation.diagnostic_share)
        if not self.pairs or not wanted:
            return {}
        started = time.perf_counter()
        rows = diagnostic_rows(len(self.val), self.pairs, self.config.data.split_seed)
        few = diagnostic_rows(len(self.train), max(1, round(self.pairs * GRADIENT_SHARE)), self.config.data.split_seed)
        term = training.term
        weight = term.weight if term is not None else None  # before its schedule: a warm-up is meant
        found = diagnose(training.network, self.val, self.config, self.runtime, rows, term)
        found |= gradient_metrics(training.network, self.train, self.config, few, term, weight)
        self.history.append(found)
        self.seconds += time.perf_counter() - started
        self.flops += self.flops_per_token * self._tokens(self.pairs)
        if not (math.isfinite(found["diag_val_ce"]) and math.isfinite(found["diag_val_jepa"])):
            raise NonFinite(f"diagnostics after epoch {epoch}: cross-entropy {found['diag_val_ce']:g}, JEPA {found['diag_val_jepa']:g}")
        return found

    def keep(self, training: Training) -> list[dict[str, Any]]:
        """Lines of the embeddings table: of confirmed trials, after training, where `evaluation.embeddings` asks for them."""
        evaluation = self.config.evaluation
        if not (evaluation.test and evaluation.embeddings):
            return []
        rows = diagnostic_rows(len(self.val), evaluation.embeddings, self.config.data.split_seed)
        return embeddings(training.network, self.val, self.config, self.runtime, rows)

    def columns(self) -> dict[str, float | str | None]:
        """What the trials table holds of them: losses on validation, time, alarms."""
        if not self.history:
            return {}
        last = self.history[-1]
        return {
            "val_ce": last["diag_val_ce"],
            "val_jepa": last["diag_val_jepa"],
            "diag_seconds": self.seconds,
            "alarms": names(alarms(self.history)) or None,
        }

    def state(self) -> dict[str, object]:
        """For the working checkpoint."""
        return {"history": self.history, "seconds": self.seconds, "flops": self.flops}

    def resume(self, state: dict[str, object]) -> None:
        """Go on from `state()`."""
        for name, value in state.items():
            setattr(self, name, value)
