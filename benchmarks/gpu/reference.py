"""The packed step against its alternatives, on the same examples; contenders take turns, and no batch is repeated.

padded      the reference's layout: three rows of 512 per example, logits at every position (`benchmarks.step.padded_step`)
plain       a usual loop of Transformers: rows padded to the longest, SDPA, next-token loss on the answers; no JEPA term
jepa        the packed step with the term; computes the same as `padded`
baseline    the packed step without the term; computes the same as `plain`
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu import data, models
from benchmarks.gpu.form import Findings, Form
from benchmarks.gpu.steps import Arm
from benchmarks.step import PADDED, padded_step
from jepa_ray.config import TrialConfig
from jepa_ray.data.packing import count_labels
from jepa_ray.data.views import TokenTable
from jepa_ray.models.loading import uses_bf16
from jepa_ray.models.network import Network
from jepa_ray.training.epochs import epoch_steps
from jepa_ray.training.optimizer import make_optimizer

ROUNDS = 5
PADDED_MICRO, PLAIN_MICRO = 4, 16
"""Examples per forward pass of `padded` (12 rows of 512) and of `plain`."""
EXAMPLES = 512
IGNORED = -100


def run(form: Form, findings: Findings) -> None:
    """The part: full fine-tuning, on both lengths of examples."""
    findings.note({"tokenizer": models.TOKENIZER, "padded_to": PADDED, "padded_micro": PADDED_MICRO, "plain_micro": PLAIN_MICRO})
    headlines = []
    for number, task in enumerate(("nl-rx", "gsm8k")):
        measured = measure(task, form, time.time() + form.left() / (2 - number))
        headlines.append(f"{task}: {measured['padded over jepa']:.1f} x padded rows, {measured['plain over baseline']:.2f} x a plain loop")
        findings.note({task: measured}, "; ".join(headlines))


def measure(task: str, form: Form, until: float) -> dict[str, Any]:
    """Seconds of a step of each contender, and the two ratios (above 1: the packed step is faster)."""
    sample, source = data.examples(task, form.data, 48 if form.small else EXAMPLES)
    tokenizer, table = models.tokenised("llama3", sample)
    network = models.network("llama3", form.small, tokenizer, form.device)
    size = 8 if form.small else 128
    jepa, baseline = (models.trial_config(lora=None, jepa=term, batch_size=size) for term in (True, False))
    models.arm(network, jepa)  # all contenders keep the predictor tokens: `padded` needs them, and they cost the others nothing
    bf16 = uses_bf16(jepa.model, torch.device(form.device))
    optimizer = make_optimizer(network, jepa)
    batches = full_batches(len(table), jepa)

    arms: dict[str, Arm] = {}

    def packed(name: str, config: TrialConfig) -> Callable[[NDArray[np.int64]], None]:
        arm = Arm(network, table, config, models.runtime(form), ROUNDS + 1)
        arm.state.optimizer = optimizer
        arms[name] = arm

        def step(rows: NDArray[np.int64]) -> None:
            arm.batches[arm.step] = rows
            arm.advance()

        return step

    contenders: dict[str, Callable[[NDArray[np.int64]], Any]] = {
        "jepa": packed("jepa", jepa),
        "baseline": packed("baseline", baseline),
        "plain": lambda rows: plain_step(network, optimizer, table, rows.tolist(), PLAIN_MICRO, bf16),
        "padded": lambda rows: padded_step(network, optimizer, table, rows.tolist(), PADDED_MICRO, bf16),
    }
    for name, step in contenders.items():  # load kernels, allocate memory
        step(next(batches)[: PADDED_MICRO if name == "padded" else size])
    seconds = turns(contenders, batches, 2 if form.small else ROUNDS, until)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "data": source,
        "batch_size": size,
        "rounds": len(seconds["padded"]),
        "tokens_per_forward": {name: arm.state.tokens_that_fit for name, arm in arms.items()},
        "seconds": medians,
        "padded over jepa": medians["padded"] / medians["jepa"],
        "plain over baseline": medians["plain"] / medians["baseline"],
        "jepa over baseline": medians["jepa"] / medians["baseline"],
        "examples_per_s": {name: size / each for name, each in medians.items()},
    }


def full_batches(num_examples: int, config: TrialConfig) -> Iterator[NDArray[np.int64]]:
    """Endless batches of a trial's epochs, without the short ones."""
    for epoch in itertools.count():
        yield from (rows for rows in epoch_steps(num_examples, config.optim, config.seed, epoch) if len(rows) == config.optim.batch_size)


def turns(
    contenders: dict[str, Callable[[NDArray[np.int64]], Any]], batches: Iterator[NDArray[np.int64]], rounds: int, until: float
) -> dict[str, list[float]]:
    """Seconds of every step; at least one round, and no round that would not finish in time."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        began = time.time()
        for name, step in contenders.items():
            _wait()
            start = time.perf_counter()
            step(next(batches))
            _wait()
            seconds[name].append(time.perf_counter() - start)
        if number + 1 < rounds and time.time() + 1.2 * (time.time() - began) > until:
            break
    return seconds


def plain_step(network: Network, optimizer: torch.optim.Optimizer, table: TokenTable, rows: Sequence[int], micro: int, bf16: bool) -> float:
    """One step of a usual loop; returns the mean loss over the step's labels, the same labels as a trial's."""
    device = network.device
    optimizer.zero_grad(set_to_none=True)
    labels_of_step = count_labels(table, list(rows), loss_on="answer", train_end_of_turn=True)
    total = torch.zeros((), device=device)
    for start in range(0, len(rows), micro):
        ids, mask, labels = (tensor.to(device) for tensor in collated(table, rows[start : start + micro]))
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16), network.attention(None):
            loss = network.causal_lm(
                input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=labels_of_step, use_cache=False
            ).loss
        loss.backward()
        total = total + loss.detach()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return float(total)  # read once, as the trial's step reads its sums


def collated(table: TokenTable, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and labels of the rows' training sequences, padded to the longest."""
    sequences = [table.lm[i].astype(np.int64) for i in rows]
    shape = len(rows), max(map(len, sequences))
    ids, mask, labels = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
    for row, (i, sequence) in enumerate(zip(rows, sequences, strict=True)):
        ids[row, : len(sequence)] = torch.from_numpy(sequence)
        mask[row, : len(sequence)] = 1
        answer = slice(int(table.prompt_length[i]), len(sequence))
        labels[row, answer] = ids[row, answer]
    return ids, mask, labels


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
