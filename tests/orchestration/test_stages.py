"""The best trial of an arm when the sweep goes on with other resources, and when the study and the tables disagree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jepa_ray import results
from jepa_ray.config import SweepConfig, arms, config_id
from jepa_ray.orchestration.cluster import Interrupt, Stored
from jepa_ray.orchestration.jobs import confirmation
from jepa_ray.orchestration.stages import Identities, Search
from jepa_ray.plan import trial_config
from tests import fake_training as fake
from tests.orchestration.test_run import finish


def search_of(sweep: SweepConfig, folder: Path, place: str = "") -> Search:
    """The search as it is on other workers: the identity of their data ends with `place`."""
    folder.mkdir(parents=True, exist_ok=True)
    stored: Any = Stored(fake.SHA + place, {}, [])
    return Search(sweep, folder, arms(sweep), Identities(folder, {("llama3", "nl-rx"): stored}), fake.Heard(), Interrupt())  # type: ignore[arg-type]


def searched(folder: Path) -> SweepConfig:
    sweep = fake.make_sweep(folder, search={"num_trials": 2})
    search = search_of(sweep, folder)
    while (job := search.next()) is not None:
        finish(search, job)
    return sweep


def test_a_search_on_other_workers_can_be_confirmed(tmp_path: Path) -> None:
    sweep = searched(tmp_path)
    before, after = search_of(sweep, tmp_path).best(), search_of(sweep, tmp_path, " 2 workers on GPUs").best()
    assert set(before) == {"base/llama3", "jepa/llama3"}
    assert {arm: config for arm, (_, config) in before.items()} == {arm: config for arm, (_, config) in after.items()}


def test_a_study_that_contradicts_the_tables_is_not_confirmed(tmp_path: Path) -> None:
    sweep = searched(tmp_path)
    row = search_of(sweep, tmp_path).best()["jepa/llama3"][0]
    file = tmp_path / "trials" / f"{row['trial_id']}.parquet"
    table = pq.read_table(file)
    at = table.schema.get_field_index("learning_rate")
    pq.write_table(table.set_column(at, table.schema.field(at), [[0.5]]), file)
    with pytest.raises(ValueError, match=r"study\.db and trials disagree about optim\.learning_rate of .*; move study\.db elsewhere"):
        search_of(sweep, tmp_path).best()


def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its rows have the ids of that version, which identified weights by samples. They count unless the weights were written later."""
    sweep = searched(tmp_path)
    rows = results.finished(tmp_path)

    def now(written: str) -> Identities:
        stored = Stored("whole digest", former=fake.SHA, written=written)
        return Identities(tmp_path, {("llama3", "nl-rx"): stored})

    def ids(identify: Identities) -> set[str]:
        by_arm = {arm.name: arm for arm in arms(sweep)}
        params = {key: search_of(sweep, tmp_path).studies[row["arm"]].params(key) for key, row in rows.items()}
        return {identify(row["arm"], trial_config(sweep, by_arm[row["arm"]], params[key])) for key, row in rows.items()}

    assert len(rows) == 4 and ids(now("")) == set(rows)
    assert ids(now("2001-01-01T00:00:00+00:00")) == set(rows)
    assert not ids(now("2999-01-01T00:00:00+00:00")) & set(rows)
    config = confirmation(trial_config(sweep, arms(sweep)[0], {}), 7)  # not in the folder yet
    assert now("")(arms(sweep)[0].name, config) == config_id(config, "whole digest")
