"""200 training steps, no batch twice, as a trial runs them: LoRA or all weights, on two lengths of examples, baseline and JEPA arms.

Steps stop when the part's time is up; the figures include their number. If a step runs out of memory, its tokens per forward pass are
halved until it fits, as in a trial.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu import card, data, models
from benchmarks.gpu.form import Findings, Form
from benchmarks.gpu.syncs import counted, places, sdpa_shapes
from jepa_ray.config import LoraConfig, TrialConfig
from jepa_ray.data.views import TokenTable
from jepa_ray.models.footprint import footprint, labels_at_once
from jepa_ray.models.network import Network
from jepa_ray.training import device, memory
from jepa_ray.training.cost import FlopModel
from jepa_ray.training.epochs import epoch_steps
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.optimizer import make_optimizer
from jepa_ray.training.placement import place
from jepa_ray.training.runtime import Runtime, StepTotals
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import train_step

STEPS = 200
PROFILED = 3
WARM_UP = 2
"""Steps in which graphs are compiled; a graph compiled later is a recompilation."""
EXAMPLES = {"nl-rx": 1024, "gsm8k": 640}


def nlrx_lora(form: Form, findings: Findings) -> None:
    """LoRA on short examples."""
    measure("nl-rx", LoraConfig(), form, findings)


def nlrx_full(form: Form, findings: Findings) -> None:
    """All weights on short examples."""
    measure("nl-rx", None, form, findings)


def gsm8k_lora(form: Form, findings: Findings) -> None:
    """LoRA on long examples."""
    measure("gsm8k", LoraConfig(), form, findings)


def gsm8k_full(form: Form, findings: Findings) -> None:
    """All weights on long examples."""
    measure("gsm8k", None, form, findings)


def measure(task: str, lora: LoraConfig | None, form: Form, findings: Findings) -> None:
    """Both arms of one kind of training."""
    sample, source = data.examples(task, form.data, 64 if form.small else EXAMPLES[task])
    tokenizer, table = models.tokenised("llama3", sample)
    network = models.network("llama3", form.small, tokenizer, form.device, lora)
    size = 8 if form.small else 128
    findings.note(
        {"data": source, "examples": len(table), "tokenizer": models.TOKENIZER, "batch_size": size, "lora_r": lora.r if lora else None}
    )
    headlines = []
    for number, (name, jepa) in enumerate((("baseline", False), ("jepa", True))):
        config = models.trial_config(lora=lora, jepa=jepa, batch_size=size)
        until = time.time() + form.left() / (2 - number)
        arm, result = run_arm(network, table, config, form, until)
        headlines.append(
            f"{name}: {result['steps']} steps, p50 {result['p50_s']:.3g} s, p95 {result['p95_s']:.3g} s"
            + f", {result['tokens_per_s']:.3g} tokens/s"
            + (f", MFU {result['mfu']:.2f}" if result["mfu"] else "")
            + (f", {result['peak_memory_bytes'] / 1e9:.0f} GB" if result["peak_memory_bytes"] else "")
            + (f" ({result['estimated_memory_bytes'] / 1e9:.0f} GB estimated)" if result["peak_memory_bytes"] else "")
            + (f", {result['recompilations']} recompilations" if result["recompilations"] else "")
        )
        findings.note({name: result}, "; ".join(headlines))
        findings.note({name: result | waits(arm, form, until)})
        del arm  # free its optimizer's state before the next arm
        device.clear(form.device)


def run_arm(network: Network, table: TokenTable, config: TrialConfig, form: Form, until: float) -> tuple[Arm, dict[str, Any]]:
    """One arm's timed steps, and their figures."""
    steps = 4 if form.small else STEPS
    arm = Arm(models.arm(network, config), table, config, models.runtime(form), steps + PROFILED + 1)
    began = time.perf_counter()
    with sdpa_shapes() as shapes:
        while arm.step < steps and (arm.step < 2 or time.time() + reserved(arm) < until):
            arm.advance()
    wall = time.perf_counter() - began
    return arm, arm.figures(form) | {"wall_s": wall, "attention_shapes": len(shapes), "syncs_per_step": None, "syncs_at": None}


def reserved(arm: Arm) -> float:
    """Upper bound of the seconds that `waits` takes: a profiled step is slower, and its events must be read."""
    return 1.0 + 2 * (PROFILED + 1) * arm.seconds[-1]


def waits(arm: Arm, form: Form, until: float) -> dict[str, Any]:
    """The host's waits in a few more steps, on new batches too; empty if the time is up or the profiler does not work here."""
    measured: dict[str, Any] = {}
    if form.small or time.time() + arm.seconds[-1] < until:
        measured["syncs_at"] = places(arm.advance, 1)
    if form.small or time.time() + PROFILED * arm.seconds[-1] < until:
        try:
            measured["syncs_per_step"] = counted(lambda: arm.advance_to(arm.step + PROFILED), PROFILED)
        except RuntimeError as error:
            measured["profiler"] = str(error)
    return measured


