"""The layers as one compiled graph: one per epoch, no recompilation, the same losses and gradients; and trials that run without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from jepa_ray.config import LoraConfig, ObjectiveConfig
from jepa_ray.models import compiled, flex
from jepa_ray.models.families import FAMILIES
from jepa_ray.models.network import Network
from jepa_ray.training.epochs import epoch_steps
from jepa_ray.training.jepa_term import Term, fit_network
from jepa_ray.training.placement import STEPS_THAT_REPAY, is_compiled, kernel_of, place, runs_eagerly
from jepa_ray.training.runtime import Runtime
from jepa_ray.training.step import train_step
from jepa_ray.training.trial import run_trial
from tests import tiny_models as tiny

LAYOUTS: dict[str, dict[str, Any] | None] = {
    "baseline": None,
    "append": {"k": 2},
    "append, dropped in half of the steps": {"k": 1, "loss_dropout": 0.5},
    "prepend": {"k": 1, "layout": "prepend"},
    "reverse": {"k": 1, "layout": "reverse"},
    "shared prefix": {"k": 1, "layout": "shared_prefix"},
    "mean readout": {"readout": "mean"},
    "tube": {"layout": "tube"},
    "InfoNCE": {"distance": "infonce"},
    "averaged target": {"target": "ema"},
    "stopped target": {"target": "stop_target"},
    "predictor head": {"predictor": "mlp"},
}
"""Objectives of OBJECTIVES.md that compile: every layout, and what else changes the passes of a step."""


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Compilation without a C++ compiler, counted."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")  # type: ignore[no-untyped-call]
    monkeypatch.setattr(compiled, "BACKEND", counter)
    compiled._graph.cache_clear()
    yield counter
    compiled._graph.cache_clear()
    torch._dynamo.reset()


def epoch(checkpoint: Path, network: Network, config: Any) -> list[float]:
    """Losses of an epoch of different batches, the last one smaller."""
    table = tiny.table_of(checkpoint, [*tiny.EXAMPLES[:20], *tiny.long_examples(2, words=60)])
    state = tiny.state_of(network.train(), table, config, term=Term.of(config, network))
    steps = epoch_steps(len(table), config.optim, config.seed, 0)
    assert len(steps) >= 4 and len(steps[-1]) < len(steps[0])
    return [totals.ce_sum + totals.jepa_sum for totals in (train_step(state, rows, step, 20) for step, rows in enumerate(steps))]


def trained(checkpoint: Path, by_graph: bool, **changes: Any) -> tuple[Network, list[float]]:
    config = tiny.trial(checkpoint, optim__batch_size=5, model__attention="flex", **changes)
    network = fit_network(tiny.network_of(config), config.objective, config.seed)
    network.kernel, network.compiled = "flex", by_graph
    return network, epoch(checkpoint, network, config)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_epoch_is_one_graph(tiny_checkpoints: dict[str, Path], counter: Any, family: str) -> None:
    """LoRA with dropout, which has every operation of full fine-tuning (in the next test) and more."""
    lora = LoraConfig(r=2, dropout=0.1)
    objective = ObjectiveConfig(k=2, loss_dropout=0.4)
    network, losses = trained(tiny_checkpoints[family], True, lora=lora, objective=objective)
    assert counter.frame_count == 1 and network.compiled
    torch._dynamo.reset()
    eager, expected = trained(tiny_checkpoints[family], False, lora=lora, objective=objective)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert tiny.largest_error(tiny.weights(network), tiny.weights(eager)) < 1e-5


def test_all_trials_of_a_process_share_the_graph(tiny_checkpoints: dict[str, Path], counter: Any) -> None:
    """Every layout of OBJECTIVES.md, numbers of predictor tokens, heads and targets, and the baseline."""
    for name, objective in LAYOUTS.items():
        network, losses = trained(
            tiny_checkpoints["llama3"], True, objective=ObjectiveConfig(**objective) if objective is not None else None
        )
        assert counter.frame_count == 1 and network.compiled, name
        _, expected = trained(tiny_checkpoints["llama3"], False, objective=ObjectiveConfig(**objective) if objective is not None else None)
        assert losses == pytest.approx(expected, rel=1e-5), name


def test_gradient_checkpointing_compiles(tiny_checkpoints: dict[str, Path], counter: Any) -> None:
    network, losses = trained(tiny_checkpoints["llama3"], True, model__gradient_checkpointing=True, objective=ObjectiveConfig(k=1))
    assert counter.frame_count == 1 and network.compiled
    _, expected = trained(tiny_checkpoints["llama3"], False, objective=ObjectiveConfig(k=1))
    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", [ObjectiveConfig(layer=0.5), ObjectiveConfig(final_norm=False)])
def test_states_of_other_depths_run_eagerly(tiny_checkpoints: dict[str, Path], counter: Any, objective: ObjectiveConfig) -> None:
    """Even if the same process has compiled the graph before: hooks would silently be left out."""
    trained(tiny_checkpoints["llama3"], True, objective=ObjectiveConfig())
    config = tiny.trial(tiny_checkpoints["llama3"], objective=objective, model__compile="true")
    network = fit_network(tiny.network_of(config), objective, config.seed)
    place(network, config, "cpu", 8)
    assert network.kernel == "flex" and not network.compiled and "hooks" in str(runs_eagerly(network))
    _, losses = trained(tiny_checkpoints["llama3"], True, objective=objective)
    _, expected = trained(tiny_checkpoints["llama3"], False, objective=objective)
    assert losses == expected and counter.frame_count == 1


def test_rows_of_the_real_kernel_share_a_graph(tiny_checkpoints: dict[str, Path], counter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward only: no length of a row may become a constant of the graph."""
    from jepa_ray.data.packing import make_batch
    from jepa_ray.models.attention import NAME

    monkeypatch.setattr(flex, "dense", flex.fused)
    network = tiny.network_of(tiny.trial(tiny_checkpoints["gemma2"]), k=1)
    network.kernel, network.causal_lm.config._attn_implementation = "flex", NAME
    table = tiny.table_of(tiny_checkpoints["gemma2"], [*tiny.EXAMPLES[:8], *tiny.long_examples(2, words=120)])
    lengths = set()
    for rows in ([0, 1], [2, 3, 4, 5], [6], list(range(10)), [9]):
        batch = network.place(make_batch(table, rows, backend="flat", k=1))
        with torch.no_grad():
            embedded = network.embed(batch.rows.input_ids_RT)
            compiled.compiled_backbone(network.causal_lm.base_model, embedded, batch.rows.position_ids_RT, batch.rows.layout)
        lengths.add(embedded.shape[1])
    assert len(lengths) >= 3 and counter.frame_count == 1


