"""The summary: t-tests against scipy, pairs by seed, and a sentence for everything that is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from scipy import stats

from analysis import summary
from analysis.inputs import sweep as reading
from analysis.summary import full_text, paired, summarise, verdict
from analysis.summary_tables import JUDGEMENTS, brief
from jepa_ray import results
from jepa_ray.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, OptimConfig, TrialConfig, config_id
from jepa_ray.results import TrialResult
from tests.analysis import sweeps

SEEDS = (82, 23, 37)


class Sweep:
    """Writes trials with the real writer, so that the folder matches a real sweep's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        method: str,
        stage: str,
        exact: float | None,
        *,
        seed: int = 1,
        k: int = 1,
        state: str = "COMPLETE",
        family: str = "llama3",
        **kept: Any,
    ) -> None:
        config = TrialConfig(
            model=ModelConfig(family=family, model=kept.pop("model", "tiny")),
            data=DataConfig(num_val=9),
            objective=None if method == "baseline" else ObjectiveConfig(k=k),
            optim=OptimConfig(learning_rate=kept.pop("learning_rate", 1e-3)),
            evaluation=EvaluationConfig(test=stage == "confirm"),
            seed=seed,
        )
        figures: dict[str, Any] = {
            "train_flops": 1e9,
            "train_seconds": 2.0,
            "wall_seconds": 3.0,
            "dataset_sha": "d",
            "started_at": "2026-01-01",
        }
        if exact is not None:
            names = [f"{split}_{name}" for split in (("val", "test") if stage == "confirm" else ("val",)) for name in JUDGEMENTS]
            figures |= dict.fromkeys(names, exact)
        result = TrialResult(state, "boom" if state == "FAILED" else None, figures | kept)  # type: ignore[arg-type]
        results.write_trial(self.folder, config_id(config, method), config, f"{method}/{family}", stage, result)  # type: ignore[arg-type]
        sweeps.declare(self.folder, method, family)

    @property
    def read(self) -> reading.Sweep:
        return reading.read(self.folder, curves=())


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "sweep.yaml").write_text("search: {metric: val_accuracy}\n")
    return Sweep(tmp_path / "lora")


def full(sweep: Sweep) -> Sweep:
    for k, exact in ((0, 0.3), (1, 0.5), (2, 0.4)):
        sweep.add("jepa", "search", exact, k=k)
        sweep.add("baseline", "search", exact - 0.1, learning_rate=1e-3 * (k + 1))
    sweep.add("jepa", "search", 0.9, k=4, state="PRUNED")
    for seed, ours, theirs in zip(SEEDS, (0.5, 0.6, 0.55), (0.45, 0.50, 0.52), strict=True):
        sweep.add("jepa", "confirm", ours, seed=seed)
        sweep.add("baseline", "confirm", theirs, seed=seed, learning_rate=2e-3)
    return sweep


def test_paired_test_equals_scipy_s() -> None:
    ours, theirs = [0.5, 0.6, 0.55, 0.4], [0.45, 0.5, 0.52, 0.41]
    found = paired([a - b for a, b in zip(ours, theirs, strict=True)])
    assert found["p"] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    # By hand: differences 5, 10, 3, -1 points; mean 17/4; squared deviations .5625 + 33.0625 + 1.5625 + 27.5625 = 62.75; / 3; root.
    assert 100 * found["mean"] == pytest.approx(4.25)
    assert 100 * found["sd"] == pytest.approx((62.75 / 3) ** 0.5)
    assert found["n"] == 4


def test_paired_test_where_there_is_no_spread() -> None:
    assert paired([0.1]) == {"mean": 0.1, "sd": None, "n": 1, "p": None}
    same = paired([0.3 - 0.2, 0.1, 0.1])  # equal except for rounding; dividing by that spread would give a p of about 0
    assert same["p"] is None and same["n"] == 3


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([0.1], "+10.00 points over 1 seed. One pair says nothing about the spread over seeds: no test."),
        ([0.1, 0.11, 0.12], "higher than the baseline."),
        ([-0.1, -0.11, -0.12], "lower than the baseline."),
        ([0.1, -0.2, 0.15], "no significant difference."),
        ([0.0, 0.0], "identical on every seed."),
        ([0.5, 0.5], "the same on every seed, so there is no t-test."),
    ],
)
def test_verdicts_say_no_more_than_the_numbers(differences: list[float], words: str) -> None:
    assert verdict(paired(differences)).endswith(words)


