"""Command line that checks whether results trained on a checkpoint can be trusted: `python -m jepa_ray.conformance PATH_OR_ID`.

Prints one row per check; exits with 0 if all pass, 1 if any fails, 2 if there is nothing to check. Without --family, what is known about
the checkpoint is what `auto` finds. The checks themselves are in `preparation/text_checks.py` and `network_checks.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from jepa_ray.config import ModelConfig
from jepa_ray.conformance.forms import FORMS
from jepa_ray.conformance.network_checks import CHECKS
from jepa_ray.models.auto import family_of
from jepa_ray.models.families import AUTO, FAMILIES, ModelFamily, get_family, published_family
from jepa_ray.models.loading import load_config, seeded
from jepa_ray.models.tiny import tiny_config
from jepa_ray.preparation.text_checks import NUM_EXAMPLES, Row, Subject, examples, run_checks
from jepa_ray.preparation.tiny_base import base_tokenizer

PAGE_COMMAND = "python -m jepa_ray.conformance --all --markdown"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.all == (arguments.checkpoint is not None):
        return _bad("pass either a checkpoint (a folder, a hub id, tiny or paper) or --all")
    if arguments.markdown and not arguments.all:
        return _bad("--markdown writes the page of all families; add --all")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # libraries warn about each other; users cannot act on it
    rows: dict[str, list[Row]] = {}
    try:
        for name in [*FAMILIES, *FORMS] if arguments.all else [arguments.family]:
            with subject_of("tiny" if arguments.all else arguments.checkpoint, name) as subject:
                shown = name if name in FORMS else subject.family.name
                if not (arguments.json or arguments.markdown):
                    print(f"{subject.checkpoint if not arguments.all else 'tiny'}, family {shown}, on {subject.device}")
                    for fact in subject.family.found:
                        print(f"  {'found':<17} {fact}")
                family_rows = rows[shown] = []
                for row in run_checks(subject, CHECKS, _announce):
                    family_rows.append(row)
                    if not (arguments.json or arguments.markdown):
                        print(line(row), flush=True)
    except ValueError as error:
        return _bad(str(error))
    if arguments.json:
        print(
            json.dumps(
                [{"family": name, **asdict(row)} for name, family_rows in rows.items() for row in family_rows], indent=2, ensure_ascii=False
            )
        )
    if arguments.markdown:
        print(markdown(rows), end="")
    return int(any(row.result == "FAILED" for family_rows in rows.values() for row in family_rows))


def _announce(check: str) -> None:
    """On a terminal, name the check that runs; its row then takes the place. A large model's checks take minutes."""
    if sys.stdout.isatty():
        print(f"  {check} ...", end="\r", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jepa_ray.conformance", description="Check a checkpoint before training on it.")
    parser.add_argument("checkpoint", nargs="?", metavar="PATH_OR_ID", help="folder in Hugging Face's format, hub id, tiny or paper")
    parser.add_argument("--family", metavar="NAME", help=f"one of {', '.join(FAMILIES)}; default: {AUTO}, found from the checkpoint")
    parser.add_argument("--all", action="store_true", help="check the tiny instance of every family and architecture")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--markdown", action="store_true", help="with --all: print the page docs/families.md")
    return parser


def _bad(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


@contextmanager
def subject_of(checkpoint: str, family_name: str | None) -> Iterator[Subject]:
    """The checkpoint under check, on a GPU if available; a tiny instance exists only within the context.

    Raises:
        ValueError: unknown family, or the checkpoint cannot be loaded.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if checkpoint in ("tiny", "paper") and family_name is None:
        raise ValueError(f"{checkpoint} needs --family NAME, one of {', '.join(FAMILIES)}")
    form = FORMS.get(family_name or "")
    if checkpoint == "tiny" and form is not None:
        with tempfile.TemporaryDirectory() as folder:
            pairs = examples()
            form.write(Path(folder), [text for pair in pairs for text in (pair.system, pair.text, pair.code)])
            yield Subject(folder, family_of(ModelConfig(family=AUTO, model=folder), folder), device)
        return
    if checkpoint == "tiny":
        family = get_family(str(family_name))
        with tempfile.TemporaryDirectory() as folder:
            write_tiny(family, Path(folder))
            yield Subject(folder, family, device)
        return
    name = family_name or published_family(checkpoint) or AUTO
    source = get_family(name).paper_model if checkpoint == "paper" else checkpoint
    model = ModelConfig(family=name, model=source)
    if name != AUTO:  # an own record says nothing about the checkpoint
        load_config(source, model)
    yield Subject(source, family_of(model, source), device)


def write_tiny(family: ModelFamily, folder: Path) -> None:
    """Write the family's built-in tiny instance, with random weights and a tokenizer for the checks' examples."""
    tokenizer = base_tokenizer(family, examples())
    tokenizer.save_pretrained(folder)
    with seeded(0):
        model = AutoModelForCausalLM.from_config(tiny_config(family, tokenizer), dtype=torch.float32)
        for parameter in model.parameters():  # norm weights start at 0 or 1, which would hide mistakes
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)


def line(row: Row) -> str:
    """One row of the printed table."""
    bound = f" (error {row.bound})" if row.bound else ""
    remedy = f"\n{'':28}-> {row.remedy}" if row.remedy else ""
    return f"  {row.check:<17} {row.result:<8} {row.found}{bound}{remedy}"


def markdown(rows: Mapping[str, Sequence[Row]]) -> str:
    """The page docs/families.md: a table of families and checks, and what each check requires. Does not depend on machine or date."""
    lines = [
        "# Families",
        "",
        "Tiny instances (real architecture and chat format, random weights) against every check,",
        f"on {NUM_EXAMPLES} built-in pairs.",
        "To run the same checks on your own checkpoint: `python -m jepa_ray.conformance PATH_OR_ID`.",
        "",
        f"Generated by `{PAGE_COMMAND} > docs/families.md`; do not edit by hand.",
        "",
        "## In the table of families",
        "",
        *_table("family", {name: (family.model_type, family.paper_model) for name, family in FAMILIES.items() if name in rows}, rows),
        "",
        "## Found by `families: [auto]`",
        "",
        "What a checkpoint of each form contains is imitated: its chat template, the kind of its tokenizer, its layers.",
        "",
        *_table("form", {name: (form.model_type, form.published) for name, form in FORMS.items() if name in rows}, rows),
    ]
    lines += ["", "What each check requires; a number is the bound on the largest relative error.", ""]
    lines += [f"- **{name}**: {(check.__doc__ or '').splitlines()[0]}" for name, check in CHECKS.items()]
    failed = [(name, row) for name, family_rows in rows.items() for row in family_rows if row.result != "ok"]
    if failed:
        lines += ["", *(f"- {name}, {row.check}: {row.result}; {row.found}" for name, row in failed)]
    return "\n".join(lines) + "\n"


def _table(first: str, about: Mapping[str, tuple[str, str]], rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """One line per family or form: its name, model type, a published checkpoint, and the outcome of each check."""
    header = [first, "model type", "paper's checkpoint" if first == "family" else "such as", *CHECKS]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for name, (model_type, checkpoint) in about.items():
        cells = [f"{row.result}, {row.bound}" if row.bound else row.result for row in rows[name]]
        lines.append(f"| {' | '.join([name, f'`{model_type}`', f'`{checkpoint}`', *cells])} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
