"""A valid sweep file, and the properties of every refusal of an invalid one. For the tests of loading, checks and messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jepa_ray.plan.load import ConfigError, load_sweep

Write = Callable[..., Path]

SOUND = """\
name: sound
methods:
  baseline: none
  jepa: {distance: cosine, lambda: 1, k: 1}
space:
  learning_rate: {float: [1e-4, 1e-2], log: true}
  lambda: {float: [0.1, 8], log: true}
  k: {int: [0, 4]}
  loss_dropout: {choice: [0, 0.5], when: {k: [1, 2]}}
search: {algorithm: random, num_trials: 5}
base:
  lora: {r: 8}
  optim: {num_epochs: 2}
"""


def writer(folder: Path) -> Write:
    """write(text, name="sweep.yaml") -> path of the file in `folder`."""

    def write(text: str, name: str = "sweep.yaml") -> Path:
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return write


def refused(path: Path, *overrides: str) -> list[str]:
    """The sentences with which a file and overrides are refused. None may use the jargon of our libraries."""
    with pytest.raises(ConfigError) as error:
        load_sweep(path, overrides)
    assert str(path) in str(error.value) and "nothing was started" in str(error.value)
    text = "\n".join(error.value.messages).lower()
    for jargon in ("input should", "valid dictionary", "tuple", "validation", "pydantic", "config", "extra inputs", "string should"):
        assert jargon not in text.replace("validation metric", ""), f"{jargon!r} in a message for users:\n{text}"
    return error.value.messages


def refused_once(path: Path, override: str, beginning: str) -> None:
    """One mistake gives one sentence."""
    messages = refused(path, override)
    assert len(messages) == 1 and messages[0].startswith(beginning), "\n".join(messages)