def test_a_whole_sweep(sweep: Sweep) -> None:
    result = summarise(full(sweep).read)
    states = {line["arm"]: line for line in result.states}
    assert (states["jepa/llama3"]["COMPLETE"], states["jepa/llama3"]["PRUNED"], states["jepa/llama3"]["FAILED"]) == (6, 1, 0)
    assert states["baseline/llama3"]["train_flops"] == 6e9
    best = {line["arm"]: line for line in result.best}
    assert (best["jepa/llama3"]["k"], best["jepa/llama3"]["val_accuracy"], best["jepa/llama3"]["of"]) == (1, 0.5, 3)  # not the pruned 0.9
    assert best["baseline/llama3"]["learning_rate"] == 2e-3
    confirmed = {line["arm"]: line for line in result.confirmation}
    assert confirmed["jepa/llama3"]["test_accuracy"]["mean"] == pytest.approx(0.55)
    assert confirmed["jepa/llama3"]["test_accuracy"]["sd"] == pytest.approx(0.05)  # 50, 60, 55: squared deviations 25 + 25 + 0, over 2
    line = next(line for line in result.differences if line["metric"] == "test_accuracy")
    assert (line["method"], line["baseline"], line["n"]) == ("jepa/llama3", "baseline/llama3", 3)
    assert line["per_seed"] == pytest.approx({82: 0.05, 23: 0.1, 37: 0.03})
    assert len(result.differences) == 10
    assert line["p"] == pytest.approx(stats.ttest_rel([0.5, 0.6, 0.55], [0.45, 0.5, 0.52]).pvalue)
    assert [note for note in result.notes if "test accuracy" in note] == [
        f"jepa/llama3 against baseline/llama3, test accuracy: +6.00 points over 3 seeds (p = {line['p']:.3g}): no significant difference."
    ]


def test_what_a_sweep_prints_at_its_end(sweep: Sweep) -> None:
    """Two small tables with the summary's numbers, in percent and points."""
    search, confirmation = brief(summarise(full(sweep).read), SEEDS)
    assert search.header == ["arm", "trials", "cut early", "failed", "lambda", "k", "learning rate", "loss dropout", "val accuracy (%)"]
    assert search.rows == [
        ["jepa/llama3", "4", "1", "0", "1", "1", "0.001", "0", "50.00"],
        ["baseline/llama3", "3", "0", "0", "-", "-", "0.002", "-", "40.00"],
    ]
    assert confirmation.title == "Confirmation: test accuracy on seeds 82, 23, 37 (%, differences in points)"
    assert confirmation.header == ["arm", "seeds", "mean ± sd", "minus baseline", "prefix", "contains", "stopped"]
    assert confirmation.rows == [
        ["jepa/llama3", "3", "55.00 ± 5.00", "+6.00 ± 3.61", "55.00", "55.00", "55.00"],
        ["baseline/llama3", "3", "49.00 ± 3.61", "-", "49.00", "49.00", "49.00"],
    ]


def test_what_a_sweep_prints_of_arms_that_came_to_nothing(sweep: Sweep) -> None:
    sweep.add("jepa", "search", 0.5, state="FAILED")
    sweep.add("baseline", "search", 0.4)
    sweep.add("baseline", "confirm", 0.4, seed=82, chance=0.25)
    search, confirmation = brief(summarise(sweep.read), SEEDS)
    assert search.rows[0][-1] == "its only trial FAILED" and search.rows[0][1:4] == ["1", "0", "1"]
    lines = {row[0]: dict(zip(confirmation.header, row, strict=True)) for row in confirmation.rows}
    assert lines["jepa/llama3"]["seeds"] == "0" and lines["baseline/llama3"]["chance"] == "25.00"
    assert len(brief(summarise(sweep.read), ())) == 1


def test_the_lowest_can_be_best(sweep: Sweep) -> None:
    found = summarise(full(sweep).read, "val_accuracy", "min")
    assert {line["arm"]: line["val_accuracy"] for line in found.best} == pytest.approx({"jepa/llama3": 0.3, "baseline/llama3": 0.2})
    with pytest.raises(ValueError, match=r"'val_exakt' is not a share .*val_accuracy"):
        summarise(sweep.read, "val_exakt")


