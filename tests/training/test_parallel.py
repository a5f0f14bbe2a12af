"""Several workers on one trial, over gloo: a network in shards trains, resumes and is evaluated as on one worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from jepa_ray.config import DataConfig, LoraConfig, ObjectiveConfig, PretrainConfig
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.training import checkpoint as working
from jepa_ray.training.build import build
from jepa_ray.training.keeping import keep_model
from jepa_ray.training.parallel import is_sharded, shard_if_needed
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import train_step
from jepa_ray.training.trial import run_trial
from tests import tiny_models as tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # two processes load torch, which takes most of the time

ROWS = ([3, 0, 6, 4, 1, 5, 2], [2, 7, 1], [5, 0, 4, 6], [3])
"""The examples of each step: unequal shares; in the last step, one worker has none."""
JEPA: dict[str, Any] = {"k": 2, "lambda": 2.0}
ADAPTERS = LoraConfig(r=2, dropout=0.0)
EMA = ObjectiveConfig(**JEPA, target="ema", ema_momentum=0.9)


@dataclass(frozen=True)
class Case:
    """A trial whose steps one worker and two workers take."""

    family: str
    changes: dict[str, Any] = field(default_factory=dict)

    def state(self, checkpoints: Mapping[str, Path], runtime: Runtime, scratch: Path) -> TrainState:
        checkpoint = checkpoints[self.family]
        config = tiny.trial(checkpoint, optim__learning_rate=3e-4, **self.changes)
        return build(config, str(checkpoint), tiny.table_of(checkpoint, tiny.EXAMPLES[:8]), runtime, scratch)


CASES = {
    "next token": Case("llama3"),
    "tied": Case("gemma2", {"objective": ObjectiveConfig(**JEPA), "optim__micro_batch_size": 2}),
    "lora": Case("llama3", {"objective": ObjectiveConfig(**JEPA), "lora": ADAPTERS, "optim__micro_batch_size": 1}),
    "ema": Case("llama3", {"objective": EMA, "optim__micro_batch_size": 2}),
    "lora, ema": Case("llama3", {"objective": EMA, "lora": ADAPTERS}),
    "infonce": Case("llama3", {"objective": ObjectiveConfig(**JEPA, distance="infonce", predictor="mlp")}),
    "lambda from gradients": Case("llama3", {"objective": ObjectiveConfig(k=1, **{"lambda": {"grad_ratio": 0.5}})}),
    "recomputed": Case("llama3", {"objective": ObjectiveConfig(**JEPA), "model__gradient_checkpointing": True}),
}
BOTH = {"scratch": "two", "scratch of one": "one"}
"""Scratch folders of the whole trial on two workers and on one."""
RESUMED = CASES["ema"]
HALF_PRECISION = {
    "lora": Case("llama3", {"objective": ObjectiveConfig(**JEPA), "lora": ADAPTERS, "model__precision": "bf16"}),
    "lora, ema": Case("llama3", {"objective": EMA, "lora": ADAPTERS, "model__precision": "bf16"}),
    "ema": Case("llama3", {"objective": EMA, "model__precision": "bf16"}),
}


def steps(state: TrainState, numbers: range) -> dict[str, Any]:
    """Snapshot after some of the steps, on all ranks."""
    totals = [vars(train_step(state, np.array(ROWS[number]), number, 10)) for number in numbers]
    return {**state.snapshot(), "totals": totals}


def whole_trial(checkpoint: Path, scratch: Path, runtime: Runtime) -> dict[str, Any]:
    """Results of a trial with two stages, diagnostics, validation, test and embeddings."""
    changes: dict[str, Any] = {"evaluation__test": True, "evaluation__embeddings": 3, "evaluation__diagnostic_pairs": 4}
    first = PretrainConfig(data=DataConfig(task="paraphrase"), learning_rate=2e-3, num_epochs=1, batch_size=4)
    config = tiny.trial(checkpoint, objective=EMA, pretrain=first, optim__batch_size=3, optim__num_epochs=1, **changes)
    stage = {"first_stage_table": tiny.table_of(checkpoint, tiny.EXAMPLES[50:57]), "first_stage_sha": "p"}
    runtime = replace(runtime, keep=scratch.parent / "models" / scratch.name)
    result = run_trial(config, replace(tiny.prepared_of(checkpoint, 7, 5, 3), **stage), runtime, lambda _: None, scratch)
    assert result.state == "COMPLETE", result.error
    return {"summary": result.summary, "predictions": result.predictions, "embeddings": result.embeddings}


def two_workers(rank: int, folder: Path, checkpoints: Mapping[str, Path]) -> None:
    """Body of one of two workers: every case, resuming, and a whole trial; results go to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    sharded = Runtime(rank=rank, world_size=2, sharding="fsdp", keep=folder / "models" / "lora")
    results: dict[str, Any] = {}
    for name, case in CASES.items():
        state = case.state(checkpoints, sharded, folder / "none")
        assert is_sharded(state.network) and state.parallel is None
        assert sum(p.to_local().numel() for p in state.network.parameters()) < 0.52 * sum(p.numel() for p in state.network.parameters())
        results[name] = steps(state, range(4))
        if name == "lora":
            checkpoint = checkpoints[case.family]
            tokenizer = load_tokenizer(str(checkpoint), state.config.model)
            assert keep_model(state, tokenizer, tiny.prepared_of(checkpoint), state.config) is None
    for name, case in HALF_PRECISION.items():
        for runtime in (sharded, replace(sharded, sharding="auto")):
            results[f"half precision, {name}, {runtime.sharding}"] = steps(case.state(checkpoints, runtime, folder / "none"), range(2))
    state = RESUMED.state(checkpoints, sharded, folder / "of one")
    results["loaded"] = state.snapshot()
    results["resumed"] = steps(state, range(2, 4))
    if rank == 0:
        working.write(folder / "of two", results["resumed"])
    results["trial"] = whole_trial(checkpoints["llama3"], folder / "scratch" / "two", sharded)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Contains the two workers' results, and the checkpoint of one worker after two steps, from which they resumed."""
    path = tmp_path_factory.mktemp("sharded")
    working.write(path / "of one", steps(RESUMED.state(tiny_checkpoints, Runtime(), path / "none"), range(2)))
    torch.multiprocessing.spawn(two_workers, (path, tiny_checkpoints), nprocs=2)  # type: ignore[no-untyped-call]
    return path


