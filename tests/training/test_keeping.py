"""A kept model answers as it was scored: the code of its card, with plain Transformers and PEFT, gives the answers in the tables."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from jepa_ray.config import LoraConfig, ObjectiveConfig, TrialConfig
from jepa_ray.models.families import get_family
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.results import TrialResult, add_facts, read_model
from jepa_ray.system import atomic
from jepa_ray.training import keeping
from jepa_ray.training.keeping import keep_model, rendering, system_of
from jepa_ray.training.prepared import Pretrained
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.trial import run_trial
from tests import tiny_models as tiny
from tests.model_cards import answers, conversation

TEST = 5
ADAPTERS = LoraConfig(r=4, dropout=0.1)


def confirmed(checkpoint: Path, keep: Path, scratch: Path, **changes: Any) -> tuple[TrialConfig, TrialResult]:
    """A trial that is scored on the test split and writes its model to `keep`."""
    learning = {"optim__learning_rate": 3e-3, "optim__num_epochs": 1, "evaluation__max_new_tokens": 12, "evaluation__test": True}
    config = tiny.trial(checkpoint, **{**learning, **changes})
    result = run_trial(config, tiny.prepared_of(checkpoint, 24, 4, TEST), Runtime(keep=keep), lambda _: None, scratch)
    assert result.state == "COMPLETE", result.error
    return config, result


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("llama3", {"lora": ADAPTERS, "objective": ObjectiveConfig(k=2, predictor="linear")}),
    "full, scaled embeddings, no system role": ("gemma2", {"objective": ObjectiveConfig(k=1)}),
    "full, baseline": ("qwen3", {}),
}


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_the_code_of_the_card_gives_the_answers_in_the_table(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    asked, expected = [], []
    for number, (family, changes) in enumerate(KINDS.values()):
        folder = tmp_path / str(number)
        _, result = confirmed(tiny_checkpoints[family], folder, tmp_path / "scratch" / str(number), **changes)
        assert result.summary["model_error"] is None
        model = read_model(folder)
        assert model is not None and model.trial_id == str(number)
        add_facts(model)
        role = get_family(family).system_role
        asked.append((folder, [conversation(tiny.SYSTEM, e.text, system_role=role) for e in tiny.EXAMPLES[28 : 28 + TEST]]))
        expected.append([row["prediction"] for row in result.predictions if row["split"] == "test"])
    texts, modules = answers(asked)
    assert texts == expected and modules == [], "and without jepa_ray"
    assert len({text for kind in expected for text in kind}) > TEST, "the answers are not all the same"


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_openelm_needs_one_more_import_and_no_remote_code(tiny_checkpoints: dict[str, Path], tmp_path: Path, repository: Path) -> None:
    _, result = confirmed(tiny_checkpoints["openelm"], tmp_path / "model", tmp_path / "scratch" / "x")
    model = read_model(tmp_path / "model")
    assert model is not None
    add_facts(model)
    conversations = [conversation(tiny.SYSTEM, e.text) for e in tiny.EXAMPLES[28 : 28 + TEST]]
    texts, modules = answers([(model.folder, conversations)], path=str(repository))
    assert texts == [[row["prediction"] for row in result.predictions if row["split"] == "test"]]
    assert "jepa_ray.models.openelm" in modules and "jepa_ray.training" not in modules


def test_adapters_name_their_base_and_whole_models_are_saved_as_trained(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    confirmed(tiny_checkpoints["llama3"], tmp_path / "lora", tmp_path / "scratch" / "lora", **KINDS["LoRA"][1])
    adapters = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert adapters["base_model_name_or_path"] == str(tiny_checkpoints["llama3"]) and adapters["r"] == 4
    assert {path.name for path in (tmp_path / "lora").iterdir()} >= {"adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert not list((tmp_path / "lora").glob("*.bin")) and not (tmp_path / "lora" / "model.safetensors").exists()
    with safe_open(tmp_path / "lora" / "predictor.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
        assert file.get_tensor("predictor_tokens").shape == (2, 64) and "head.weight" in "".join(file.keys())
        assert file.metadata()["k"] == "2" and "after the last token of the Text view" in file.metadata()["use"]

    changes = {"objective": ObjectiveConfig(k=1), "evaluation__diagnostic_pairs": 0}
    confirmed(tiny_checkpoints["gemma2"], tmp_path / "full", tmp_path / "scratch" / "full", **changes)
    saved = json.loads((tmp_path / "full" / "config.json").read_text())
    assert saved["use_cache"] is True and saved["dtype"] == "float32" and saved["vocab_size"] > 0
    with safe_open(tmp_path / "full" / "predictor.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
        assert "multiplied by 8" in file.metadata()["use"], "Gemma scales embeddings by the root of the width, 64"
    before = load_file(tiny_checkpoints["gemma2"] / "model.safetensors")
    after = load_file(tmp_path / "full" / "model.safetensors")
    assert before.keys() == after.keys() and all(not torch.equal(before[name], after[name]) for name in before)


def state_of(checkpoint: Path, keep: Path | None, **changes: Any) -> tuple[Any, Any, TrialConfig]:
    config = tiny.trial(checkpoint, **changes)
    state = tiny.state_of(tiny.network_of(config), tiny.table_of(checkpoint, tiny.EXAMPLES[:4]), config)
    return replace(state, runtime=Runtime(keep=keep)), load_tokenizer(str(checkpoint), config.model), config


def test_a_full_disk_leaves_nothing_and_the_trial_complete(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, *_: Any) -> None:
        (folder / "model.safetensors").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(keeping, "save_model", full)
    keep = tmp_path / "models" / ".waiting" / "0"
    _, result = confirmed(tiny_checkpoints["llama3"], keep, tmp_path / "scratch" / "0", lora=ADAPTERS)
    assert "No space left on device" in str(result.summary["model_error"]) and result.summary["test_accuracy"] is not None
    assert not list(keep.parent.iterdir())


def test_a_trial_that_is_killed_while_it_saves_leaves_nothing_half(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    state, tokenizer, config = state_of(tiny_checkpoints["llama3"], tmp_path / "models" / "0")
    prepared = tiny.prepared_of(tiny_checkpoints["llama3"])

    class Killed(BaseException):
        pass

    def killed(folder: Path) -> None:
        raise Killed

    tokenizer.save_pretrained, real = killed, tokenizer.save_pretrained
    with pytest.raises(Killed):
        keep_model(state, tokenizer, prepared, config)
    assert read_model(tmp_path / "models" / "0") is None
    tokenizer.save_pretrained = real
    assert keep_model(state, tokenizer, prepared, config) is None
    assert keep_model(state, tokenizer, prepared, config) is None, "a trial that was killed before its row was written saves again"
    atomic.sweep_up(tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["0"]
    AutoModelForCausalLM.from_pretrained(tmp_path / "models" / "0")


def test_nothing_is_written_that_cannot_be_used_or_was_not_asked_for(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    prepared = tiny.prepared_of(checkpoint)
    state, tokenizer, config = state_of(checkpoint, None)
    assert keep_model(state, tokenizer, prepared, config) is None
    state, tokenizer, config = state_of(checkpoint, tmp_path / "random", lora=ADAPTERS, model__init="random")
    reason = keep_model(state, tokenizer, prepared, config)
    assert reason is not None and "base.model.init=random" in reason and not list(tmp_path.iterdir())
    other = replace(state, runtime=Runtime(rank=1, world_size=2, keep=tmp_path / "rank 1"))
    assert keep_model(other, tokenizer, prepared, config) is None and not (tmp_path / "rank 1").exists()


def test_after_a_first_stage_the_whole_model_is_kept_for_its_checkpoint_is_temporary(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoints["llama3"], tmp_path / "pretrained" / "llama3"))
    prepared = replace(tiny.prepared_of(checkpoint), first_stage=Pretrained(str(checkpoint), "sha", 1, 1, 1.0, []))
    asked = {"model__model": str(tiny_checkpoints["llama3"]), "objective": ObjectiveConfig(k=1)}
    network = tiny.network_of(tiny.trial(checkpoint, lora=LoraConfig(r=4), **asked)).eval()
    config = tiny.trial(checkpoint, lora=LoraConfig(r=4), model__init="random", **asked)  # the first stage's weights are stored, though
    state = tiny.state_of(network, tiny.table_of(checkpoint, tiny.EXAMPLES[:4]), config)
    folder = tmp_path / "kept"
    tokenizer = load_tokenizer(str(checkpoint), config.model)
    assert keep_model(replace(state, runtime=Runtime(keep=folder)), tokenizer, prepared, config) is None
    shutil.rmtree(checkpoint)
    model = read_model(folder)
    assert model is not None and not list(folder.glob("adapter_*")) and (folder / "predictor.safetensors").is_file()
    card = add_facts(model).folder.joinpath("README.md").read_text()
    assert "These weights contain both stages." in card and f"from `{tiny_checkpoints['llama3']}`" in card
    assert "library_name: transformers" in card and "PeftModel" not in card and str(checkpoint.parent) not in card
    whole = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.from_numpy(state.table.lm[0].astype("int64"))[None]
    with torch.no_grad():
        assert torch.allclose(whole(ids).logits, network.lm(ids).logits, atol=1e-4)
    assert whole.config.use_cache is True


def test_a_relative_folder_becomes_absolute(tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model may be loaded from anywhere."""
    monkeypatch.chdir(tiny_checkpoints["llama3"])
    for name, asked in (("dot", "."), ("up", "../llama3")):
        config = tiny.trial(tiny_checkpoints["llama3"], lora=ADAPTERS, model__model=asked)
        state, tokenizer, _ = state_of(tiny_checkpoints["llama3"], tmp_path / name, lora=ADAPTERS)
        assert keep_model(state, tokenizer, replace(tiny.prepared_of(tiny_checkpoints["llama3"]), checkpoint=asked), config) is None
        model = read_model(tmp_path / name)
        assert model is not None and model.facts["base"] == model.facts["base_name"] == str(tiny_checkpoints["llama3"].resolve())
        assert json.loads((tmp_path / name / "adapter_config.json").read_text())["base_model_name_or_path"] == model.facts["base"]
        assert model.facts["hub"] is False and model.facts["local"] is True


