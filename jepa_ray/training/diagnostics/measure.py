"""Diagnostics of a network during training: both losses on validation, the geometry of embeddings, the angle of the terms' gradients.

They are the same for every arm. If the JEPA term is off (the baseline, lambda = 0), it is monitored: cosine distance, k = 0, no
predictor. Diagnostics do not affect training: they leave no gradients behind and restore training mode and random states. With fixed
examples, no dropout and no communication (all workers compute the same), the same weights give the same numbers.

Cost: `diagnose` is one forward pass over its examples with their views (two if the objective reads other states than last ones). The
linear algebra is cheap next to it: 128 pairs take 0.3 to 0.5 s on one CPU core at width 2,048, almost all for singular values, and 1 to
1.3 s at 4,096. `gradient_terms` is one forward and two backward passes over 16 examples; while it runs, it keeps two gradients of all
trained parameters in memory. On the tiny models, both together take about 0.3 s. `due` bounds the sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_ray.config import ObjectiveConfig, TrialConfig
from jepa_ray.data.packing import make_batch
from jepa_ray.data.views import TokenTable
from jepa_ray.evaluation.embedding import describe
from jepa_ray.models.loading import uses_bf16
from jepa_ray.models.network import Network
from jepa_ray.objectives.distances import cosine, distance
from jepa_ray.streams import stream
from jepa_ray.training.jepa_term import Term, active_objective, constant_target
from jepa_ray.training.micro_batches import micro_batches
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.state import StepInputs, backend_of
from jepa_ray.training.step import losses, states

PAIRS = 128
"""Validation pairs that are diagnosed."""
GRADIENT_ROWS = 16
"""Training examples for comparing gradients."""
TOKENS = 4096
"""Tokens per pass for comparing gradients on a GPU, where two sets of gradients are kept besides the optimizer's states."""


def diagnostic_rows(num_examples: int, size: int, split_seed: int) -> list[int]:
    """Indices of the diagnosed examples: all, or the first `size` of the split's own permutation, which is the same in all trials."""
    order = stream(split_seed, "diagnostics").permutation(num_examples)
    return sorted(int(i) for i in order[:size])


def due(epoch: int, num_epochs: int, trained: float, spent: float, share: float = 0.03) -> bool:
    """Whether to diagnose after `epoch` epochs (0: before training): at the start, at the end, and in between while it is cheap.

    Args:
        trained, spent: cost of training and of diagnostics so far, in the same unit: seconds, or FLOPs or tokens if the decision must
            not depend on the clock.
        share: bound on `spent` / `trained`; exceeded at most by the cost of the first, the last and one other diagnosis.
    """
    return epoch == 0 or epoch >= num_epochs or spent < share * trained


def monitored(config: TrialConfig) -> TrialConfig:
    """The config with its own JEPA term, or, if it has none, with the one that is monitored: cosine, k = 0."""
    return config if active_objective(config) is not None else config.model_copy(update={"objective": ObjectiveConfig(k=0)})


def quiet_term(config: TrialConfig, network: Network, term: Term | None) -> Term:
    """The term as it is diagnosed: without exchange between workers, and with its gradient even if a control would hide it.

    `term`: the trial's own, the only one with the target encoder's average; None: created from the configuration.
    """
    active = term if term is not None and active_objective(config) is term.objective else Term.of(config, network, weight=1.0)
    assert active is not None
    control = "none" if active.objective.control in ("monitor", "zero") else active.objective.control
    return replace(active, objective=active.objective.model_copy(update={"gather": False, "control": control}))


def term_sums(
    network: Network, table: TokenTable, rows: Sequence[int], config: TrialConfig, term: Term
) -> Iterator[tuple[tuple[Tensor, Tensor], tuple[int, int]]]:
    """For each micro-batch: sums of cross-entropy and JEPA term as in the training step, and numbers of labels and pairs."""
    inputs = StepInputs(config=config, table=table, tokens_that_fit=None if network.device.type == "cpu" else TOKENS)
    for batch in micro_batches(inputs, np.array(rows, dtype=np.int64), 0, term):
        yield losses(network, batch, config, network.device, term), (batch.num_labels, batch.num_pairs)


def own_states(
    network: Network, table: TokenTable, rows: Sequence[int], size: int, config: TrialConfig, term: Term | None
) -> tuple[Tensor, Tensor]:
    """Sources and targets (P, D) of all rows that the objective compares, in fp32 on the CPU."""
    quiet = quiet_term(config, network, term)
    partner = quiet.partners(rows, 0)
    sides: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(rows), size):
        chosen = list(rows[start : start + size])
        batch = make_batch(table, chosen, backend=backend_of(config), views=quiet.views(table, chosen, 0, partner))
        _, source_PD, target_PD = states(network, batch, config, network.device, quiet)
        if quiet.objective.control == "constant_target":
            target_PD = constant_target(target_PD, quiet.seed)
        sides.append((source_PD.float().cpu(), target_PD.float().cpu()))
    sources, targets = zip(*sides, strict=True)
    return torch.cat(sources), torch.cat(targets)


