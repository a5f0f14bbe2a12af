"""Tiny networks, tables and trials that tests of the training code share. Weights are random, not pre-trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from jepa_ray.config import EvaluationConfig, ModelConfig, ObjectiveConfig, OptimConfig, TrialConfig
from jepa_ray.data.example import Example
from jepa_ray.data.packing import Backend
from jepa_ray.data.tasks import nlrx
from jepa_ray.data.views import TokenTable, tokenize_split
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import load_network, load_tokenizer
from jepa_ray.models.network import Network
from jepa_ray.models.tiny import tiny_config
from jepa_ray.preparation.tiny_base import base_tokenizer
from jepa_ray.training.jepa_term import Term, active_objective, fit_network
from jepa_ray.training.optimizer import make_optimizer
from jepa_ray.training.parallel import data_parallel
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.state import StepInputs, TrainState
from jepa_ray.training.step import train_step

SYSTEM = "Convert the sentence to a regular expression."
EXAMPLES = tuple(Example(f"e{i}", SYSTEM, e.text, e.code) for i, e in enumerate(nlrx.generate(200, 0, "train")))
"""200 generated pairs with a system prompt."""
BACKENDS: tuple[Backend, ...] = ("trie", "flat", "plain")


def write_checkpoints(folder: Path) -> dict[str, Path]:
    """One checkpoint folder per family."""
    out = {}
    for name, family in FAMILIES.items():
        out[name] = folder / name
        tokenizer = base_tokenizer(family, EXAMPLES)
        tokenizer.save_pretrained(out[name])
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config(family, tokenizer), dtype=torch.float32)
        # Norm weights start at 0 or 1, which would hide mistakes.
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(out[name])
    return out


def long_examples(n: int, words: int) -> list[Example]:
    """Pairs whose views are about `words` words long, so that Gemma 2's tiny window (128 tokens) ends inside."""
    rng = np.random.default_rng(1)
    vocabulary = np.array(["the", "lines", "with", "a", "vowel", "number", "capital", "letter", "before", "string", "dog", "truck", "ring"])

    def text(size: int) -> str:
        return " ".join(rng.choice(vocabulary, size))

    return [Example(f"long{i}", SYSTEM, text(words), text(words + 3 * i)) for i in range(n)]


def trial(checkpoint: Path, **changes: Any) -> TrialConfig:
    """A small trial on a checkpoint folder named after its family. `model__x`, `optim__x`, `evaluation__x` set single fields."""
    parts: dict[str, dict[str, Any]] = {
        "model": {"family": checkpoint.name, "model": str(checkpoint)},
        "optim": {"learning_rate": 1e-3, "batch_size": 4, "num_epochs": 2},
        "evaluation": {"max_new_tokens": 8, "diagnostic_pairs": 0},
    }
    rest = {}
    for name, value in changes.items():
        part, _, leaf = name.partition("__")
        if leaf:
            parts[part][leaf] = value
        else:
            rest[name] = value
    return TrialConfig(
        model=ModelConfig(**parts["model"]), optim=OptimConfig(**parts["optim"]), evaluation=EvaluationConfig(**parts["evaluation"]), **rest
    )


def table_of(checkpoint: Path, examples: Sequence[Example], max_length: int = 2048, scored: bool = False) -> TokenTable:
    model = ModelConfig(family=checkpoint.name, model=str(checkpoint))
    return tokenize_split(examples, load_tokenizer(str(checkpoint), model), FAMILIES[checkpoint.name], max_length, scored=scored)


def network_of(config: TrialConfig, k: int | None = None) -> Network:
    """The trial's network in training mode, with adapters other than the zero map with which PEFT starts."""
    wanted = config.objective.k if k is None and config.objective is not None else k or 0
    network = load_network(config.model.model, config.model, config.lora, k=wanted, seed=config.seed)
    fit_network(network, active_objective(config), config.seed)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.train()


