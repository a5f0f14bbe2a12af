"""Command line: a kept model of a sweep, copied to a folder of its own, ready for Transformers, PEFT or the hub.

    python -m jepa_ray.export RESULTS --arm ARM [--seed N] [--merge] --to FOLDER

`--merge` adds LoRA adapters to the weights of their base, so that the folder needs no base. The folder appears complete or not at all.
Exit code 0, or 2 with one sentence. What a sweep keeps is decided by `confirm.keep`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from jepa_ray.config.messages import folded
from jepa_ray.results import KeptModel, add_facts, kept_models
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
        print(folded(str(error), sys.stderr), file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        why = "the disk is full" if full_disk.is_full(error) else error.strerror or str(error)
        print(folded(f"{options.to} cannot be written: {why}; nothing is left of it", sys.stderr), file=sys.stderr)
        return BAD_INPUT
    print(f"{options.to}: {model.arm}, seed {model.seed}{', adapters merged' if options.merge else ''}; README.md shows how to load it")
    return OK


def choose(results: Path, arm: str, seed: int | None = None) -> KeptModel:
    """The kept model of an arm: that of `seed`, or the median. ValueError that names what there is, or how to get a model."""
    if not (results / "sweep.yaml").is_file():
        raise ValueError(f"{results} is not a results folder (it has no sweep.yaml): name results/NAME of a sweep")
    models = kept_models(results)
    if not models:
        raise ValueError(
            f"{results} keeps no trained model: the sweep has not ended its confirmation, or ran with confirm.keep=none. Finish it with "
            "confirm.keep=best; trials that are already COMPLETE are not run again for their models, which a new sweep (--fresh) would keep"
        )
    seeds = {model.seed: model for model in models if model.arm == arm}
    if not seeds:
        named = ", ".join(dict.fromkeys(model.arm for model in models))
        raise ValueError(f"{results} has no model of arm {arm!r}; arms with a model: {named}")
    if seed is not None and seed not in seeds:
        raise ValueError(f"{results} has no model of {arm} with seed {seed}; seeds with a model: {', '.join(map(str, seeds))}")
    if seed is not None or len(seeds) == 1:
        return seeds[seed] if seed is not None else next(iter(seeds.values()))
    middle = [model for model in seeds.values() if model.facts.get("median")]
    if len(middle) != 1:
        raise ValueError(f"{arm} has models of several seeds, but not of the median; choose with --seed from {', '.join(map(str, seeds))}")
    return middle[0]


def export(model: KeptModel, to: Path, *, merge: bool = False) -> None:
    """Copy the model to the new or empty folder `to`. ValueError if that exists, or has no room, or if there is nothing to merge."""
    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        raise ValueError(f"{to} exists and is not an empty folder; name a new one with --to")
    if merge and not model.facts["adapter"]:
        raise ValueError(f"{model.arm}, seed {model.seed}, is a whole model: there are no adapters to merge; drop --merge")
    _check_room(to, sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file()))
    with atomic.whole_folder(to) as building:
        if merge:
            _merge(model, building, to)
        else:
            shutil.copytree(model.folder, building, dirs_exist_ok=True)


def _merge(model: KeptModel, folder: Path, to: Path) -> None:
    """Write base and adapters as one model, with the other files of the kept model."""
    from jepa_ray.models.merging import merged

    facts = model.facts
    base, known = facts["base"], facts.get("base_sha")
    if known and Path(base).is_dir() and not same_weights(base, facts["revision"], known):
        raise ValueError(
            f"{base} has changed since {model.arm}, seed {model.seed}, was trained on it, so its adapters no longer fit; restore that "
            "folder, or export the adapters alone, without --merge"
        )
    remote = bool(facts["config"]["model"]["trust_remote_code"])
    lm = merged(base, facts["revision"], model.folder, dtype=facts["dtype"], trust_remote_code=remote)
    _check_room(to, sum(weight.numel() * weight.element_size() for weight in lm.parameters()))
    lm.save_pretrained(folder)
    for path in model.folder.iterdir():
        if path.is_file() and not path.name.startswith("adapter_"):
            shutil.copy2(path, folder / path.name)
    add_facts(KeptModel(folder, facts), adapter=False)


def _check_room(to: Path, size: int) -> None:
    place = next(parent for parent in (to.absolute(), *to.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise ValueError(
            f"{to} needs {size / 1e9:.3g} GB, but {place} has {free / 1e9:.3g} GB free; free some, or name another disk with --to"
        )


if __name__ == "__main__":
    sys.exit(main())
