"""The small form of every part of the GPU benchmark: it runs on a CPU, notes all its figures, and distinguishes a fault from rounding."""

from __future__ import annotations

import importlib
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.gpu import card, data, models, reference, selfcheck, steps, sweeps, syncs, trials
from benchmarks.gpu.form import Findings, Form, Skipped
from benchmarks.gpu.parts import PARTS
from jepa_ray.data.packing import count_labels
from jepa_ray.models.families import FAMILIES
from jepa_ray.training.optimizer import make_optimizer
from jepa_ray.training.packing_check import PackingError
from jepa_ray.training.state import TrainState
from jepa_ray.training.step import train_step

GENERATION = [f"{kind}, {how}" for kind in ("full", "lora") for how in ("by memory", "8 at a time", "Transformers, 8 at a time")]
STEP = {"data", "examples", "tokenizer", "batch_size", "lora_r", "baseline", "jepa"}
PROMISED = {
    "card": {
        *("name", "memory_bytes", "capability", "gpus", "driver", "cuda", "cudnn", "torch", "transformers", "peft", "peak_bf16"),
        *("sdpa_enabled", "sdpa_takes", "sdpa_seconds", "matmul_bf16_flops"),
    },
    "selfcheck": {"data", "tokenizer", "tolerance", "families", "flex", "large"},
    **dict.fromkeys(("step-nlrx-lora", "step-nlrx-full", "step-gsm8k-lora", "step-gsm8k-full"), STEP),
    "reference": {"tokenizer", "padded_to", "padded_micro", "plain_micro", "nl-rx", "gsm8k"},
    "generation": {"data", "tokenizer", "prompts", "max_new_tokens", "skipped", *GENERATION},
    "trial": {"end_to_end", "resume"},
    "ray": {"ray", "sweeps"},
}
ARM = {
    *("steps", "steps_wanted", "distinct_batches", "first_step_s", "p50_s", "p95_s", "max_s", "tokens_per_s", "examples_per_s"),
    *(
        "flops_per_step",
        "mfu",
        "peak_memory_bytes",
        "tokens_per_forward",
        "attention",
        "compiled",
        "graphs",
        "recompilations",
        "estimated_memory_bytes",
        "attention_shapes",
        "syncs_per_step",
    ),
}


@pytest.fixture
def form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Form:
    # Otherwise trials in their own process would find the tiny base of another test, and not share this test's base.
    monkeypatch.setenv("JEPA_RAY_CACHE", str(tmp_path / "cache"))
    return Form(tmp_path)


def ran(name: str, form: Form) -> dict[str, Any]:
    """The figures in a part's record on disk, after the part has run in this process."""
    module, _, function = PARTS[name].target.partition(":")
    path = form.folder / f"{name}.json"
    getattr(importlib.import_module(module), function)(form, Findings(path))
    record: dict[str, Any] = json.loads(path.read_text())
    assert record["headline"], "the table would show no result"
    figures: dict[str, Any] = record["figures"]
    assert PROMISED[name] <= figures.keys() or not form.small
    return figures


def test_every_part_is_tested() -> None:
    assert PROMISED.keys() == PARTS.keys()


def test_card(form: Form) -> None:
    figures = ran("card", form)
    assert figures["torch"] == torch.__version__ and figures["peak_bf16"] is None and figures["matmul_bf16_flops"] > 0
    assert all("math" in takes for takes in figures["sdpa_takes"].values()) and len(figures["sdpa_takes"]) == 4


def test_peaks_are_those_of_the_boards_that_reach_them() -> None:
    peaks = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12, "NVIDIA A100-SXM4-80GB": 312e12}
    assert {name: card.peak(name) for name in peaks} == peaks
    assert [card.peak(name) for name in ("NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA L4", "x86_64")] == [None] * 4


@pytest.mark.slow
def test_selfcheck(form: Form) -> None:
    figures = ran("selfcheck", form)
    assert figures["families"].keys() == FAMILIES.keys()
    for result in figures["families"].values():
        assert result["passes"] and all(
            result[key].keys() == {"trie", "flat"} for key in ("states_bf16", "gradients_fp32", "gradients_bf16")
        )
        assert max(result["gradients_fp32"].values()) < 1e-4 < selfcheck.TOLERANCE
    assert figures["flex"].keys() == {"llama3", "gemma2"}
    assert all(result["passes"] and result["gradients_fp32"]["flex"] < 1e-4 for result in figures["flex"].values())


def test_selfcheck_tells_of_a_fault(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "FAMILIES", {"llama3": FAMILIES["llama3"]})
    monkeypatch.setattr(selfcheck, "gradient_error", lambda *arguments, **keywords: 0.5)
    with pytest.raises(RuntimeError, match="llama3"):
        ran("selfcheck", form)
    monkeypatch.undo()

    def refuse(*arguments: Any, **keywords: Any) -> float:
        raise PackingError("tokens see what they must not")

    monkeypatch.setattr(selfcheck, "FAMILIES", {"llama3": FAMILIES["llama3"]})
    monkeypatch.setattr(selfcheck, "attention_error", refuse)
    with pytest.raises(RuntimeError, match="llama3"):
        ran("selfcheck", form)
    noted = json.loads((form.folder / "selfcheck.json").read_text())["figures"]["families"]["llama3"]
    assert noted["states_bf16"]["trie"] == "tokens see what they must not" and not noted["passes"]


