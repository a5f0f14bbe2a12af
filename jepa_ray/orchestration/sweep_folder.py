"""The results folder of a sweep: locked by one process, with a sweep.yaml that decides which sweep may continue in it.

A plan only looks at it (`look`): it says what a run would find there, and writes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import platform
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from jepa_ray.config import SweepConfig, arms, comparisons
from jepa_ray.config.messages import folded
from jepa_ray.plan.changes import by_family, changed, refusal, told
from jepa_ray.plan.load import dump, parse_resolved, unreadable_resolved
from jepa_ray.plan.strict_yaml import parse
from jepa_ray.system import atomic


@contextlib.contextmanager
def lock_folder(sweep: SweepConfig, extend: bool = False, fresh: bool = False) -> Iterator[tuple[SweepConfig, Path]]:
    """Lock the sweep's folder and write its sweep.yaml; yields the sweep under its name there (`--fresh` gives a new one) and the folder.

    Raises ValueError if another process uses the folder, or if it contains another sweep of the same name.
    """
    sweep = _named(sweep, extend, fresh)
    folder = Path(sweep.output) / sweep.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = (folder / ".lock").open("a+")
    except OSError as error:
        raise ValueError(_unusable(folder, error)) from error
    with lock_file as lock:
        holder = f"pid {os.getpid()} on {platform.node()}"
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = False
        except BlockingIOError:
            taken = True
        except OSError as error:  # a file system without locks, as on some clusters
            lock.seek(0)
            taken = _lives(lock.read().strip())
            if not taken:
                no_locks = f"output: the file system of {folder} has no locks ({error.strerror})"
                _warn([f"{no_locks}; make sure that no process on another machine runs this sweep at the same time"])
        if taken:
            lock.seek(0)
            raise ValueError(
                f"{folder} is in use by another process ({lock.read().strip() or 'unknown'}): wait until it ends, "
                "or start a sweep under another name with name=..."
            )
        lock.truncate(0)
        lock.write(holder)
        lock.flush()
        _write_yaml(sweep, folder, extend)
        yield sweep, folder


@dataclass(frozen=True)
class Standing:
    """What a run would find in its results folder."""

    sweep: SweepConfig
    """Under the name that it has there."""
    lines: list[str]
    """For the plan; empty if no search has started there."""
    refused: str | None = None
    """Why a run would be refused."""

    def check(self) -> None:
        """ValueError, with the sentence of a run, if it would be refused."""
        if self.refused is not None:
            raise ValueError(self.refused)


def look(sweep: SweepConfig, extend: bool = False, fresh: bool = False) -> Standing:
    """What `lock_folder` would find. Reads only. ValueError for `--extend` together with `--fresh`."""
    from jepa_ray import results
    from jepa_ray.results import damaged

    sweep = _named(sweep, extend, fresh)
    folder = Path(sweep.output) / sweep.name
    try:
        changes = _changes(sweep, folder, extend)
        if not _begun(folder):
            return Standing(sweep, [])
        _refuse_lost_arms(sweep, folder)
        broken = damaged.unreadable(folder, "trials")
    except ValueError as error:
        return Standing(sweep, [f"{folder} is taken or damaged: a run with these arguments is refused, see the message"], str(error))
    except OSError as error:
        return Standing(sweep, [f"{folder} cannot be read: a run is refused, see the message"], _unusable(folder, error))
    lines = [f"--extend changes the sweep in {folder}: {'; '.join(changes)}"] if changes else []
    if broken:
        return Standing(sweep, [*lines, f"{folder} has {len(broken)} results that cannot be read; a run sets them aside and repeats them"])
    complete = Counter(row["stage"] for row in results.finished(folder).values() if row["state"] == "COMPLETE")
    stages = ", ".join(f"{complete[stage]} {stage}" for stage in get_args(results.Stage) if complete[stage])
    skipped = f"with the same data and weights, {complete.total()} COMPLETE trials are not run again{f' ({stages})' if stages else ''}"
    return Standing(sweep, [*lines, f"{folder} already holds this sweep: {skipped}"])


def _unusable(folder: Path, error: OSError) -> str:
    return f"output: cannot write to {folder} ({error.strerror}); name another folder with output=..."


def _named(sweep: SweepConfig, extend: bool, fresh: bool) -> SweepConfig:
    """The sweep under the name of its folder: with `--fresh` the first name that is free."""
    if extend and fresh:
        raise ValueError("--extend adds to the existing sweep, --fresh leaves it unchanged: use only one of the two")
    if not fresh:
        return sweep
    names = itertools.chain([sweep.name], (f"{sweep.name}-{number}" for number in itertools.count(2)))
    return sweep.model_copy(update={"name": next(name for name in names if not _begun(Path(sweep.output) / name))})


def _lives(holder: str) -> bool:
    """Whether an unlocked lock file names another running process of this machine."""
    match = re.fullmatch(r"pid (\d+) on (.*)", holder)
    return match is not None and match[2] == platform.node() and int(match[1]) != os.getpid() and Path("/proc", match[1]).exists()


def _begun(folder: Path) -> bool:
    """Whether a search has started in the folder; one in which only bad input was refused counts as empty."""
    return (folder / "study.db").exists() or any((folder / "trials").glob("[!.]*.parquet"))


def _changes(sweep: SweepConfig, folder: Path, extend: bool) -> list[str]:
    """The changes that the sweep makes to the one in its folder, one line each. Reads only.

    ValueError if it may not continue there, or a file that defines the sweep cannot be read.
    """
    from jepa_ray.results import damaged, read_looks

    path, new = folder / "sweep.yaml", dump(sweep)
    if path.is_dir():
        raise ValueError(unreadable_resolved(path, "it is a folder"))
    damaged.check_folders(folder)
    damaged.selections(folder)  # these two raise now rather than at the end of the search
    read_looks(folder)
    if not _begun(folder):
        return []
    if not path.exists():
        return []
    old = parse_resolved(path)
    changes = changed(old, parse(new))
    if changes and new.startswith(path.read_text(encoding="utf-8")):
        raise ValueError(unreadable_resolved(path, "it is truncated"))
    reasons = (refusal(by_family(old), parse(new)["methods"], *change) for change in changes)
    refused = list(dict.fromkeys(reason for reason in reasons if reason))
    lines = list(dict.fromkeys(told(old["methods"], parse(new)["methods"], *change) for change in changes))
    if changes and not extend:
        remedy = (
            "--fresh starts over in a new folder (--extend cannot add these)"
            if refused
            else "--extend adds to it, --fresh starts over in a new folder"
        )
        raise ValueError(
            f"{folder} contains another sweep named {sweep.name!r}; changed since:\n"
            + "\n".join(f"  {line}" for line in lines)
            + f"\n{remedy}; nothing is ever deleted"
        )
    if refused:
        raise ValueError(
            "--extend only adds trials:\n" + "\n".join(f"  {line}" for line in refused) + "\n--fresh starts over in a new folder"
        )
    return lines


def _refuse_lost_arms(sweep: SweepConfig, folder: Path) -> None:
    """ValueError if the folder has lost its sweep.yaml, and declares arms that the sweep lacks."""
    from jepa_ray import results

    if (folder / "sweep.yaml").exists():
        return
    if lost := {arm.name for arm in results.declared_before(folder)} - {arm.name for arm in arms(sweep)}:
        raise ValueError(f"{folder} has arms that the given file lacks ({', '.join(sorted(lost))}): use the file that was last used there")


def _write_yaml(sweep: SweepConfig, folder: Path, extend: bool) -> None:
    """Write sweep.yaml and the arms table if the sweep may continue in this folder; an earlier sweep.yaml is kept as sweep-N.yaml.

    Unreadable files of the folder are set aside (`results/damaged.py`), except those that define the sweep: these raise ValueError.
    """
    from jepa_ray import results
    from jepa_ray.results import damaged

    path, new = folder / "sweep.yaml", dump(sweep)
    changes = _changes(sweep, folder, extend)
    if not _begun(folder):
        atomic.write_text(path, new)
        results.write_arms(folder, arms(sweep))
        return
    if changes:
        before = parse_resolved(path)["confirm"] or {}
        number = next(number for number in itertools.count(1) if not (folder / f"sweep-{number}.yaml").exists())
        (folder / f"sweep-{number}.yaml").write_bytes(path.read_bytes())
    _warn(damaged.mend_arms(folder))
    if path.exists() and not (folder / "arms.parquet").exists():
        # A folder of an earlier version, or one that lost its arms: declare its comparisons before anything is added.
        results.write_arms(folder, results.read_arms(folder))
    _refuse_lost_arms(sweep, folder)
    _warn(damaged.mend(folder))
    if changes:  # what was known of the sweep until now, written before anything changes
        known = comparisons(results.read_arms(folder))
        results.record_look(folder, "change", before.get("seeds") or (), before.get("race") or (), known)
    atomic.write_text(path, new)
    results.declare_arms(folder, sweep)


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(folded(sentence, sys.stderr), file=sys.stderr)


def same_command(arguments: Sequence[str], asked: SweepConfig, claimed: SweepConfig) -> str:
    """The command that resumes this sweep: without `--extend` and `--fresh`, and with the name that its folder has."""
    kept = [argument for argument in arguments if argument not in ("--extend", "--fresh") and not argument.startswith("name=")]
    names = [argument for argument in arguments if argument.startswith("name=")]
    if claimed.name != asked.name:
        names = [f"name={claimed.name}"]
    return shlex.join(["python", "-m", "jepa_ray.sweep", *kept, *names])
