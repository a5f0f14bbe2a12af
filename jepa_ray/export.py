"""Command line: a kept model of a sweep, copied to a folder of its own, ready for Transformers, PEFT or the hub.

    python -m jepa_ray.export RESULTS --arm ARM [--seed N] [--merge] --to FOLDER

`--merge` adds LoRA adapters to the weights of their base, so that the folder needs no base. The folder appears complete or not at all.
Exit code 0, or 2 with one sentence. What a sweep keeps is decided by `confirm.keep`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jepa_ray.config.messages import folded
from jepa_ray.results import FACTS, KeptModel, add_facts, kept_models, model_damage, read_trials, unreadable_models
from jepa_ray.system import atomic, full_disk
from jepa_ray.system.digests import same_weights

OK, BAD_INPUT = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m jepa_ray.export", description="Copy a trained model out of a results folder.")
    parser.add_argument("results", metavar="RESULTS", type=Path, help="the sweep's folder, such as results/lora")
    parser.add_argument("--arm", required=True, help="the arm, such as jepa/llama3")
    parser.add_argument("--seed", type=int, help="if the arm has models of several seeds; otherwise the median")
    parser.add_argument("--merge", action="store_true", help="merge LoRA adapters into the weights of their base")
    parser.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="the folder to write, which must be new or empty")
    options = parser.parse_args(argv)
    try:
        model = choose(options.results, options.arm, options.seed)
        export(model, options.to, merge=options.merge)
    except ValueError as error:
        return _refused(str(error))
    except Exception as error:  # the libraries that write weights raise errors of their own
        if full_disk.is_full(error):
            return _refused(f"{options.to} cannot be written: the disk is full; nothing is left of it")
        if not isinstance(error, OSError):
            raise
        where, why = error.filename or options.to, error.strerror or str(error)
        return _refused(f"{where} cannot be read or written: {why}; nothing is left of {options.to}")
    print(f"{options.to}: {model.arm}, seed {model.seed}{', adapters merged' if options.merge else ''}; README.md shows how to load it")
    return OK


def _refused(sentence: str) -> int:
    print(folded(" ".join(sentence.split()), sys.stderr), file=sys.stderr)
    return BAD_INPUT


def choose(results: Path, arm: str, seed: int | None = None) -> KeptModel:
    """The kept model of an arm: that of `seed`, or the median. ValueError that names what there is, or how to get a model."""
    if not (results / "sweep.yaml").is_file():
        raise ValueError(f"{results} is not a results folder (it has no sweep.yaml): name results/NAME of a sweep")
    models = kept_models(results)
    seeds = {model.seed: model for model in models if model.arm == arm}
    if seed in seeds:
        return seeds[seed]
    middle = [model for model in seeds.values() if model.facts.get("median")]
    if seed is None and len(middle) == 1:
        return middle[0]
    known = ", ".join(map(str, seeds))
    for path in unreadable_models(results, arm):
        if seed is None or path.name == f"seed-{seed}":
            others = f"choose another seed with --seed from {known}, or " if seeds else ""
            raise ValueError(
                f"{path / FACTS} is missing or damaged, so nothing says what this model is; {others}restore the file from a copy, or "
                "train again (--fresh)"
            )
    again = "trials that are COMPLETE are not run again for their models, but a new sweep (--fresh) keeps its own"
    if not models:
        unsaved = _unsaved(results)
        if unsaved is not None:
            raise ValueError(f"{results} keeps no trained model: none could be saved when its trial ended ({unsaved}); {again}")
        raise ValueError(
            f"{results} keeps no trained model: the sweep has not ended its confirmation, or ran with confirm.keep=none. Finish it with "
            f"confirm.keep=best; {again}"
        )
    if not seeds:
        named = ", ".join(dict.fromkeys(model.arm for model in models))
        unsaved = _unsaved(results, arm)
        because = f": it could not be saved when its trial ended ({unsaved}); {again}" if unsaved is not None else ""
        raise ValueError(f"{results} has no model of arm {arm!r}{because}; arms with a model: {named}")
    if seed is not None:
        raise ValueError(f"{results} has no model of {arm} with seed {seed}; seeds with a model: {known}")
    if len(seeds) > 1:
        raise ValueError(f"{arm} has models of several seeds, but not of the median; choose with --seed from {known}")
    return next(iter(seeds.values()))


def _unsaved(results: Path, arm: str | None = None) -> str | None:
    """Why the models of confirmed trials (of an arm) could not be saved, as the tables say. None if they do not."""
    with contextlib.suppress(OSError, ValueError):  # a table that cannot be read says nothing
        trials = read_trials(results, ["arm", "stage", "model_error"])
        concerned = trials[(trials["stage"] == "confirm") & (trials["arm"] == arm if arm is not None else True)]
        return next(iter(concerned["model_error"].dropna()), None)
    return None


def export(model: KeptModel, to: Path, *, merge: bool = False) -> None:
    """Copy the model to the new or empty folder `to`. ValueError if that exists, or has no room, or if the model cannot be used so."""
    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        raise ValueError(f"{to} exists and is not an empty folder; name a new one with --to")
    if merge and not model.facts["adapter"]:
        raise ValueError(f"{model.arm}, seed {model.seed}, is a whole model: there are no adapters to merge; drop --merge")
    if not merge and _of_first_stage(model):
        raise ValueError(
            f"the base of {model.arm}, seed {model.seed}, is the checkpoint of its first stage, {model.facts['base']}, which is temporary: "
            "use --merge"
        )
    if damage := model_damage(model):
        raise ValueError(f"{model.folder} is no whole model: {damage}; restore it from a copy, or train again (--fresh)")
    _check_room(to, sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file()))
    with _parents(to), atomic.whole_folder(to) as building:
        if merge:
            _merge(model, building, to)
        else:
            shutil.copytree(model.folder, building, dirs_exist_ok=True)


@contextlib.contextmanager
def _parents(to: Path) -> Iterator[None]:
    """Within the block the folders above `to` may be made; if it raises, those that it has made are removed."""
    missing = list(itertools.takewhile(lambda parent: not parent.exists(), to.absolute().parents))
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for parent in missing:
                parent.rmdir()
        raise


def _merge(model: KeptModel, folder: Path, to: Path) -> None:
    """Write base and adapters as one model, with the other files of the kept model."""
    from jepa_ray.models.merging import merged

    facts = model.facts
    base, known = facts["base"], facts.get("base_sha")
    alone = "train again (--fresh)" if _of_first_stage(model) else "export the adapters alone, without --merge"
    if facts["local"] and not Path(base).is_dir():
        raise ValueError(f"{base}, the base of {model.arm}, seed {model.seed}, no longer exists; restore that folder, or {alone}")
    if known and Path(base).is_dir() and not same_weights(base, facts["revision"], known):
        raise ValueError(
            f"{base} has changed since {model.arm}, seed {model.seed}, was trained on it, so its adapters no longer fit; restore that "
            f"folder, or {alone}"
        )
    remote = bool(facts["config"]["model"]["trust_remote_code"])
    lm = merged(base, facts["revision"], model.folder, dtype=facts["dtype"], trust_remote_code=remote)
    _check_room(to, sum(weight.numel() * weight.element_size() for weight in lm.parameters()))
    lm.save_pretrained(folder)
    for path in model.folder.iterdir():
        if path.is_file() and not path.name.startswith("adapter_"):
            shutil.copy2(path, folder / path.name)
    add_facts(KeptModel(folder, facts), adapter=False, notes_on_scores=_notes_on_scores(facts))


def _notes_on_scores(facts: Mapping[str, Any]) -> list[str]:
    """What the card of a merged model says about the scores, which were measured before: nothing if the weights have all their digits."""
    if facts["dtype"] == "float32" or not facts.get("scores"):
        return []
    return [
        "The scores are those of the base with the adapters next to it, as it was trained; merging rounds the sum of both to "
        f"{facts['dtype']}, so some answers of this model may differ."
    ]


def _of_first_stage(model: KeptModel) -> bool:
    """Whether these are adapters on a first stage's checkpoint, as earlier versions kept them."""
    return bool(model.facts["adapter"]) and model.facts["config"]["pretrain"] is not None


def _check_room(to: Path, size: int) -> None:
    place = next(parent for parent in (to.absolute(), *to.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise ValueError(
            f"{to} needs {size / 1e9:.3g} GB, but {place} has {free / 1e9:.3g} GB free; free some, or name another disk with --to"
        )


if __name__ == "__main__":
    sys.exit(main())
