"""Clusters in a verdict: they are read from the predictions and become its units; with few of them there is no verdict, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.protocol import sources
from analysis.protocol.claims import gather
from analysis.stats.clusters import Clusters
from analysis.verdict import judge, render
from jepa_ray import results
from jepa_ray.config import EvaluationConfig, ModelConfig, ObjectiveConfig, TrialConfig, config_id
from jepa_ray.results import TrialResult
from tests.analysis import sweeps

SEEDS = (82, 23, 37, 84, 4)
EXAMPLES = 240


def folder_of(folder: Path, clusters: int, gain: float = 0.2) -> Path:
    """JEPA is right on `gain` more of the examples than its baseline: most of the examples of some clusters, if there are several."""
    folder.mkdir()
    (folder / "sweep.yaml").write_text(f"methods: {{}}\nfamilies: []\ntask: []\nconfirm: {{seeds: {list(SEEDS)}}}\n")
    cluster_N = np.arange(EXAMPLES) // max(1, EXAMPLES // max(1, clusters))
    random = np.random.default_rng(0)
    effect_N = gain + (0.15 * random.standard_normal(EXAMPLES))[cluster_N]
    for seed in SEEDS:
        for method in ("baseline", "jepa"):
            config = TrialConfig(
                model=ModelConfig(family="llama3", model="tiny"),
                objective=None if method == "baseline" else ObjectiveConfig(),
                evaluation=EvaluationConfig(test=True),
                seed=seed,
            )
            right_N = random.random(EXAMPLES) < 0.3 + (effect_N if method == "jepa" else 0)
            flags = ("correct", "exact", "prefix_correct", "contains")
            rows = [
                {"split": "test", "example_id": f"t:{i}", **dict.fromkeys(flags, bool(right_N[i]))}
                | ({"cluster": f"db{cluster_N[i]}"} if clusters else {})
                for i in range(EXAMPLES)
            ]
            names = ("accuracy", "exact", "prefix", "contains")
            summary: dict[str, Any] = dict.fromkeys([f"test_{name}" for name in names], float(right_N.mean()))
            summary |= {"test_stopped": 1.0, "train_flops": 1e9, "dataset_sha": "d", "started_at": "2026-01-01"}
            summary |= {"test_logprob": -8.0 + (method == "jepa") * (1 + seed / 1000)}
            curve = {"step": 1, "epoch": 1.0, "split": "val", "name": "val_accuracy", "value": right_N.mean(), "train_flops": 1e9}
            result = TrialResult("COMPLETE", None, summary, [curve], rows)
            results.write_trial(folder, config_id(config, method), config, f"{method}/llama3", "confirm", result)
            sweeps.declare(folder, method)
    return folder


def test_clusters_are_the_units_of_the_verdict(tmp_path: Path) -> None:
    (plain,) = judge(gather(folder_of(tmp_path / "plain", 0))).verdicts
    report = judge(gather(folder_of(tmp_path / "many", 20)))
    (found,) = report.verdicts
    assert plain.interval is not None and plain.interval.clusters is None and plain.verdict == "better"
    assert found.interval is not None and found.interval.clusters == 20 and found.bootstrap is not None and found.bootstrap.clusters == 20
    assert found.interval.high - found.interval.low > 1.3 * (plain.interval.high - plain.interval.low)
    assert {outcome.test for outcome in found.mcnemar.values()} == {"McNemar by cluster"}
    assert found.p_equivalence is not None and found.p_equivalence >= 0.99**20, "at most 20 draws for what was never seen"
    shown = render("many", report)
    assert "5 seeds x 240 examples in 20 clusters (effectively 20)" in shown and sources.NAME not in shown
    assert "[  -  ] log-probability of the references, for information: +1.05 nats per answer (-6.954 against -8), 95 % +1" in shown


def test_few_clusters_leave_it_undecided(tmp_path: Path) -> None:
    report = judge(gather(folder_of(tmp_path / "few", 4)))
    (found,) = report.verdicts
    assert found.verdict == "undecided" and found.interval is None and found.p is not None and found.p < 0.001
    why = "240 test examples come from 4 clusters, too few for a conclusion about new ones (at least 6); for these alone, the"
    assert f"; no verdict: the {why}" in found.sentence and "% interval over seeds is +" in found.sentence
    assert f"[fails] {sources.NAME}: the {why}" in render("few", report)


def test_without_spread_there_is_only_the_difference() -> None:
    few, scores = Clusters.of(["a", "b", "a", "b"]), ({1: 0.5, 2: 0.5}, {1: 0.25, 2: 0.25})
    assert str(sources.too_few(few, *scores, 0.05)).endswith("for these alone, the difference is +25.00 points")
    assert sources.too_few(Clusters.of(range(6)), *scores, 0.05) is None and sources.too_few(None, *scores, 0.05) is None


class _Tables:
    def __init__(self, **clusters: list[str | None]) -> None:
        self.clusters = {trial: pd.Series(names, index=list("abc")[: len(names)]) for trial, names in clusters.items()}


@pytest.mark.parametrize("other", [["x", "y", "y"], ["x", "x", None]])
def test_trials_that_disagree_count_as_unclustered(other: list[str | None]) -> None:
    notes: list[str] = []
    examples = pd.Index(["a", "b", "c"])
    tables: Any = _Tables(one=["x", "x", "y"], two=other)
    assert sources.clusters_of(["one", "two"], examples, tables, notes) is None and "do not agree" in notes[0]
    one: Any = _Tables(one=["x", "x", "y"], two=["x", "x", "y"])
    found = sources.clusters_of(["one", "two"], examples[::-1], one, notes)
    assert found is not None and found.index_N.tolist() == [1, 0, 0] and len(notes) == 1
    assert sources.clusters_of(["gone"], examples, one, notes) is None