def diagnose(
    network: Network, table: TokenTable, config: TrialConfig, runtime: Runtime, rows: Sequence[int], term: Term | None = None
) -> dict[str, float]:
    """`embedding.describe` of the rows' states, and both losses; names begin with `diag_`.

        diag_val_ce             cross-entropy per label, as trained
        diag_uniform_ce         cross-entropy of a uniform guess over the vocabulary, log V
        diag_val_jepa           the objective's mean distance, without regularisers (InfoNCE: among these rows)
        diag_own_distance       mean cosine distance of the states that the objective compares
        diag_end_of_turn        mean probability of the end of turn right after the gold answer
        diag_r1_ceiling         share of distinct Codes: the maximum of R@1

    Text is Enc(Text) without predictor tokens in every arm; `diag_pred_*` is Pred(Enc(Text)) if the predictor follows the Text.
    Values that are undefined on the rows (see `evaluation/embedding.py`) are nan. `term` is the trial's own; it is required if the
    target encoder is an average, which only the trial has.
    """
    config = monitored(config)
    objective = config.objective
    assert objective is not None and rows
    with undisturbed(network), torch.no_grad():
        appended = reads_last_state(objective)
        size = config.evaluation.encoded_together
        chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
        parts = [_encode(network, table, chunk, config, objective.k if appended else 0, runtime) for chunk in chunks]
        text_PD, pred_PD, code_PD = (torch.cat([getattr(part, name) for part in parts]) for name in ("text_PD", "pred_PD", "code_PD"))
        source_PD, target_PD = (pred_PD, code_PD) if appended else own_states(network, table, rows, size, config, term)
    values = {
        "val_ce": sum(part.ce_sum for part in parts) / max(1, sum(part.num_labels for part in parts)),
        "uniform_ce": math.log(network.causal_lm.config.vocab_size),
        "val_jepa": float(distance(objective, source_PD, target_PD).mean()) if len(source_PD) else float("nan"),
        "own_distance": float(cosine(source_PD, target_PD).mean()) if len(source_PD) else float("nan"),
        "end_of_turn": sum(part.end_sum for part in parts) / max(1, len(rows)),
        "r1_ceiling": len({table.code[i].tobytes() for i in rows}) / max(1, len(rows)),
        **describe(text_PD.double().numpy(), code_PD.double().numpy(), pred_PD.double().numpy()),
    }
    return {f"diag_{name}": value for name, value in values.items()}


def gradient_terms(
    network: Network, table: TokenTable, config: TrialConfig, rows: Sequence[int], term: Term | None = None
) -> tuple[float, float]:
    """Cosine of the gradients of mean JEPA distance and mean cross-entropy over the trained parameters, and their norm ratio, JEPA / CE.

    Excludes gamma and lambda: the term's share of a step is ratio * lambda / gamma. nan if a divisor is zero.
    Gradients are computed without `backward`, so `.grad` and data-parallel training are unaffected.
    """
    config = monitored(config)
    quiet = quiet_term(config, network, term)
    # Parameters that both terms train: predictor tokens and heads get a gradient from one term only.
    trained = [parameter for parameter in network.lm.parameters() if parameter.requires_grad]
    sums: list[list[Tensor | None]] = [[None] * len(trained), [None] * len(trained)]
    counts = [0, 0]
    with undisturbed(network), torch.enable_grad():
        for values, (num_labels, num_pairs) in term_sums(network, table, rows, config, quiet):
            counts = [counts[0] + num_labels, counts[1] + num_pairs]
            for total, value in zip(sums, values, strict=True):
                if not value.requires_grad:  # no label, or no pair
                    continue
                for i, gradient in enumerate(torch.autograd.grad(value, trained, retain_graph=value is values[0], allow_unused=True)):
                    if gradient is not None:
                        total[i] = gradient if (before := total[i]) is None else before + gradient
    ce, jepa = sums
    dot = sum(float(torch.sum(a * b, dtype=torch.float64)) for a, b in zip(ce, jepa, strict=True) if a is not None and b is not None)
    ce_norm, jepa_norm = (_norm(total) for total in sums)
    cosine = dot / (ce_norm * jepa_norm) if ce_norm * jepa_norm > 0 else float("nan")
    return cosine, (jepa_norm / max(1, counts[1])) / (ce_norm / counts[0]) if ce_norm > 0 else float("nan")


def _norm(gradients: Sequence[Tensor | None]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(gradient, dtype=torch.float64)) for gradient in gradients if gradient is not None))


