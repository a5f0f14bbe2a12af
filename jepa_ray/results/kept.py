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
    """The model in a folder; None if there is none, or if its facts do not make a card."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        model = KeptModel(folder, facts)
        model_card(facts)
        return model if model.trial_id and model.seed >= 0 else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def kept_models(folder: Path) -> list[KeptModel]:
    """The models that the results folder `folder` keeps, by arm and seed."""
    paths = (folder / "models").rglob(f"seed-*/{FACTS}") if (folder / "models").is_dir() else ()
    places = [path.parent for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    models = [model for place in places if (model := read_model(place)) is not None]
    return sorted(models, key=lambda model: (model.arm, model.seed))


def unreadable_models(folder: Path, arm: str) -> list[Path]:
    """Folders in which an arm's models should be, but whose facts are missing or damaged; sorted."""
    return [path for path in sorted((folder / "models" / arm).glob("seed-*")) if path.is_dir() and read_model(path) is None]


def model_damage(model: KeptModel) -> str | None:
    """Which file of a model is missing or damaged, and how: `config.json is missing`. None: the structure of all files is sound.

    Of the weights only the header is read, which also says how long their file must be.
    """
    from safetensors import SafetensorError, safe_open

    adapter = bool(model.facts["adapter"])
    described, weights = ("adapter_config.json", "adapter_model.safetensors") if adapter else ("config.json", "model.safetensors")
    index = model.folder / f"{weights}.index.json"
    name = described
    try:
        for name in (described, *sorted(path.name for path in model.folder.glob("*.json"))):
            tree = json.loads((model.folder / name).read_text(encoding="utf-8"))
            if name == described and not (isinstance(tree, dict) and ("peft_type" if adapter else "model_type") in tree):
                raise ValueError("it describes no model")
        name = index.name
        needed = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())) if index.is_file() else [weights]
        for name in (*needed, *sorted(path.name for path in model.folder.glob("*.safetensors"))):
            if not (model.folder / name).stat().st_size:
                raise ValueError("it is empty")
            with safe_open(model.folder / name, "np"):
                pass
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        return f"{name} is damaged ({error})"
    return None


def add_facts(model: KeptModel, **more: Any) -> KeptModel:
    """The model with more facts, in its `trial.json` and its card. Writes nothing that has not changed."""
    facts = {**model.facts, **more}
    for name, text in ((FACTS, json.dumps(facts, indent=2, ensure_ascii=False) + "\n"), (CARD, model_card(facts))):
        path = model.folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            atomic.write_text(path, text)
    return KeptModel(model.folder, facts)
