"""Handling of the GPU around a trial, as far as it can be tested without one, and reads that make the host wait for the GPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.linalg import LinAlgError
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from jepa_ray.config import LoraConfig, ObjectiveConfig
from jepa_ray.models import attention
from jepa_ray.training import device, trial
from jepa_ray.training.diagnostics import measure, monitor
from jepa_ray.training.runtime import Runtime
from tests import tiny_models as tiny

READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")
"""Operations that make the host wait for their result."""

LOOKS = {"evaluation__diagnostic_pairs": 4}


@pytest.fixture
def llama(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["llama3"]


def test_a_trial_starts_without_cudnn_attention_and_with_a_memory_mark_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", lambda on: calls.append(("cudnn", on)))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda which: calls.append(("reset", which)))
    device.make_ready("cpu")
    assert calls == []
    device.make_ready("cuda:1")
    assert calls == [("cudnn", False), ("reset", "cuda:1")]


@pytest.mark.parametrize("run", ["run_trial", "run_masked_trial"])
def test_every_trial_is_made_ready(run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from jepa_ray.masked import trial as masked

    class Started(Exception):
        pass

    def started(which: str) -> None:
        raise Started(which)

    module: Any = trial if run == "run_trial" else masked
    monkeypatch.setattr(module, "make_ready", started)
    with pytest.raises(Started, match="cpu"):
        getattr(module, run)(None, None, Runtime(), None, tmp_path)


def test_a_device_that_computes_no_more_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.works("cpu")

    def lost(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "ones", lost)
    assert not device.works("cuda")


def test_under_masks_heads_are_expanded_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory-efficient kernel does not support groups. Only shapes are computed: the meta device stands in for a GPU."""
    seen: list[tuple[int, int]] = []

    def attend(query: Any, key: Any, value: Any, **rest: Any) -> Any:
        seen.append((key.shape[1], value.shape[1]))
        return query

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    for where in ("cpu", "meta"):
        query, key = torch.zeros(2, 8, 5, 16, device=where), torch.zeros(2, 2, 5, 16, device=where)
        mask = torch.ones(2, 1, 5, 5, dtype=torch.bool, device=where)
        attention._dense(query, key, key, 0.25, None, mask)
        attention._dense(query, key, key, 0.25, None, None)
    assert seen == [(2, 2), (2, 2), (8, 8), (2, 2)]


def test_expanded_heads_are_grouped_ones() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 8, 5, 16), torch.randn(2, 2, 5, 16), torch.randn(2, 2, 5, 16)
    mask = torch.rand(2, 1, 5, 5) > 0.3
    mask |= torch.eye(5, dtype=torch.bool)
    wanted = attention._dense(query, key, value, 0.25, None, mask)
    expanded = (each.repeat_interleave(4, dim=1) for each in (key, value))
    torch.testing.assert_close(attention._dense(query, *expanded, 0.25, None, mask), wanted)


@pytest.mark.parametrize("size", [None, 2])
def test_a_step_reads_no_number_while_it_goes_through_its_micro_batches(
    llama: Path, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)  # on a CPU it reads its own counts
    config = tiny.trial(llama, objective=ObjectiveConfig(k=2), lora=LoraConfig(r=2, dropout=0.1), optim__micro_batch_size=size)
    network, table = tiny.network_of(config), tiny.table_of(llama, tiny.EXAMPLES[:8])
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        tiny.one_step(network, table, config, [3, 0, 6, 4, 1, 5, 2])
    counts = Counter(event.name for event in seen.events())
    assert sum(counts[name] for name in READS) == 0, {name: counts[name] for name in READS}


