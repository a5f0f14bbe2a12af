"""Which confirmation counts: the configuration frozen last, for every command; all other runs are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import seeds
from analysis.inputs.confirmation import alike, choose, read_frozen
from analysis.inputs.sweep import read, shown_runs
from analysis.protocol.claims import gather
from analysis.summary import summarise
from analysis.summary_tables import brief
from jepa_ray import results
from tests.analysis import sweeps
from tests.analysis.sweeps import SEEDS

LEFT_OUT = "3 of 6 confirmation trials are from another configuration or an earlier attempt and are ignored"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """k = 1 was frozen and confirmed, then k = 2, then k = 1 again: its runs are older, and they count."""
    folder = tmp_path / "s"
    first = sweeps.add(folder, "jepa", "search", 0.3, objective={"k": 1})
    second = sweeps.add(folder, "jepa", "search", 0.3, objective={"k": 2})
    for seed in SEEDS:
        sweeps.add(folder, "jepa", "confirm", 0.4, seed=seed, objective={"k": 1})
        sweeps.add(folder, "jepa", "confirm", 0.6, seed=seed, objective={"k": 2}, started_at="2026-02-01")
        sweeps.add(folder, "baseline", "confirm", 0.3, seed=seed)
    sweeps.select(folder, "selection.json", jepa=first)
    sweeps.select(folder, "selection-2.json", jepa=second)
    sweeps.select(folder, "selection-10.json", jepa=first)
    return folder


def test_everyone_takes_the_configuration_frozen_last(folder: Path) -> None:
    sweep = read(folder)
    runs, notes = shown_runs(sweep)
    assert set(runs.loc[~runs["is_baseline"], "k"]) == {1}
    told = f"jepa/llama3: {LEFT_OUT}; only the configuration frozen last (selection-10.json) counts."
    assert told in notes and told in seeds.plot(sweep).notes
    (claim,) = gather(folder).claims
    notes = gather(folder).notes
    assert set(claim.ours.values()) == {0.4} and told in notes
    assert any("selected anew (selection-10.json, selection-2.json) after others had been scored on the test split" in n for n in notes)
    found = summarise(read(folder, curves=()))
    lines = {line["arm"]: line["test_accuracy"]["mean"] for line in found.confirmation}
    assert lines["jepa/llama3"] == pytest.approx(0.4) and told in found.notes
    # The console's table above the verdict agrees with the verdict.
    table = brief(found, SEEDS)[1]
    shown = dict(zip(table.header, table.rows[0], strict=True))
    assert (shown["arm"], shown["mean ± sd"], shown["minus baseline"]) == ("jepa/llama3", "40.00 ± 0.00", "+10.00 ± 0.00")
    assert np.mean([claim.ours[seed] - claim.theirs[seed] for seed in SEEDS]) == pytest.approx(0.1)


def test_an_arm_without_a_confirmation_is_shown_by_its_frozen_trial(tmp_path: Path) -> None:
    """The better trial was not suggested by the study, so the selection did not rank it."""
    frozen = sweeps.add(tmp_path, "jepa", "search", 0.3, objective={"k": 1})
    better = sweeps.add(tmp_path, "jepa", "search", 0.4, objective={"k": 2})
    assert shown_runs(read(tmp_path))[0]["trial_id"].tolist() == [better]
    sweeps.select(tmp_path, "selection.json", jepa=frozen)
    assert shown_runs(read(tmp_path))[0]["trial_id"].tolist() == [frozen]


def test_without_a_selection_the_one_started_last_counts(folder: Path) -> None:
    for path in folder.glob("selection*.json"):
        path.unlink()
    rows = read(folder).trials
    choice = choose("jepa/llama3", rows[rows["method"] == "jepa"], {})
    assert set(choice.runs["k"]) == {2} and choice.complete == 6
    assert choice.notes == (f"jepa/llama3: {LEFT_OUT}; only the configuration started last counts.",)


def test_a_frozen_configuration_without_runs_leaves_nothing(folder: Path) -> None:
    third = sweeps.add(folder, "jepa", "search", 0.3, objective={"k": 3})
    sweeps.select(folder, "selection-11.json", jepa=third)
    found = gather(folder)
    assert not any(claim.ours for claim in found.claims)
    assert any("6 of 6 confirmation trials" in note and "and none of its trials is COMPLETE" in note for note in found.notes)


def test_a_selection_that_cannot_be_read_is_said(folder: Path) -> None:
    (folder / "selection-2.json").write_text("{")
    frozen, notes = read_frozen(folder)
    assert frozen == {} and notes[0].startswith(
        "selection-2.json cannot be read (JSONDecodeError), so the last frozen configuration is unknown"
    )
    assert notes[0] in read(folder).notes and notes[0] in gather(folder).notes


def test_a_failed_seed_is_named_and_a_second_attempt_is_used(tmp_path: Path) -> None:
    sweeps.add(tmp_path, "jepa", "confirm", 0.4, seed=82)
    sweeps.add(tmp_path, "jepa", "confirm", 0.4, seed=23, state="FAILED")
    rows = results.read_trials(tmp_path)
    choice = choose("jepa", rows, {})
    assert choice.runs["seed"].tolist() == [82] and choice.complete == 1
    assert choice.notes == ("jepa: confirmation seed 23 is FAILED and is ignored: RuntimeError: out of memory.",)
    again = rows[rows["seed"] == 23].assign(state="COMPLETE", trial_id=lambda frame: frame["config_id"] + "-2")
    choice = choose("jepa", pd.concat([rows, again]), {})
    assert choice.runs["seed"].tolist() == [23, 82]
    assert "is ignored (another attempt is COMPLETE and used)" in choice.notes[0]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_runs_on_one_seed_the_later_counts(order: int, tmp_path: Path) -> None:
    """The second was run on other weights: same settings, another id, which may be before the first in the alphabet."""
    sweeps.add(tmp_path, "jepa", "confirm", 0.4, seed=82)
    rows = results.read_trials(tmp_path)
    ids = ["0" * 16, "f" * 16][::order]
    pair = [
        rows.assign(trial_id=name, config_id=name, started_at=f"2026-01-0{day}T00:00:00+00:00") for day, name in enumerate(ids, start=1)
    ]
    for frame in (pd.concat(pair), pd.concat(pair[::-1])):
        assert choose("jepa", frame, {}).runs["trial_id"].tolist() == [ids[1]]


def test_settings_are_compared_with_what_is_null(tmp_path: Path) -> None:
    sweeps.add(tmp_path, "jepa", "search", 0.4)
    sweeps.add(tmp_path, "jepa", "confirm", 0.4, seed=82)
    sweeps.add(tmp_path, "jepa", "confirm", 0.4, seed=82, lora_r=4)
    rows = results.read_trials(tmp_path)
    one = rows[rows["stage"] == "search"].iloc[0]
    same = alike(rows[rows["stage"] == "confirm"], one)
    assert rows.loc[same.index[same], "lora_r"].isna().tolist() == [True] and len(same) == 2


@pytest.mark.parametrize(
    "of_search",
    [
        pytest.param({"eval_at_steps": "3;6;12"}, id="rungs within an epoch"),
        pytest.param({"attention": None, "compile": None, "eval_batch_size": 64}, id="searched by an earlier version"),
    ],
)
def test_a_confirmation_of_what_the_search_froze_counts(tmp_path: Path, of_search: dict[str, object]) -> None:
    """Whatever the search's rows say about settings that a confirmation does not have, or that change no result."""
    frozen = sweeps.add(tmp_path, "jepa", "search", 0.4)
    for seed in SEEDS:
        sweeps.add(tmp_path, "jepa", "confirm", 0.4, seed=seed)
    sweeps.select(tmp_path, "selection.json", jepa=frozen)
    rows = results.read_trials(tmp_path)
    for name, value in of_search.items():
        rows[name] = rows[name].astype(object).where(rows["stage"] != "search", value)
    chosen = choose("jepa", rows, read_frozen(tmp_path)[0], SEEDS)
    assert chosen.runs["seed"].tolist() == sorted(SEEDS) and chosen.notes == ()
