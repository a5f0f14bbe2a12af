"""Equal steps, FLOPs and seconds: partners by hand, intervals against the definition, and a sentence if no comparison is possible."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from analysis import panels
from analysis.figures import budget, curves, heatmap, parallel, seeds, stops
from analysis.inputs.sweep import read, shown_runs
from analysis.protocol.claims import Claim, gather
from analysis.protocol.equal_cost import Panel
from analysis.summary import summarise
from analysis.verdict import judge
from tests.analysis import sweeps
from tests.analysis.sweeps import SEEDS

BASE, JEPA = (0.45, 0.50, 0.52), (0.50, 0.60, 0.55)


def pair(folder: Path, matched: tuple[float, ...] = (), **kept: Any) -> Path:
    """Baseline at 3e9 FLOPs, JEPA at 6e9, and JEPA again with 1 % less than 3e9 on the first seeds."""
    for seed, ours, theirs in zip(SEEDS, JEPA, BASE, strict=True):
        sweeps.add(folder, "baseline", "confirm", theirs, seed=seed)
        sweeps.add(folder, "jepa", "confirm", ours, seed=seed, cost=2e9)
    for seed, accuracy in zip(SEEDS, matched, strict=False):
        sweeps.add(folder, "jepa", "matched", accuracy, seed=seed, cost=0.99e9, max_train_flops=3e9, **kept)
    return folder


def only(folder: Path) -> Claim:
    (claim,) = gather(folder).claims
    return claim


def flops(folder: Path) -> Panel:
    panel = only(folder).equal_flops
    assert panel is not None
    return panel


def test_what_was_computed_in_smaller_micro_batches_costs_no_more(tmp_path: Path) -> None:
    """They share fewer prefixes, so the same training computes 43 % more; arms are compared by a count that ignores this."""
    for seed, ours, theirs in zip(SEEDS, JEPA, BASE, strict=True):
        sweeps.add(tmp_path, "baseline", "confirm", theirs, seed=seed, cost=1e9, train_flops_unpacked=4e9)
        sweeps.add(tmp_path, "jepa", "confirm", ours, seed=seed, cost=1.43e9, train_flops_unpacked=4e9)
    panel = flops(tmp_path)
    assert "cost the same" in panel.how and panel.spent == 4e9


def test_a_matched_run_is_checked_with_the_count_of_its_budget(tmp_path: Path) -> None:
    for seed, ours, theirs in zip(SEEDS, JEPA, BASE, strict=True):
        sweeps.add(tmp_path, "baseline", "confirm", theirs, seed=seed, cost=1e9, train_flops_unpacked=4e9)
        sweeps.add(tmp_path, "jepa", "confirm", ours, seed=seed, cost=2e9, train_flops_unpacked=8e9)
        sweeps.add(tmp_path, "jepa", "matched", 0.5, seed=seed, cost=1.2e9, max_train_flops=4e9, train_flops_unpacked=3.99e9)
    panel = flops(tmp_path)
    assert panel.how.startswith("retrained with the same FLOPs") and panel.spent == 4e9 and panel.notes == ()


def test_matched_runs_are_paired_with_the_cheaper_arm(tmp_path: Path) -> None:
    panel = flops(pair(tmp_path, (0.46, 0.52, 0.49)))
    assert panel.metric == "test_accuracy" and panel.how == "retrained with the same FLOPs, on a schedule shortened to match"
    assert panel.by_seed == pytest.approx({82: 0.01, 23: 0.02, 37: -0.03})
    assert (panel.seeds, panel.spent) == (3, 3e9) and panel.difference == pytest.approx(0.0)
    # By hand: differences 1, 2, -3 points, mean 0, sd sqrt((1 + 4 + 9) / 2), half-width t(2; .975) sd / sqrt(3).
    half = stats.t.ppf(0.975, 2) * math.sqrt(7) / math.sqrt(3) / 100
    assert panel.interval == pytest.approx((-half, half))


def test_the_more_expensive_arm_may_be_the_baseline(tmp_path: Path) -> None:
    sweeps.add(tmp_path, "jepa", "confirm", 0.6, seed=82)
    sweeps.add(tmp_path, "baseline", "confirm", 0.5, seed=82, cost=2e9)
    sweeps.add(tmp_path, "baseline", "matched", 0.4, seed=82, cost=1e9, max_train_flops=3e9)
    assert flops(tmp_path).by_seed == pytest.approx({82: 0.2}) and flops(tmp_path).interval is None


def test_a_partner_costs_as_much_or_two_steps_more(tmp_path: Path) -> None:
    """Two of 30 steps are 7 %. 3.01e9 exceeds the 3e9 of the partner, 2.79e9 is 7.5 % below: neither is a fair match; 2.85e9 is."""
    folder = pair(tmp_path / "fair", (0.46, 0.52))
    sweeps.add(folder, "jepa", "matched", 0.9, seed=37, cost=0.95e9, max_train_flops=3e9)
    assert sorted(flops(folder).by_seed) == [23, 37, 82]
    for place, cost in enumerate((3.01e9, 2.79e9)):
        folder = pair(tmp_path / str(place), (0.46, 0.52))
        sweeps.add(folder, "jepa", "matched", 0.9, seed=37, cost=cost / 3, max_train_flops=3e9)
        panel = flops(folder)
        assert sorted(panel.by_seed) == [23, 82]
        law = f"the matched run on seed 37 spent {cost:.3e} FLOPs instead of 3.000e+09 or up to 7% less."
        assert any(law in note for note in panel.notes)
        assert any("No matched run of the more expensive arm fits at seed 37: left out" in note for note in only(folder).notes)


@pytest.mark.parametrize("steps", [1, 2])
def test_matched_runs_of_few_steps_are_too_short_to_compare(tmp_path: Path, steps: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two steps' budget, the second did not fit: 40 % are left. No page, table or JSON then has a difference at equal FLOPs."""
    folder = pair(tmp_path)
    for seed in SEEDS:
        sweeps.add(folder, "jepa", "matched", 0.9, seed=seed, cost=0.6e9, max_train_flops=3e9, steps=steps)
    short = f"matched runs of {steps} step{'s' * (steps > 1)} are up to 40% below the budget"
    text = f"{short}: too short to compare at equal FLOPs (within 5%)"
    assert flops(folder).difference is None and flops(folder).how == text
    (ruling,) = judge(gather(folder)).verdicts
    (reason,) = (reason for reason in ruling.conditions if reason.name == "equal FLOPs")
    assert reason.holds is None and reason.text == f"cannot be determined: {text}" and ruling.verdict != "better"
    (row,) = (row for row in panels.tables(gather(folder))[0].rows if row[1] == "equal FLOPs")
    assert row[2:6] == ["-", "-", "0", "-"] and row[-1] == f"cannot be determined: {text}"
    assert panels.main([str(folder), "--json"]) == 0
    (claim,) = json.loads(capsys.readouterr().out)[str(folder)]["claims"]
    assert claim["panels"][1]["difference"] is None and claim["panels"][1]["by_seed"] == {}


