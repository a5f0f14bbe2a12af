"""Trackers whose packages are missing, and keys of `track` that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_ray.orchestration.studies import digest
from jepa_ray.plan.changes import changed
from jepa_ray.plan.checks import track as track_module
from jepa_ray.plan.load import ConfigError, dump, load_sweep
from jepa_ray.plan.strict_yaml import parse

SWEEP: dict[str, Any] = {"name": "a", "methods": {"base": "none", "jepa": {}}}
ALL = {"tensorboard": True, "mlflow": "sqlite:///mlflow.db", "wandb": {"project": "jepa"}}


def errors(track: Any) -> list[str]:
    try:
        load_sweep({**SWEEP, "track": track})
    except ConfigError as error:
        return error.messages
    return []


def test_a_missing_package_is_refused_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_module, "find_spec", lambda name: None)
    assert errors(ALL) == [
        f"track.{key}: the package {package} is not installed; pip install 'jepa-ray[{key}]', or drop this key"
        for key, package in (("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("wandb", "wandb"))
    ]
    assert errors({"tensorboard": False, "mlflow": "none", "wandb": None}) == errors(None) == []
    monkeypatch.setattr(track_module, "find_spec", lambda name: object())
    assert errors(ALL) == []


def test_every_extra_that_is_named_exists(repository: Any) -> None:
    import tomllib

    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(track_module.PACKAGES) | {"trackers"} <= set(extras)


@pytest.mark.parametrize(
    ("track", "reason"),
    [
        ({"mlflow": "https://me:secret@tracking.example"}, "contains a password"),
        ({"mlflow": "htp://me:secret@[x"}, "contains a password"),
        ({"wandb": {"mode": "offline"}}, "project"),
        ({"wandb": {"project": "a", "mode": "disabled"}}, "online"),
        ({"tensorbord": True}, "tensorbord"),
    ],
)
def test_what_cannot_be_is_refused(track: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_module, "find_spec", lambda name: object())
    (message,) = errors(track)
    assert reason in message and "secret" not in message


@pytest.mark.parametrize(
    "uri", ["", "htp://x", "foo", "./mlruns", "file:///mlruns", "s3://b/x", "sqlite:a.db", "sqlite:///", "http://", "uc:foo"]
)
def test_a_store_that_mlflow_does_not_write_to_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_module, "find_spec", lambda name: object())
    (message,) = errors({"mlflow": uri})
    assert message.startswith("track.mlflow: must be the address of a server (http://localhost:5000), a database (sqlite:///mlflow.db,")
    assert f"got {uri!r}" in message and ("refuses folders" in message) == (uri in ("foo", "./mlruns", "file:///mlruns"))


@pytest.mark.parametrize(
    "uri",
    [
        *("http://localhost:5000", "https://tracking.example/mlflow", "sqlite:///mlflow.db", "sqlite:////data/mlflow.db"),
        *("postgresql://me@host/db", "postgresql+psycopg2://host/db", "mysql+pymysql://host/db", "databricks", "databricks://profile"),
    ],
)
def test_every_kind_of_store_that_mlflow_writes_to_is_accepted(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_module, "find_spec", lambda name: object())
    assert load_sweep({**SWEEP, "track": {"mlflow": uri}}).track.mlflow == uri


def test_trackers_change_neither_a_sweep_nor_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_module, "find_spec", lambda name: object())
    plain, shown = load_sweep(SWEEP), load_sweep({**SWEEP, "track": ALL})
    assert digest(plain) == digest(shown)
    before, after = parse(dump(plain)), parse(dump(shown))
    assert before["track"] != after["track"] and changed(before, after) == []
    del before["track"]  # as earlier versions wrote it
    assert changed(before, after) == []
    assert load_sweep(after) == shown
    assert load_sweep(SWEEP, ["track.tensorboard=true"]).track.tensorboard
