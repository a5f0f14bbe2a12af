"""Which models a sweep keeps: the median of each arm's confirmation, also after failures, extensions and kills at any point."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from jepa_ray import plan, results
from jepa_ray.config import SweepConfig, TrialConfig, arms, canonical, config_id
from jepa_ray.orchestration import keeping
from jepa_ray.orchestration.cluster import Interrupt
from jepa_ray.orchestration.jobs import confirmation
from jepa_ray.orchestration.keeping import add_verdict, check_room, clean, median, nearest, settle
from jepa_ray.orchestration.stages import FixedJobs
from jepa_ray.orchestration.studies import digest
from jepa_ray.results import TrialResult, kept_models, waiting_folder
from jepa_ray.system import atomic
from tests import fake_training as fake
from tests.model_cards import facts, put

ARM = "jepa/llama3"


def identify(arm: str, config: TrialConfig) -> str:
    return config_id(config, f"{fake.SHA} of {arm}")


class Sweep:
    """A sweep whose trials have ended: scores by seed, and models that wait."""

    def __init__(self, folder: Path, keep: str = "best", rate: float = 0.01) -> None:
        self.folder, self.said = folder, list[str]()
        self.sweep = self.with_seeds((1, 2, 3), keep)
        self.selection = {
            arm.name: plan.trial_config(self.sweep, arm, {"optim.learning_rate": rate}) for arm in arms(self.sweep) if arm.name == ARM
        }

    def with_seeds(self, seeds: tuple[int, ...], keep: str = "best") -> SweepConfig:
        self.sweep = fake.make_sweep(self.folder, confirm={"seeds": seeds, "keep": keep}, base={"seed": 99})
        return self.sweep

    def ran(self, seed: int, score: float | None, *, model: bool = True, state: str = "COMPLETE", error: str | None = None) -> str:
        """A confirmed trial; returns its id."""
        config = confirmation(self.selection[ARM], seed)
        identity = identify(ARM, config)
        result = TrialResult(state, None, {"test_accuracy": score, "model_error": error, "dataset_sha": "d1gest"})  # type: ignore[arg-type]
        results.write_trial(self.folder, identity, config, ARM, "confirm", result)
        if model:
            self.waits(seed)
        return identity

    def waits(self, seed: int) -> None:
        config = confirmation(self.selection[ARM], seed)
        identity = identify(ARM, config)
        put(waiting_folder(self.folder, identity), facts(identity, config=canonical(config)), weights=identity)

    def settle(self) -> dict[int, str]:
        """Seed -> trial of the kept models, after checking that each folder has its own trial's weights and a card."""
        clean(self.sweep, self.folder)
        settle(self.sweep, self.folder, self.selection, identify, self.said.append)
        models = kept_models(self.folder)
        for model in models:
            assert (model.folder / "model.safetensors").read_text() == model.trial_id
            assert f"# {ARM}, seed {model.seed}" in (model.folder / "README.md").read_text()
        assert not list((self.folder / "models").rglob(".*.tmp"))
        return {model.seed: model.trial_id for model in models}

    def waiting(self) -> int:
        folder = waiting_folder(self.folder, "")
        return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_the_median_of_odd_even_and_equal_scores() -> None:
    assert median({5: 0.1, 6: 0.3, 7: 0.2}) == 7
    assert median({5: 0.4, 6: 0.3, 7: 0.2, 8: 0.1}) == 7, "the lower median of an even number"
    assert median({5: 0.3, 6: 0.2, 7: 0.2, 8: 0.1}) == 6, "the first of equal ones"
    assert median({9: 0.5}) == 9
    scores = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.35, 5: 0.4}
    assert (nearest(scores, [1, 3, 5]), nearest(scores, [2, 4]), nearest({1: 0.1, 2: 0.2, 3: 0.3}, [3, 1])) == (3, 4, 3)