def test_one_matched_run_that_is_too_short_is_enough(tmp_path: Path) -> None:
    """Two of 30 steps may be missing, but not more than 5 %."""
    folder = pair(tmp_path, (0.46, 0.52))
    sweeps.add(folder, "jepa", "matched", 0.9, seed=37, cost=0.94e9, max_train_flops=3e9)
    assert flops(folder).difference is None and flops(folder).how.startswith("matched runs of 30 steps are up to 6% below the budget")


def test_a_matched_run_without_its_partner_is_ignored(tmp_path: Path) -> None:
    folder = pair(tmp_path, (0.46, 0.52, 0.49))
    sweeps.add(folder, "jepa", "confirm", 0.7, seed=84, cost=2e9)
    sweeps.add(folder, "jepa", "matched", 0.9, seed=84, cost=1e9, max_train_flops=3e9)
    assert sorted(flops(folder).by_seed) == sorted(SEEDS)
    assert any("jepa/llama3: the matched run on seed 84 has no partner" in note for note in only(folder).notes)


def test_matched_runs_of_other_settings_or_failed_ones_do_not_count(tmp_path: Path) -> None:
    folder = pair(tmp_path, (0.46,))
    sweeps.add(folder, "jepa", "matched", 0.9, seed=23, cost=1e9, max_train_flops=3e9, objective={"k": 3})
    sweeps.add(folder, "jepa", "matched", 0.9, seed=37, cost=1e9, max_train_flops=3e9, state="FAILED")
    panel = flops(folder)
    assert panel.by_seed == pytest.approx({82: 0.01})
    assert any("the matched run on seed 37 is FAILED" in note for note in panel.notes)
    assert any("No matched run of the more expensive arm fits at seeds 23, 37: left out" in note for note in panel.notes)


def test_without_matched_runs_the_curves_are_compared_and_the_panel_says_so(tmp_path: Path) -> None:
    """JEPA rises to its accuracy in three epochs of 2e9: at 3e9 it is halfway there."""
    panel = flops(pair(tmp_path))
    assert panel.metric == "val_accuracy" and panel.how == "on validation curves of 3 of 3 seeds, the schedule not shortened"
    expected = {seed: ours / 2 - theirs for seed, ours, theirs in zip(SEEDS, JEPA, BASE, strict=True)}
    assert panel.by_seed == pytest.approx(expected) and panel.spent == 3e9


def test_arms_that_cost_the_same_are_compared_directly(tmp_path: Path) -> None:
    for seed, ours, theirs in zip(SEEDS, JEPA, BASE, strict=True):
        sweeps.add(tmp_path, "baseline", "confirm", theirs, seed=seed)
        sweeps.add(tmp_path, "jepa", "confirm", ours, seed=seed, cost=1.015e9)
    panel = flops(tmp_path)
    assert "both arms cost the same within 2 %" in panel.how and panel.by_seed == pytest.approx({82: 0.05, 23: 0.1, 37: 0.03})


