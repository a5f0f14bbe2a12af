"""Nested replicates: variance components by hand and by simulation, ignoring the nesting, and the table of several folders."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis import nested, paper
from analysis.inputs.combine import pooled
from analysis.inputs.sweep import read
from analysis.nested import components
from tests.analysis import sweeps


def test_two_groups_of_two_by_hand() -> None:
    """Means 2 and 6. MSE = (1 + 1 + 1 + 1) / 2 = 2, MSA = 2 (4 + 4) / 1 = 16, between^2 = (16 - 2) / 2 = 7. t = 4 / 2 with one degree of
    freedom, whose distribution is Cauchy's: p = 1 - 2 atan(2) / pi, and its 97.5 % point is tan(0.475 pi) = 12.706."""
    found = components([[1.0, 3.0], [5.0, 7.0]])
    assert found.mean == 4 and found.groups == 2 and found.sizes == (2, 2)
    assert found.within == pytest.approx(math.sqrt(2)) and found.between == pytest.approx(math.sqrt(7))
    assert found.p == pytest.approx(1 - 2 * math.atan(2) / math.pi)
    assert found.interval == pytest.approx((4 - 2 * math.tan(0.475 * math.pi), 4 + 2 * math.tan(0.475 * math.pi)))


def test_what_cannot_be_told_is_none() -> None:
    alone = components([[0.5, 0.7]])
    assert alone.between is alone.interval is alone.p is None and alone.within == pytest.approx(math.sqrt(0.02))
    single = components([[0.5], [0.7], [0.6]])
    assert single.within is single.between is None and single.interval is not None
    # With one replicate each it is the one-sample t-test.
    assert single.p == pytest.approx(stats.ttest_1samp([0.5, 0.7, 0.6], 0).pvalue)
    assert components([[1.0, 2.0], [1.0, 2.0]]).between == 0.0, "less between than within: no variance below 0"
    assert components([[0.5], [0.5]]).p is None


def test_components_are_unbiased_with_unequal_groups() -> None:
    rng, sizes = np.random.default_rng(0), (1, 3, 5, 8)
    found = []
    for _ in range(4000):
        offsets = rng.normal(0, 3, size=len(sizes))
        found.append(components([list(offset + rng.normal(0, 1, size)) for offset, size in zip(offsets, sizes, strict=True)]))
    between = [part.between**2 for part in found if part.between is not None]
    within = [part.within**2 for part in found if part.within is not None]
    # Variances 9 and 1. The estimate of 9 with 3 degrees of freedom has an sd of about 9 sqrt(2 / 3) = 7.3; their mean, of 0.12.
    assert len(between) == len(within) == 4000
    assert np.mean(between) == pytest.approx(9, abs=0.5) and np.mean(within) == pytest.approx(1, abs=0.03)


def test_the_interval_covers_and_25_runs_taken_as_independent_do_not() -> None:
    """Five pretraining seeds with five fine-tuning runs each, equal spread between and within."""
    rng, trials = np.random.default_rng(1), 3000
    covered = naive = 0
    for _ in range(trials):
        values = rng.normal(size=(5, 1)) + rng.normal(size=(5, 5))
        low, high = components(values.tolist()).interval or (0, 0)
        covered += low <= 0 <= high
        naive += stats.ttest_1samp(values.ravel(), 0).pvalue > 0.05
    # Two standard errors at 3,000 draws are 0.8 points.
    assert covered / trials == pytest.approx(0.95, abs=0.012)
    assert naive / trials < 0.85


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two pretraining seeds, one folder each, with two fine-tuning seeds."""
    root = tmp_path_factory.mktemp("results")
    for first, (low, high) in {82: (0.50, 0.54), 23: (0.60, 0.62)}.items():
        for seed, base in ((82, low), (23, high)):
            sweeps.add(root / f"t9-{first}", "baseline", "confirm", base, seed=seed, task="yelp", pretrain=first)
            sweeps.add(root / f"t9-{first}", "jepa", "confirm", base + 0.02, seed=seed, task="yelp", pretrain=first)
    return [root / "t9-82", root / "t9-23"]


def test_t9_of_two_folders(folders: list[Path]) -> None:
    (table,) = nested.tables(pooled([read(folder) for folder in folders]))
    rows = {row[2]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert list(rows) == ["baseline/llama3", "jepa/llama3", "difference"]
    base = rows["baseline/llama3"]
    # Means 52 and 61. MSE = (8 + 2) / 2 = 5, MSA = 2 (4.5^2 + 4.5^2) = 81, between^2 = (81 - 5) / 2 = 38.
    assert (base["pretraining seeds"], base["fine-tuning seeds"], base["mean"]) == ("2", "2", "56.50")
    assert (base["sd between"], base["sd within"]) == (f"{math.sqrt(38):.2f}", f"{math.sqrt(5):.2f}")
    assert base["paper"] == "26.46 ± 0.92" and rows["difference"]["paper"] == "+0.69"
    assert rows["difference"]["mean"] == "+2.00" and rows["difference"]["sd within"] == "0.00"


def test_the_command_takes_the_folders_together(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert paper.main(["t9", *map(str, folders)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("T9. ") == 1 and f"{folders[0]} + {folders[1]}" in printed


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    """Three pooled folders: the second repeats a run of the first with other settings, and the third saw other data."""
    one, two, three = (tmp_path / name for name in "abc")
    for seed in (82, 23):
        sweeps.add(one, "baseline", "confirm", 0.5, seed=seed, task="yelp", pretrain=82)
    sweeps.add(one, "jepa", "confirm", 0.6, seed=82, task="yelp", pretrain=82)
    sweeps.add(one, "jepa", "confirm", 0.6, seed=4, task="yelp", pretrain=82)
    sweeps.add(two, "jepa", "confirm", 0.7, seed=82, task="yelp", pretrain=82, learning_rate=2e-3, started_at="2026-02-01")
    sweeps.add(three, "jepa", "confirm", 0.7, seed=84, task="yelp", pretrain=82, dataset_sha="other")
    sweeps.add(three, "baseline", "confirm", 0.7, seed=84, task="yelp", pretrain=82)
    table, notes = nested.tables(pooled([read(folder) for folder in (one, two, three)]))
    told = " ".join(row[0] for row in notes.rows)
    assert "jepa/llama3: 1 run left out" in told
    assert "1 pair of runs saw different data" in told and "baseline/llama3: 2 runs without a counterpart" in told
    assert "runs differ in learning_rate" in told
    difference = table.rows[-1]
    assert difference[2:6] == ["difference", "1", "1", "+20.00"] and difference[6:10] == ["-", "-", "-", "-"]


def test_without_a_seed_of_its_own_the_first_stage_has_the_trials(tmp_path: Path) -> None:
    for seed, base in ((82, 0.5), (23, 0.6), (37, 0.7)):
        sweeps.add(tmp_path / "s", "baseline", "confirm", base, seed=seed, task="yelp", pretrain=-1)
        sweeps.add(tmp_path / "s", "jepa", "confirm", base, seed=seed, task="yelp", pretrain=-1)
    (table,) = nested.tables(read(tmp_path / "s"))
    assert table.rows[0][3:8] == ["3", "1", "60.00", "-", "-"]
    assert table.rows[2][-2] == "-", "no difference at all: there is no t"
