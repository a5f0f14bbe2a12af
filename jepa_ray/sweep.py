"""Command line: one YAML file in, tables of results out.

    python -m jepa_ray.sweep FILE [key=value ...] [--dry-run] [--extend] [--fresh] [--schema]

Exit code 0: every trial is terminal and none FAILED; 1: some FAILED; 2: bad input, nothing was started; 130: stopped by Ctrl-C.
The same command again goes on where the last one ended. Everything is validated before torch or Ray is imported.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import itertools
import os
import platform
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_ray.config import SweepConfig, arms
from jepa_ray.config.messages import folded
from jepa_ray.orchestration.cluster import Interrupt
from jepa_ray.plan.changes import by_family, changed, refusal, told
from jepa_ray.plan.load import dump, load_sweep, parse, parse_resolved, unreadable_resolved
from jepa_ray.system import atomic, full_disk

if TYPE_CHECKING:
    from jepa_ray.orchestration.cluster import Prepare
    from jepa_ray.orchestration.worker import RunTrial

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None, prepare_one: Prepare | None = None, run_trial: RunTrial | None = None) -> int:
    """Run the command line and return its exit code. The two functions replace training's own (tests, benchmarks)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_intermixed_args(arguments)
    if options.file is None and not options.schema:
        print("FILE is missing: give a YAML file, such as search_spaces/lora.yaml", file=sys.stderr)
        return BAD_INPUT
    try:
        if options.schema:
            from jepa_ray.plan.schema import text

            print(text(), end="", flush=True)
            return OK
        sweep = load_sweep(options.file, options.overrides)
        if options.dry_run:
            from jepa_ray.advice import detectable
            from jepa_ray.plan.arms import describe
            from jepa_ray.preparation.estimate import estimate

            declared = arms(sweep)
            try:
                estimates, facts = estimate(sweep)
            except ValueError:  # no model, or no data, of any arm: the plan itself needs neither
                print(folded(describe(sweep, declared), sys.stdout), end="\n\n")
                raise
            print(folded(describe(sweep, declared, estimates, facts, detectable(sweep, declared, estimates)), sys.stdout))
            return OK if len(estimates) == len(declared) else SOME_FAILED
        with _signals() as interrupt, claim(sweep, extend=options.extend, fresh=options.fresh) as (claimed, folder):
            again = _same_command(arguments, sweep, claimed)
            try:
                return _run(claimed, folder, interrupt, prepare_one, run_trial)
            except KeyboardInterrupt:
                done = sum(1 for _ in (folder / "trials").glob("[!.]*.parquet"))
                print(
                    f"\nStopped. {done} finished trials are in {folder}; unfinished ones go on from their last epoch.\nTo continue: {again}"
                )
                return INTERRUPTED
            except Exception as error:
                if not full_disk.is_full(error):
                    raise
                done = sum(1 for _ in (folder / "trials").glob("[!.]*.parquet"))
                _leave_output()
                print(
                    f"\nStopped: a disk is full ({full_disk.free(folder)} in {folder}, {full_disk.free(Path(tempfile.gettempdir()))} in "
                    f"{tempfile.gettempdir()}). {done} finished trials are safe; make room, then continue: {again}",
                    file=sys.stderr,
                )
                return SOME_FAILED
    except ValueError as error:
        print(folded(str(error), sys.stderr), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("\nStopped before anything was started.")
        return INTERRUPTED
    except OSError as error:
        if not full_disk.is_full(error):
            raise
        _leave_output()
        print(f"nothing was started, as a disk (or the standard output) is full: {error}", file=sys.stderr)
        return BAD_INPUT


def _leave_output() -> None:
    """Drop what the standard output could not take: Python would try once more at its exit, and fail."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jepa_ray.sweep", description="Tune, compare and confirm LLM-JEPA on your model and data."
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="YAML file of the sweep, such as search_spaces/lora.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the file, such as search.num_trials=40")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved plan and stop")
    parser.add_argument("--extend", action="store_true", help="add to a sweep of the same name whose file has changed")
    parser.add_argument("--fresh", action="store_true", help="start over in a new folder, <name>-2 and so on")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of the file, for editors")
    return parser


def _run(sweep: SweepConfig, folder: Path, interrupt: Interrupt, prepare_one: Prepare | None, run_trial: RunTrial | None) -> int:
    from jepa_ray.orchestration.cluster import connect, settings

    settings()
    from rich.text import Text

    from jepa_ray import results
    from jepa_ray.advice import race_rule, tables, verdict
    from jepa_ray.orchestration.console import Board, make_console, starting
    from jepa_ray.orchestration.run import run_sweep
    from jepa_ray.plan.arms import describe

    console, declared = make_console(), results.read_arms(folder)
    console.print(Text(describe(sweep, declared)))
    with contextlib.ExitStack() as stack:
        with starting(console):
            cluster = stack.enter_context(connect(sweep.placement))
        interrupt.install()  # Ray has put its own handler of SIGTERM in the place of ours
        for note in cluster.notes:
            console.print(Text(note))
        if cluster.address:
            console.print(Text(f"Dashboard: http://{cluster.address} (it asks for a token: `ray get-auth-token` prints it)"))
        board = Board(sweep, console)
        board.best_before(results.read_trials(folder))
        with board.shown():  # left before Ray shuts down: the table asks it for heartbeats
            outcome = run_sweep(sweep, folder, cluster, board, interrupt, prepare_one, run_trial, race_rule(sweep, declared))
    for table in tables(sweep, folder):
        console.print(Text(f"\n{table}"))
    for row in outcome.failed:
        console.print(Text(f"FAILED {row['trial_id']} ({row['arm']}, {row['stage']}): {row['error']}"))
    if sentences := verdict(sweep, folder):
        console.print(Text("\n".join([f"\nVerdict (all reasons: python -m analysis.verdict {folder})", *sentences])))
    console.print(Text(f"\nTables: {folder}/trials, {folder}/metrics, {folder}/predictions"))
    console.print(Text(f"All of it on a page: python -m analysis.report {folder}"))
    return SOME_FAILED if outcome.failed or outcome.unconfirmed else OK


@contextlib.contextmanager
def claim(sweep: SweepConfig, extend: bool = False, fresh: bool = False) -> Iterator[tuple[SweepConfig, Path]]:
    """The sweep's folder, locked and with its sweep.yaml, and the sweep under the name it has there (`--fresh` gives a new one).

    Raises ValueError where another process holds the folder, or where it holds another sweep of the same name.
    """
    if extend and fresh:
        raise ValueError("--extend adds to the sweep that is there, --fresh leaves it alone: give one of the two")
    if fresh:
        names = itertools.chain([sweep.name], (f"{sweep.name}-{number}" for number in itertools.count(2)))
        sweep = sweep.model_copy(update={"name": next(name for name in names if not _begun(Path(sweep.output) / name))})
    folder = Path(sweep.output) / sweep.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = (folder / ".lock").open("a+")
    except OSError as error:
        raise ValueError(f"output: cannot write to {folder} ({error.strerror}); name another folder with output=...") from error
    with held as lock:
        holder = f"pid {os.getpid()} on {platform.node()}"
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = False
        except BlockingIOError:
            taken = True
        except OSError as error:  # a file system without locks: some of clusters
            lock.seek(0)
            taken = _lives(lock.read().strip())
            if not taken:
                no_locks = f"output: the file system of {folder} has no locks ({error.strerror})"
                _warn([f"{no_locks}: see to it that no second process runs this sweep on another machine meanwhile"])
        if taken:
            lock.seek(0)
            raise ValueError(
                f"{folder} is in use by another process ({lock.read().strip() or 'unknown'}): wait for it, "
                "or start a sweep of another name with name=..."
            )
        lock.truncate(0)
        lock.write(holder)
        lock.flush()
        _write_yaml(sweep, folder, extend)
        yield sweep, folder


def _lives(holder: str) -> bool:
    """Whether a lock file without a lock names another living process of this machine."""
    found = re.fullmatch(r"pid (\d+) on (.*)", holder)
    return found is not None and found[2] == platform.node() and int(found[1]) != os.getpid() and Path("/proc", found[1]).exists()


def _begun(folder: Path) -> bool:
    """Whether a search has been started there: a folder that bad input was refused in counts as empty."""
    return (folder / "study.db").exists() or any((folder / "trials").glob("[!.]*.parquet"))


def _write_yaml(sweep: SweepConfig, folder: Path, extend: bool) -> None:
    """Write sweep.yaml and the arms table, if the sweep may go on in this folder; an earlier sweep.yaml is kept as sweep-N.yaml.

    Files of the folder that cannot be read are set aside (`damaged.py`), those of them that say what the sweep is are refused.
    """
    from jepa_ray import results
    from jepa_ray.results import damaged

    path, new = folder / "sweep.yaml", dump(sweep)
    if path.is_dir():
        raise ValueError(unreadable_resolved(path, "it is a folder"))
    damaged.check_folders(folder)
    damaged.selections(folder)  # to be refused now, not when the search is over
    if not _begun(folder):
        atomic.write_text(path, new)
        results.write_arms(folder, arms(sweep))
        return
    if path.exists():
        old = parse_resolved(path)
        changes = changed(old, parse(new))
        if changes and new.startswith(path.read_text(encoding="utf-8")):
            raise ValueError(unreadable_resolved(path, "it ends in the middle"))
        reasons = (refusal(by_family(old), parse(new)["methods"], *change) for change in changes)
        refused = list(dict.fromkeys(reason for reason in reasons if reason))
        if changes and not extend:
            remedy = (
                "--fresh starts over in a new folder (--extend cannot add these)"
                if refused
                else "--extend adds to it, --fresh starts over in a new folder"
            )
            raise ValueError(
                f"{folder} holds another sweep of the name {sweep.name!r}; changed since:\n"
                + "\n".join(dict.fromkeys(f"  {told(old['methods'], parse(new)['methods'], *change)}" for change in changes))
                + f"\n{remedy}; nothing is ever deleted"
            )
        if refused:
            raise ValueError(
                "--extend only adds trials:\n" + "\n".join(f"  {line}" for line in refused) + "\n--fresh starts over in a new folder"
            )
        if changes:
            number = next(number for number in itertools.count(1) if not (folder / f"sweep-{number}.yaml").exists())
            (folder / f"sweep-{number}.yaml").write_bytes(path.read_bytes())
    _warn(damaged.mend_arms(folder))
    if path.exists() and not (folder / "arms.parquet").exists():
        # A folder of an earlier version, or one that lost them: what it compares is declared before anything is added.
        results.write_arms(folder, results.read_arms(folder))
    elif not path.exists() and (lost := {arm.name for arm in results.declared_before(folder)} - {arm.name for arm in arms(sweep)}):
        raise ValueError(f"{folder} has arms that the given file lacks ({', '.join(sorted(lost))}): name the file that was last used there")
    atomic.write_text(path, new)
    results.declare_arms(folder, sweep)
    _warn(damaged.mend(folder))


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(folded(sentence, sys.stderr), file=sys.stderr)


def _same_command(arguments: Sequence[str], asked: SweepConfig, claimed: SweepConfig) -> str:
    kept = [argument for argument in arguments if argument not in ("--extend", "--fresh") and not argument.startswith("name=")]
    names = [argument for argument in arguments if argument.startswith("name=")]
    if claimed.name != asked.name:
        names = [f"name={claimed.name}"]
    return shlex.join(["python", "-m", "jepa_ray.sweep", *kept, *names])


@contextlib.contextmanager
def _signals() -> Iterator[Interrupt]:
    interrupt = Interrupt()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupt.install()
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