def test_selfcheck_goes_on_after_a_family_that_cannot_be_computed(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    real = selfcheck.attention_error

    def no_kernel(network: Any, *arguments: Any, **keywords: Any) -> float:
        if network.causal_lm.config.model_type == "llama":
            raise RuntimeError("no kernel")
        return real(network, *arguments, **keywords)

    monkeypatch.setattr(selfcheck, "FAMILIES", {name: FAMILIES[name] for name in ("llama3", "qwen3")})
    monkeypatch.setattr(selfcheck, "attention_error", no_kernel)
    with pytest.raises(RuntimeError, match=r"llama3$"):
        ran("selfcheck", form)
    noted = json.loads((form.folder / "selfcheck.json").read_text())["figures"]["families"]
    assert noted["llama3"] == {"passes": False, "error": "RuntimeError: no kernel"} and noted["qwen3"]["passes"]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The full form of a part, with shapes small enough for a CPU."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    monkeypatch.setattr(models, "SHAPES", {"llama3": (2000, {**shape, "head_dim": 16}), "qwen3": (1500, {**shape, "head_dim": 16})})


@pytest.mark.slow
def test_the_full_form_checks_large_shapes_as_long_as_there_is_time(form: Form, narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "FAMILIES", {"llama3": FAMILIES["llama3"]})
    large = ran("selfcheck", replace(form, small=False))["large"]
    assert large["llama3"]["passes"] and "gradients_fp32" in large["llama3"]
    assert large["qwen3"]["passes"] and "gradients_fp32" not in large["qwen3"]
    figures = ran("selfcheck", replace(form, small=False, until=time.time() + 1))
    assert all(result == {"skipped": "no time left"} for result in figures["large"].values()) and len(figures["large"]) == 2
    assert "gradients_bf16" not in figures["families"]["llama3"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_full_form_of_steps_generation_and_trial(form: Form, narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "EXAMPLES", {"nl-rx": 256})
    arms = ran("step-nlrx-lora", replace(form, small=False, until=time.time() + 3))
    assert arms["batch_size"] == 128 and 2 <= arms["jepa"]["steps"] == arms["jepa"]["distinct_batches"] <= 200
    missing = PROMISED["generation"] - ran("generation", replace(form, small=False)).keys()
    assert missing == {name for name in GENERATION if "8 at a time" in name}, "the full form has other batch sizes"
    whole = trials.end_to_end(replace(form, small=False))
    assert whole["state"] == "COMPLETE" and whole["steps"] == 2 * 512 / 128 and "random weights" in whole["model"]


def test_gradients_that_differ_are_seen(form: Form) -> None:
    """A gradient that is off by one percent exceeds the tolerance."""
    sample, _ = data.examples("nl-rx", None, 40)
    tokenizer, table = models.tokenised("llama3", sample)
    config = models.trial_config(lora=None, jepa=True, batch_size=8)
    network = models.arm(models.network("llama3", True, tokenizer, "cpu"), config)
    assert selfcheck.gradient_error(network, table, "trie", config) < 1e-4
    passes = iter(range(2))
    weight = network.causal_lm.base_model.layers[0].mlp.up_proj.weight
    weight.register_hook(lambda gradient: gradient * 1.01 if next(passes) == 0 else gradient)
    assert selfcheck.TOLERANCE < selfcheck.gradient_error(network, table, "trie", config) < 0.02


@pytest.mark.parametrize("name", [name for name in PARTS if name.startswith("step-")])
def test_steps(form: Form, name: str) -> None:
    figures = ran(name, form)
    assert (figures["lora_r"] is None) == name.endswith("full")
    for arm in (figures["baseline"], figures["jepa"]):
        assert arm.keys() >= ARM and arm["steps"] == arm["distinct_batches"] == arm["steps_wanted"] == 4
        assert 0 < arm["p50_s"] <= arm["p95_s"] <= arm["max_s"] and arm["attention_shapes"] > 0 and math.isfinite(arm["mean_loss"])
        assert arm["syncs_per_step"]["aten::item"] > 0 and arm["mfu"] is None
    assert figures["jepa"]["tokens_per_step"] > 1.3 * figures["baseline"]["tokens_per_step"], "the views were not encoded"
    assert figures["jepa"]["labels_per_step"] == figures["baseline"]["labels_per_step"], "the arms saw different examples"


def test_steps_end_with_the_time(form: Form) -> None:
    figures = ran("step-nlrx-lora", replace(form, until=time.time()))
    assert figures["baseline"]["steps"] == figures["jepa"]["steps"] == 2 < figures["jepa"]["steps_wanted"]


@pytest.mark.gpu
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in PARTS if name != "ray"])
def test_the_small_form_runs_on_a_gpu(form: Form, name: str) -> None:
    ran(name, replace(form, device="cuda"))