def gradients(network: Network) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def weights(network: Network) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def one_step(
    network: Network, table: TokenTable, config: TrialConfig, rows: Sequence[int], backend: Backend = "trie", step: int = 0, total: int = 10
) -> Any:
    """One optimizer step with a fresh optimizer."""
    return train_step(state_of(network, table, config, backend, Term.of(config, network, weight=1.0)), np.asarray(rows), step, total)


def state_of(network: Network, table: TokenTable, config: TrialConfig, backend: Backend = "trie", term: Term | None = None) -> TrainState:
    """The network with a fresh optimizer, on one worker."""
    return TrainState(config=config, table=table, network=network, optimizer=make_optimizer(network, config), term=term, packing=backend)


def inputs_of(table: TokenTable, config: TrialConfig, backend: Backend = "trie", runtime: Runtime | None = None) -> StepInputs:
    return StepInputs(config=config, table=table, runtime=runtime or Runtime(), packing=backend)


def largest_error(actual: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Largest difference over all tensors, relative to the largest entry of all."""
    assert actual.keys() == wanted.keys() and actual
    top = max(float(value.abs().max()) for value in wanted.values())
    assert top > 0
    return max(float((actual[name] - wanted[name]).abs().max()) for name in wanted) / top


def prepared_of(checkpoint: Path, train: int = 12, val: int = 6, test: int = 0) -> Prepared:
    splits = [EXAMPLES[:train], EXAMPLES[train : train + val], EXAMPLES[train + val : train + val + test]]
    tables = [table_of(checkpoint, split) for split in splits]
    return Prepared(tables[0], tables[1], tables[2] if test else None, dataset_sha="0" * 64, checkpoint=str(checkpoint))


Case = tuple[Path, Any, list[int], int | None, int, dict[str, Any]]
"""Checkpoint, adapters, rows, micro-batch size, step number, changes to the objective."""


def data_parallel_case(case: Case, runtime: Runtime) -> dict[str, Any]:
    """One JEPA step at loss dropout 0.5, on this rank."""
    checkpoint, lora, rows, size, step, changes = case
    objective = ObjectiveConfig(**{"k": 2, "loss_dropout": 0.5 if step else 0.0, **changes})
    config = trial(checkpoint, lora=lora, objective=objective, optim__micro_batch_size=size)
    network = network_of(config)
    state = state_of(network, table_of(checkpoint, EXAMPLES[:8]), config, term=Term.of(config, network, 1.0))
    state.runtime, state.parallel = runtime, data_parallel(network, runtime)
    totals = train_step(state, np.array(rows), step, 100)
    return {"gradients": gradients(network), "weights": weights(network), "totals": vars(totals)}


def small_trial(checkpoint: Path, scratch: Path, runtime: Runtime) -> dict[str, Any]:
    """Metrics and predictions of a whole trial with an odd number of examples in every split."""
    from jepa_ray.training.trial import run_trial

    config = trial(checkpoint, objective=ObjectiveConfig(k=1), optim__batch_size=3)
    result = run_trial(config, prepared_of(checkpoint, train=7, val=5), runtime, lambda _: None, scratch)
    assert result.state == "COMPLETE", result.error
    names = ("train_ce", "train_jepa", "val_accuracy", "val_stopped", "steps", "num_trainable")
    return {"metrics": {name: result.summary[name] for name in names}, "predictions": result.predictions}


def assert_same_answers(found: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> None:
    """Rows of the predictions table, of trials that differ in rounding: equal but for the last digits of the log-probabilities."""
    name = "reference_logprob"
    assert [row[name] for row in found] == pytest.approx([row[name] for row in wanted], rel=1e-3)
    assert [row | {name: None} for row in found] == [row | {name: None} for row in wanted]


def run_data_parallel(rank: int, folder: Path, cases: list[Case], checkpoint: Path) -> None:
    """Body of one of two workers: runs every case and the trial, and writes results to `folder`."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    runtime = Runtime(rank=rank, world_size=2)
    for number, case in enumerate(cases):
        torch.save(data_parallel_case(case, runtime), folder / f"{number}.{rank}.pt")
    torch.save(small_trial(checkpoint, folder / "two", runtime), folder / f"trial.{rank}.pt")
    dist.destroy_process_group()
