"""Command line and Python API: one YAML file in, tables of results out.

    python -m jepa_ray.sweep FILE [key=value ...] [--dry-run] [--extend] [--fresh] [--schema]
    jepa-ray sweep FILE ...         the same, where the package is installed; `jepa-ray` (or `python -m jepa_ray`) lists the other commands

Exit code 0: every trial is terminal and none FAILED; 1: some FAILED; 2: bad input, nothing was started; 130: stopped by Ctrl-C.
The same command again goes on where the last one ended. Everything is validated before torch or Ray is imported.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepa_ray.config import SweepConfig, arms
from jepa_ray.config.messages import folded
from jepa_ray.judging import detectable, further, race_rule, rulings, tables
from jepa_ray.orchestration.cluster import Interrupt, signals
from jepa_ray.orchestration.sweep_folder import lock_folder, look, same_command
from jepa_ray.plan.load import load_sweep, shipped
from jepa_ray.system import full_disk

if TYPE_CHECKING:
    import pandas as pd

    from jepa_ray.orchestration.recipes import Prepare, RunTrial

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
COMMANDS = {
    "sweep": ("jepa_ray.sweep", "run a sweep, or resume it"),
    "check": ("jepa_ray.conformance.__main__", "check a checkpoint before training on it"),
    "plan": ("analysis.planning", "the number of seeds that a difference needs"),
    "summary": ("analysis.summary", "tables of one or more sweeps"),
    "verdict": ("analysis.verdict", "better, worse, equivalent or undecided, with all reasons"),
    "report": ("analysis.report", "everything on one page"),
    "export": ("jepa_ray.export", "a trained model in a folder of its own, ready to load"),
}
"""Subcommands of `jepa-ray`: the module whose `main` runs, and what it does."""


def command() -> int:
    """`jepa-ray COMMAND ...`: the same as `python -m MODULE ...`."""
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name not in COMMANDS:
        asked = name in ("", "-h", "--help")
        lines = [f"  {each:<10}{what} (python -m {module.removesuffix('.__main__')})" for each, (module, what) in COMMANDS.items()]
        unknown = [] if asked else [f"jepa-ray: unknown command {name!r}"]
        print("\n".join([*unknown, "usage: jepa-ray COMMAND ...", *lines]), file=sys.stdout if asked else sys.stderr)
        return OK if asked else BAD_INPUT
    module = importlib.import_module(COMMANDS[name][0])
    if module.__name__.startswith("jepa_ray."):
        return int(module.main(arguments))
    return int(importlib.import_module("analysis.command_line").run(lambda: module.main(arguments)))


@dataclass(frozen=True)
class Results:
    """The results folder of a sweep, finished or not. Every table is read anew."""

    folder: Path

    @property
    def arms(self) -> pd.DataFrame:
        """What is compared with what: arm, method, family, task, kind, baseline, against."""
        import pandas as pd

        from jepa_ray import results

        return pd.DataFrame([{"arm": arm.name, **vars(arm)} for arm in results.read_arms(self.folder)]).drop(columns="name")

    @property
    def trials(self) -> pd.DataFrame:
        """One row per finished trial."""
        from jepa_ray import results

        return results.read_trials(self.folder)

    @property
    def metrics(self) -> pd.DataFrame:
        """Curves: one row per trial, step, split and name."""
        from jepa_ray import results

        return results.read_metrics(self.folder)

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per trial and scored answer."""
        from jepa_ray import results

        return results.read_predictions(self.folder)

    def verdict(self) -> pd.DataFrame:
        """One row per claim and control: verdict, difference and its 95 % interval (shares), Holm p, seeds, and the sentence.

        ValueError if a file is damaged, or nothing can be compared yet; says why.
        """
        from jepa_ray.judging import verdict_table

        return verdict_table(self.folder)


def open_results(folder: str | Path) -> Results:
    """The results folder of a sweep. ValueError if it is not one."""
    folder = Path(folder).expanduser().resolve()
    if not (folder / "sweep.yaml").is_file():
        raise ValueError(f"{folder} is not a results folder (it has no sweep.yaml): run a sweep first, or name results/NAME")
    return Results(folder)


