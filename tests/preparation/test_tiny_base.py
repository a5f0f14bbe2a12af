"""The tiny base: created once, the same every time, from examples that fine-tuning never sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from jepa_ray.config import DataConfig, SweepConfig
from jepa_ray.data.datasets import load_splits
from jepa_ray.models.families import FAMILIES, ModelFamily
from jepa_ray.preparation import tiny_base as module
from jepa_ray.preparation.prepare import prepare
from jepa_ray.preparation.tiny_base import split_for_base, tiny_base
from tests import tiny_models as tiny

EXAMPLES = tiny.EXAMPLES[:40]


@pytest.fixture(params=["llama3", "gemma2", "openelm"])  # the other families behave like llama3 here
def family(request: pytest.FixtureRequest) -> ModelFamily:
    return FAMILIES[request.param]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "STEPS", 3)
    monkeypatch.setenv("JEPA_RAY_CACHE", str(tmp_path / "cache"))


def test_made_once_and_loaded_like_any_checkpoint(family: ModelFamily, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    folder = tiny_base(family, EXAMPLES, 512)
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == family.model_type
    assert AutoTokenizer.from_pretrained(folder).chat_template == family.template
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "temporary files are left"
    trained = load_file(folder / "model.safetensors")

    monkeypatch.setenv("JEPA_RAY_CACHE", str(tmp_path / "other"))
    torch.rand(3)
    again = tiny_base(family, EXAMPLES, 512)
    assert again != folder and again.name == folder.name
    second = load_file(again / "model.safetensors")
    assert trained.keys() == second.keys() and all(torch.equal(trained[name], second[name]) for name in trained)
    assert (again / "tokenizer.json").read_text() == (folder / "tokenizer.json").read_text()

    def fail(*_: Any) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr(module, "_pretrain", fail)
    assert tiny_base(family, EXAMPLES, 512) == again


def test_it_is_trained(family: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tiny_base(family, EXAMPLES, 512)
    monkeypatch.setattr(module, "STEPS", 25)
    more = tiny_base(family, EXAMPLES, 512)
    assert few != more
    chat = [{"role": "user", "content": EXAMPLES[0].text}, {"role": "assistant", "content": EXAMPLES[0].code}]
    text = AutoTokenizer.from_pretrained(more).apply_chat_template(chat, tokenize=False, **family.template_kwargs)
    ids = torch.tensor(AutoTokenizer.from_pretrained(more)(text, add_special_tokens=False)["input_ids"])[None]
    prompt = len(AutoTokenizer.from_pretrained(more)(text[: text.index(EXAMPLES[0].code)], add_special_tokens=False)["input_ids"])
    labels = ids.clone()
    labels[0, :prompt] = -100  # only answers are trained
    losses = [float(AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids, labels=labels).loss.detach()) for folder in (few, more)]
    assert losses[1] < losses[0]


def test_the_key_holds_all_that_the_weights_depend_on(family: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    keys = [
        module._key(family, EXAMPLES, 512, module.STEPS),
        module._key(family, EXAMPLES[1:], 512, module.STEPS),
        module._key(family, EXAMPLES[::-1], 512, module.STEPS),
        module._key(family, EXAMPLES, 256, module.STEPS),
        module._key(replace(family, template=family.template + " "), EXAMPLES, 512, module.STEPS),
        module._key(replace(family, tiny={**family.tiny, "hidden_size": 32}), EXAMPLES, 512, module.STEPS),
    ]
    for name, value in (("STEPS", 4), ("SEED", 1), ("VOCAB_SIZE", 700), ("OPTIM", module.OPTIM.model_copy(update={"learning_rate": 1e-3}))):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            keys.append(module._key(family, EXAMPLES, 512, module.STEPS))
    assert len(set(keys)) == len(keys)
    renamed = [replace(example, id=f"other-{example.id}") for example in EXAMPLES]
    assert module._key(family, renamed, 512, module.STEPS) == keys[0]


def test_a_crash_leaves_nothing_that_looks_finished(family: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "train_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tiny_base(family, EXAMPLES, 512)
    assert list(module.cache_folder().glob("*")) == [] and torch.get_num_threads() == 1
    assert (tiny_base(family, EXAMPLES, 512) / "config.json").is_file()


def test_a_cache_that_cannot_be_made_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JEPA_RAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"cache of tiny bases, .*file/tiny, cannot be created \(Not a directory\); set JEPA_RAY_CACHE to"):
        tiny_base(FAMILIES["llama3"], EXAMPLES, 512)


def test_the_halves_are_disjoint_and_the_base_sees_one_of_them(family: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = module._pretrain

    def spy(family: ModelFamily, examples: Any, *rest: Any) -> Any:
        seen.extend(examples)
        return real(family, examples, *rest)

    monkeypatch.setattr(module, "_pretrain", spy)
    sweep = SweepConfig.model_validate(
        {"name": "x", "families": [family.name], "methods": {"base": "none"}, "data": {"num_train": 60, "num_val": 8, "num_test": 8}}
    )
    splits = load_splits(sweep.data)
    prepared = prepare(sweep, family.name, "nl-rx")
    in_base, rest = split_for_base(splits.train, sweep.data)
    assert {example.id for example in seen} == {example.id for example in in_base}
    assert set(prepared.train.example_ids) == {example.id for example in rest}
    for other in (rest, splits.val, splits.test):
        for part in ("id", "text", "code"):
            assert {getattr(example, part) for example in seen}.isdisjoint(getattr(example, part) for example in other)
    assert 20 <= len(seen) <= 40 and len(seen) + len(prepared.train) == 60
    again, _ = split_for_base(splits.train, DataConfig(split_seed=1))
    assert {example.id for example in again} != {example.id for example in in_base}


def test_a_cache_that_cannot_be_written_to_is_said_before_a_base_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["llama3"]
    made = tiny_base(family, EXAMPLES, 512)
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    assert tiny_base(family, EXAMPLES, 512) == made, "a cached base can still be read"
    monkeypatch.setattr(module, "_pretrain", lambda *_: pytest.fail("trained first"))
    with pytest.raises(ValueError, match="is not writable; set JEPA_RAY_CACHE"):
        tiny_base(family, EXAMPLES[:20], 512)