@pytest.mark.parametrize("metric", ["val_jepa", "val_seconds", "lambda", "state"])
def test_what_is_no_share_picks_no_trial(metric: str, sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    """A loss is better when lower and is not a share; a knob or a state is not a metric."""
    with pytest.raises(SystemExit) as stop:
        summary.main([str(full(sweep).folder), "--metric", metric])
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and f"{metric!r} is not a share" in told and "val_prefix" in told


def test_the_trial_that_was_frozen_is_the_best_of_its_arm(sweep: Sweep) -> None:
    """Rows that are not in the study (e.g. from another version of the search space) were not part of the selection."""
    full(sweep)
    rows = results.read_trials(sweep.folder)
    frozen = rows[(rows["method"] == "jepa") & (rows["stage"] == "search") & (rows["k"] == 2)]["trial_id"].iloc[0]
    sweeps.select(sweep.folder, "selection.json", jepa=frozen)
    found = summarise(sweep.read)
    best = {line["arm"]: line for line in found.best}
    assert (best["jepa/llama3"]["trial_id"], best["jepa/llama3"]["k"]) == (frozen, 2)
    assert best["baseline/llama3"]["val_accuracy"] == 0.4  # not in the selection, hence ranked
    assert brief(found, SEEDS)[0].rows[0][-1] == "40.00"
    assert any(note.startswith(f"jepa/llama3: the table shows trial {frozen}, which the selection froze; 1 other") for note in found.notes)
    # For a metric that the sweep did not select by, all trials are ranked.
    assert {line["arm"]: line["k"] for line in summarise(sweep.read, "val_exact").best}["jepa/llama3"] == 1


def test_arms_are_compared_by_the_verdicts_metric_whatever_selected(sweep: Sweep) -> None:
    (sweep.folder / "sweep.yaml").write_text("search: {metric: val_equivalent}\n")
    for seed in SEEDS:
        sweep.add("jepa", "confirm", 0.5, seed=seed, val_equivalent=0.7, test_equivalent=0.75)
        sweep.add("baseline", "confirm", 0.4, seed=seed, val_equivalent=0.7, test_equivalent=0.8)
    table = brief(summarise(sweep.read), SEEDS)[1]
    assert table.title.startswith("Confirmation: test accuracy on seeds")
    lines = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert lines["jepa/llama3"]["minus baseline"] == "+10.00 ± 0.00" and lines["jepa/llama3"]["equivalent"] == "75.00"


def test_declared_arms_without_a_trial_are_shown(sweep: Sweep) -> None:
    sweep.add("baseline", "search", 0.4)
    sweep.add("baseline", "confirm", 0.4, seed=82)
    for k in (1, 2):
        sweep.add("jepa", "search", None, k=k, state="FAILED")
    sweeps.declare(sweep.folder, "l2")
    result = summarise(sweep.read)
    search, confirmation = brief(result, SEEDS)
    assert {row[0]: row[-1] for row in search.rows} == {
        "baseline/llama3": "40.00",
        "jepa/llama3": "all 2 trials FAILED",
        "l2/llama3": "not run",
    }
    assert {row[0]: row[1:3] for row in confirmation.rows if row[1] == "0"} == {
        "jepa/llama3": ["0", "all 2 trials FAILED"],
        "l2/llama3": ["0", "not run"],
    }
    assert "l2/llama3: not run." in result.notes and "l2/llama3" in full_text(result)


def test_an_arm_that_failed_is_not_still_running(sweep: Sweep) -> None:
    (sweep.folder / "sweep.yaml").write_text("confirm: {seeds: [82, 23, 37]}\n")
    for seed in SEEDS:
        sweep.add("baseline", "confirm", 0.4, seed=seed)
    for k in (1, 2):
        sweep.add("jepa", "search", None, k=k, state="FAILED")
    assert sweep.read.notes == ("jepa/llama3: all 2 trials FAILED.",)


def test_a_metric_that_older_rows_lack_is_a_dash_and_a_sentence(sweep: Sweep) -> None:
    """As written by a version that did not measure it: the files lack the column."""
    full(sweep)
    for path in (sweep.folder / "trials").glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["val_accuracy", "test_accuracy"]), path)
    found = summarise(sweep.read)
    search, confirmation = brief(found, SEEDS)
    assert [row[-1] for row in search.rows] == ["-", "-"] and [row[1:4] for row in confirmation.rows] == [["3", "-", "-"]] * 2
    lacking = f"jepa/llama3: no COMPLETE search trial with a val_accuracy in {sweep.folder}, so no best configuration."
    assert lacking in found.notes
    assert f"jepa/llama3: no confirmation trial in {sweep.folder} has test_accuracy." in found.notes
    assert [line["val_accuracy"] for line in found.best] == [None, None] and "test_accuracy" in full_text(found)


def test_text_and_markdown_hold_the_same_cells(sweep: Sweep) -> None:
    found = summarise(full(sweep).read)
    plain, marked = summary.full_text(found), summary.full_text(found, as_markdown=True)
    for cell in ("55.00 ± 5.00", "+6.00 ± 3.61", "82: +5.00", "6.000e+09", "total"):
        assert cell in plain and cell in marked
    header = next(text for text in marked.splitlines() if text.startswith("| method"))
    rows = [text for text in marked.splitlines() if text.startswith("| jepa/llama3 | baseline/llama3")]
    assert len(rows) == 10 and {row.count(" | ") for row in rows} == {header.count(" | ")}


def missing(sweep: Sweep) -> str:
    return "\n".join(summarise(sweep.read).notes)


def test_nothing_yet(sweep: Sweep) -> None:
    text = full_text(summarise(sweep.read))
    assert text.endswith("No trial has finished yet: there is nothing to summarise.") and "No confirmation yet." in text


