"""The cost of every objective: seconds of a step over those of plain next-token training on the same examples, all in one run.

Same model, same examples, same optimizer, contenders taking turns. Every two-view objective may cost at most 5 % more than the paper's
own (append, k = 1, cosine), which is the first line.

    python -m benchmarks.objectives [--json] [--gpu]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.step import build
from benchmarks.timing import SHARED, finish, medians
from jepa_ray.config import DataConfig, ModelConfig, ObjectiveConfig, OptimConfig, TrialConfig
from jepa_ray.data.datasets import DATASETS, load_splits
from jepa_ray.data.example import Example
from jepa_ray.data.sources import read
from jepa_ray.training.jepa_term import Term, fit_network
from jepa_ray.training.optimizer import make_optimizer
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import train_step

PAPER = "cosine"
OBJECTIVES: dict[str, dict[str, Any]] = {
    PAPER: {},
    "l2": {"distance": "l2"},
    "mse": {"distance": "mse"},
    "smooth l1": {"distance": "smooth_l1"},
    "infonce": {"distance": "infonce"},
    "k 0": {"k": 0},
    "k 4": {"k": 4},
    "prepend": {"layout": "prepend"},
    "reverse": {"layout": "reverse"},
    "shared prefix": {"layout": "shared_prefix"},
    "mean readout": {"readout": "mean"},
    "half the layers": {"layer": 0.5},
    "stop target": {"target": "stop_target"},
    "ema target": {"target": "ema"},
    "linear head": {"predictor": "linear"},
    "mlp head": {"predictor": "mlp"},
    "vicreg": {"variance": 1.0, "covariance": 0.04},
    "sigreg": {"sigreg": 0.05},
    "tube": {"layout": "tube"},
    "tube patch": {"layout": "tube_patch"},
    "tube ends": {"layout": "tube_ends"},
    "tube means": {"layout": "tube_means"},
    "curvature": {"layout": "curvature"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.objectives", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--gpu", action="store_true", help="Llama-3.2-1B shapes in bf16 on a GPU instead of the tiny model on one CPU core")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = SHARED / "synth_train.jsonl"
    examples = read(DATASETS["nl-rx"], str(path))[:1000] if path.is_file() else load_splits(DataConfig(num_train=1000)).train
    seconds = measure(examples, options.gpu, options.rounds)
    plain = seconds.pop("plain")
    figures = {f"{name}: cost over plain": value / plain for name, value in seconds.items()}
    # With another number of predictor tokens it is the same objective on more or fewer tokens: shown without a limit.
    objectives = {name: ObjectiveConfig.model_validate(OBJECTIVES[name]) for name in seconds}
    two_view = [name for name, objective in objectives.items() if objective.encodes_views and objective.k == 1 and name != PAPER]
    figures |= {f"{name}: over {PAPER}": seconds[name] / seconds[PAPER] for name in two_view}
    limits = {f"{name}: over {PAPER}": ("<=", 1.05) for name in two_view}
    facts = {
        "device": torch.cuda.get_device_name() if options.gpu else "cpu, one thread",
        "data": path.name if path.is_file() else "generated",
    }
    finish("objectives", figures, limits, options.json, facts)


def measure(examples: Sequence[Example], gpu: bool, rounds: int) -> dict[str, float]:
    """Objective -> seconds of a step in its fastest turn; `plain` is next-token training, packed like the baseline arms."""
    device = "cuda" if gpu else "cpu"
    network, table = build(examples, gpu)
    size = min(128 if gpu else 32, len(table))
    runtime, rows = Runtime(device=device), np.arange(size)

    def step(objective: ObjectiveConfig | None) -> Any:
        model, optim = ModelConfig(family="llama3"), OptimConfig(learning_rate=1e-6, batch_size=size)
        config = TrialConfig(model=model, objective=objective, optim=optim)
        fitted = fit_network(network, objective, seed=0)
        if objective is not None:
            needed = torch.zeros(objective.k, network.causal_lm.config.hidden_size, device=device)
            fitted.predictor = torch.nn.Parameter(needed) if objective.k else None
        optimizer, term = make_optimizer(fitted, config), Term.of(config, fitted)
        state = TrainState(config=config, table=table, network=network, optimizer=optimizer, term=term, runtime=runtime, packing="trie")
        head, predictor, depth = fitted.head, fitted.predictor, fitted.depth

        def call() -> None:
            network.head, network.predictor, network.depth = head, predictor, depth
            train_step(state, rows, 0, 10)
            if gpu:
                torch.cuda.synchronize()

        return call

    contenders = {"plain": step(None)} | {name: step(ObjectiveConfig.model_validate(o)) for name, o in OBJECTIVES.items()}
    # The fastest turn: other load only ever adds time, and medians of few turns are too noisy for a limit of 5 %.
    return medians(contenders, rounds, min)


if __name__ == "__main__":
    main()
