"""Evaluation: one copy of the network per evaluation, gone afterwards; the texts are those of the network itself."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_ray.config import DataConfig, LoraConfig
from jepa_ray.evaluation import generate as generation
from jepa_ray.evaluation.generate import generate
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.loading import load_tokenizer
from jepa_ray.models.network import Network
from jepa_ray.training import evaluate as module
from jepa_ray.training.evaluate import evaluate
from jepa_ray.training.prepared import Prepared
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.trial import run_trial
from tests import tiny_models as tiny


@pytest.mark.parametrize("lora", [None, LoraConfig(r=4)], ids=["full", "lora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_copy_is_made_and_dropped(
    tiny_checkpoints: dict[str, Path], precision: str, lora: LoraConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny_checkpoints["llama3"]
    config = tiny.trial(checkpoint, lora=lora, model__precision=precision, evaluation__batch_size=2)
    network, table = tiny.network_of(config), tiny.table_of(checkpoint, tiny.EXAMPLES[:5])
    tokenizer = load_tokenizer(str(checkpoint), config.model)
    copies: list[weakref.ref[Network]] = []

    def recorded(network: Network, bf16: bool) -> Network:
        copied = original(network, bf16)
        copies.append(weakref.ref(copied))
        assert bf16 is (precision == "bf16") and (copied is network) is (lora is None and not bf16)
        return copied

    original = module.evaluation_copy
    monkeypatch.setattr(module, "evaluation_copy", recorded)
    before = tiny.weights(network)
    metrics, rows = evaluate(network, tokenizer, table, "val", config, Runtime())
    gc.collect()
    assert len(copies) == 1 and copies[0]() in (None, network)
    assert network.training and all(torch.equal(value, before[name]) for name, value in tiny.weights(network).items())
    wanted = generate(
        network,
        tokenizer,
        [table.prompt(i) for i in range(5)],
        turn_end=FAMILIES["llama3"].turn_end,
        batch_size=2,
        max_new_tokens=8,
        bf16=precision == "bf16",
    )
    assert [row["prediction"] for row in rows] == [generation.text for generation in wanted] and "val_accuracy" in metrics


@pytest.mark.parametrize("packing", ["auto", "flat", "plain"])
def test_only_plain_packing_generates_with_transformers(
    tiny_checkpoints: dict[str, Path], packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny_checkpoints["gemma2"]
    config = tiny.trial(checkpoint, model__packing=packing)
    network, table = tiny.network_of(config), tiny.table_of(checkpoint, tiny.EXAMPLES[:3])
    used = []

    def recording(name: str) -> Any:
        original = getattr(generation, name)

        def recorded(*args: Any, **options: Any) -> Any:
            used.append(name)
            return original(*args, **options)

        return recorded

    for name in ("decode", "decode_padded"):
        monkeypatch.setattr(generation, name, recording(name))
    evaluate(network, load_tokenizer(str(checkpoint), config.model), table, "val", config, Runtime())
    assert used == ["decode_padded" if packing == "plain" else "decode"]


def test_answers_are_judged_by_the_label_set(tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On both splits: "not sure" is no answer of the label "not"."""
    checkpoint = tiny_checkpoints["llama3"]
    examples = [replace(one, code=("not", "not sure")[i % 3 == 0]) for i, one in enumerate(tiny.EXAMPLES[:18])]
    train, val, test = (tiny.table_of(checkpoint, part) for part in (examples[:6], examples[6:12], examples[12:]))
    prepared = Prepared(train, val, test, dataset_sha="0" * 64, checkpoint=str(checkpoint), labels=("not", "not sure"))
    data = DataConfig(task="text", train="unused", judge="label")
    config = tiny.trial(checkpoint, data=data, evaluation__test=True, optim__num_epochs=1)
    monkeypatch.setattr(module, "_answers", lambda network, tokenizer, table, rows, *rest: [("not sure", True)] * len(rows))
    result = run_trial(config, prepared, Runtime(), lambda _: None, tmp_path)
    assert result.state == "COMPLETE", result.error
    assert result.summary["val_accuracy"] == result.summary["test_accuracy"] == 1 / 3 and result.summary["test_paper"] == 1