def test_a_whole_trial_runs_as_a_graph(tiny_checkpoints: dict[str, Path], counter: Any, tmp_path: Path) -> None:
    prepared = tiny.prepared_of(tiny_checkpoints["llama3"])
    found = []
    for mode in ("true", "false"):
        config = tiny.trial(tiny_checkpoints["llama3"], objective=ObjectiveConfig(k=1), model__compile=mode, model__attention="flex")
        found.append(run_trial(config, prepared, Runtime(), lambda metrics: None, tmp_path / mode))
        assert found[-1].state == "COMPLETE", found[-1].error
        assert found[-1].summary["attention_used"] == "flex" and found[-1].summary["compiled"] == (mode == "true")
    assert counter.frame_count == 1
    assert found[0].summary["train_ce"] == pytest.approx(found[1].summary["train_ce"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_graph_is_never_that_of_another_trial(tiny_checkpoints: dict[str, Path], counter: Any) -> None:
    """What changes the layers between trials of a process: each trial has the losses and weights that it has alone."""
    changes: list[dict[str, Any]] = [
        {"lora": LoraConfig(r=2, dropout=0.1)},
        {"lora": LoraConfig(r=2, dropout=0.5, alpha=64)},
        {},
        {"model__precision": "bf16"},
        {"lora": LoraConfig(r=2, dropout=0.1), "model__gradient_checkpointing": True},
    ]
    found = []
    for change in changes:
        network, losses = trained(tiny_checkpoints["llama3"], True, **change)
        assert network.compiled, change
        found.append((losses, tiny.weights(network)))
    torch._dynamo.reset()
    for change, (losses, weights) in zip(changes, found, strict=True):
        network, expected = trained(tiny_checkpoints["llama3"], False, **change)
        exact = 1e-2 if change.get("model__precision") == "bf16" else 1e-5
        assert losses == pytest.approx(expected, rel=exact), change
        assert tiny.largest_error(weights, tiny.weights(network)) < exact, change


class TestFailures:
    @pytest.fixture(autouse=True)
    def told(self) -> Iterator[None]:
        compiled.tell_once.cache_clear()
        yield
        compiled.tell_once.cache_clear()

    def test_a_graph_that_does_not_compile_falls_back_and_says_so_once(
        self, tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(graph: Any, inputs: Any) -> Any:
            raise RuntimeError("no such instruction")

        torch._dynamo.reset()
        monkeypatch.setattr(compiled, "BACKEND", broken)
        with pytest.warns(RuntimeWarning, match="the step is not compiled, because torch.compile failed .*no such instruction") as warned:
            network, losses = trained(tiny_checkpoints["llama3"], True, objective=ObjectiveConfig(k=1))
            trained(tiny_checkpoints["llama3"], True, objective=ObjectiveConfig(k=1))
        assert sum("not compiled" in str(one.message) for one in warned) == 1
        assert not network.compiled and network.kernel == "flex"
        _, expected = trained(tiny_checkpoints["llama3"], False, objective=ObjectiveConfig(k=1))
        assert losses == expected

    def test_a_backward_pass_that_does_not_compile_leaves_no_gradient_behind(
        self, tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torch._dynamo.backends.common import aot_autograd
        from torch._dynamo.exc import BackendCompilerFailed

        calls = []

        def lazy(graph: Any, inputs: Any) -> Any:
            def fails(*args: Any) -> Any:
                calls.append(len(args))
                raise BackendCompilerFailed(lazy, RuntimeError("backward"), None)  # type: ignore[no-untyped-call]

            return torch._dynamo.disable(fails)

        torch._dynamo.reset()
        backend = aot_autograd(fw_compiler=lambda graph, inputs: graph, bw_compiler=lazy)  # type: ignore[no-untyped-call]
        monkeypatch.setattr(compiled, "BACKEND", backend)
        with pytest.warns(RuntimeWarning, match="not compiled"):
            network, losses = trained(tiny_checkpoints["llama3"], True, objective=ObjectiveConfig(k=1), optim__micro_batch_size=2)
        assert calls
        eager, expected = trained(tiny_checkpoints["llama3"], False, objective=ObjectiveConfig(k=1), optim__micro_batch_size=2)
        assert losses == expected
        assert tiny.largest_error(tiny.weights(network), tiny.weights(eager)) == 0

    def test_too_many_graphs_fall_back(self, tiny_checkpoints: dict[str, Path], counter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """torch raises another exception for that than for what it cannot compile."""
        monkeypatch.setattr(compiled, "GRAPHS", 1)
        trained(tiny_checkpoints["llama3"], True, lora=LoraConfig(r=2))
        with pytest.warns(RuntimeWarning, match="the step is not compiled, .*the process has 1 graphs already"):
            network, losses = trained(tiny_checkpoints["llama3"], True, lora=LoraConfig(r=3))
        _, expected = trained(tiny_checkpoints["llama3"], False, lora=LoraConfig(r=3))
        assert not network.compiled and losses == expected

    def test_a_kernel_that_does_not_compile_falls_back_to_bucketed(
        self, tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*args: Any) -> Any:
            raise compiled.CompileError("no kernel for this card")

        monkeypatch.setattr(flex, "dense", broken)
        with pytest.warns(RuntimeWarning, match="attention is bucketed, not flex"):
            network, losses = trained(tiny_checkpoints["llama3"], False)
        assert network.kernel == "bucketed" and all(loss > 0 for loss in losses)

    def test_other_errors_pass(self, tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: Any) -> Any:
            raise torch.OutOfMemoryError("full")

        monkeypatch.setattr(flex, "dense", broken)
        with pytest.raises(torch.OutOfMemoryError):
            trained(tiny_checkpoints["llama3"], False)


def test_auto_is_flex_and_compiled_on_a_gpu_if_the_steps_repay_it(tiny_checkpoints: dict[str, Path]) -> None:
    model = tiny.trial(tiny_checkpoints["llama3"]).model
    assert kernel_of(model, "cpu") == "bucketed" and kernel_of(model, "cuda:0") == "flex"
    assert not is_compiled(model, "cpu", 10**6)
    assert is_compiled(model, "cuda", STEPS_THAT_REPAY) and not is_compiled(model, "cuda", STEPS_THAT_REPAY - 1)
    forced = model.model_copy(update={"compile": "true"})
    assert kernel_of(forced, "cpu") == "flex" and is_compiled(forced, "cpu", 1)
    never = model.model_copy(update={"compile": "false"})
    assert kernel_of(never, "cuda") == "flex" and not is_compiled(never, "cuda", 10**6)
