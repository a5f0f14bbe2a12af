"""The trained models of a sweep: where they are, and the facts about each in its `trial.json`.

    results/<name>/models/<arm>/seed-<N>/    a model that is kept: weights, tokenizer, README.md, trial.json
                   models/.waiting/<trial>/  one whose arm is still being confirmed: it is kept, or deleted, once the arm is complete

Arms are nested folders: `models/jepa/llama3/seed-82`. A folder appears complete or not at all. The trial writes weights, tokenizer and the
facts that it knows (`training/keeping.py`); the sweep adds why the model is kept, its scores and the verdict (`orchestration/keeping.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_ray.results.model_card import model_card
from jepa_ray.system import atomic

FACTS, CARD = "trial.json", "README.md"
WAITING = ".waiting"


@dataclass(frozen=True)
class KeptModel:
    """A trained model in a results folder."""

    folder: Path
    facts: Mapping[str, Any]
    """`trial.json`: arm, seed, trial_id, base, revision, config and more; see `training.keeping.facts_of`."""

    @property
    def arm(self) -> str:
        return str(self.facts.get("arm", ""))

    @property
    def seed(self) -> int:
        return int(self.facts["config"]["seed"])

    @property
    def trial_id(self) -> str:
        return str(self.facts["trial_id"])


def model_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where the model of an arm and seed is kept in the results folder `folder`."""
    return folder / "models" / arm / f"seed-{seed}"


def waiting_folder(folder: Path, trial_id: str) -> Path:
    """Where a trial writes its model before it is decided whether it is kept."""
    return folder / "models" / WAITING / trial_id


def read_model(folder: Path) -> KeptModel | None:
    """The model in a folder; None if there is none."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        model = KeptModel(folder, facts)
        return model if model.trial_id and model.seed >= 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kept_models(folder: Path) -> list[KeptModel]:
    """The models that the results folder `folder` keeps, by arm and seed."""
    paths = (folder / "models").rglob(f"seed-*/{FACTS}") if (folder / "models").is_dir() else ()
    places = [path.parent for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    models = [model for place in places if (model := read_model(place)) is not None]
    return sorted(models, key=lambda model: (model.arm, model.seed))


def add_facts(model: KeptModel, **more: Any) -> KeptModel:
    """The model with more facts, in its `trial.json` and its card. Writes nothing that has not changed."""
    facts = {**model.facts, **more}
    for name, text in ((FACTS, json.dumps(facts, indent=2, ensure_ascii=False) + "\n"), (CARD, model_card(facts))):
        path = model.folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            atomic.write_text(path, text)
    return KeptModel(model.folder, facts)