def gradient_metrics(
    network: Network, table: TokenTable, config: TrialConfig, rows: Sequence[int], term: Term | None = None, lambda_: float | None = None
) -> dict[str, float]:
    """`gradient_terms` by name: diag_grad_cosine, diag_grad_ratio, and diag_grad_weighted, which is ratio * lambda / gamma.

    `lambda_`: the weight at this step (`Term.lambda_at`); None: the term's, or the configuration's. diag_grad_weighted is nan if the
    term is only monitored, its weight is unknown or zero, or gamma is 0.
    """
    cosine, ratio = gradient_terms(network, table, config, rows, term)
    objective, weighted = active_objective(config), float("nan")
    if objective is not None and objective.control not in ("monitor", "zero"):
        weight = lambda_ if lambda_ is not None else term.weight if term is not None else objective.fixed_lambda
        weighted = ratio * weight / objective.gamma if weight and objective.gamma > 0 else weighted
    return {"diag_grad_cosine": cosine, "diag_grad_ratio": ratio, "diag_grad_weighted": weighted}


def reads_last_state(objective: ObjectiveConfig) -> bool:
    """Whether the term compares the last token of Text (and predictor tokens) with that of Code, after the final norm, in one network."""
    here = objective.layout == "append" and objective.readout == "last" and objective.layer == 1 and objective.final_norm
    return here and objective.target != "ema" and objective.control not in ("shuffled", "constant_target")


def embeddings(
    network: Network, table: TokenTable, config: TrialConfig, runtime: Runtime, rows: Sequence[int], split: str = "val"
) -> list[dict[str, Any]]:
    """Enc(Text), without predictor tokens, and Enc(Code) of the rows, as rows of the embeddings table: each Text before its Code.

    `vector` (D numbers) is rounded to half precision, three digits; values above 65,504 become infinite.
    """
    size = config.evaluation.encoded_together
    lines = []
    with undisturbed(network), torch.no_grad():
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            part = _encode(network, table, chunk, config, 0, runtime)
            for j, i in enumerate(chunk):
                for view, states_PD in (("text", part.text_PD), ("code", part.code_PD)):
                    vector = states_PD[j].half().tolist()
                    lines.append({"split": split, "example_id": table.example_ids[i], "view": view, "vector": vector})
    return lines


@dataclass(frozen=True)
class _Encoded:
    """Sums over a chunk of rows, and the rows' states in fp32 on the CPU."""

    ce_sum: float
    num_labels: int
    end_sum: float
    text_PD: Tensor
    pred_PD: Tensor
    code_PD: Tensor


def _encode(network: Network, table: TokenTable, rows: Sequence[int], config: TrialConfig, k: int, runtime: Runtime) -> _Encoded:
    """One packed pass over training sequences and views."""
    device, optim, n = torch.device(runtime.device), config.optim, len(rows)
    # The end of turn is a label here even if it is not trained, because its probability is reported.
    batch = make_batch(table, rows, backend=backend_of(config), k=k, loss_on=optim.loss_on)
    starts = table.prompt_length[list(rows)] if optim.loss_on == "answer" else np.ones(n, dtype=np.int64)
    last_P = torch.from_numpy(np.cumsum(table.lm.lengths[list(rows)] - starts) - 1)
    nodes = batch.packed.nodes
    text_P = [int(nodes[n + j][len(table.text[i]) - 1]) for j, i in enumerate(rows)]
    pred_P, code_P = [int(path[-1]) for path in nodes[n : 2 * n]], [int(path[-1]) for path in nodes[2 * n : 3 * n]]
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(config.model, device)):
        on_device = network.place(batch)
        hidden_XD = network.encode(on_device)
        losses_N = network.label_losses(hidden_XD[on_device.label_index_N], on_device.label_ids_N).double().cpu()
        pred_PD = hidden_XD[pred_P]
        if network.head is not None and reads_last_state(config.objective or ObjectiveConfig()):
            pred_PD = network.mapped(pred_PD)
    end_P = losses_N[last_P]
    trained = float(losses_N.sum()) - (0.0 if optim.train_end_of_turn else float(end_P.sum()))
    return _Encoded(
        ce_sum=trained,
        num_labels=len(losses_N) - (0 if optim.train_end_of_turn else n),
        end_sum=float((-end_P).exp().sum()),
        text_PD=hidden_XD[text_P].float().cpu(),
        pred_PD=pred_PD.float().cpu(),
        code_PD=hidden_XD[code_P].float().cpu(),
    )


@contextmanager
def undisturbed(network: Network) -> Iterator[None]:
    """Switch to evaluation mode; restore the mode and torch's random states on exit."""
    was_training = network.training
    with torch.random.fork_rng(devices=[network.device] if network.device.type == "cuda" else []):
        network.eval()
        try:
            yield
        finally:
            network.train(was_training)