@pytest.fixture(scope="module")
def sharded(folder: Path) -> dict[str, Any]:
    """Rank 0's results."""
    results: dict[str, Any] = torch.load(folder / "0.pt")
    return results


@pytest.fixture(scope="module")
def of_one_worker(folder: Path, tiny_checkpoints: dict[str, Path]) -> dict[str, Any]:
    """Results of the whole trial on one worker."""
    return whole_trial(tiny_checkpoints["llama3"], folder / "scratch of one" / "one", Runtime())


def differ(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, float]:
    """Largest differences of weights and averages, and of optimizer states relative to their largest entry."""
    out = {}
    for name in ("trained", "average"):
        assert found.get(name, {}).keys() == wanted.get(name, {}).keys()
        out[name] = max((float((found[name][key] - value).abs().max()) for key, value in wanted.get(name, {}).items()), default=0.0)
    ours, theirs = found["optimizer"], wanted["optimizer"]
    assert ours["param_groups"] == theirs["param_groups"] and ours["state"].keys() == theirs["state"].keys()
    out["optimizer"] = max(tiny.largest_error(ours["state"][key], value) for key, value in theirs["state"].items())
    return out


@pytest.mark.parametrize("name", CASES)
def test_shards_change_nothing_but_rounding(name: str, sharded: dict[str, Any], tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    state = CASES[name].state(tiny_checkpoints, Runtime(), tmp_path)
    before = {key: value.detach().clone() for key, value in state.network.named_parameters()}
    wanted = steps(state, range(4))
    moved = min(float((value - before[key]).abs().max()) for key, value in wanted["trained"].items())
    found = differ(sharded[name], wanted)
    assert moved > 3e-4
    assert found["trained"] < 1e-5 and found["average"] < 1e-5 and found["optimizer"] < 1e-6
    assert sharded[name].get("lambda", 0.0) == pytest.approx(wanted.get("lambda", 0.0), rel=1e-5)


@pytest.mark.parametrize("name", HALF_PRECISION)
def test_copies_and_shards_agree_in_bf16(name: str, sharded: dict[str, Any]) -> None:
    """Autocast keeps a weight's bf16 copy within a block: not the average's for the online network."""
    found = differ(sharded[f"half precision, {name}, fsdp"], sharded[f"half precision, {name}, auto"])
    assert max(found.values()) < 1e-5


def test_checkpoints_do_not_depend_on_the_number_of_workers(
    folder: Path, sharded: dict[str, Any], tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    of_one = working.read(folder / "of one", torch.device("cpu"))
    assert of_one is not None and set(differ(sharded["loaded"], of_one).values()) == {0.0}
    again = RESUMED.state(tiny_checkpoints, Runtime(), folder / "of two")
    assert set(differ(again.snapshot(), sharded["resumed"]).values()) == {0.0}
    wanted = steps(RESUMED.state(tiny_checkpoints, Runtime(), tmp_path), range(4))
    assert max(differ(sharded["resumed"], wanted).values()) < 1e-5


def test_a_whole_trial_gives_the_same_texts_and_numbers(folder: Path, sharded: dict[str, Any], of_one_worker: dict[str, Any]) -> None:
    wanted, found = of_one_worker, sharded["trial"]
    tiny.assert_same_answers(found["predictions"], wanted["predictions"])
    kinds = ("train_", "val_", "test_", "pretrain_", "diag_")
    numbers = {name: value for name, value in wanted["summary"].items() if name.startswith(kinds)}
    # Time differs, and each worker packs its own rows, in which fewer prefixes are shared.
    own = {name for name in numbers if name.endswith("seconds") or name.startswith(("train_flops", "train_tokens"))}
    assert {"val_ce", "val_jepa", "pretrain_ce"} < numbers.keys() and wanted["summary"]["alarms"] == found["summary"]["alarms"]
    for name, value in numbers.items():
        assert name in own or found["summary"][name] == pytest.approx(value, rel=1e-4, nan_ok=True), name
    vectors = [np.array([line["vector"] for line in result["embeddings"]]) for result in (found, wanted)]
    assert vectors[0].shape == vectors[1].shape and len(vectors[0]) == 6 and np.abs(vectors[0] - vectors[1]).max() < 2e-3
    (of_two,), (of_one,) = ((folder / name / "pretrained").iterdir() for name in ("scratch", "scratch of one"))
    assert tiny.largest_error(load_file(of_two / "model.safetensors"), load_file(of_one / "model.safetensors")) < 1e-4


@pytest.mark.usefixtures("of_one_worker")
def test_the_kept_model_has_the_whole_weights(folder: Path, sharded: dict[str, Any]) -> None:
    """Rank 0 writes what all ranks have gathered: adapters bit for bit, and a whole model that one worker would have written too."""
    adapters = load_file(folder / "models" / "lora" / "adapter_model.safetensors")
    trained = {name.removeprefix("lm.").replace(".default.", "."): value for name, value in sharded["lora"]["trained"].items()}
    assert trained.pop("predictor").shape == (2, 64) and adapters.keys() == trained.keys()
    assert all(torch.equal(adapters[name], value) for name, value in trained.items())
    of_two, of_one = (load_file(folder / scratch / "models" / name / "model.safetensors") for scratch, name in BOTH.items())
    assert tiny.largest_error(of_two, of_one) < 1e-4


def test_a_parameter_that_cannot_be_sharded_is_refused(tiny_checkpoints: dict[str, Path]) -> None:
    network = tiny.network_of(tiny.trial(tiny_checkpoints["llama3"]))
    network.lm.temperature = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"the parameter lm\.temperature is a single number.*set resources\.sharding=ddp"):
        shard_if_needed(network, Runtime(world_size=2, sharding="fsdp"), lambda: True)
