"""The first of two stages: the whole network trained on other data, its weights handed on by digest (paper, T9).

The stage's checkpoint lies under `<sweep>/scratch/pretrained/<key>`, where `key` is a digest of everything that determines it: the
starting checkpoint, the stage's data, optimizer, objective and seed. Trials that agree in all that train it once.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from jepa_ray.config import TrialConfig, canonical
from jepa_ray.data.views import TokenTable
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.system import atomic
from jepa_ray.system.heartbeat import HEARTBEAT
from jepa_ray.training.cost import FlopModel
from jepa_ray.training.jepa_term import active_objective
from jepa_ray.training.state import build
from jepa_ray.training.step import (
    Runtime,
    StepTotals,
    backend_of,
    epoch_steps,
    over_ranks,
    train_step,
)

_FACTS = "stage.json"


@dataclass(frozen=True)
class Pretrained:
    """What a first stage hands on."""

    folder: str
    """An ordinary checkpoint folder."""
    sha: str
    """SHA-256 of its weights."""
    tokens: int
    flops: int
    seconds: float
    """What training it cost, also where another trial had trained it."""
    losses: list[dict[str, float]]
    """By epoch: `pretrain_ce`, and `pretrain_jepa` where it had the term."""
    unpacked_flops: float = math.nan
    """As `flops`, with every sequence and view by itself; nan where an older version trained it."""


def stages(config: TrialConfig) -> tuple[TrialConfig | None, TrialConfig]:
    """(first stage, fine-tuning) as trials of their own; the first is None where there is only one."""
    stage = config.pretrain
    if stage is None:
        return None, config
    first = {
        "pretrain": None,
        "lora": None,
        "data": stage.data,
        "optim": stage.optim(),
        "objective": config.objective if stage.objective_in != "finetune" else None,
        "seed": stage.seed if stage.seed is not None else config.seed,
    }
    second = {
        "model": config.model.model_copy(update={"init": "pretrained"}),
        "pretrain": None,
        "objective": config.objective if stage.objective_in != "pretrain" else None,
    }
    return config.model_copy(update=first), config.model_copy(update=second)


def pretrain(
    config: TrialConfig, table: TokenTable, checkpoint: str, data_sha: str, runtime: Runtime, scratch: Path, revision: str | None = None
) -> Pretrained:
    """Train the stage that `config` describes (a trial of its own), or find it done.

    Called by every rank. Goes on from the last finished epoch under `scratch`. `revision`: the commit of a checkpoint on the hub.
    ValueError where a stored checkpoint's weights are not those whose digest was noted.
    """
    folder = scratch.parent / "pretrained" / _key(config, checkpoint, data_sha, revision)
    done = torch.tensor(float((folder / _FACTS).exists()), device=runtime.device)
    if runtime.world_size > 1:  # rank 0 decides: another trial may finish the same stage while this one looks
        dist.broadcast(done, 0)
    if not done:
        _train(config, table, checkpoint, runtime, scratch / "pretrain", folder, revision)
        if runtime.world_size > 1:
            dist.barrier()
    found = _read(folder)
    assert found is not None
    return found


def _train(
    config: TrialConfig, table: TokenTable, checkpoint: str, runtime: Runtime, scratch: Path, folder: Path, revision: str | None
) -> None:
    training = build(config, checkpoint, table, runtime, scratch, revision)
    network, flop_model, backend = training.network, FlopModel.of(training.network), backend_of(config)
    start: dict[str, Any] = {"epoch": 0, "step": 0, "tokens": 0, "flops": 0, "unpacked": 0, "seconds": 0.0, "losses": []}
    saved = start if training.saved is None else {name: training.saved.get(name, math.nan) for name in start}
    epochs = [epoch_steps(len(table), config.optim, config.seed, epoch) for epoch in range(config.optim.num_epochs)]
    network.train()
    for epoch in range(saved["epoch"], len(epochs)):
        started, totals = time.perf_counter(), StepTotals()
        HEARTBEAT.enter("first stage")
        for rows in epochs[epoch]:
            at = (saved["step"], sum(map(len, epochs)))
            of_step = train_step(training.model, training.optimizer, table, rows, config, *at, backend, runtime, training.term)
            totals.add(of_step)
            saved["step"] += 1
            HEARTBEAT.trained(saved["step"], at[1], *of_step.shown(runtime))
        totals = over_ranks(totals, runtime)
        saved["tokens"] += totals.tokens
        saved["flops"] += flop_model.train_flops(totals)
        saved["unpacked"] += flop_model.unpacked_flops(totals)
        saved["seconds"] += time.perf_counter() - started
        saved["epoch"] = epoch + 1
        losses = {"pretrain_ce": totals.ce_sum / max(1, totals.num_labels)}
        saved["losses"] = [*saved["losses"], losses | ({"pretrain_jepa": totals.jepa_sum / totals.num_pairs} if totals.num_pairs else {})]
        if runtime.rank == 0:
            training.save(scratch, **saved)
    if runtime.rank == 0:
        with atomic.whole_folder(folder) as building:  # another trial of the same first stage may be faster
            network.causal_lm.save_pretrained(building)
            load_tokenizer(checkpoint, config.model, revision).save_pretrained(building)
            cost = {"tokens": saved["tokens"], "flops": saved["flops"], "unpacked_flops": saved["unpacked"], "seconds": saved["seconds"]}
            facts = Pretrained(folder=str(folder), sha=_weights_sha(building), **cost, losses=saved["losses"])
            (building / _FACTS).write_text(json.dumps(asdict(facts), indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(scratch, ignore_errors=True)


def _key(config: TrialConfig, checkpoint: str, data_sha: str, revision: str | None) -> str:
    tree = canonical(config.model_copy(update={"objective": active_objective(config)}))
    parts = [tree[name] for name in ("model", "data", "optim", "objective", "seed")]
    return hashlib.sha256(
        json.dumps([*parts, checkpoint, *([revision] if revision else []), data_sha], sort_keys=True).encode()
    ).hexdigest()[:16]


def _read(folder: Path) -> Pretrained | None:
    try:
        facts = Pretrained(**json.loads((folder / _FACTS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    if _weights_sha(folder) != facts.sha:
        raise ValueError(
            f"the weights in {folder} are not those that the first stage wrote; delete that folder, and they are trained again"
        )
    return facts


def _weights_sha(folder: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                sha.update(block)
    return sha.hexdigest()