def test_200_batches_of_a_trial_are_all_different() -> None:
    config = models.trial_config(lora=None, jepa=True, batch_size=128)
    batches = steps.different_batches(1500, config, steps.STEPS)
    assert len(batches) == steps.STEPS == len({tuple(sorted(batch)) for batch in batches})


def test_shapes_of_attention_are_counted_and_the_function_is_put_back() -> None:
    original: Callable[..., Any] = F.scaled_dot_product_attention
    query, mask = torch.randn(1, 2, 3, 4), torch.ones(3, 3, dtype=torch.bool)
    with syncs.sdpa_shapes() as seen:
        for _ in range(2):
            F.scaled_dot_product_attention(query, query, query)
            out = F.scaled_dot_product_attention(query, query, query, attn_mask=mask)
        F.scaled_dot_product_attention(query, query, query, mask)
    assert len(seen) == 2 and torch.equal(out, original(query, query, query, attn_mask=mask))
    assert F.scaled_dot_product_attention is original


@pytest.mark.slow
def test_reference(form: Form) -> None:
    figures = ran("reference", form)
    for task in ("nl-rx", "gsm8k"):
        measured = figures[task]
        assert measured["seconds"].keys() == {"jepa", "baseline", "plain", "padded"} and measured["rounds"] >= 1
        assert measured["padded over jepa"] == pytest.approx(measured["seconds"]["padded"] / measured["seconds"]["jepa"])
        assert measured["plain over baseline"] > 0


def test_the_plain_loop_trains_on_the_labels_of_the_trial() -> None:
    sample, _ = data.examples("nl-rx", None, 40)
    tokenizer, table = models.tokenised("llama3", sample)
    config = models.trial_config(lora=None, jepa=False, batch_size=10)
    rows, losses, weights = np.arange(10), [], []
    for plain in (True, False):
        network = models.arm(models.network("llama3", True, tokenizer, "cpu"), config)
        optimizer = make_optimizer(network, config)
        if plain:
            losses.append(reference.plain_step(network, optimizer, table, rows.tolist(), 4, bf16=False))
        else:
            state = TrainState(config=config, table=table, network=network, optimizer=optimizer, runtime=models.runtime(Form(Path())))
            totals = train_step(state, rows, 0, 10)
            assert totals.num_labels == count_labels(table, rows.tolist(), loss_on="answer", train_end_of_turn=True)
            losses.append(totals.ce_sum / totals.num_labels)
        weights.append(network.causal_lm.base_model.layers[0].mlp.up_proj.weight.detach())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert torch.allclose(*weights, atol=1e-7)


def test_generation(form: Form) -> None:
    figures = ran("generation", form)
    for name in GENERATION:
        measured = figures[name]
        assert 0 < measured["tokens"] <= 8 * 4 and measured["tokens_per_s"] == pytest.approx(measured["tokens"] / measured["seconds"])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_trial(form: Form) -> None:
    figures = ran("trial", form)
    assert figures["end_to_end"]["state"] == "COMPLETE" and figures["end_to_end"]["steps"] == 8
    resume = figures["resume"]
    assert resume["identical"] and resume["went_on"] and resume["first_step"]["uninterrupted"] == 0 < resume["first_step"]["resumed"]
    assert resume["uninterrupted"] == resume["resumed"] and "val_accuracy" in resume["resumed"]


def test_a_trial_that_began_anew_or_ended_elsewhere_is_told_from_one_that_went_on() -> None:
    alone = {
        "numbers": {"val_accuracy": 0.5, "packing_used": "trie"},
        "lines": [[1, "a", 1.0]],
        "predictions": ["x", "y"],
        "trained": [0, 1, 2],
    }
    assert trials.compared(alone, alone | {"trained": [2]})["verdict"] == "identical"
    assert trials.compared(alone, alone)["verdict"] == "began anew"
    other = trials.compared(alone, alone | {"trained": [], "numbers": {"val_accuracy": 0.25}, "predictions": ["x", "z"]})
    assert other["verdict"] == "differs by up to 0.25" and other["same_predictions"] == 0.5 and not other["identical"]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_ray(form: Form) -> None:
    figures = ran("ray", form)
    (outcome,) = figures["sweeps"].values()
    assert (
        outcome["complete"] == outcome["trials"] == 4
        and outcome["devices"] == ["cpu"]
        and outcome["exit_code"] == 0
        and not outcome["error"]
    )


def test_ray_is_skipped_where_it_is_not_installed(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Skipped, match="Ray is not installed"):
        ran("ray", form)


def test_a_sweep_on_half_a_gpu_asks_for_it(form: Form) -> None:
    from jepa_ray.config import SweepConfig

    for share in (0.0, 0.5, 1.0):
        sweep = SweepConfig.model_validate(sweeps.definition(form, "any", share))
        assert sweep.resources.gpus_per_worker == share and sweep.confirm.seeds == ()
