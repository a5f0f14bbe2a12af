"""The command that copies a kept model: what it refuses, in one sentence, and what it writes."""

from __future__ import annotations

import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import jepa_ray
from jepa_ray import export
from jepa_ray.config import LoraConfig, ResourcesConfig, TrialConfig
from jepa_ray.data.datasets import load_splits
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.results import TrialResult, add_facts, kept_models, model_folder, read_model, write_trial
from jepa_ray.training.keeping import save_model
from tests import tiny_models as tiny
from tests.model_cards import answers, conversation, facts, put


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with two models of one arm, of which seed 4 is the median, and one of another."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "sweep.yaml").touch()
    config = facts()["config"]
    for arm, seed, median in (("jepa/llama3", 82, False), ("jepa/llama3", 4, True), ("base/llama3", 82, True)):
        known = facts(arm=arm, config=config | {"seed": seed}, median=median, adapter=False)
        model = put(model_folder(folder, arm, seed), known)
        save_file({"weight": np.array([seed])}, model.folder / "model.safetensors", metadata={"of": f"{arm} {seed}"})
        (model.folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def weights_of(folder: Path) -> str:
    with safe_open(folder / "model.safetensors", "np") as file:  # type: ignore[no-untyped-call]
        return str(file.metadata()["of"])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert export.main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    return " ".join(printed.err.split())


def test_a_model_is_copied_whole(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "out" / "model"
    assert export.main([str(results), "--arm", "jepa/llama3", "--to", str(to)]) == 0
    assert weights_of(to) == "jepa/llama3 4", "the median, if no seed is named"
    assert "jepa/llama3, seed 4" in capsys.readouterr().out
    assert {path.name for path in to.iterdir()} == {path.name for path in model_folder(results, "jepa/llama3", 4).iterdir()}
    (tmp_path / "empty").mkdir()
    assert export.main([str(results), "--arm", "jepa/llama3", "--seed", "82", "--to", str(tmp_path / "empty")]) == 0
    assert weights_of(tmp_path / "empty") == "jepa/llama3 82"


def test_what_cannot_be_exported_is_refused_in_one_sentence(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "to"
    assert "arms with a model: base/llama3, jepa/llama3" in refused(capsys, results, "--arm", "jepa/gemma2", "--to", to)
    assert "seeds with a model: 4, 82" in refused(capsys, results, "--arm", "jepa/llama3", "--seed", 5, "--to", to)
    assert "drop --merge" in refused(capsys, results, "--arm", "base/llama3", "--merge", "--to", to)
    assert "is not a results folder" in refused(capsys, tmp_path, "--arm", "base/llama3", "--to", to)
    assert "exists and is not an empty folder" in refused(capsys, results, "--arm", "base/llama3", "--to", results)
    assert "exists and is not an empty folder" in refused(capsys, results, "--arm", "base/llama3", "--to", results / "sweep.yaml")
    shutil.rmtree(results / "models")
    assert "confirm.keep=best" in refused(capsys, results, "--arm", "base/llama3", "--to", to)
    assert not to.exists()


def test_several_seeds_without_the_median_need_a_choice(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = read_model(model_folder(results, "jepa/llama3", 4))
    assert model is not None
    add_facts(model, median=False)
    assert "choose with --seed from 4, 82" in refused(capsys, results, "--arm", "jepa/llama3", "--to", tmp_path / "to")


def test_no_room_is_known_before_or_leaves_nothing(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage: Any = namedtuple("usage", "total used free")
    monkeypatch.setattr(export.shutil, "disk_usage", lambda _: usage(0, 0, 3))
    sentence = refused(capsys, results, "--arm", "base/llama3", "--to", tmp_path / "new" / "to")
    assert "needs" in sentence and f"{tmp_path} has" in sentence
    monkeypatch.setattr(export.shutil, "disk_usage", lambda _: usage(0, 0, 10**9))

    def full(source: Path, target: Path, **_: Any) -> None:
        (target / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export.shutil, "copytree", full)
    assert "the disk is full; nothing is left" in refused(capsys, results, "--arm", "base/llama3", "--to", tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_file_that_cannot_be_read_is_named(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(source: Path, target: Path, **_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(source / "model.safetensors"))

    monkeypatch.setattr(export.shutil, "copytree", unreadable)
    sentence = refused(capsys, results, "--arm", "base/llama3", "--to", tmp_path / "new" / "to")
    assert f"{model_folder(results, 'base/llama3', 82)}/model.safetensors cannot be read or written: Permission denied" in sentence
    assert not (tmp_path / "new").exists(), "the folder above is removed, too"


def test_models_that_a_full_disk_prevented_are_told_with_that_reason(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = TrialResult("COMPLETE", None, {"test_accuracy": 0.5, "model_error": "No space left on device"})
    write_trial(results, "f00d", TrialConfig.model_validate(facts()["config"]), "l2/llama3", "confirm", full)
    sentence = refused(capsys, results, "--arm", "l2/llama3", "--to", tmp_path / "to")
    assert "no model of arm 'l2/llama3': it could not be saved when its trial ended (No space left on device)" in sentence
    assert "could not be saved" not in refused(capsys, results, "--arm", "jepa/gemma2", "--to", tmp_path / "to")
    shutil.rmtree(results / "models")
    sentence = refused(capsys, results, "--arm", "base/llama3", "--to", tmp_path / "to")
    assert "none could be saved when its trial ended (No space left on device)" in sentence and "confirm.keep" not in sentence


DAMAGED = {
    "trial.json": [None, "", "{", "[]", '{"trial_id": "0", "arm": "jepa/llama3", "config": {"seed": 1}}'],
    "adapter_config.json": [None, "", "{", "[]", "{}"],
    "adapter_model.safetensors": [None, "", "12345", "\x00" * 100, -1],
}
"""File of a kept model -> contents that it cannot have: None, it is missing; -1, its last byte is."""


@pytest.fixture
def kept(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """The folder of the one model that a results folder has: adapters of a tiny checkpoint."""
    checkpoint = Path(shutil.copytree(tiny_checkpoints["llama3"], tmp_path / "copy" / "llama3"))
    return keep(checkpoint, tmp_path)


def keep(checkpoint: Path, results: Path, scores: dict[str, float] | None = None, **changes: Any) -> Path:
    """Adapters of this checkpoint, kept as the only model of a results folder."""
    config = tiny.trial(checkpoint, lora=LoraConfig(r=4), **changes)
    folder = model_folder(results, "jepa/llama3", config.seed)
    folder.mkdir(parents=True)
    (results / "sweep.yaml").touch()
    tokenizer = load_tokenizer(str(checkpoint), config.model)
    save_model(folder, tiny.network_of(config), tokenizer, tiny.prepared_of(checkpoint), config, "0")
    model = read_model(folder)
    assert model is not None
    add_facts(model, arm="jepa/llama3", **({} if scores is None else {"scores": scores}))
    return folder


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_model_is_refused_in_one_sentence_that_names_the_file(
    name: str, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = (kept / name).read_bytes()
    for content in DAMAGED[name]:
        (kept / name).unlink() if content is None else (kept / name).write_bytes(sound[:-1] if content == -1 else str(content).encode())
        for merge in ((), ("--merge",)):
            told = refused(capsys, tmp_path, "--arm", "jepa/llama3", *merge, "--to", tmp_path / "to")
            assert f"{name} is missing" in told or f"{name} is damaged (" in told, told
            assert str(kept) in told and "--fresh" in told and not (tmp_path / "to").exists()
        (kept / name).write_bytes(sound)
    assert export.main([str(tmp_path), "--arm", "jepa/llama3", "--to", str(tmp_path / "to")]) == 0


def test_a_seed_whose_facts_are_lost_hides_no_other(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model_folder(results, "jepa/llama3", 82) / "trial.json").write_text("{")
    assert export.main([str(results), "--arm", "jepa/llama3", "--to", str(tmp_path / "to")]) == 0, "the median is sound"
    capsys.readouterr()
    (model_folder(results, "jepa/llama3", 4) / "trial.json").write_text("{")
    (model_folder(results, "jepa/llama3", 82) / "trial.json").write_text(
        json.dumps(facts(arm="jepa/llama3", adapter=False, config=facts()["config"] | {"seed": 82}))
    )
    told = refused(capsys, results, "--arm", "jepa/llama3", "--to", tmp_path / "other")
    assert "seed-4/trial.json is missing or damaged" in told and "choose another seed with --seed from 82" in told


def test_merged_adapters_need_neither_base_nor_peft(kept: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    to = tmp_path / "to"
    assert export.main([str(tmp_path), "--arm", "jepa/llama3", "--merge", "--to", str(to)]) == 0
    lm = AutoModelForCausalLM.from_pretrained(to)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "copy" / "llama3")
    assert sum(weight.numel() for weight in lm.parameters()) == sum(weight.numel() for weight in base.parameters())
    card = (to / "README.md").read_text()
    assert "library_name: transformers" in card and "PeftModel" not in card and "adapters merged in" in card
    assert not list(to.glob("adapter_*")) and (to / "tokenizer.json").is_file()


@pytest.mark.parametrize(("precision", "noted"), [("bf16", True), ("fp32", False)])
def test_the_card_of_a_model_merged_in_bf16_says_that_its_scores_are_those_before(
    precision: str, noted: bool, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    keep(tiny_checkpoints["llama3"], tmp_path, {"val_accuracy": 0.5}, model__precision=precision)
    assert export.main([str(tmp_path), "--arm", "jepa/llama3", "--merge", "--to", str(tmp_path / "merged")]) == 0
    assert export.main([str(tmp_path), "--arm", "jepa/llama3", "--to", str(tmp_path / "apart")]) == 0
    merged, apart = ((tmp_path / name / "README.md").read_text() for name in ("merged", "apart"))
    assert "0.5000" in merged and ("merging rounds the sum of both to bfloat16" in merged) == noted
    assert "0.5000" in apart and "merging rounds" not in apart


def test_adapters_are_not_merged_into_another_base(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "copy" / "llama3" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    told = refused(capsys, tmp_path, "--arm", "jepa/llama3", "--merge", "--to", tmp_path / "to")
    assert "has changed since jepa/llama3" in told and "without --merge" in told and not (tmp_path / "to").exists()
    shutil.rmtree(tmp_path / "copy")
    told = refused(capsys, tmp_path, "--arm", "jepa/llama3", "--merge", "--to", tmp_path / "to")
    assert "copy/llama3, the base of jepa/llama3, seed 1, no longer exists; restore that folder" in told


def test_adapters_of_a_first_stage_are_exported_merged_only(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As earlier versions kept them: their base is a temporary checkpoint."""
    model = read_model(kept)
    assert model is not None
    add_facts(model, config=model.facts["config"] | {"pretrain": {"data": {"task": "gsm8k"}}})
    told = refused(capsys, tmp_path, "--arm", "jepa/llama3", "--to", tmp_path / "to")
    assert f"first stage, {tmp_path}/copy/llama3, which is temporary: use --merge" in told
    assert export.main([str(tmp_path), "--arm", "jepa/llama3", "--merge", "--to", str(tmp_path / "to")]) == 0
    assert "These weights contain both stages." in (tmp_path / "to" / "README.md").read_text()
    shutil.rmtree(tmp_path / "copy")
    capsys.readouterr()
    told = refused(capsys, tmp_path, "--arm", "jepa/llama3", "--merge", "--to", tmp_path / "other")
    assert "no longer exists; restore that folder, or train again (--fresh)" in told


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_sweep_ends_with_models_that_answer_as_they_were_scored(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """The whole path: a sweep of LoRA trials, its kept medians, their cards, an export, and a second run, which changes nothing.

    One cluster serves both runs, with room for one trial: each further process would load torch and transformers for a second of training.
    """
    from jepa_ray.orchestration.cluster import connect

    tree = {
        "name": "kept",
        "output": str(tmp_path),
        "model": str(tiny_checkpoints["llama3"]),
        "families": ["llama3"],
        "methods": {"baseline": "none", "jepa": {"k": 1}},
        "data": {"num_train": 24, "num_val": 4, "num_test": 5},
        "search": {"num_trials": 1},
        "scheduler": {"name": "none"},
        "confirm": {"seeds": [7, 8, 9], "equal_flops": False},
        "resources": {"dashboard": False},
        "base": {
            "lora": {"r": 4},
            "optim": {"learning_rate": 3e-3, "num_epochs": 1, "batch_size": 8},
            "evaluation": {"max_new_tokens": 12, "diagnostic_pairs": 0},
        },
    }
    with connect(ResourcesConfig(dashboard=False), num_cpus=1):
        swept = jepa_ray.run(tree)
        before = {path: path.stat().st_mtime_ns for path in (swept.folder / "models").rglob("*")}
        jepa_ray.run(tree)
    assert {path: path.stat().st_mtime_ns for path in (swept.folder / "models").rglob("*")} == before
    models = {model.arm: model for model in kept_models(swept.folder)}
    assert set(models) == {"baseline/llama3", "jepa/llama3"} and not (swept.folder / "models" / ".waiting").exists()
    trials = swept.trials.set_index("trial_id")
    predictions = swept.predictions[swept.predictions["split"] == "test"]
    asked, expected = [], []
    for arm, model in models.items():
        confirmed = trials[(trials["arm"] == arm) & (trials["stage"] == "confirm")]
        assert trials.loc[model.trial_id, "test_accuracy"] == confirmed["test_accuracy"].median() and len(confirmed) == 3
        assert trials.loc[model.trial_id, "seed"] == model.seed and confirmed["model_error"].isna().all()
        card = (model.folder / "README.md").read_text()
        assert "jepa/llama3 against baseline/llama3" in card and str(trials.loc[model.trial_id, "dataset_sha"]) in card
        to = tmp_path / "exported" / arm.replace("/", "-")
        assert export.main([str(swept.folder), "--arm", arm, "--to", str(to)]) == 0
        rows = predictions[predictions["trial_id"] == model.trial_id].sort_values("example_id")
        systems = {example.id: example.system for example in load_splits(TrialConfig.model_validate(model.facts["config"]).data).test}
        asked.append((to, [conversation(systems[row.example_id], row.question) for row in rows.itertuples()]))
        expected.append(rows["prediction"].tolist())
    texts, modules = answers(asked)
    assert texts == expected and modules == [] and len(expected[0]) == 5
