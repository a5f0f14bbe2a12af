"""Two stages: the second starts from exactly the weights of the first, and its cost includes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jepa_ray.config import DataConfig, ObjectiveConfig, PretrainConfig
from jepa_ray.results import TrialResult
from jepa_ray.system.digests import Weights
from jepa_ray.training.first_stage import _folder, stages
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.trial import run_trial
from tests import tiny_models


def first_stage(**changes: Any) -> PretrainConfig:
    return PretrainConfig(**{"data": DataConfig(task="paraphrase"), "learning_rate": 2e-3, "num_epochs": 1, "batch_size": 4, **changes})


def run(checkpoint: Path, scratch: Path, **changes: Any) -> TrialResult:
    config = tiny_models.trial(checkpoint, **{"pretrain": first_stage(), "objective": ObjectiveConfig(k=1), **changes})
    prepared = replace(
        tiny_models.prepared_of(checkpoint),
        first_stage_table=tiny_models.table_of(checkpoint, tiny_models.EXAMPLES[50:62]),
        first_stage_sha="p",
    )
    result = run_trial(config, prepared, Runtime(), lambda _: None, scratch)
    assert result.state == "COMPLETE", result.error
    return result


def test_the_jepa_term_is_where_it_is_wanted(tiny_checkpoints: dict[str, Path]) -> None:
    for wanted, (one, two) in {"pretrain": (True, False), "finetune": (False, True), "both": (True, True)}.items():
        config = tiny_models.trial(
            tiny_checkpoints["llama3"],
            pretrain=first_stage(objective_in=wanted, seed=9),
            objective=ObjectiveConfig(k=1),
            model__init="random",
        )
        first, second = stages(config)
        assert first is not None and first.pretrain is None and second.pretrain is None
        assert (first.objective is not None, second.objective is not None) == (one, two)
        assert (first.seed, second.seed) == (9, config.seed) and first.optim.learning_rate == 2e-3
        assert (first.model.init, second.model.init) == ("random", "pretrained") and first.data.task == "paraphrase"
    assert stages(tiny_models.trial(tiny_checkpoints["llama3"]))[0] is None


def test_checkpoint_is_trained_once_handed_on_by_digest_and_paid_for(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    one = run(checkpoint, tmp_path / "one")
    (folder,) = (tmp_path / "pretrained").iterdir()
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    two = run(checkpoint, tmp_path / "two")
    assert [path.name for path in (tmp_path / "pretrained").iterdir()] == [folder.name]
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    names = ("pretrained_sha", "train_ce", "train_flops", "train_tokens", "steps")
    assert {name: one.summary[name] for name in names} == {name: two.summary[name] for name in names}
    alone = run(checkpoint, tmp_path / "alone", pretrain=None)
    assert float(one.summary["train_flops"]) > float(alone.summary["train_flops"]) and "train_jepa" not in one.summary
    assert one.summary["train_ce"] != alone.summary["train_ce"]
    # A different learning rate of the fine-tuning shares the checkpoint, a different seed of the first stage does not.
    run(checkpoint, tmp_path / "three", optim__learning_rate=5e-4)
    assert len(list((tmp_path / "pretrained").iterdir())) == 1
    run(checkpoint, tmp_path / "four", pretrain=first_stage(seed=3))
    assert len(list((tmp_path / "pretrained").iterdir())) == 2


def test_the_first_stage_is_a_plain_trial_of_its_own(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Its weights are those of consecutive calls of `train_step`; its predictor tokens are not passed on."""
    checkpoint = tiny_checkpoints["llama3"]
    run(checkpoint, tmp_path / "one")
    (folder,) = (tmp_path / "pretrained").iterdir()
    first, _ = stages(tiny_models.trial(checkpoint, pretrain=first_stage(), objective=ObjectiveConfig(k=1)))
    assert first is not None
    network = tiny_models.network_of(first)
    table = tiny_models.table_of(checkpoint, tiny_models.EXAMPLES[50:62])
    state = tiny_models.state_of(network, table, first, term=tiny_models.Term.of(first, network))
    from jepa_ray.training.epochs import epoch_steps

    for step, rows in enumerate(epoch_steps(12, first.optim, first.seed, 0)):
        tiny_models.train_step(state, rows, step, 3)
    saved = load_file(folder / "model.safetensors")
    wanted = network.causal_lm.state_dict()
    assert saved.keys() <= wanted.keys() and len(saved) > 5
    for name, value in saved.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-7)


