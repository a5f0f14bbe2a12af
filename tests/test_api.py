"""The Python API and the console command: what a notebook and a shell call."""

from __future__ import annotations

import runpy
import sys
import threading
from collections import UserDict
from pathlib import Path
from typing import Any

import pytest

import jepa_ray
from jepa_ray.orchestration.cluster import signals
from jepa_ray.plan.load import load_sweep
from jepa_ray.sweep import COMMANDS, command
from tests.analysis import sweeps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "sweep.yaml").write_text(sweeps.SWEEP)
    return sweeps.full(tmp_path / "lora")


def test_tables_and_verdict_of_a_folder(folder: Path) -> None:
    results = jepa_ray.open_results(folder)
    assert set(results.trials["arm"]) <= set(results.arms["arm"]) and len(results.trials) > 3
    assert {"arm", "method", "family", "task", "kind", "baseline", "against"} == set(results.arms)
    assert set(results.metrics["trial_id"]) == set(results.trials["trial_id"]) >= set(results.predictions["trial_id"])
    verdict = results.verdict()
    assert len(verdict) and set(verdict["verdict"]) <= {"better", "worse", "equivalent", "undecided"}
    assert verdict["sentence"].str.len().min() > 20


def test_what_is_not_a_results_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a results folder .*run a sweep first"):
        jepa_ray.open_results(tmp_path / "lora")


def test_a_dictionary_is_checked_like_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)the sweep: 2 errors.*search.num_trials.*famlies"):
        jepa_ray.run(
            {"name": "x", "famlies": ["llama3"], "methods": {"base": "none"}, "search": {"num_trials": 0}, "output": str(tmp_path)}
        )
    assert not list(tmp_path.iterdir())


def test_a_verdict_without_confirmation_or_of_a_damaged_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "sweep.yaml").write_text(sweeps.SWEEP)
    with pytest.raises(ValueError):
        jepa_ray.open_results(tmp_path / "empty").verdict()
    next((folder / "trials").iterdir()).write_bytes(b"PAR1junk")
    with pytest.raises(ValueError, match="cannot be read"):
        jepa_ray.open_results(folder).verdict()


def test_other_mappings_and_sequences_mean_what_dictionaries_and_lists_mean() -> None:
    tree = {"name": "x", "families": ("llama3",), "methods": UserDict(base="none"), "base": UserDict(model={"init": "random"})}
    sweep = load_sweep(UserDict(tree), ["base.seed=5"])
    assert (sweep.base.model.init, sweep.base.seed, sweep.families) == ("random", 5, ("llama3",))
    with pytest.raises(ValueError, match="unknown family 'nope'"):
        load_sweep(tree | {"families": ("nope",)})
    with pytest.raises(ValueError, match="is not text of the form key=value"):
        load_sweep(tree, [{"name": "y"}])  # type: ignore[list-item]


def test_a_sweep_may_run_outside_the_main_thread() -> None:
    """Signals stay with whoever has them: Python lets the main thread alone handle them."""
    caught: list[Exception] = []

    def work() -> None:
        try:
            with signals() as interrupt:
                interrupt.install()
                interrupt.check()
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert not caught and not thread.is_alive()


def test_nothing_else_is_handed_on() -> None:
    assert dir(jepa_ray) == ["Results", "__version__", "open_results", "run"]
    with pytest.raises(AttributeError, match="no attribute 'sweeps'"):
        _ = jepa_ray.sweeps  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_main(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["jepa-ray", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 0 and "usage" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--help"], 0), (["swep"], 2)])
def test_the_command_alone_lists_the_others(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["jepa-ray", *arguments])
    assert command() == code
    printed: Any = capsys.readouterr()
    text = printed.err if code else printed.out
    assert all(f"  {name}" in text for name in COMMANDS) and ("unknown command 'swep'" in text) == bool(code)


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["swep"], 2), (["export", "nowhere", "--arm", "a", "--to", "b"], 2)])
def test_the_package_runs_as_the_command_does(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m jepa_ray`."""
    printed = []
    for run in (command, lambda: runpy.run_module("jepa_ray", run_name="__main__")):
        monkeypatch.setattr(sys, "argv", ["jepa-ray", *arguments])
        try:
            ended = run()
        except SystemExit as stop:
            ended = stop.code
        printed.append((ended, *capsys.readouterr()))
    assert printed[0] == printed[1] and printed[0][0] == code and any(printed[0][1:])


def test_a_shipped_search_space_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a wheel the search spaces are inside the package; a file of the same name in the current folder comes first."""
    from jepa_ray.plan import load

    package, here = tmp_path / "package", tmp_path / "here"
    for folder in (package / "search_spaces" / "paper", here):
        folder.mkdir(parents=True)
    (package / "search_spaces" / "lora.yaml").touch()
    monkeypatch.setattr(load, "__file__", str(package / "plan" / "load.py"))
    monkeypatch.chdir(here)
    for name in ("search_spaces/lora.yaml", "lora.yaml"):
        assert load.shipped(name) == package / "search_spaces" / "lora.yaml"
    assert load.shipped("other.yaml") == Path("other.yaml")
    Path("lora.yaml").touch()
    assert load.shipped("lora.yaml") == Path("lora.yaml")
