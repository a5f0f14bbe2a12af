"""Alarms: each fires on its own condition, quotes its numbers, and stays silent on healthy runs and on a low rank alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from jepa_ray.evaluation.embedding import describe
from jepa_ray.training.diagnostics.alarms import add_alarm, alarms, correlation, names

HEALTHY = {
    "diag_val_ce": 1.0,
    "diag_val_jepa": 0.4,
    "diag_variance_text": 1.0,
    "diag_variance_code": 1.0,
    "diag_pred_distance": 0.4,
    "diag_own_distance": 0.4,
    "diag_pred_r1": 0.2,
    "diag_r1_ceiling": 0.9,
    "diag_r1_chance": 1 / 128,
    "diag_grad_weighted": 0.5,
    "diag_contrast": 0.3,
    "diag_anisotropy_text": 0.3,
    "diag_anisotropy_code": 0.4,
    "diag_mean_energy_text": 0.3,
    "diag_mean_energy_code": 0.4,
}
LATER = HEALTHY | {"diag_val_jepa": 0.1, "diag_pred_distance": 0.005, "diag_pred_r1": 0.9, "diag_contrast": 0.7}
"""A successful run: close pairs that stand out. The same values before training would raise an alarm."""


def states(common: float, content: float, rank: int = 64, noise: float = 0.5) -> dict[str, float]:
    """Diagnostics of 128 pairs that share content, plus one direction common to all. R@1 and distance are replaced by
    constants, because these pairs are too easy."""
    rng = np.random.default_rng(0)
    base = content * rng.normal(size=(128, rank)) @ rng.normal(size=(rank, 64)) / math.sqrt(rank)
    ones = common * np.ones(64)
    text, code = (base + content * noise * rng.normal(size=(128, 64)) + ones for _ in range(2))
    return {f"diag_{name}": value for name, value in describe(text, code).items()} | {"diag_pred_r1": 0.2, "diag_pred_distance": 0.4}


def test_nothing_to_say_of_healthy_runs() -> None:
    assert alarms([]) == alarms([HEALTHY]) == alarms([HEALTHY, LATER]) == alarms([HEALTHY, LATER, LATER]) == []
    assert alarms([{}, {}]) == [], "missing metrics raise no alarm"
    assert alarms([dict.fromkeys(HEALTHY, math.nan) | {name: 1.0 for name in HEALTHY if "va" in name}]) == [], (
        "undefined metrics raise no alarm"
    )
    assert names([]) == ""


@pytest.mark.parametrize("name", ["diag_val_ce", "diag_val_jepa", "diag_variance_code"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_losses_and_states(name: str, value: float) -> None:
    for history in ([HEALTHY | {name: value}], [HEALTHY, HEALTHY | {name: value}, HEALTHY]):
        found = alarms(history)
        assert names(found) == "non-finite" and name in found[0] and f"check {min(2, len(history))} " in found[0]


def test_trivial_from_the_start() -> None:
    close, found_all = HEALTHY | {"diag_pred_distance": 0.004, "diag_own_distance": 0.004}, HEALTHY | {"diag_pred_r1": 0.9}
    assert names(alarms([close])) == names(alarms([close, LATER])) == "trivial" and "0.004" in alarms([close])[0]
    assert names(alarms([found_all])) == "trivial" and "R@1 0.9" in alarms([found_all])[0]
    assert alarms([HEALTHY, close]) == alarms([HEALTHY, found_all]) == [], "an alarm only at the start: later it is the goal of training"
    two_labels = {"diag_r1_ceiling": 2 / 128, "diag_pred_r1": 2 / 128}
    assert alarms([HEALTHY | two_labels]) == [], "with two distinct answers the ceiling is close to chance and says nothing"


@pytest.mark.parametrize(("ratio", "what"), [(12.5, "drowns"), (0.004, "no effect"), (0.0, "no effect"), (math.inf, "drowns")])
def test_gradient_ratio_out_of_bounds(ratio: float, what: str) -> None:
    found = alarms([HEALTHY, HEALTHY | {"diag_grad_weighted": ratio}, HEALTHY | {"diag_grad_weighted": 0.5}])
    assert names(found) == "gradient-ratio" and what in found[0] and f"{ratio:.3g} times" in found[0] and "check 2" in found[0]


def test_the_worst_gradient_ratio_is_named_and_the_bounds_are_inside() -> None:
    assert alarms([HEALTHY | {"diag_grad_weighted": ratio} for ratio in (0.01, 1.0, 10.0)]) == []
    found = alarms([HEALTHY | {"diag_grad_weighted": ratio} for ratio in (11.0, 0.0001, 500.0)])  # 1 / 10,000 is further than 500
    assert len(found) == 1 and "check 2" in found[0]


def test_contraction_to_a_common_direction() -> None:
    healthy, drowned = states(common=0.1, content=1.0), states(common=5.0, content=0.5)
    assert healthy["diag_anisotropy_code"] < 0.1 and drowned["diag_anisotropy_code"] > 0.95 and drowned["diag_contrast"] > 0
    found = alarms([healthy, drowned])
    assert names(found) == "contraction" and all(f"{run['diag_contrast']:.3g}" in found[0] for run in (healthy, drowned))
    assert alarms([drowned]) == alarms([drowned, drowned]) == [], "a base may start like that; only the change matters"
    assert alarms([drowned, healthy]) == alarms([healthy, drowned, healthy]) == []


def test_a_mean_that_takes_all_the_energy_is_contraction_even_if_cosines_do_not_rise() -> None:
    before = HEALTHY | {"diag_mean_energy_code": 0.97}
    assert names(alarms([before, before | {"diag_contrast": 0.1}])) == "contraction"
    assert alarms([before, before | {"diag_contrast": 0.28}]) == [], "a drop of a few per cent is noise"
    assert alarms([HEALTHY, HEALTHY | {"diag_contrast": 0.1}]) == [], "pairs stand out less, but without a common direction"


def test_more_anisotropic_states_whose_pairs_stand_out_as_before_are_no_contraction() -> None:
    assert alarms([HEALTHY, HEALTHY | {"diag_anisotropy_text": 0.97, "diag_contrast": 0.3}]) == []
    fallen = HEALTHY | {"diag_anisotropy_text": 0.97}
    assert alarms([fallen, fallen | {"diag_anisotropy_text": 0.96, "diag_contrast": 0.01}]) == [], "high, but falling"


def test_a_low_rank_alone_is_no_alarm() -> None:
    """Only three of 64 directions, but pairs still stand out from others."""
    full, low = states(common=0.1, content=1.0), states(common=0.1, content=1.0, rank=3, noise=0.0)
    assert low["diag_rank_code"] < 4 < 40 < full["diag_rank_code"] and low["diag_contrast"] > 0.9
    assert alarms([full, low]) == []


def test_several_at_once_in_a_fixed_order() -> None:
    drowned = states(common=5.0, content=0.5) | {"diag_val_ce": math.nan, "diag_grad_weighted": 30.0}
    found = alarms([states(common=0.1, content=1.0) | {"diag_own_distance": 0.001}, drowned])
    assert names(found) == "non-finite;trivial;gradient-ratio;contraction" and all(": " in alarm for alarm in found)


STORED = Path(__file__).parent
"""`diag_*` of real trials, checks in order: `search_spaces/lora.yaml` with other methods (cosine and l2 at lambda 1 and 0.1 collapse)."""


def stored(kind: str) -> dict[str, list[dict[str, float]]]:
    runs: dict[str, list[dict[str, float]]] = json.loads((STORED / f"{kind}.json").read_text())
    for check in (check for run in runs.values() for check in run):
        check.update({key: math.nan for key, value in check.items() if value is None})
    return runs


@pytest.mark.parametrize("name", stored("collapsed"))
def test_real_runs_that_collapsed_raise_the_alarm(name: str) -> None:
    """Pairs did not stand out before training either (contrast -0.01), so the contrast could not shrink."""
    history = stored("collapsed")[name]
    assert history[-1]["diag_anisotropy_code"] > 0.97 and history[-1]["diag_rank_code"] < history[0]["diag_rank_code"] / 1.9
    found = alarms(history)
    assert "contraction" in names(found) and any(f"{history[-1]['diag_anisotropy_code']:.3g}" in alarm for alarm in found)
    assert "contraction" not in names(alarms(history[:1])), "before training nothing has contracted"


@pytest.mark.parametrize("name", stored("healthy"))
def test_real_runs_that_did_not_collapse_raise_none(name: str) -> None:
    history = stored("healthy")[name]
    assert history[-1]["diag_anisotropy_code"] < 0.95
    assert alarms(history) == []


def test_stored_runs_cover_what_they_are_to() -> None:
    assert len([name for name in stored("collapsed") if name.startswith("jepa/llama3")]) == 5, "the confirmation seeds of lora.yaml"
    methods = {name.partition("/")[0] for name in stored("healthy")}
    assert {"baseline", "infonce", "ema_mlp", "vicreg", "sigreg"} <= methods


def test_states_that_contract_evenly_and_keep_their_pairs_apart_are_no_collapse() -> None:
    """A narrow cone depends on the readout; within it, each Text still correlates with its own Code."""
    before = HEALTHY | {"diag_anisotropy_text": 0.8, "diag_anisotropy_code": 0.8, "diag_contrast": 0.02}
    after = before | {"diag_anisotropy_text": 0.96, "diag_anisotropy_code": 0.96, "diag_contrast": 0.02}
    assert correlation(before) == pytest.approx(0.1) and correlation(after) == pytest.approx(0.5)
    assert alarms([before, after]) == []
    assert names(alarms([before, after | {"diag_contrast": 0.001}])) == "contraction"


def test_a_contrast_within_the_noise_that_changes_its_sign_or_size_is_no_contraction() -> None:
    """The cone is as narrow as before; the contrast changes by noise only."""
    narrow = HEALTHY | {"diag_anisotropy_text": 0.96, "diag_anisotropy_code": 0.96, "diag_contrast": 0.001}
    for contrast in (-0.003, 0.0, 0.0005, 0.002):
        assert alarms([narrow, narrow | {"diag_anisotropy_code": 0.965, "diag_contrast": contrast}]) == []


def test_states_that_are_all_the_same_have_no_correlation() -> None:
    point = HEALTHY | {"diag_anisotropy_text": 1.0, "diag_anisotropy_code": 1.0 + 1e-12, "diag_contrast": 1e-17}
    assert correlation(point) == 0.0 and names(alarms([HEALTHY, point])) == "contraction"
    assert math.isnan(correlation({}))


UNIFORM = math.log(600)
"""Cross-entropy of a uniform guess over 600 tokens: 6.40."""


@pytest.mark.parametrize(
    ("before", "after", "fires"),
    [
        (0.5, UNIFORM, True),  # a learning rate of 1e12
        (0.5, 40.0, True),  # more confident than a uniform guess, and wrong
        (0.5, 4.0, True),  # has lost more than half of its lead
        (0.5, 1.5, False),  # overfitted
        (UNIFORM + 0.1, UNIFORM, True),  # random weights that learnt nothing
        (UNIFORM + 0.1, 5.9, False),
        (UNIFORM + 0.1, 0.4, False),
    ],
)
def test_a_model_that_predicts_no_better_than_a_uniform_guess_has_diverged(before: float, after: float, fires: bool) -> None:
    first, last = (HEALTHY | {"diag_val_ce": value, "diag_uniform_ce": UNIFORM} for value in (before, after))
    found = alarms([first, last])
    assert names(found) == ("diverged" if fires else "")
    assert not fires or all(f"{value:.3g}" in found[0] for value in (before, after, UNIFORM))
    assert alarms([first]) == alarms([last]) == [], "before training it concerns the base only"
    assert alarms([first, last, first | {"diag_val_ce": 0.4}]) == [], "the model has recovered"


def test_an_alarm_is_added_once() -> None:
    assert add_alarm(None, "non-finite") == add_alarm("", "non-finite") == add_alarm("non-finite", "non-finite") == "non-finite"
    assert add_alarm("trivial;contraction", "non-finite") == "non-finite;trivial;contraction"