def test_no_confirmation_yet(sweep: Sweep) -> None:
    sweep.add("jepa", "search", 0.5)
    sweep.add("baseline", "search", 0.4)
    assert "jepa/llama3: no COMPLETE confirmation trial" in missing(sweep)
    assert "jepa/llama3 against baseline/llama3: no paired difference" in missing(sweep)


def test_an_arm_without_its_twin(sweep: Sweep) -> None:
    sweep.add("jepa", "confirm", 0.5)
    sweep.add("baseline", "confirm", 0.5, family="gemma2")
    for arm in ("jepa/llama3", "baseline/gemma2"):
        assert f"{arm}: no arm to compare it with has trials" in missing(sweep)
    assert not summarise(sweep.read).differences  # never across families


def test_failed_and_unpaired_seeds_are_named(sweep: Sweep) -> None:
    for seed in SEEDS:
        sweep.add("jepa", "confirm", 0.5, seed=seed)
        sweep.add("baseline", "confirm", None if seed == 23 else 0.4, seed=seed, state="FAILED" if seed == 23 else "COMPLETE")
    notes = missing(sweep)
    assert "baseline/llama3: confirmation seed 23 is FAILED and is ignored: boom." in notes
    assert "confirmed in only one of the two, so left out: seed 23." in notes
    assert {line["n"] for line in summarise(sweep.read).differences} == {2}


def test_missing_figures_are_said(sweep: Sweep) -> None:
    sweep.add("jepa", "search", None)
    sweep.add("baseline", "search", 0.4)
    sweep.add("baseline", "search", 0.4, learning_rate=2e-3)
    for seed in SEEDS:
        sweep.add("jepa", "confirm", 0.5, seed=seed, test_accuracy=float("nan"))
        sweep.add("baseline", "confirm", 0.4, seed=seed, **({"val_prefix": float("nan")} if seed == 23 else {}))
    notes = missing(sweep)
    assert "jepa/llama3: 1 COMPLETE search trial without val_accuracy" in notes
    assert "jepa/llama3: no COMPLETE search trial with a val_accuracy" in notes
    assert "baseline/llama3: 2 search trials share the best val_accuracy" in notes
    assert f"jepa/llama3: no confirmation trial in {sweep.folder} has test_accuracy." in notes
    assert "baseline/llama3: val_prefix is missing for 1 of 3 confirmation seeds" in notes
    assert "test_accuracy" not in {line["metric"] for line in summarise(sweep.read).differences}


def test_different_data_is_not_paired(sweep: Sweep) -> None:
    sweep.add("jepa", "confirm", 0.5)
    sweep.add("baseline", "confirm", 0.5, dataset_sha="other")
    assert "confirmed on different data" in missing(sweep) and not summarise(sweep.read).differences


def test_the_configuration_confirmed_last_counts(sweep: Sweep) -> None:
    for seed in SEEDS:
        sweep.add("jepa", "confirm", 0.2, seed=seed, k=3)
        sweep.add("jepa", "confirm", 0.5, seed=seed, started_at="2026-01-02")
    others = "3 of 6 confirmation trials are from another configuration or an earlier attempt"
    assert f"jepa/llama3: {others} and are ignored; only the configuration started last counts." in missing(sweep)
    assert [line["val_accuracy"]["mean"] for line in summarise(sweep.read).confirmation] == [0.5]


def test_two_models_under_one_arm_name_stay_apart(sweep: Sweep) -> None:
    for model in ("tiny", "other"):
        for seed in SEEDS:
            sweep.add("jepa", "confirm", 0.5, seed=seed, model=model)
            sweep.add("baseline", "confirm", 0.4, seed=seed, model=model)
    found = summarise(sweep.read)
    names = {(line["method"], line["baseline"]) for line in found.differences}
    assert names == {(f"jepa/llama3 ({m}, nl-rx)", f"baseline/llama3 ({m}, nl-rx)") for m in ("tiny", "other")}


def test_command_line(sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full(sweep)
    assert summary.main([str(sweep.folder), "--json"]) == 0
    parsed = json.loads(capsys.readouterr().out)[str(sweep.folder)]
    assert {line["metric"] for line in parsed["differences"]} == {f"{s}_{n}" for s in ("val", "test") for n in JUDGEMENTS}
    assert summary.main([str(sweep.folder), str(sweep.folder), "--markdown"]) == 0
    assert capsys.readouterr().out.count("## Confirmation on fresh seeds") == 1
    assert summary.main([str(sweep.folder)]) == 0
    assert "Confirmation on fresh seeds" in capsys.readouterr().out
    for arguments in ([str(tmp_path / "gone")], [str(sweep.folder), "--metric", "x"], []):
        with pytest.raises(SystemExit) as stop:
            summary.main(arguments)
        assert stop.value.code == 2