def test_a_stage_of_another_base_in_the_same_folder_is_not_used(tmp_path: Path) -> None:
    """The key has the weights' digest. Stages of earlier versions, without it, count if they are newer than the weights."""
    first, _ = stages(tiny_models.trial(tmp_path, pretrain=first_stage()))
    assert first is not None

    def folder(sha: str, written: str) -> Path:
        table: Any = None
        weights = Weights(sha, written=written)
        return _folder(tmp_path, first, Prepared(table, table, None, dataset_sha="d", checkpoint="base", weights=weights))

    then, later = "2001-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"
    former = folder("", then)
    assert len({former, folder("one", then), folder("two", then)}) == 3
    former.mkdir()
    (former / "stage.json").touch()
    assert folder("one", then) == former and folder("one", later) not in (former, folder("two", later))


def test_weights_that_were_changed_are_refused(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    run(checkpoint, tmp_path / "one")
    (folder,) = (tmp_path / "pretrained").iterdir()
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(AssertionError, match="are not those that the first stage wrote; delete the folder"):
        run(checkpoint, tmp_path / "two")


def test_the_first_stage_never_sees_what_the_second_is_scored_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jepa_ray.config import SweepConfig
    from jepa_ray.data.datasets import load_splits
    from jepa_ray.preparation.prepare import prepare

    monkeypatch.setenv("JEPA_RAY_CACHE", str(tmp_path / "cache"))
    lines = tmp_path / "all.jsonl"
    import json

    rows = [{"messages": [{"role": "user", "content": f"text {i}"}, {"role": "assistant", "content": f"code {i}"}]} for i in range(120)]
    lines.write_text("\n".join(map(json.dumps, rows)))
    test = tmp_path / "test.jsonl"
    test.write_text("\n".join(map(json.dumps, rows[:10])))
    sweep = SweepConfig.model_validate(
        {
            "name": "x",
            "methods": {"base": "none"},
            "data": {"train": str(lines), "test": str(test), "num_val": 40},
            "pretrain": {"data": {"train": str(lines), "num_val": 10}},
            "base": {"model": {"init": "random"}},
        }
    )
    prepared = prepare(sweep, "llama3", "nl-rx")
    splits = load_splits(sweep.data)
    assert prepared.first_stage_table is not None
    scored = {example.id for example in splits.val} | {f"all:{i + 1}" for i in range(10)}
    first = {example.id for example in load_splits(sweep.pretrain.data).train}  # type: ignore[union-attr]
    assert first & scored and set(prepared.first_stage_table.example_ids) == first - scored
    assert prepared.report["pretrain_left_out"] == len(first & scored)


def test_identity_follows_data_weights_and_databases(tmp_path: Path) -> None:
    from jepa_ray.data.example import Example
    from jepa_ray.preparation.prepare import databases_sha
    from jepa_ray.system.digests import sampled_sha

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.sqlite").write_bytes(b"one")
    examples = [Example("1", "", "q", "SELECT 1", {"db_id": "a"})]
    data = DataConfig(task="spider", databases=str(tmp_path))
    before = databases_sha(data, examples)
    (tmp_path / "a" / "a.sqlite").write_bytes(b"two")
    assert databases_sha(data, examples) != before and databases_sha(DataConfig(), examples) == ""
    big = tmp_path / "big"
    shas = set()
    for content in (b"x" * 3000, b"x" * 2999 + b"y", b"y" + b"x" * 2999, b"x" * 3001):
        big.write_bytes(content)
        shas.add(sampled_sha(big, sample=1000))
    assert len(shas) == 4
