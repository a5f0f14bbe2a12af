"""The first of two training stages: trains the whole network on other data; fine-tuning starts from its weights (paper, T9).

Its checkpoint is stored in `<sweep>/scratch/pretrained/<key>`, where `key` is a digest of everything that determines it: the starting
checkpoint, and the stage's data, optimizer, objective and seed. Trials that agree in all of these share one checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from jepa_ray.config import TrialConfig, canonical
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.system import atomic
from jepa_ray.training import checkpoint
from jepa_ray.training.build import build
from jepa_ray.training.cost import FlopModel, Spent
from jepa_ray.training.epochs import all_epochs, train_epoch
from jepa_ray.training.jepa_term import active_objective
from jepa_ray.training.prepared import Prepared, Pretrained
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.step import train_step

_FACTS = "stage.json"


def stages(config: TrialConfig) -> tuple[TrialConfig | None, TrialConfig]:
    """(first stage, fine-tuning) as separate trials; the first is None if the trial has one stage only."""
    first_stage = config.pretrain
    if first_stage is None:
        return None, config
    first = {
        "pretrain": None,
        "lora": None,
        "data": first_stage.data,
        "optim": first_stage.optim(),
        "objective": config.objective if first_stage.objective_in != "finetune" else None,
        "seed": first_stage.seed if first_stage.seed is not None else config.seed,
    }
    second = {
        "model": config.model.model_copy(update={"init": "pretrained"}),
        "pretrain": None,
        "objective": config.objective if first_stage.objective_in != "pretrain" else None,
    }
    return config.model_copy(update=first), config.model_copy(update=second)


def train_first_stage(config: TrialConfig, prepared: Prepared, runtime: Runtime, scratch: Path) -> Pretrained:
    """Train the first stage that `config` describes (as a separate trial), unless its checkpoint exists.

    Every rank calls this. Resumes after the last finished epoch under `scratch`. ValueError if the weights of a stored checkpoint do not
    match the recorded digest.
    """
    folder = scratch.parent / "pretrained" / _key(config, prepared)
    done = torch.tensor(float((folder / _FACTS).exists()), device=runtime.device)
    if runtime.world_size > 1:  # rank 0 decides: another trial may finish the same stage in the meantime
        dist.broadcast(done, 0)
    if not done:
        _train(config, prepared, runtime, scratch / "pretrain", folder)
        if runtime.world_size > 1:
            dist.barrier()
    first_stage = _read(folder)
    assert first_stage is not None
    return first_stage


def _train(config: TrialConfig, prepared: Prepared, runtime: Runtime, scratch: Path, folder: Path) -> None:
    table = prepared.first_stage_table
    assert table is not None, "the first stage's data has not been prepared"
    state = build(config, prepared.checkpoint, table, runtime, scratch, prepared.revision)
    saved, flop_model = state.saved or {"epoch": 0, "losses": [], "spent": asdict(Spent())}, FlopModel.of(state.network)
    # An older version's checkpoint has these values at its top level.
    spent, losses = Spent.of(saved.get("spent") or {**saved, "train_seconds": saved["seconds"]}), list(saved["losses"])
    epochs = all_epochs(len(table), config.optim, config.seed)
    total_steps = sum(map(len, epochs))
    state.network.train()
    for epoch in range(saved["epoch"], len(epochs)):
        started = time.perf_counter()
        totals = train_epoch(
            lambda rows, step: train_step(state, rows, step, total_steps), epochs[epoch], spent.step, total_steps, runtime, "first stage"
        )
        spent.train(totals, flop_model, len(epochs[epoch]), time.perf_counter() - started)
        means = {"pretrain_ce": totals.ce_sum / max(1, totals.num_labels)}
        losses.append(means | ({"pretrain_jepa": totals.jepa_sum / totals.num_pairs} if totals.num_pairs else {}))
        if runtime.rank == 0:
            checkpoint.write(scratch, state.snapshot(epoch=epoch + 1, losses=losses, spent=asdict(spent)))
    if runtime.rank == 0:
        with atomic.whole_folder(folder) as building:  # another trial may finish the same first stage earlier
            state.network.causal_lm.save_pretrained(building)
            load_tokenizer(prepared.checkpoint, config.model, prepared.revision).save_pretrained(building)
            facts = Pretrained(
                folder=str(folder),
                sha=_weights_sha(building),
                tokens=spent.tokens,
                flops=spent.flops,
                unpacked_flops=spent.unpacked,
                seconds=spent.train_seconds,
                losses=losses,
            )
            (building / _FACTS).write_text(json.dumps(asdict(facts), indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(scratch, ignore_errors=True)


def _key(config: TrialConfig, prepared: Prepared) -> str:
    tree = canonical(config.model_copy(update={"objective": active_objective(config)}))
    parts = [tree[name] for name in ("model", "data", "optim", "objective", "seed")]
    where = [prepared.checkpoint, *([prepared.revision] if prepared.revision else []), prepared.first_stage_sha]
    return hashlib.sha256(json.dumps([*parts, *where], sort_keys=True).encode()).hexdigest()[:16]


def _read(folder: Path) -> Pretrained | None:
    try:
        facts = Pretrained(**json.loads((folder / _FACTS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    if _weights_sha(folder) != facts.sha:
        raise ValueError(f"the weights in {folder} are not those that the first stage wrote; delete the folder to train the stage again")
    return facts


def _weights_sha(folder: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                sha.update(block)
    return sha.hexdigest()