def test_best_keeps_the_median_and_deletes_the_others(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    middle = [sweep.ran(seed, score) for seed, score in ((1, 0.3), (2, 0.1), (3, 0.2))][2]
    assert sweep.settle() == {3: middle} and sweep.waiting() == 0
    assert len(sweep.said) == 1 and "the model of seed 3 is in " in sweep.said[0] and "1: 0.3000, 2: 0.1000, 3: 0.2000" in sweep.said[0]
    (model,) = kept_models(tmp_path)
    assert model.folder == tmp_path / "models" / "jepa" / "llama3" / "seed-3" and model.facts["median"] is True
    assert model.facts["kind"] == "claim" and "as their number is even" not in model.facts["why"]
    assert model.facts["dataset_sha"] == "d1gest" and model.facts["scores"] == {"test_accuracy": 0.2}
    before = model.folder.stat().st_ino
    assert sweep.settle() == {3: middle} and model.folder.stat().st_ino == before and len(sweep.said) == 1, "nothing is done twice"


def test_seeds_that_failed_do_not_count_and_all_keeps_every_seed(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "best")
    sweep.ran(1, None, state="FAILED")
    low = sweep.ran(2, 0.1)
    sweep.ran(3, 0.2)
    assert sweep.settle() == {2: low} and sweep.waiting() == 0
    why = "Its test accuracy is the median of 2 seeds (2: 0.1000, 3: 0.2000), the lower of the two in the middle, as their number is even."
    assert kept_models(sweep.folder)[0].facts["why"] == why
    sweep = Sweep(tmp_path / "all", keep="all")
    trials = {seed: sweep.ran(seed, score) for seed, score in ((1, 0.3), (2, 0.1), (3, 0.2))}
    assert sweep.settle() == trials and [model.facts["median"] for model in kept_models(sweep.folder)] == [False, False, True]
    sweep.with_seeds((1, 2, 3), keep="best")
    assert sweep.settle() == trials, "what was asked for with all is not deleted"


def test_more_seeds_move_the_median_and_the_one_before_is_deleted_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(tmp_path)
    before = [sweep.ran(seed, score) for seed, score in ((1, 0.1), (2, 0.2), (3, 0.3))][1]
    assert sweep.settle() == {2: before}
    sweep.with_seeds((1, 2, 3, 4, 5))
    sweep.ran(4, 0.15)
    after = sweep.ran(5, 0.18)
    there: list[set[int]] = []
    real = atomic.discard

    def watched(folder: Path) -> None:
        there.append({model.seed for model in kept_models(tmp_path)})
        real(folder)

    monkeypatch.setattr(atomic, "discard", watched)
    assert sweep.settle() == {5: after}
    assert there[0] == {2, 5}, "the new median is in its place before the old one goes"


def test_a_median_whose_model_is_gone_is_said_and_the_nearest_stays(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    before = [sweep.ran(seed, score) for seed, score in ((1, 0.1), (2, 0.2), (3, 0.3))][1]
    sweep.settle()
    sweep.with_seeds((1, 2, 3, 4, 5))
    sweep.ran(4, 0.45)
    sweep.ran(5, 0.5)
    assert sweep.settle() == {2: before}
    assert "seed 3 is the median now, but it has no model" in sweep.said[-1] and "the model of seed 2" in sweep.said[-1]
    assert "The median of the test accuracies of 5 seeds is that of seed 3" in kept_models(tmp_path)[0].facts["why"]


def test_trials_without_a_model_are_said_in_a_sentence_with_the_reason(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.ran(1, 0.1, model=False, error="No space left on device")
    assert sweep.settle() == {}
    assert sweep.said == [f"{ARM}: no model can be kept, as it could not be saved (No space left on device)."]
    sweep = Sweep(tmp_path / "none before")
    sweep.ran(1, 0.1, model=False)
    sweep.settle()
    assert "as it was not kept when the trial ran" in sweep.said[0] and len(sweep.said) == 1
    sweep = Sweep(tmp_path / "all", keep="all")
    sweep.ran(1, 0.1, model=False)
    two = sweep.ran(2, 0.1)
    assert sweep.settle() == {2: two} and sweep.said[0].startswith(f"{ARM}: no model of seed 1, as it was not kept")


def test_a_kept_model_whose_facts_are_lost_is_said(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.ran(2, 0.2)
    sweep.settle()
    path = kept_models(tmp_path)[0].folder / "trial.json"
    path.write_text("{")
    assert sweep.settle() == {} and sweep.said[-1] == f"{ARM}: no model can be kept, as {path} is missing or damaged."


def test_a_model_that_could_not_be_saved_is_said_when_its_trial_ends(tmp_path: Path) -> None:
    sweep, heard = Sweep(tmp_path), fake.Heard()
    jobs = FixedJobs(
        sweep.sweep,
        tmp_path,
        identify,  # type: ignore[arg-type]
        "confirm",
        [(ARM, confirmation(sweep.selection[ARM], seed)) for seed in (1, 2)],
        listener=heard,
        interrupt=Interrupt(),
    )
    for reason in ("No space left on device", None):
        job = jobs.next()
        assert job is not None and job.model == waiting_folder(tmp_path.resolve(), job.trial_id)
        jobs.finished(job, {"state": "COMPLETE", "model_error": reason})
    said = [event[1] for event in heard.events if event[0] == "say"]
    assert said == [f"{ARM} seed 1 is COMPLETE, but its model could not be saved: No space left on device"]


def test_another_configuration_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """After --extend an arm's frozen configuration may change; the seeds, and so the folders, stay the same."""
    first = Sweep(tmp_path)
    first.ran(2, 0.2)
    first.settle()
    second = Sweep(tmp_path, rate=0.02)
    for seed, score in ((1, 0.5), (2, 0.6), (3, 0.7)):
        second.ran(seed, score)
    (middle,) = second.settle().values()
    assert middle == identify(ARM, confirmation(second.selection[ARM], 2)) and second.waiting() == 0


@pytest.mark.parametrize("at", range(8))
def test_a_kill_at_any_point_leaves_whole_models_and_the_next_run_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    sweep = Sweep(tmp_path)
    sweep.ran(1, 0.1)
    sweep.settle()
    sweep.with_seeds((1, 2, 3))
    middle = sweep.ran(2, 0.2)
    sweep.ran(3, 0.3)

    class Killed(BaseException):
        pass

    calls = 0

    def dying(name: str) -> Any:
        real = getattr(atomic.os if name == "replace" else shutil, name)

        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > at:
                raise Killed
            return real(*arguments, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", dying("replace"))
        patch.setattr(atomic.shutil, "rmtree", dying("rmtree"))
        try:
            sweep.settle()
        except Killed:
            for model in kept_models(tmp_path):
                assert (model.folder / "model.safetensors").read_text() == model.trial_id
    assert sweep.settle() == {2: middle} and sweep.waiting() == 0
    assert calls > at or at >= 6


def test_none_keeps_what_there_is_and_drops_what_waits(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    kept = sweep.ran(2, 0.2)
    sweep.settle()
    sweep.with_seeds((1, 2, 3), keep="none")
    sweep.ran(1, 0.1)
    assert sweep.settle() == {2: kept} and sweep.waiting() == 0


def test_a_model_of_an_arm_that_is_not_confirmed_now_goes_on_waiting(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.ran(1, 0.1)
    selection, sweep.selection = sweep.selection, {}
    assert sweep.settle() == {} and sweep.waiting() == 1
    sweep.selection = selection
    assert list(sweep.settle()) == [1]


def test_a_disk_without_room_is_refused_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(tmp_path)
    both = arms(sweep.sweep)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(keeping.shutil, "disk_usage", lambda _: usage(0, 0, int(5.5e9)))
    sizes = {("llama3", "nl-rx"): 1e9}
    with pytest.raises(ValueError) as refused:
        check_room(sweep.sweep, tmp_path, both, sizes)
    sentence = str(refused.value)
    assert "6 confirmed trials (2 arms, 1 GB each" in sentence and "up to 6 GB until the median" in sentence and "5.5 GB free" in sentence
    assert "output=" in sentence and "confirm.keep=none" in sentence and "\n" not in sentence
    sweep.ran(1, 0.1)  # one of them has been run
    check_room(sweep.sweep, tmp_path, both, sizes)
    check_room(sweep.with_seeds((1, 2, 3, 4), keep="none"), tmp_path, both, {("llama3", "nl-rx"): 0.0})


def test_a_folder_that_cannot_be_written_is_refused_before_any_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    sweep = Sweep(tmp_path)
    sizes, both = {("llama3", "nl-rx"): 1e3}, arms(sweep.sweep)
    check_room(sweep.sweep, tmp_path, both, sizes)
    monkeypatch.setattr(keeping.tempfile, "TemporaryFile", read_only)
    with pytest.raises(ValueError, match=r"cannot be written to .*models \(Read-only file system\); make it writable, or keep no model"):
        check_room(sweep.sweep, tmp_path, both, sizes)
    check_room(sweep.sweep, tmp_path, both, {("llama3", "nl-rx"): 0.0})  # no model, no check


def test_the_verdict_is_written_into_the_cards_that_it_is_about(tmp_path: Path) -> None:
    assert add_verdict(tmp_path, []) == []
    sweep = Sweep(tmp_path)
    sweep.ran(2, 0.2)
    sweep.settle()
    told = [((ARM, "base/llama3"), ["better: it is", "    equal FLOPs: so"]), (("l2/llama3", "base/llama3"), ["worse"]), ((), ["absent"])]
    (line,) = add_verdict(tmp_path, told)  # type: ignore[arg-type]
    card = (kept_models(tmp_path)[0].folder / "README.md").read_text()
    assert "- better: it is\n- equal FLOPs: so\n" in card and "worse" not in card and "absent" not in card
    assert f"({ARM}); " in line and f"jepa_ray.export {tmp_path} --arm ARM" in line


def test_what_is_kept_is_no_part_of_a_sweeps_identity(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    assert len({digest(sweep.with_seeds((1, 2), keep)) for keep in ("best", "all", "none")}) == 1
    assert digest(sweep.with_seeds((1, 2))) != digest(sweep.with_seeds((1, 3)))
