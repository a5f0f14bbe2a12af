"""Checks the packed step on this card: every family's tiny network, then networks of one to two billion random weights.

States: the trial's own start-up check, in bf16 (`training.packing_check.attention_error`), for trie and flat rows. Losses and gradients:
packed against one row per sequence (`plain`), in fp32, where a leak is distinguishable from rounding; and, if time is left, in bf16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import data, models
from benchmarks.gpu.form import Findings, Form
from jepa_ray.config import TrialConfig
from jepa_ray.data.example import Example
from jepa_ray.data.packing import Backend, make_batch
from jepa_ray.data.views import TokenTable
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.network import Network
from jepa_ray.training.jepa_term import Term
from jepa_ray.training.packing_check import PackingError, attention_error
from jepa_ray.training.step import loss_of_sums, losses

PACKED: tuple[Backend, ...] = ("trie", "flat")
TOLERANCE = 1e-3
"""Largest relative error of losses and gradients in fp32."""
NOTEWORTHY = 1e-3
"""Errors are relative to at least this share of the largest gradient entry: some gradients are zero except for rounding (a key's bias)."""
FLEX = ("llama3", "gemma2")
"""Families whose rows are checked with FlexAttention: each compiles its kernel anew. Gemma 2 has soft-caps and a window."""
LARGE_S = 9.0
"""Upper bound of the seconds for a large network; with less time left it is skipped."""


def run(form: Form, findings: Findings) -> None:
    """The part. Raises RuntimeError after all measurements if anything is wrong."""
    sample, source = data.examples("nl-rx", form.data, 200)
    tiny: dict[str, dict[str, Any]] = {}
    large: dict[str, dict[str, Any]] = {}
    flex: dict[str, dict[str, Any]] = {}
    findings.note({"data": source, "tokenizer": models.TOKENIZER, "tolerance": TOLERANCE, "families": tiny, "flex": flex, "large": large})
    for name in FAMILIES:
        tiny[name] = checked(name, sample, form, small=True)
        findings.note({"families": tiny}, headline({"tiny": tiny}))
    for name in FLEX:
        if name in FAMILIES:
            flex[name] = flex_errors(*subject(name, sample, form, small=True))
            findings.note({"flex": flex}, headline({"tiny": tiny, "flex": flex}))
    for name in models.SHAPES if not form.small else ():
        if form.left() < LARGE_S:
            large[name] = {"skipped": "no time left"}
        else:  # Gradients of the first only: those of all would take the time that the other networks need.
            large[name] = checked(name, sample, form, small=False, gradients=not large)
        findings.note({"large": large}, headline({"tiny": tiny, "large": large}))
    for name in FAMILIES:
        if form.left() < LARGE_S or "error" in tiny[name]:
            continue
        tiny[name]["gradients_bf16"] = gradients(*subject(name, sample, form, small=True), "bf16")
        findings.note({"families": tiny})
    wrong = [name for kind in (tiny, flex, large) for name, result in kind.items() if not result.get("passes", True)]
    if wrong:
        raise RuntimeError(f"packed rows differ from separate passes, or cannot be computed: {', '.join(wrong)}")


def checked(name: str, sample: Sequence[Example], form: Form, *, small: bool, gradients: bool = True) -> dict[str, Any]:
    """`check`, or the error that it raised: a failing family does not affect the next."""
    try:
        return check(name, sample, form, small=small, with_gradients=gradients)
    except RuntimeError as error:
        return {"passes": False, "error": f"{type(error).__name__}: {error}"}


def check(name: str, sample: Sequence[Example], form: Form, *, small: bool, with_gradients: bool) -> dict[str, Any]:
    """States, losses and gradients of one family. `passes`: all within their tolerances."""
    network, table, config = subject(name, sample, form, small=small)
    states = {backend: states_error(network, table, backend) for backend in PACKED}
    result: dict[str, Any] = {"states_bf16": states, "passes": all(isinstance(error, float) for error in states.values())}
    if with_gradients:
        result["gradients_fp32"] = gradients(network, table, config, "fp32")
        result["passes"] = result["passes"] and max(result["gradients_fp32"].values()) <= TOLERANCE
    return result


def flex_errors(network: Network, table: TokenTable, config: TrialConfig) -> dict[str, Any]:
    """Gradients in fp32 by FlexAttention, by itself and within the compiled graph, which needs a GPU here. `passes`: within TOLERANCE."""
    config = config.model_copy(update={"model": config.model.model_copy(update={"precision": "fp32"})})
    network.kernel = "flex"
    result: dict[str, Any] = {}
    try:
        result["flex"] = gradient_error(network, table, "trie", config)
        if network.device.type == "cuda":
            network.compiled = True
            result["flex, compiled"] = gradient_error(network, table, "trie", config, training=True)
    except RuntimeError as error:
        return {"passes": False, "error": f"{type(error).__name__}: {error}"}
    finally:
        network.kernel, network.compiled = "bucketed", False
    return {"gradients_fp32": result, "passes": max(result.values()) <= TOLERANCE}


def subject(name: str, sample: Sequence[Example], form: Form, *, small: bool) -> tuple[Network, TokenTable, TrialConfig]:
    """A family's network fitted for a JEPA arm, the tokenised examples, and the arm's configuration."""
    tokenizer, table = models.tokenised(name, sample)
    config = models.trial_config(lora=None, jepa=True, batch_size=8)
    config = config.model_copy(update={"model": config.model.model_copy(update={"family": name})})
    return models.arm(models.network(name, small, tokenizer, form.device), config), table, config


def gradients(network: Network, table: TokenTable, config: TrialConfig, precision: str) -> dict[str, float]:
    """Error of losses and gradients by backend."""
    config = config.model_copy(update={"model": config.model.model_copy(update={"precision": precision})})
    return {backend: gradient_error(network, table, backend, config) for backend in PACKED}


def states_error(network: Network, table: TokenTable, backend: Backend) -> float | str:
    """Largest relative error of a token's state under bf16, or the check's message if it refuses."""
    try:
        return attention_error(network, table, backend, k=1, bf16=True)
    except PackingError as error:
        return str(error)


def gradient_error(network: Network, table: TokenTable, backend: Backend, config: TrialConfig, *, training: bool = False) -> float:
    """Largest relative difference of the two losses and of all gradients between a packed row and one row per sequence.

    `training`: in training mode, in which alone a graph runs; without dropout it computes the same.
    """
    network.train(training)
    rows = np.linspace(0, len(table) - 1, 8).astype(int).tolist()
    packed_sums, packed = gradients_of(network, table, rows, backend, config)
    alone_sums, alone = gradients_of(network, table, rows, "plain", config)
    errors = [abs(a - b) / abs(b) for a, b in zip(packed_sums, alone_sums, strict=True)]
    largest = max(float(value.abs().max()) for value in alone)
    errors += [float((a - b).abs().max()) / max(float(b.abs().max()), NOTEWORTHY * largest) for a, b in zip(packed, alone, strict=True)]
    network.zero_grad(set_to_none=True)
    network.train()
    return max(errors) if np.isfinite(errors).all() else float("inf")


def gradients_of(
    network: Network, table: TokenTable, rows: list[int], backend: Backend, config: TrialConfig
) -> tuple[tuple[float, float], list[torch.Tensor]]:
    """(mean cross-entropy and JEPA loss, gradients of all trained parameters)."""
    network.zero_grad(set_to_none=True)
    batch = make_batch(table, rows, backend=backend, k=models.JEPA["k"])
    ce, jepa = losses(network, batch, config, network.device, Term.of(config, network))
    loss_of_sums(ce, jepa, config.objective, batch.num_labels, batch.num_pairs, models.JEPA["lambda"]).backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return (float(ce.detach()) / batch.num_labels, float(jepa.detach()) / batch.num_pairs), gradients


def headline(kinds: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The largest errors, as text."""
    sentences = []
    for kind, results in kinds.items():
        measured = [result for result in results.values() if "passes" in result]
        states = [error for result in measured for error in result.get("states_bf16", {}).values() if isinstance(error, float)]
        differences = [error for result in measured for error in result.get("gradients_fp32", {}).values()]
        sentences.append(
            f"{kind}: {sum(result['passes'] for result in measured)} of {len(results)} right"
            + (f", states bf16 {max(states):.1e}" if states else "")
            + (f", gradients fp32 {max(differences):.1e}" if differences else "")
        )
    return "; ".join(sentences)
