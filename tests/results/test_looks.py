"""looks.json: grows by what is new, survives being read again, and is refused if damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jepa_ray.config import Comparison
from jepa_ray.results import LOOKS, looks_of, planned_seeds, read_arms, read_looks, record_look
from tests.analysis.sweeps import add

DEFAULT = [Comparison("jepa/llama3", "baseline/llama3", "claim")]


def test_a_look_holds_what_is_new(tmp_path: Path) -> None:
    assert read_looks(tmp_path) == []
    add(tmp_path, "baseline", "search", 0.5)
    record_look(tmp_path, "verdict", (82, 23), (), DEFAULT)
    assert not (tmp_path / LOOKS).exists(), "no confirmation, no look"
    first = {add(tmp_path, method, "confirm", 0.5, seed=seed): seed for method in ("baseline", "jepa") for seed in (82, 23)}
    record_look(tmp_path, "verdict", (82, 23), (), DEFAULT)
    record_look(tmp_path, "verdict", (82, 23), (), DEFAULT)  # the same command again shows nothing new
    (look,) = read_looks(tmp_path)
    assert look.trials == first and (look.why, look.seeds, look.race) == ("verdict", (82, 23), ())
    added = add(tmp_path, "jepa", "confirm", 0.5, seed=37)
    add(tmp_path, "jepa", "confirm", 0.5, seed=4, state="FAILED")
    record_look(tmp_path, "change", (82, 23, 37), (2, 3), DEFAULT, {"baseline/llama3"})
    assert len(read_looks(tmp_path)) == 1, "the new trial is of an arm whose comparison is incomplete"
    record_look(tmp_path, "change", (82, 23, 37), (2, 3), DEFAULT, {"jepa/llama3"})
    assert read_looks(tmp_path)[1].trials == {added: 37} and read_looks(tmp_path)[1].race == (2, 3)


def test_the_record_of_a_changed_folder_begins_with_its_guessed_looks(tmp_path: Path) -> None:
    """Otherwise the first record would hold all its trials, as if they had been seen at one look."""
    old = add(tmp_path, "baseline", "confirm", 0.5, seed=82)
    (tmp_path / "sweep-1.yaml").write_text("confirm: {seeds: [82]}")
    (tmp_path / "sweep.yaml").write_text("confirm: {seeds: [82, 23]}")
    (guessed,) = looks_of(tmp_path)
    assert guessed.guessed and guessed.seeds == (82,)
    new = add(tmp_path, "baseline", "confirm", 0.5, seed=23)
    record_look(tmp_path, "verdict", (82, 23), (), DEFAULT)
    first, second = looks_of(tmp_path)
    assert first == guessed and second.trials == {old: 82, new: 23}
    record_look(tmp_path, "verdict", (82, 23), (), DEFAULT)
    assert len(read_looks(tmp_path)) == 2


def test_a_change_before_anything_was_known_is_no_look(tmp_path: Path) -> None:
    """The search was extended, or the seeds were replaced before they ran: the record begins, and is empty."""
    add(tmp_path, "baseline", "search", 0.5)
    (tmp_path / "sweep-1.yaml").write_text("confirm: {seeds: [1, 2]}")
    (tmp_path / "sweep.yaml").write_text("confirm: {seeds: [82]}")
    record_look(tmp_path, "change", (1, 2), (), DEFAULT)
    assert looks_of(tmp_path) == []
    add(tmp_path, "baseline", "confirm", 0.5, seed=82)
    record_look(tmp_path, "verdict", (82,), (), DEFAULT)
    assert [look.why for look in looks_of(tmp_path)] == ["verdict"]


def test_planned_seeds_are_added_to_the_look_that_asked_for_them(tmp_path: Path) -> None:
    add(tmp_path, "baseline", "confirm", 0.5, seed=82)
    record_look(tmp_path, "verdict", (82,), (), DEFAULT)
    record_look(tmp_path, "verdict", (82,), (), DEFAULT, planned=(82, 7))
    record_look(tmp_path, "verdict", (82, 7), (), DEFAULT, planned=(82, 7))
    (look,) = read_looks(tmp_path)
    assert look.planned == (82, 7) and planned_seeds((82,), [look]) == (82, 7)


def test_a_claim_about_known_results_is_a_look_of_its_own(tmp_path: Path) -> None:
    """It may have been chosen for what they showed. A claim about an arm without results was not."""
    for method in ("baseline", "jepa", "infonce"):
        add(tmp_path, method, "confirm", 0.5, seed=82)
    record_look(tmp_path, "verdict", (82,), (), DEFAULT)
    both = [*DEFAULT, Comparison("infonce/llama3", "jepa/llama3", "claim")]
    record_look(tmp_path, "verdict", (82,), (), [*both, Comparison("new/llama3", "jepa/llama3", "claim")])
    first, second = read_looks(tmp_path)
    assert len(first.trials) == 3 and first.claims == (("jepa/llama3", "baseline/llama3"),)
    assert second.trials == {} and second.claims is not None and ("infonce/llama3", "jepa/llama3") in second.claims
    record_look(tmp_path, "verdict", (82,), (), [*both, Comparison("new/llama3", "infonce/llama3", "claim")])
    assert len(read_looks(tmp_path)) == 2


def test_a_look_of_an_earlier_version_had_each_method_against_its_baseline(tmp_path: Path) -> None:
    for method in ("baseline", "jepa"):
        add(tmp_path, method, "confirm", 0.5, seed=82)
    record_look(tmp_path, "verdict", (82,), (), DEFAULT)
    tree = json.loads((tmp_path / LOOKS).read_text())
    del tree["looks"][0]["claims"]
    (tmp_path / LOOKS).write_text(json.dumps(tree))
    (look,) = read_looks(tmp_path)
    assert look.claims is None and look.declared(read_arms(tmp_path)) == {("jepa/llama3", "baseline/llama3")}
    record_look(tmp_path, "verdict", (82,), (), DEFAULT)
    assert len(read_looks(tmp_path)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"looks": [{"seeds": 3}]}), '{"looks": [{"looked_at": "x"'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / LOOKS).write_text(text)
    with pytest.raises(ValueError, match=r"looks.json cannot be read \(\w+\).*remove it: then every earlier version"):
        read_looks(tmp_path)
