"""Every table and figure there is a command for: what makes it, and the search spaces that it can be made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from analysis import answers, paper_tables
from analysis.figures import (
    best_of_n,
    budget,
    curves,
    diagnostics,
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
from analysis.reading import Sweep
from analysis.tables import Table

FULL = "search_spaces/full.yaml families=[llama3]"


@dataclass(frozen=True)
class Artefact:
    """One command: `python -m analysis.paper NAME results/...`."""

    name: str
    what: str
    tables: Callable[[Sweep], list[Table]] | None = None
    plot: Callable[[Sweep], Plot] | None = None
    paper_space: str = ""
    """Arguments of `python -m jepa_ray.sweep` at the paper's scale."""
    tiny_space: str = ""
    """Arguments of `python -m jepa_ray.sweep`: offline, on a laptop."""
    missing: str = ""
    """Why it can't be made, where it can't."""


def _compared(name: str, what: str, paper_space: str, tiny_space: str) -> Artefact:
    return Artefact(name, what, partial(paper_tables.comparison, name=name, title=what), None, paper_space, tiny_space)


def _token_tables(sweep: Sweep) -> list[Table]:
    return [answers.differences(sweep), *answers.side_by_side(sweep)]


PAPER = "search_spaces/paper/"
T12 = PAPER + "t12-synth.yaml"
T12_1B = T12 + " families=[llama3]"
ABLATION = "search_spaces/ablation_objectives.yaml"
EMBEDDINGS = (
    "needs the embeddings themselves, and a results folder holds only figures made of them (`diag_*`); T14 and F3 show what they say."
)

ARTEFACTS: tuple[Artefact, ...] = (
    Artefact("T1", "Answers side by side: tokens wrong, extra, missing", _token_tables, None, T12_1B, "search_spaces/lora.yaml"),
    _compared("T2", "From random weights", PAPER + "t2-scratch.yaml", "search_spaces/scratch.yaml"),
    Artefact("T3", "Variants of the term: distances, layouts", paper_tables.variants, None, "", ABLATION),
    _compared("T4", "NQ-Open and HellaSwag", PAPER + "t4-nq-open.yaml, t4-hellaswag.yaml", "search_spaces/tasks.yaml"),
    _compared("T5", "GSM8K, reasoning models", PAPER + "t5-gsm8k.yaml", "search_spaces/families.yaml task=gsm8k"),
    Artefact(
        "T6",
        "Loss dropout",
        paper_tables.loss_dropout,
        None,
        f"{T12_1B} 'space={{objective.loss_dropout: {{choice: [0, 0.5, 0.75]}}, objective.lambda: {{choice: [1, 2, 4]}}}}' "
        "search.algorithm=grid search.num_trials=9",
        f"{FULL} 'space={{objective.loss_dropout: {{choice: [0, 0.5, 0.75]}}, objective.lambda: {{choice: [1, 2, 4]}}}}' "
        "search.algorithm=grid search.num_trials=9 name=t6",
    ),
    Artefact("T7", "Samples of answers", answers.samples, None, T12_1B, "search_spaces/lora.yaml"),
    Artefact(
        "T8",
        "LoRA ranks",
        paper_tables.ranks,
        None,
        f"{T12_1B} base.lora.r=32 'space={{lora.r: {{choice: [32, 64, 128, 256, 512]}}}}' search.algorithm=grid search.num_trials=5",
        f"{FULL} base.lora.r=2 'space={{lora.r: {{choice: [2, 4, 8, 16]}}}}' search.algorithm=grid search.num_trials=4 name=t8",
    ),
    _compared(
        "T9",
        "Pretraining on paraphrases, then classification",
        PAPER + "t9-rotten-tomatoes.yaml, t9-yelp.yaml",
        "search_spaces/pretrain.yaml",
    ),
    Artefact(
        "T10",
        "gamma / lambda",
        paper_tables.ratios,
        None,
        f"{T12_1B} 'methods.jepa={{lambda: 1, k: 0}}' 'space={{objective.gamma: {{choice: [0, 0.01, 0.1, 1, 10, 100]}}}}' "
        "search.algorithm=grid search.num_trials=6",
        f"{FULL} 'methods.jepa={{lambda: 1, k: 0}}' 'space={{objective.gamma: {{choice: [0, 0.01, 0.1, 1, 10, 100]}}}}' "
        "search.algorithm=grid search.num_trials=6 name=t10",
    ),
    Artefact("T11", "More answers side by side, as T1", _token_tables, None, T12_1B, "search_spaces/families.yaml"),
    _compared("T12", "NL-RX-SYNTH, four families", T12, "search_spaces/families.yaml"),
    _compared(
        "T13", "NL-RX-TURK, GSM8K and Spider, Llama 3", PAPER + "t13-turk.yaml, t13-gsm8k.yaml, t13-spider.yaml", "search_spaces/tasks.yaml"
    ),
    Artefact("T14", "Linearity and singular values", paper_tables.linearity, None, T12_1B, ABLATION),
    _compared("T15", "Larger models", PAPER + "t15-llama3-3b.yaml, t15-llama3-8b.yaml, t15-olmo2-7b.yaml", ""),
    Artefact("F1", "Accuracy by epoch", None, epochs.plot, T12_1B, "search_spaces/families.yaml"),
    Artefact("F3", "Singular values of Enc(Text) - Enc(Code) (left)", None, singular_values.plot, T12_1B, ABLATION),
    Artefact(
        "F3-losses", "Cross-entropy and JEPA loss by epoch, monitored in the baseline too (right)", None, losses.plot, T12_1B, ABLATION
    ),
    Artefact("F4", "t-SNE of Text and Code embeddings", missing=EMBEDDINGS),
    Artefact("F5", "Accuracy against training FLOPs", None, flops.plot, T12_1B, "search_spaces/families.yaml"),
    Artefact("F6", "t-SNE of Text and Code embeddings, more arms", missing=EMBEDDINGS),
    Artefact("F7", "Lambda by k: heat maps with counts", None, heatmap.plot, T12_1B, "search_spaces/full.yaml"),
    Artefact("F8", "Accuracy by epoch, full and LoRA: as F1, for each of two sweeps", None, epochs.plot, T12_1B, "search_spaces/full.yaml"),
    Artefact(
        "F9", "HellaSwag, lambda up to 1024", None, heatmap.plot, PAPER + "t4-hellaswag.yaml", "search_spaces/tasks.yaml task=hellaswag"
    ),
    Artefact("curves", "Learning curves of all trials", None, curves.plot),
    Artefact("diagnostics", "The embedding space while it is trained", None, diagnostics.plot),
    Artefact("seeds", "Confirmation, seed by seed", None, seeds.plot),
    Artefact("stops", "What stopped, and why", None, stops.plot),
    Artefact("budget", "Budget spent by arm", None, budget.plot),
    Artefact("parallel", "Parallel coordinates of the search", None, parallel.plot),
    Artefact("best_of_n", "Expected best score of n trials, against budget", None, best_of_n.plot),
    Artefact("importance", "Importance of the knobs per arm", None, importance.plot),
)
"""What the paper shows, in its order, and what no paper shows."""


def find(name: str) -> Artefact:
    """The artefact of that name, in any case. Raises ValueError with the legal names."""
    for artefact in ARTEFACTS:
        if artefact.name.lower() == name.lower():
            return artefact
    raise ValueError(f"no table or figure {name!r}; there are {', '.join(artefact.name for artefact in ARTEFACTS)}")
