"""Files of earlier versions, which lack keys that later versions have added."""

from __future__ import annotations

import yaml

from jepa_ray.plan.changes import ADDED, FORMER, changed
from jepa_ray.plan.load import dump, load_sweep


def test_a_key_added_since_is_no_change_at_its_default() -> None:
    new = yaml.safe_load(dump(load_sweep({"name": "s", "families": ["llama3"], "methods": {"baseline": None}})))
    old = yaml.safe_load(yaml.safe_dump(new))
    for *path, key in ADDED:
        branch = old
        for name in path:
            branch = branch[name]
        assert branch.pop(key) == ADDED[(*path, key)], "the default of today"
    assert old["base"]["optim"].pop("tokens_per_forward") is None
    assert changed(old, new) == []
    new["base"]["model"]["attention"] = "flex"
    assert changed(old, new) == [(("base", "model", "attention"), "auto", "flex")]


def test_a_default_that_was_a_number_is_no_change() -> None:
    new = yaml.safe_load(dump(load_sweep({"name": "s", "methods": {"baseline": None}})))
    old = yaml.safe_load(yaml.safe_dump(new))
    for *path, key in FORMER:
        at_old, at_new = old, new
        for name in path:
            at_old, at_new = at_old[name], at_new[name]
        assert at_new[key] is None, "the default of today"
        at_old[key] = FORMER[(*path, key)]
        assert changed(old, new) == changed(new, old) == []
        at_old[key] += 1
        assert changed(old, new) == [((*path, key), at_old[key], None)]


def test_which_models_are_kept_may_change_from_run_to_run() -> None:
    new = yaml.safe_load(dump(load_sweep({"name": "s", "families": ["llama3"], "methods": {"baseline": None}})))
    old = yaml.safe_load(yaml.safe_dump(new))
    assert old["confirm"].pop("keep") == "best", "files of earlier versions lack the key"
    assert changed(old, new) == []
    assert changed(old, new | {"confirm": new["confirm"] | {"keep": "none"}}) == []
    assert changed(old, new | {"confirm": new["confirm"] | {"margin": 0.02}}) == [(("confirm", "margin"), 0.01, 0.02)]
