"""Every table and figure that has a command: what draws it, and the search spaces that produce its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from analysis import answers, nested, paper_tables
from analysis.figures import (
    accuracies,
    best_of_n,
    budget,
    curves,
    diagnostics,
    embedding,
    epochs,
    flops,
    heatmap,
    importance,
    losses,
    parallel,
    seeds,
    singular_values,
    stops,
)
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep
from analysis.text_tables import Table

PAPER, TINY = "search_spaces/paper/", "search_spaces/paper-tiny/"


@dataclass(frozen=True)
class Artefact:
    """One command: `python -m analysis.paper NAME results/...`."""

    name: str
    what: str
    tables: Callable[[Sweep], list[Table]] | None = None
    plot: Callable[[Sweep], Plot] | None = None
    paper: tuple[str, ...] = ()
    """Arguments of `python -m jepa_ray.sweep` at the paper's scale, one string per sweep."""
    tiny: tuple[str, ...] = ()
    """The same for tiny models, offline, on a laptop."""
    several: Literal["beside", "pooled", "apart"] = "beside"
    """Several folders: side by side in one table or figure; pooled as replicates of one design; or one after the other."""
    looped: bool = False
    """Whether a file is run several times, once per seed or rank; its first lines contain the loop."""


def _token_tables(sweep: Sweep) -> list[Table]:
    return [answers.differences(sweep), *answers.side_by_side(sweep)]


def _table(
    name: str, what: str, make: Callable[[Sweep], list[Table]], files: str, several: Literal["beside", "pooled", "apart"] = "beside"
) -> Artefact:
    """A table whose two search spaces have the same file name."""
    return Artefact(name, what, make, None, (f"{PAPER}{files}.yaml",), (f"{TINY}{files}.yaml",), several, looped=several == "pooled")


def _compared(name: str, what: str, paper: tuple[str, ...], tiny: str) -> Artefact:
    make = partial(paper_tables.comparison, name=name, title=what)
    return Artefact(name, what, make, None, tuple(f"{PAPER}{file}.yaml" for file in paper), (f"{TINY}{tiny}.yaml",))


def _figure(
    name: str, what: str, plot: Callable[[Sweep], Plot], files: str, several: Literal["beside", "pooled", "apart"] = "beside"
) -> Artefact:
    return Artefact(name, what, None, plot, (f"{PAPER}{files}.yaml",), (f"{TINY}{files}.yaml",), several, looped=several == "pooled")


T12_1B = PAPER + "t12-synth.yaml families=[llama3]"
EPOCHS = "f1-epochs.yaml"

