"""What runs cost and how probable the references are: means by hand, in the tables of the summary."""

from __future__ import annotations

from pathlib import Path

from analysis.inputs.sweep import read
from analysis.summary import full_text, summarise
from analysis.summary_costs import tables
from tests.analysis import sweeps


def sweep(folder: Path, **kept: float) -> Path:
    for place, seed in enumerate(sweeps.SEEDS):
        known = {name: value + place for name, value in kept.items()}
        sweeps.add(folder, "baseline", "confirm", 0.5, seed=seed, **known)
        more = {"peak_memory_bytes": 4e9, "test_seconds": 5.0, "device": "cuda:0", "train_flops_unpacked": 4e9}
        sweeps.add(folder, "jepa", "confirm", 0.5, seed=seed, **more, **{name: value + place**2 for name, value in known.items()})
    (folder / "sweep.yaml").write_text(sweeps.SWEEP)
    return folder


def test_cost_and_log_probability(tmp_path: Path) -> None:
    summary = summarise(read(sweep(tmp_path, test_logprob=-7.0), curves=()))
    cost, logprob = tables(summary)
    assert cost.header == ["arm", "n", "train s", "wall s", "test s", "computed FLOPs", "unpacked FLOPs", "peak memory (GB)"]
    assert cost.rows[0] == ["baseline/llama3", "3", "2 ± 0", "3 ± 0", "-", "3.000e+09 ± 0.0e+00", "-", "-"]
    assert cost.rows[1][4:] == ["5 ± 0", "3.000e+09 ± 0.0e+00", "4.000e+09 ± 0.0e+00", "4 ± 0"]
    assert "memory on a CPU" in cost.title
    # Baselines -7, -6, -5; JEPA is higher by 0, 1, 4: 1.67 +- 4.303 * 2.082 / sqrt 3.
    assert logprob.rows == [
        ["baseline/llama3", "3", "-", "-6 ± 1", "-"],
        ["jepa/llama3", "3", "-", "-4.333 ± 3.1", "+1.67 (-3.5 to +6.84)"],
    ]
    shown = full_text(summary)
    assert cost.title in shown and logprob.title in shown


def test_a_sweep_without_log_probabilities_has_no_such_table(tmp_path: Path) -> None:
    summary = summarise(read(sweep(tmp_path), curves=()))
    (cost,) = tables(summary)
    assert len(cost.rows) == 2 and summary.logprobs == []
    summary.confirmation = [line for line in summary.confirmation if line["on_gpu"]]
    (cost,) = tables(summary)
    assert cost.header[-1] == "peak GPU memory (GB)" and "CPU" not in cost.title