@dataclass
class Arm:
    """One arm's training: its next step, and the time and sums of its steps so far."""

    network: Network
    table: TokenTable
    config: TrialConfig
    runtime: Runtime
    total: int
    step: int = 0
    seconds: list[float] = field(default_factory=list)
    totals: StepTotals = field(default_factory=StepTotals)
    """Sums over the steps in `seconds`, except the first."""
    largest: StepTotals = field(default_factory=StepTotals)
    """The totals of the step with the most tokens."""

    def __post_init__(self) -> None:
        self.graphs = [graphs_compiled()]
        place(self.network, self.config, self.runtime.device, len(self.table) * STEPS)
        self.state = TrainState(
            config=self.config,
            table=self.table,
            network=self.network,
            optimizer=make_optimizer(self.network, self.config),
            term=Term.of(self.config, self.network),
            runtime=self.runtime,
            tokens_that_fit=memory.fitting(self.network, self.config, self.table, self.runtime, sharded=False),
        )
        self.flops = FlopModel.of(self.network)
        self.batches = different_batches(len(self.table), self.config, self.total)
        if self.runtime.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def advance(self) -> None:
        """One step."""
        began = time.perf_counter()
        totals = train_step(self.state, self.batches[self.step], self.step, self.total)
        if self.runtime.device == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - began)
        self.graphs.append(graphs_compiled())
        self.largest = max(self.largest, totals, key=lambda one: one.tokens)
        if self.step:
            self.totals.add(totals)
        self.step += 1

    def advance_to(self, step: int) -> None:
        """Train until `step` steps are done."""
        while self.step < step:
            self.advance()

    def figures(self, form: Form) -> dict[str, Any]:
        """Speed and memory of the steps so far."""
        later, totals = self.seconds[1:], self.totals
        spent, examples = sum(later), sum(len(batch) for batch in self.batches[1 : self.step])
        flops = self.flops.train_flops(totals)
        peak = card.peak(torch.cuda.get_device_name()) if form.device == "cuda" else None
        return {
            "steps": self.step,
            "steps_wanted": self.total - PROFILED - 1,
            "distinct_batches": len({batch.tobytes() for batch in self.batches[: self.step]}),
            "first_step_s": self.seconds[0],
            "p50_s": float(np.percentile(later, 50)),
            "p95_s": float(np.percentile(later, 95)),
            "max_s": max(later),
            "tokens_per_s": totals.tokens / spent,
            "examples_per_s": examples / spent,
            "tokens_per_step": totals.tokens / len(later),
            "labels_per_step": totals.num_labels / len(later),
            "flops_per_step": flops / len(later),
            "mfu": flops / spent / peak if peak else None,
            "tokens_per_forward": self.state.tokens_that_fit,
            "attention": self.network.kernel,
            "compiled": self.network.compiled,
            "graphs": self.graphs[-1] - self.graphs[0],
            "recompilations": self.graphs[-1] - self.graphs[min(WARM_UP, self.step)],
            "peak_memory_bytes": torch.cuda.max_memory_allocated() if form.device == "cuda" else None,
            "estimated_memory_bytes": self.estimate(),
            "mean_loss": totals.ce_sum / totals.num_labels,
        }

    def estimate(self) -> float | None:
        """Bytes that the plan expects at the peak of the largest step; None for an architecture that it does not know."""
        shape = memory.shape_of(self.network)
        if shape is None:
            return None
        training = memory.training_of(self.network, self.config, self.runtime, sharded=False)
        tokens, labels = self.largest.tokens, self.largest.num_labels
        passes = max(1, math.ceil(tokens / (self.state.tokens_that_fit or tokens)))
        return footprint(shape, training).peak(
            tokens / passes,
            labels / passes,
            path_tokens=self.largest.path_tokens / passes,
            pairs=self.largest.attended / passes,
            labels_at_once=labels_at_once(shape.vocabulary),
            accumulates=passes > 1,
        )


def graphs_compiled() -> int:
    """Graphs that this process has compiled."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def different_batches(num_examples: int, config: TrialConfig, count: int) -> list[NDArray[np.int64]]:
    """The first `count` batches of a trial's epochs; each is a new draw of examples, regardless of order."""
    per_epoch = math.ceil(num_examples / config.optim.batch_size)
    epochs = range(math.ceil(count / per_epoch))
    return [rows for epoch in epochs for rows in epoch_steps(num_examples, config.optim, config.seed, epoch)][:count]