ARTEFACTS: tuple[Artefact, ...] = (
    Artefact(
        "T1", "Answers side by side: tokens wrong, extra, missing", _token_tables, None, (T12_1B,), (TINY + "t12-synth.yaml",), "apart"
    ),
    _compared("T2", "From random weights", ("t2-scratch",), "t2-scratch"),
    _table("T3", "Variants of the term: distances, layouts", paper_tables.variants, "t3-variants"),
    _compared("T4", "NQ-Open and HellaSwag", ("t4-nq-open", "t4-hellaswag"), "t4-tasks"),
    _compared("T5", "GSM8K, reasoning models", ("t5-gsm8k",), "t5-gsm8k"),
    _table("T6", "Loss dropout at equal FLOPs", paper_tables.loss_dropout, "t6-loss-dropout"),
    Artefact("T7", "Samples of answers", answers.samples, None, (T12_1B,), (TINY + "t12-synth.yaml",), "apart"),
    _table("T8", "LoRA ranks", paper_tables.ranks, "t8-lora-ranks", "pooled"),
    Artefact(
        "T9",
        "Pretraining on paraphrases, then classification: five pretraining seeds, each with five fine-tuning seeds",
        nested.tables,
        None,
        (PAPER + "t9-nested-rotten-tomatoes.yaml", PAPER + "t9-nested-yelp.yaml"),
        (TINY + "t9-nested-rotten-tomatoes.yaml",),
        "pooled",
        looped=True,
    ),
    _table("T10", "gamma / lambda", paper_tables.ratios, "t10-ratio"),
    Artefact("T11", "More answers side by side, as T1", _token_tables, None, (T12_1B,), (TINY + "t12-synth.yaml",), "apart"),
    _compared("T12", "NL-RX-SYNTH, four families", ("t12-synth",), "t12-synth"),
    _compared("T13", "NL-RX-TURK, GSM8K and Spider, Llama 3", ("t13-turk", "t13-gsm8k", "t13-spider"), "t13-tasks"),
    _table("T14", "Linearity and singular values", paper_tables.linearity, "t14-embeddings"),
    _compared("T15", "Larger models", ("t15-llama3-3b", "t15-llama3-8b", "t15-olmo2-7b"), "t15-larger"),
    Artefact(
        "F1-left",
        "Accuracy of every arm, next to the paper's",
        None,
        accuracies.plot,
        (PAPER + "t12-synth.yaml", PAPER + "t13-turk.yaml", PAPER + "t13-gsm8k.yaml", PAPER + "t13-spider.yaml"),
        (TINY + "t12-synth.yaml", TINY + "t13-tasks.yaml"),
    ),
    _figure("F1", "Accuracy by epoch (right)", epochs.plot, "f1-epochs"),
    _figure("F3", "Singular values of Enc(Text) - Enc(Code) (left)", singular_values.plot, "t14-embeddings"),
    _figure("F3-losses", "Cross-entropy and JEPA loss by epoch, also for the baseline (right)", losses.plot, "t14-embeddings"),
    _figure(
        "F4", "Text and Code embeddings in two dimensions: t-SNE and principal components", embedding.plot_paper, "t14-embeddings", "apart"
    ),
    _figure("F5", "Accuracy against training FLOPs", flops.plot, "t6-loss-dropout"),
    _figure("F6", "Text and Code embeddings in two dimensions, every arm", embedding.plot, "t14-embeddings", "apart"),
    _figure("F7", "Lambda by k: heat maps with intervals and counts", heatmap.plot, "f7-grid", "pooled"),
    Artefact(
        "F8",
        "Accuracy by epoch, full fine-tuning and LoRA",
        None,
        epochs.plot,
        (PAPER + EPOCHS, PAPER + EPOCHS + " 'base.lora={r: 512, dropout: 0.1}' name=paper-f8-lora"),
        (TINY + EPOCHS, TINY + EPOCHS + " 'base.lora={r: 16, dropout: 0.1}' base.optim.learning_rate=1e-2 name=tiny-f8-lora"),
    ),
    _figure("F9", "HellaSwag, lambda up to 1024", heatmap.plot, "f9-hellaswag-lambda", "pooled"),
    Artefact("curves", "Learning curves of all trials", None, curves.plot),
    Artefact("diagnostics", "The embedding space during training", None, diagnostics.plot),
    Artefact("seeds", "Confirmation, seed by seed", None, seeds.plot),
    Artefact("stops", "How trials ended, and why", None, stops.plot),
    Artefact("budget", "Budget spent by arm", None, budget.plot),
    Artefact("parallel", "Parallel coordinates of the search", None, parallel.plot),
    Artefact("best_of_n", "Expected best score of n trials, against budget", None, best_of_n.plot),
    Artefact("importance", "Importance of the knobs per arm", None, importance.plot, several="apart"),
)
"""The paper's tables and figures in its order, then those that are not in the paper."""
ALIASES = {"f1-right": "F1", "f3-left": "F3", "f3-right": "F3-losses"}
"""Other names for the halves of the paper's figures."""


def find(name: str) -> Artefact:
    """The artefact of that name, ignoring case. Raises ValueError with the known names."""
    wanted = ALIASES.get(name.lower(), name).lower()
    for artefact in ARTEFACTS:
        if artefact.name.lower() == wanted:
            return artefact
    raise ValueError(f"unknown table or figure {name!r}; choose one of {', '.join(artefact.name for artefact in ARTEFACTS)}")
