"""The first of two training stages: trains the whole network on other data; fine-tuning starts from its weights (paper, T9).

Its checkpoint is stored in `<sweep>/scratch/pretrained/<key>`, where `key` is a digest of everything that determines it: the starting
checkpoint, and the stage's data, optimizer, objective and seed. Trials that agree in all of these share one checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch.distributed as dist

from jepa_ray.config import TrialConfig, canonical
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.models.network import Network
from jepa_ray.system import atomic
from jepa_ray.training.build import build
from jepa_ray.training.cost import FlopModel, Spent
from jepa_ray.training.device import clear
from jepa_ray.training.epochs import EpochPart, all_epochs, train_epoch
from jepa_ray.training.jepa_term import active_objective
from jepa_ray.training.micro_batches import packed_ahead
from jepa_ray.training.prepared import Prepared, Pretrained
from jepa_ray.training.runtime import Runtime, rank_zero_says
from jepa_ray.training.saving import Checkpoints
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

    Every rank calls this. Resumes from the working checkpoint under `scratch`. ValueError if the weights of a stored checkpoint do not
    match the recorded digest.
    """
    folder = _folder(scratch.parent / "pretrained", config, prepared)
    # Rank 0 decides: another trial may finish the same stage in the meantime.
    if not rank_zero_says((folder / _FACTS).exists(), runtime):
        _train(config, prepared, runtime, scratch / "pretrain", folder)
        clear(runtime.device)  # a sharded network is in reference cycles; fine-tuning needs its memory
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
    part = EpochPart.of(saved["part"], runtime) if "part" in saved else EpochPart()
    epochs = all_epochs(len(table), config.optim, config.seed)
    total_steps = sum(map(len, epochs))

    def snapshot() -> dict[str, Any]:
        return state.snapshot(epoch=len(losses), losses=losses, spent=asdict(spent), part=part.saved(runtime))

    state.network.train()
    with Checkpoints(scratch, runtime, snapshot) as checkpoints:
        for steps in epochs[saved["epoch"] :]:
            with packed_ahead(state, steps[part.steps :], spent.step + part.steps) as packed:
                totals = train_epoch(
                    lambda rows, step: train_step(state, rows, step, total_steps, next(packed)),
                    steps,
                    spent.step,
                    total_steps,
                    runtime,
                    "first stage",
                    part=part,
                    after_step=checkpoints.after_step,
                )
            spent.train(totals, flop_model, part.steps, part.seconds)
            part = EpochPart()
            means = {"pretrain_ce": totals.ce_sum / max(1, totals.num_labels)}
            losses.append(means | ({"pretrain_jepa": totals.jepa_sum / totals.num_pairs} if totals.num_pairs else {}))
    with state.gathered() as network:
        if runtime.rank == 0:
            _write(network, folder, config, prepared, spent, losses)
    if runtime.rank == 0:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(network: Network, folder: Path, config: TrialConfig, prepared: Prepared, spent: Spent, losses: list[dict[str, float]]) -> None:
    """Write the checkpoint that the stage results in."""
    with atomic.whole_folder(folder) as building:  # another trial may finish the same first stage earlier
        network.causal_lm.save_pretrained(building)
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


def _folder(parent: Path, config: TrialConfig, prepared: Prepared) -> Path:
    """The stage's folder. One of an earlier version, whose key has no digest of the weights, counts if it is newer than the weights."""
    former = parent / _key(config, prepared, "")
    try:
        written = datetime.fromtimestamp((former / _FACTS).stat().st_mtime, UTC).isoformat(timespec="seconds")
    except OSError:
        written = ""
    newer = written and written >= prepared.weights.written
    return former if newer else parent / _key(config, prepared, prepared.weights.sha)


def _key(config: TrialConfig, prepared: Prepared, weights: str) -> str:
    tree = canonical(config.model_copy(update={"objective": active_objective(config)}))
    parts = [tree[name] for name in ("model", "data", "optim", "objective", "seed")]
    where = [prepared.checkpoint, *([prepared.revision] if prepared.revision else [weights] if weights else []), prepared.first_stage_sha]
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