class TestDiagnosesThatFail:
    """Diagnostics need memory that training does not; their failure must not fail the trial."""

    @pytest.mark.parametrize(
        ("where", "error"),
        [
            ("diagnose", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB")),
            ("diagnose", LinAlgError("SVD did not converge")),
            ("gradient_metrics", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB")),
        ],
    )
    def test_the_trial_ends_with_an_alarm_and_the_same_weights(
        self, where: str, error: Exception, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        config, prepared = tiny.trial(llama, objective=ObjectiveConfig(k=1), **LOOKS), tiny.prepared_of(llama)
        whole = trial.run_trial(config, prepared, Runtime(), lambda _: None, tmp_path / "whole")

        def full(*args: Any, **kwargs: Any) -> None:
            raise error

        monkeypatch.setattr(monitor, where, full)
        failed = trial.run_trial(config, prepared, Runtime(), lambda _: None, tmp_path / "failed")
        assert failed.state == whole.state == "COMPLETE" and failed.error is None
        assert failed.summary["train_ce"] == whole.summary["train_ce"] and failed.summary["val_exact"] == whole.summary["val_exact"]
        assert failed.summary["alarms"] == "undiagnosed" and failed.summary["val_ce"] is None and whole.summary["val_ce"] is not None
        assert str(error) in caplog.text

    def test_the_losses_of_an_earlier_look_are_not_those_of_the_end(
        self, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[int] = []
        real = measure.diagnose

        def second_fails(*args: Any, **kwargs: Any) -> Any:
            looks.append(1)
            if len(looks) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(*args, **kwargs)

        monkeypatch.setattr(monitor, "diagnose", second_fails)
        result = trial.run_trial(tiny.trial(llama, **LOOKS), tiny.prepared_of(llama), Runtime(), lambda _: None, tmp_path)
        assert result.summary["val_ce"] is None and "undiagnosed" in result.summary["alarms"].split(";")
        assert {row["epoch"] for row in result.metrics if row["name"] == "diag_val_ce"} == {0}

    def test_without_a_look_at_the_start_no_later_one_stands_for_it(
        self, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[int] = []

        def first_fails(*args: Any, **kwargs: Any) -> dict[str, float]:
            looks.append(1)
            if len(looks) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return {
                "diag_val_ce": 1.0,
                "diag_val_jepa": 0.1,
                "diag_own_distance": 0.001,
            }  # at the start this would raise the alarm `trivial`

        monkeypatch.setattr(monitor, "diagnose", first_fails)
        monkeypatch.setattr(monitor, "gradient_metrics", lambda *_: {})
        result = trial.run_trial(tiny.trial(llama, **LOOKS), tiny.prepared_of(llama), Runtime(), lambda _: None, tmp_path)
        assert len(looks) > 1 and result.summary["alarms"] == "undiagnosed" and result.summary["val_ce"] == 1.0

    def test_looks_of_an_earlier_versions_checkpoint_were_complete(self, llama: Path) -> None:
        prepared = tiny.prepared_of(llama)
        looked = monitor.Watch(tiny.trial(llama, **LOOKS), prepared.train, prepared.val, Runtime(), 1)
        looked.resume({"history": [{"diag_val_ce": 1.5, "diag_val_jepa": 0.5}], "seconds": 1.0, "flops": 1.0})
        assert looked.columns()["val_ce"] == 1.5

    def test_a_lost_gpu_is_not_taken_for_it(self, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def lost(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr(monitor, "diagnose", lost)
        monkeypatch.setattr(monitor, "works", lambda _: False)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            trial.run_trial(tiny.trial(llama, **LOOKS), tiny.prepared_of(llama), Runtime(), lambda _: None, tmp_path)

    def test_kept_embeddings_may_be_missing(self, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*args: Any, **kwargs: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(monitor, "embeddings", full)
        config = tiny.trial(llama, evaluation__test=True, evaluation__embeddings=3, **LOOKS)
        result = trial.run_trial(config, tiny.prepared_of(llama, test=4), Runtime(), lambda _: None, tmp_path)
        assert result.state == "COMPLETE" and result.embeddings == []
        assert result.summary["alarms"] == "undiagnosed" and result.summary["val_ce"] is not None

    def test_the_steps_gradients_are_gone_by_then(self, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        held: list[int] = []
        real = measure.diagnose

        def count(network: Any, *rest: Any) -> Any:
            held.append(sum(parameter.grad is not None for parameter in network.parameters()))
            return real(network, *rest)

        monkeypatch.setattr(monitor, "diagnose", count)
        trial.run_trial(tiny.trial(llama, **LOOKS), tiny.prepared_of(llama), Runtime(), lambda _: None, tmp_path)
        assert held == [0, 0]


def test_memory_is_given_back_after_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
    device.clear("cpu")
    assert calls == []
    device.clear("cuda")
    assert calls == ["empty"]


def test_the_memory_mark_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda which: 7)
    assert device.peak_memory("cuda") == 7.0 and device.peak_memory("cpu") > 1e7
