"""Build a trial's training state: load the network, add what its objective needs, and resume from a working checkpoint if one exists."""

from __future__ import annotations

from pathlib import Path

from jepa_ray.config import GradRatio, TrialConfig
from jepa_ray.data.views import TokenTable
from jepa_ray.models.loading import load_network
from jepa_ray.training import checkpoint as working
from jepa_ray.training.epochs import epoch_steps
from jepa_ray.training.jepa_term import Term, active_objective, fit_network
from jepa_ray.training.memory import fits_one_gpu, fitting
from jepa_ray.training.optimizer import make_optimizer
from jepa_ray.training.parallel import data_parallel, like, shard_if_needed
from jepa_ray.training.placement import place
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import lambda_from_gradients


def build(
    config: TrialConfig, checkpoint: str, table: TokenTable, runtime: Runtime, scratch: Path, revision: str | None = None
) -> TrainState:
    """Load the network, or resume from `scratch`. Every rank calls this.

    `table`: the training examples (their first step may set lambda). `revision`: the commit of a checkpoint on the hub.
    """
    objective = active_objective(config)
    network = load_network(
        checkpoint,
        config.model,
        config.lora,
        k=objective.k if objective is not None else 0,
        seed=config.seed,
        device=runtime.device,
        revision=revision,
    )
    fit_network(network, objective, config.seed)
    place(network, config, runtime.device, len(table))
    shards = shard_if_needed(network, runtime, lambda: fits_one_gpu(network, config, table, runtime))
    network.compiled = network.compiled and shards is None  # FSDP's hooks would break the graph
    optimizer = make_optimizer(network, config)
    saved = working.load(scratch, network, optimizer)
    state = TrainState(
        config=config,
        table=table,
        runtime=runtime,
        network=network,
        optimizer=optimizer,
        parallel=data_parallel(network, runtime),
        shards=shards,
        saved=saved,
        tokens_that_fit=fitting(network, config, table, runtime, sharded=shards is not None),
    )
    weight = None
    if objective is not None and isinstance(objective.lambda_, GradRatio):
        first = epoch_steps(len(table), config.optim, config.seed, 0)[0]
        weight = saved["lambda"] if saved is not None else lambda_from_gradients(state, first, objective.lambda_.grad_ratio)
    state.term = Term.of(config, network, weight)
    if state.term is not None and state.term.average is not None and saved is not None:
        averages = state.term.average.parameters()
        state.term.average.load_state_dict({name: like(value, averages.get(name)) for name, value in saved["average"].items()})
    return state
