"""Facts of an invented model, a folder with it, and what the code of a card answers. For the tests of kept models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jepa_ray.config import LoraConfig, ModelConfig, ObjectiveConfig, TrialConfig, canonical
from jepa_ray.results import FACTS, KeptModel

Messages = list[dict[str, str]]

RUN = """
import contextlib, io, json, os, re, sys

out = []
for folder, conversations in json.load(sys.stdin):
    os.chdir(folder)
    loading, asking = re.findall(r"```python\\n(.*?)```", open("README.md", encoding="utf-8").read(), re.DOTALL)
    names = {}
    exec(loading, names)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(asking, names)
    out.append([names["answer"](messages) for messages in conversations])
print(json.dumps([out, sorted(name for name in sys.modules if name.startswith("jepa_ray"))]))
"""


def answers(asked: Sequence[tuple[Path, Sequence[Messages]]], path: str = "") -> tuple[list[list[str]], list[str]]:
    """The answers that the code of each folder's card gives, in a process of its own, and the modules of jepa_ray that this imports.

    `path`: PYTHONPATH of that process.
    """
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN],
        input=json.dumps([(str(folder), list(conversations)) for folder, conversations in asked]),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    texts, modules = json.loads(done.stdout.splitlines()[-1])
    return texts, modules


def conversation(system: str, question: str, *, system_role: bool = True) -> Messages:
    """The messages of a prompt, in the roles that a family has."""
    if not system_role:
        return [{"role": "user", "content": f"{system}\n\n{question}"}]
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def facts(trial_id: str = "0123456789abcdef", **changes: Any) -> dict[str, Any]:
    """What a trial writes of its model (`training.keeping.facts_of`)."""
    config = TrialConfig(
        model=ModelConfig(family="llama3", model="org/model"), lora=LoraConfig(r=4), objective=ObjectiveConfig(k=2), seed=82
    )
    return {
        "trial_id": trial_id,
        "jepa_ray": "1.2.3",
        "model_type": "llama",
        "base": "org/model",
        "revision": "abc",
        "local": False,
        "base_name": "org/model",
        "hub": True,
        "adapter": True,
        "dtype": "float32",
        "predictor": {"file": "predictor.safetensors", "use": "They go after the Text view."},
        "prompt": {
            "own": True,
            "front": "",
            "template_kwargs": {"date_string": "26 Jul 2024"},
            "turn_end": "<|eot_id|>",
            "system_role": True,
            "max_new_tokens": 64,
        },
        "config": canonical(config),
        **changes,
    }


def put(folder: Path, known: Mapping[str, Any], weights: str = "weights") -> KeptModel:
    """A folder with these facts and a file in place of the weights."""
    folder.mkdir(parents=True)
    (folder / FACTS).write_text(json.dumps(known))
    (folder / "model.safetensors").write_text(weights)
    return KeptModel(folder, known)