def run(source: str | Path | Mapping[str, Any], *overrides: str, extend: bool = False, fresh: bool = False) -> Results:
    """Run a sweep, or resume it, and return its results; a trial that FAILED is a row of `trials`.

    Args:
        source: a YAML file, or what one contains, as a dictionary.
        overrides: `key=value`, as on the command line; `extend`, `fresh`: as `--extend` and `--fresh`.
    Raises:
        ValueError: something is wrong with the sweep; lists every error. Nothing was started.
    """
    sweep = load_sweep(source if isinstance(source, Mapping) else shipped(source), overrides)
    with signals() as interrupt, lock_folder(sweep, extend=extend, fresh=fresh) as (claimed, folder):
        _run(claimed, folder, interrupt, None, None)
    return Results(folder.resolve())


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
        sweep = load_sweep(shipped(options.file), options.overrides, planning=options.dry_run)
        if options.dry_run:
            from jepa_ray.orchestration.planning import plan
            from jepa_ray.plan.describe import describe

            found = look(sweep, extend=options.extend, fresh=options.fresh)
            sweep, declared = found.sweep, arms(sweep)
            try:
                planned = plan(sweep)
            except ValueError:  # no model, or no data, of any arm: the plan itself needs neither
                print(folded(describe(sweep, declared, folder=found.lines), sys.stdout), end="\n\n")
                raise
            power = detectable(sweep, declared, planned.estimates)
            print(folded(describe(sweep, declared, planned.estimates, planned.facts, power, planned.hardware, found.lines), sys.stdout))
            planned.check()
            found.check()
            return OK if len(planned.estimates) == len(declared) else SOME_FAILED
        with signals() as interrupt, lock_folder(sweep, extend=options.extend, fresh=options.fresh) as (claimed, folder):
            again = same_command(arguments, sweep, claimed)
            try:
                return _run(claimed, folder, interrupt, prepare_one, run_trial)
            except KeyboardInterrupt:
                done = sum(1 for _ in (folder / "trials").glob("[!.]*.parquet"))
                print(f"\nStopped. {done} finished trials are in {folder}; unfinished ones resume from checkpoints.\nTo continue: {again}")
                return INTERRUPTED
            except Exception as error:
                if not full_disk.is_full(error):
                    raise
                done = sum(1 for _ in (folder / "trials").glob("[!.]*.parquet"))
                full_disk.leave_output()
                print(f"\n{full_disk.stopped(folder)} {done} finished trials are safe; make room, then continue: {again}", file=sys.stderr)
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
        full_disk.leave_output()
        print(f"nothing was started, as a disk (or the standard output) is full: {error}", file=sys.stderr)
        return BAD_INPUT


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
    from jepa_ray.orchestration.console import Board, make_console, starting
    from jepa_ray.orchestration.keeping import add_verdict
    from jepa_ray.orchestration.planning import at_start
    from jepa_ray.orchestration.run import run_sweep
    from jepa_ray.plan.describe import describe

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
        planned = at_start(sweep, cluster.resources.gpus) if prepare_one is None else None
        console.print(Text("\n".join(planned.hardware if planned is not None else [])), end="\n" if planned is not None else "")
        board = Board(sweep, console, planned)
        board.best_before(results.read_trials(folder))
        with board.shown():  # left before Ray shuts down: the table asks it for heartbeats
            rule = race_rule(sweep, declared, results.looks_of(folder))
            outcome = run_sweep(
                sweep,
                folder,
                cluster,
                board,
                interrupt=interrupt,
                prepare_one=prepare_one,
                run_trial=run_trial,
                decide=rule,
                further=further(sweep, folder),
            )
    for table in tables(sweep, folder):
        console.print(Text(f"\n{table}"))
    for row in outcome.failed:
        console.print(Text(f"FAILED {row['trial_id']} ({row['arm']}, {row['stage']}): {row['error']}"))
    if told := rulings(sweep, folder):
        console.print(Text(f"\nVerdict (all reasons: python -m analysis.verdict {folder})"))
        console.print(Text("\n".join(line for _, lines in told for line in lines)))
    for line in (f"\nTables: {folder}/trials, {folder}/metrics, {folder}/predictions", *add_verdict(folder, told)):
        console.print(Text(line))
    console.print(Text(f"All of it on a page: python -m analysis.report {folder}"))
    return SOME_FAILED if outcome.failed or outcome.unconfirmed else OK


if __name__ == "__main__":
    sys.exit(main())
