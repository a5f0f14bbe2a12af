"""The results folder of a sweep: locked by one process, with a sweep.yaml that decides which sweep may continue in it."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from jepa_ray.config import SweepConfig, arms
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
    if extend and fresh:
        raise ValueError("--extend adds to the existing sweep, --fresh leaves it unchanged: use only one of the two")
    if fresh:
        names = itertools.chain([sweep.name], (f"{sweep.name}-{number}" for number in itertools.count(2)))
        sweep = sweep.model_copy(update={"name": next(name for name in names if not _begun(Path(sweep.output) / name))})
    folder = Path(sweep.output) / sweep.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = (folder / ".lock").open("a+")
    except OSError as error:
        raise ValueError(f"output: cannot write to {folder} ({error.strerror}); name another folder with output=...") from error
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


def _lives(holder: str) -> bool:
    """Whether an unlocked lock file names another running process of this machine."""
    match = re.fullmatch(r"pid (\d+) on (.*)", holder)
    return match is not None and match[2] == platform.node() and int(match[1]) != os.getpid() and Path("/proc", match[1]).exists()


def _begun(folder: Path) -> bool:
    """Whether a search has started in the folder; one in which only bad input was refused counts as empty."""
    return (folder / "study.db").exists() or any((folder / "trials").glob("[!.]*.parquet"))


def _write_yaml(sweep: SweepConfig, folder: Path, extend: bool) -> None:
    """Write sweep.yaml and the arms table if the sweep may continue in this folder; an earlier sweep.yaml is kept as sweep-N.yaml.

    Unreadable files of the folder are set aside (`results/damaged.py`), except those that define the sweep: these raise ValueError.
    """
    from jepa_ray import results
    from jepa_ray.results import damaged

    path, new = folder / "sweep.yaml", dump(sweep)
    if path.is_dir():
        raise ValueError(unreadable_resolved(path, "it is a folder"))
    damaged.check_folders(folder)
    damaged.selections(folder)  # raises now rather than at the end of the search
    if not _begun(folder):
        atomic.write_text(path, new)
        results.write_arms(folder, arms(sweep))
        return
    if path.exists():
        old = parse_resolved(path)
        changes = changed(old, parse(new))
        if changes and new.startswith(path.read_text(encoding="utf-8")):
            raise ValueError(unreadable_resolved(path, "it is truncated"))
        reasons = (refusal(by_family(old), parse(new)["methods"], *change) for change in changes)
        refused = list(dict.fromkeys(reason for reason in reasons if reason))
        if changes and not extend:
            remedy = (
                "--fresh starts over in a new folder (--extend cannot add these)"
                if refused
                else "--extend adds to it, --fresh starts over in a new folder"
            )
            raise ValueError(
                f"{folder} contains another sweep named {sweep.name!r}; changed since:\n"
                + "\n".join(dict.fromkeys(f"  {told(old['methods'], parse(new)['methods'], *change)}" for change in changes))
                + f"\n{remedy}; nothing is ever deleted"
            )
        if refused:
            raise ValueError(
                "--extend only adds trials:\n" + "\n".join(f"  {line}" for line in refused) + "\n--fresh starts over in a new folder"
            )
        if changes:
            confirm = old["confirm"] if isinstance(old.get("confirm"), dict) else {}
            results.record_look(folder, "change", confirm.get("seeds") or (), confirm.get("race") or ())
            number = next(number for number in itertools.count(1) if not (folder / f"sweep-{number}.yaml").exists())
            (folder / f"sweep-{number}.yaml").write_bytes(path.read_bytes())
    _warn(damaged.mend_arms(folder))
    if path.exists() and not (folder / "arms.parquet").exists():
        # A folder of an earlier version, or one that lost its arms: declare its comparisons before anything is added.
        results.write_arms(folder, results.read_arms(folder))
    elif not path.exists() and (lost := {arm.name for arm in results.declared_before(folder)} - {arm.name for arm in arms(sweep)}):
        raise ValueError(f"{folder} has arms that the given file lacks ({', '.join(sorted(lost))}): use the file that was last used there")
    atomic.write_text(path, new)
    results.declare_arms(folder, sweep)
    _warn(damaged.mend(folder))


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
