"""Defective folders: the whole page is written all the same and says in a sentence what is wrong."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import report
from jepa_ray import results
from tests.analysis import sweeps
from tests.analysis.sweeps import SEEDS


def constant(folder: Path) -> None:
    """Every score of every trial is the same."""
    for seed in SEEDS:
        for method in ("baseline", "jepa"):
            sweeps.add(folder, method, "confirm", 1 / 3, seed=seed)
    for k in (0, 1):
        sweeps.add(folder, "jepa", "search", 0.4, objective={"k": k})
    (folder / "sweep.yaml").write_text(
        "methods: {baseline: none, jepa: {}}\nfamilies: [llama3]\ntask: nl-rx\nconfirm: {seeds: [82, 23, 37]}\n"
    )


def nan(folder: Path) -> None:
    """NaN scores, in the search and on one seed."""
    none = float("nan")
    for seed in SEEDS:
        sweeps.add(folder, "baseline", "confirm", 0.4, seed=seed)
        sweeps.add(folder, "jepa", "confirm", 0.5, seed=seed, **({"test_accuracy": none} if seed == 23 else {}))
    sweeps.add(folder, "jepa", "search", 0.4, objective={"k": 0}, val_accuracy=none, train_flops=none)


def one_seed(folder: Path) -> None:
    for method in ("baseline", "jepa"):
        sweeps.add(folder, method, "confirm", 0.4, seed=82)


def no_twin(folder: Path) -> None:
    for seed in SEEDS:
        sweeps.add(folder, "jepa", "confirm", 0.4, seed=seed)
        sweeps.add(folder, "baseline", "confirm", 0.4, seed=seed, family="gemma2")


def no_partner(folder: Path) -> None:
    for seed in SEEDS[:2]:
        sweeps.add(folder, "baseline", "confirm", 0.4 + seed / 1000, seed=seed)
        sweeps.add(folder, "jepa", "confirm", 0.5, seed=seed, cost=2e9)
    sweeps.add(folder, "jepa", "matched", 0.45, seed=SEEDS[2], max_train_flops=3e9)


def half_written(folder: Path) -> None:
    sweeps.full(folder)
    for table in ("trials", "metrics", "predictions"):
        victim = sorted((folder / table).glob("*.parquet"))[0]
        victim.write_bytes(victim.read_bytes()[:100])
    (folder / "selection.json").write_text("{")
    (folder / "sweep.yaml").write_text("methods: [")


def running(folder: Path) -> None:
    """The search is over, the second of three seeds is being confirmed."""
    sweeps.add(folder, "jepa", "search", 0.4)
    for method in ("baseline", "jepa"):
        sweeps.add(folder, method, "confirm", 0.4, seed=82)
    sweeps.add(folder, "baseline", "confirm", 0.4, seed=23)
    (folder / "scratch" / "x").mkdir(parents=True)
    (folder / "scratch" / "x" / "progress.json").write_text("{}")
    plan = "name: s\nmethods: {baseline: null, jepa: {}}\nfamilies: [llama3]\ntask: nl-rx\n"
    (folder / "sweep.yaml").write_text(plan + "confirm: {seeds: [82, 23, 37]}\n")


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # each draws a whole page

CASES: dict[Callable[[Path], None], tuple[str, ...]] = {
    constant: (
        # 0.99 ** 3: three examples on which the arms agree say almost nothing about others
        "no example differs between the arms, Holm p = 1",
        "right on exactly the same examples at these seeds, but 3 examples are too few to rule out",
        "no interval: Both arms score exactly the same at all 3 seeds, so there is nothing to test",
        "no curve. All 2 trials score 0.4",
        "identical on every seed",
    ),
    nan: (
        "test_accuracy is missing or NaN, so left out: seed 23.",
        "1 COMPLETE search trial without val_accuracy cannot be the best.",
        "1 of 6 confirmation runs have no test_accuracy and are not drawn.",
        "1 of 1 search trials have no score or no FLOPs and are not in its curve.",
    ),
    one_seed: (
        "Confirmed on one seed only: there is no spread over seeds",
        "no interval: 1 seed says nothing about the spread over seeds",
    ),
    no_twin: ("jepa/llama3 has no baseline to compare with.", "baseline/gemma2: no method is compared with this baseline."),
    no_partner: (
        "jepa/llama3: the matched run on seed 37 has no partner",
        "on validation curves of 2 of 2 seeds, the schedule not shortened",
    ),
    half_written: (
        "1 of 27 files in trials/ cannot be read and are left out",
        "files in metrics/ cannot be read and are left out",
        "selection.json cannot be read (JSONDecodeError)",
        "sweep.yaml cannot be read",
        "no verdict: sweep.yaml is missing or names no confirm.seeds",
    ),
    running: (
        "1 trial started but not ended: the sweep is running or was interrupted.",
        "3 of 6 planned confirmation trials have ended: the sweep is still running or was interrupted",
        "jepa/llama3: no trial yet for confirmation seeds 23, 37.",
        "Confirmed in one of the two arms only, so left out: seed 23.",
    ),
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_the_page_says_what_is_wrong(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    (index,) = report.write(tmp_path, markdown=False)
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", index.read_text(encoding="utf-8"))))
    for sentence in CASES[make]:
        assert sentence in text
    assert not re.search(r"\b(nan|None|Traceback)\b", text), "a missing number is a dash"


def test_no_table_at_all(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (index,) = report.write(tmp_path, markdown=False)
    assert "No trial has ended yet." in index.read_text(encoding="utf-8") and results.read_trials(tmp_path).empty
