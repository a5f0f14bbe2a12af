"""What is compared with what: by default each method with its baseline, or as `claims` say; declared comparisons stay."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_ray.config import Arm, Comparison, SweepConfig, arms, comparisons, grown, possible

METHODS: dict[str, Any] = {"baseline": "none", "jepa": {}, "infonce": {"distance": "infonce"}}


def sweep_of(claims: Any = None, methods: dict[str, Any] = METHODS, **more: Any) -> SweepConfig:
    return SweepConfig.model_validate({"name": "x", "methods": methods, "claims": claims, **more})


def pairs(declared: list[Arm], **options: bool) -> list[str]:
    return [f"{one.arm} - {one.other}".replace("/llama3", "") for one in comparisons(declared, **options)]


def test_each_method_against_its_baseline_by_default() -> None:
    assert pairs(arms(sweep_of(controls=["shuffled"]))) == [
        "jepa - baseline",
        "infonce - baseline",
        "jepa-shuffled - baseline",
        "infonce-shuffled - baseline",
    ]


def test_any_two_methods_as_the_file_says() -> None:
    """Controls keep to their baseline, unless a claim names the very pair."""
    asked = arms(sweep_of([["infonce", "jepa"], ["jepa", "jepa-shuffled"]], controls=["shuffled"]))
    assert pairs(asked, controls=False) == ["jepa - jepa-shuffled", "infonce - jepa"]
    assert pairs(asked) == ["jepa - jepa-shuffled", "infonce - jepa", "jepa-shuffled - baseline", "infonce-shuffled - baseline"]
    named = arms(sweep_of([["jepa-shuffled", "baseline"]], controls=["shuffled"]))
    assert [one for one in comparisons(named) if one.arm == "jepa-shuffled/llama3"] == [
        Comparison("jepa-shuffled/llama3", "baseline/llama3", "claim")
    ]


def test_all_means_every_two_methods_within_a_family_and_task() -> None:
    declared = arms(sweep_of("all", controls=["stop_token"]))
    assert len(comparisons(declared, controls=False)) == 3, "baselines that a control adds are no methods"
    declared = arms(sweep_of("all", families=["llama3", "gemma2"], controls=["shuffled"]))
    assert len(comparisons(declared, controls=False)) == 2 * 3 and possible(declared) == 2 * 10
    assert pairs(declared, controls=False)[:3] == ["jepa - baseline", "infonce - baseline", "infonce - jepa"]
    assert all(one.arm.split("/")[1] == one.other.split("/")[1] for one in comparisons(declared))


def test_methods_need_no_baseline_to_be_compared() -> None:
    declared = arms(sweep_of("all", methods={"jepa": {}, "infonce": {"distance": "infonce"}}))
    assert pairs(declared) == ["infonce - jepa"] and all(arm.baseline is None for arm in declared)


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ([["jepa", "nothing"]], "claims: 'nothing' is not a method of this sweep; its methods are baseline, jepa, infonce"),
        ([["jepa", "jepa"]], "claims: 'jepa' is compared with itself; name two methods"),
        ([["jepa", "infonce"], ["infonce", "jepa"]], "claims: 'infonce' and 'jepa' are compared twice; drop one of the two pairs"),
        (["jepa", "baseline"], "must be `all`, or pairs of methods such as [[infonce, jepa], [jepa, baseline]]"),
        ([["jepa"]], "must be `all`, or pairs of methods"),
        ("All", "must be `all`, or pairs of methods"),
    ],
)
def test_claims_that_nothing_can_settle(claims: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        sweep_of(claims)
    assert sentence in str(caught.value)


def test_an_extension_adds_comparisons_and_drops_none() -> None:
    first, asked = arms(sweep_of()), arms(sweep_of([["infonce", "jepa"]]))
    assert pairs(grown(first, asked)) == ["jepa - baseline", "infonce - baseline", "infonce - jepa"]
    assert pairs(grown(asked, first)) == ["jepa - baseline", "infonce - jepa", "infonce - baseline"]
    assert pairs(grown(asked, arms(sweep_of([["jepa", "infonce"]])))) == ["infonce - jepa"], "the same pair the other way round"
    assert grown(first, first) == first and grown(asked, asked) == asked


def test_a_new_baseline_changes_no_comparison() -> None:
    first = arms(sweep_of())
    moved = arms(sweep_of(methods={"other": "none", **METHODS}))
    assert pairs(moved)[0] == "jepa - other" and pairs(grown(first, moved)) == pairs(first)
    alone = arms(sweep_of(methods={"jepa": {}}))
    assert pairs(alone) == [] and pairs(grown(alone, first)) == ["jepa - baseline", "infonce - baseline"]