def test_the_system_message_is_read_back_from_the_prompts(tiny_checkpoints: dict[str, Path]) -> None:
    for name, checkpoint in tiny_checkpoints.items():
        family, tokenizer = get_family(name), load_tokenizer(str(checkpoint), tiny.trial(checkpoint).model)
        assert system_of(tokenizer, family, tiny.table_of(checkpoint, tiny.EXAMPLES[:4])) == tiny.SYSTEM, name
        other = replace(tiny.EXAMPLES[4], system="Another one.")
        assert system_of(tokenizer, family, tiny.table_of(checkpoint, [*tiny.EXAMPLES[:4], other])) is None, name


def test_prompts_are_rendered_without_jepa_ray_whatever_the_template_does(tiny_checkpoints: dict[str, Path]) -> None:
    for name, checkpoint in tiny_checkpoints.items():
        family = get_family(name)
        tokenizer = load_tokenizer(str(checkpoint), tiny.trial(checkpoint).model)
        assert rendering(tokenizer, family) == {"own": True, "front": ""}, name
    family = get_family("r1-distill-qwen")
    tokenizer = load_tokenizer(str(tiny_checkpoints[family.name]), tiny.trial(tiny_checkpoints[family.name]).model)
    # The published template: generation begins with a thought that answers do not have, and the tokenizer is to add BOS.
    shown = tokenizer.chat_template.replace("{{- bos_token }}\n", "")
    tokenizer.chat_template = shown + "{%- if add_generation_prompt %}{{- '<think>\\n' }}{% endif %}"
    assert rendering(tokenizer, family) == {"own": False, "front": family.bos}
    tokenizer.chat_template = shown + "{%- if add_generation_prompt %}{{ raise_exception('only whole conversations') }}{% endif %}"
    assert rendering(tokenizer, family) == {"own": False, "front": family.bos}