def test_equal_steps_is_the_confirmation_or_curves_by_step(tmp_path: Path) -> None:
    panel = only(pair(tmp_path / "same")).panels[0]
    assert (panel.at, panel.metric, panel.spent, panel.how) == ("equal steps", "test_accuracy", 30.0, "as confirmed")
    sweeps.add(tmp_path / "more", "baseline", "confirm", 0.4, seed=82)
    sweeps.add(tmp_path / "more", "jepa", "confirm", 0.6, seed=82, epochs=6)
    panel = only(tmp_path / "more").panels[0]
    # Six epochs reach 0.6, so three reach 0.3, at the baseline's 30 steps.
    assert panel.metric == "val_accuracy" and panel.by_seed == pytest.approx({82: -0.1}) and panel.spent == 30


def test_seconds_are_compared_on_one_device_only(tmp_path: Path) -> None:
    panel = only(pair(tmp_path / "one")).panels[2]
    # One second per epoch in both arms, so the last values of both curves are compared.
    assert panel.at == "equal seconds" and panel.spent == 3.0 and panel.by_seed == pytest.approx({82: 0.05, 23: 0.1, 37: 0.03})
    for name, column, values, words in (
        ("devices", "device", ("cpu", "NVIDIA X"), "different devices (NVIDIA X, cpu)"),
        ("workers", "num_workers", (1, 2), "different numbers of workers (1, 2)"),
        ("unknown", "device", ("cpu", None), "1 of 2 trials do not record where they ran (device)"),
    ):
        sweeps.add(tmp_path / name, "baseline", "confirm", 0.4, seed=82, **{column: values[0]})
        sweeps.add(tmp_path / name, "jepa", "confirm", 0.5, seed=82, **{column: values[1]})
        panel = only(tmp_path / name).panels[2]
        assert panel.difference is None and words in panel.how and "so seconds cannot be compared" in panel.how


def test_matched_runs_are_used_for_nothing_else(tmp_path: Path) -> None:
    plain, folder = pair(tmp_path / "plain"), pair(tmp_path / "matched", (0.01, 0.02, 0.99))
    for sweep in (plain, folder):
        for k in (0, 1, 2):
            sweeps.add(sweep, "jepa", "search", 0.1 * k, objective={"k": k})
    without, with_them = read(plain), read(folder)
    for figure in (heatmap, parallel, seeds, curves):
        assert figure.plot(with_them).table == figure.plot(without).table, figure.__name__
    assert shown_runs(with_them)[0]["trial_id"].tolist() == shown_runs(without)[0]["trial_id"].tolist()
    matched, bare = (summarise(read(sweep, curves=())) for sweep in (folder, plain))
    assert (matched.best, matched.confirmation, matched.differences) == (bare.best, bare.confirmation, bare.differences)
    assert {line["arm"]: line["matched"] for line in matched.states} == {"jepa/llama3": 3, "baseline/llama3": 0}
    rows = {(row[0], row[1]): row for row in budget.plot(with_them).table.rows}
    assert rows["jepa/llama3", "matched"][2] == "3" and float(rows["jepa/llama3", "matched"][5]) == pytest.approx(3 * 2.97, rel=0.01)
    assert {row[0]: row[1] for row in stops.plot(with_them).table.rows}["jepa/llama3"] == "9"


def test_the_table_of_panels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pair(tmp_path / "s", (0.46, 0.52, 0.49))
    (grid,) = panels.tables(gather(folder))
    cells = {row[1]: row for row in grid.rows}
    assert list(cells) == ["equal steps", "equal FLOPs", "equal seconds"]
    assert cells["equal FLOPs"][2:7] == [
        "+0.00",
        "-6.57 to +6.57",
        "3",
        "3e+09 computed FLOPs",
        "test accuracy",
    ]  # 4.3027 * 2.6458 / 1.7321
    assert panels.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "retrained with the same FLOPs, on a schedule shortened to match" in printed and "-6.57 to +6.57" in printed
    assert panels.main([str(folder), "--json"]) == 0
    (claim,) = json.loads(capsys.readouterr().out)[str(folder)]["claims"]
    assert [panel["at"] for panel in claim["panels"]] == list(cells)
    assert claim["panels"][1]["by_seed"] == pytest.approx({"82": 0.01, "23": 0.02, "37": -0.03}) and claim["panels"][1]["n"] == 3
    for arguments in ([str(tmp_path / "gone")], [str(folder), "--metric", "test_ce"], []):
        with pytest.raises(SystemExit) as stop:
            panels.main(arguments)
        assert stop.value.code == 2


def test_no_claim_no_panel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweeps.add(tmp_path / "s", "jepa", "confirm", 0.5, seed=82)
    assert panels.main([str(tmp_path / "s")]) == 0
    printed = capsys.readouterr().out
    assert (
        "No method and its baseline were confirmed on a common seed" in printed
        and "No baseline of the sweep has the same loss_on" in printed
    )
