"""The numbers of a summary and their tables: in full for the command and the page, in brief for the end of a sweep.

Cells are strings: shares in percent, differences in points. Computes no statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.text_tables import COMPUTED, FLOPS, UNPACKED, Table, flops, percent, significant
from jepa_ray.results import JUDGED

JUDGEMENTS = ("accuracy", "exact", "prefix", "contains", "stopped")
SOMETIMES = ("paper", "equivalent", "errors", "accuracy_clean", "retrieval", "accuracy_untrained", "retrieval_untrained")
"""Measured on some tasks only: shown if a trial has them; errors only if there are any."""
CLEAN = "test_accuracy_clean"
"""Without the test examples that are also in training; shown if it differs from test_accuracy."""
STAGES = ("search", "confirm", "matched")
"""Purposes of trials. Matched trials are trained to equal FLOPs (`protocol/equal_cost.py`) and appear only in counts and costs."""
STATES = ("COMPLETE", "PRUNED", "FAILED")
_NAMES = {"learning_rate": "learning rate", "pretrain_learning_rate": "first stage's", "lambda_grad_ratio": "grad. ratio"}
_NAMES |= {"loss_dropout": "loss dropout"}


@dataclass
class Summary:
    """Plain numbers, one dict per table row, and their notes. Shares are in [0, 1]."""

    states: list[dict[str, Any]] = field(default_factory=list)
    best: list[dict[str, Any]] = field(default_factory=list)
    confirmation: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    """Method minus baseline in `test_logprob`, nats per answer (`protocol/log_probability.py`)."""
    notes: list[str] = field(default_factory=list)
    metric: str = "val_accuracy"
    mode: str = "max"


def tables(summary: Summary) -> list[Table]:
    """Trials by state, best of each arm, confirmation, paired differences."""
    return [_state_table(summary), _best_table(summary), _confirmation_table(summary), _difference_table(summary)]


def brief(summary: Summary, seeds: Sequence[int]) -> list[Table]:
    """What a sweep prints at its end: the best of each arm and, if there are planned `seeds`, the confirmation."""
    return [_brief_search(summary), *([_brief_confirmation(summary, seeds)] if seeds else [])]


def judged(summary: Summary) -> list[str]:
    """The columns whose means and differences are shown, test first: every judgement on both splits, including the selecting metric."""
    names = list(dict.fromkeys([*JUDGEMENTS, summary.metric.partition("_")[2]]))
    return [f"{split}_{name}" for split in ("test", "val") for name in names]


def occasional(summary: Summary) -> list[str]:
    """The columns that are shown only if some row has a value."""
    return [name for name in (*(f"test_{name}" for name in SOMETIMES), "chance") if name not in judged(summary)]


def _shown_occasional(summary: Summary) -> list[str]:
    shown = [name for name in occasional(summary) if any(line[name]["mean"] for line in summary.confirmation)]
    clean = [line for line in summary.confirmation if line[CLEAN]["mean"] not in (None, line["test_accuracy"]["mean"])]
    return [name for name in shown if name != CLEAN] + ([CLEAN] if clean else [])


def _state_table(summary: Summary) -> Table:
    lines = list(summary.states)
    if len(lines) > 1:
        lines.append({"arm": "total", **{name: sum(line[name] for line in lines) for name in lines[0] if name not in ("arm", "standing")}})
    rows = [[line["arm"], *(str(line[name]) for name in (*STAGES, *STATES)), *_cost(line)] for line in lines]
    header = ["arm", *STAGES, "complete", "pruned", "failed", "computed FLOPs", "train s", "wall s"]
    return Table("Trials", header, rows, "No trial yet.")


def _cost(line: dict[str, Any]) -> list[str]:
    cost = flops(line["train_flops"]) + (f" ({line['without_cost']} unknown)" if line["without_cost"] else "")
    return [cost, f"{line['train_seconds']:.0f}", f"{line['wall_seconds']:.0f}"]


def _best_table(summary: Summary) -> Table:
    settings = list(dict.fromkeys(name for line in summary.best for name in line if name not in ("arm", "trial_id", summary.metric, "of")))
    rows = [
        [line["arm"], *(significant(line.get(name)) for name in (summary.metric, "of", *settings, "trial_id"))] for line in summary.best
    ]
    which = f"{'highest' if summary.mode == 'max' else 'lowest'} {summary.metric}"
    title = f"Best configuration per arm (as selected; without a selection, {which} of COMPLETE search trials)"
    return Table(title, ["arm", summary.metric, "of", *settings, "trial_id"], rows, "No COMPLETE search trial.")


def _confirmation_table(summary: Summary) -> Table:
    shown = [*judged(summary), *_shown_occasional(summary)]
    shown = [name for name in shown if name.split("_", 1)[-1] in JUDGEMENTS or any(line[name]["n"] for line in summary.confirmation)]
    cost = UNPACKED if all(line[UNPACKED]["n"] == line["n"] for line in summary.confirmation) else COMPUTED
    rows = [
        [
            line["arm"],
            str(line["n"]),
            *map(percent, (line[name] for name in shown)),
            flops(line[cost]["mean"]),
            significant(line["train_seconds"]["mean"]),
        ]
        for line in summary.confirmation
    ]
    header = ["arm", "n", *(name.replace("_", " ") for name in shown), f"{FLOPS[cost]}/trial", "s/trial"]
    return Table("Confirmation on fresh seeds (%, mean ± sd)", header, rows, "No confirmation yet.")


def _difference_table(summary: Summary) -> Table:
    rows = [
        [
            line["method"],
            line["baseline"],
            line["metric"].replace("_", " "),
            percent(line, sign=True),
            str(line["n"]),
            "-" if line["p"] is None else f"{line['p']:.3g}",
            ", ".join(f"{seed}: {100 * value:+.2f}" for seed, value in line["per_seed"].items()),
        ]
        for line in summary.differences
    ]
    header = ["method", "baseline", "metric", "difference", "n", "p", "per seed"]
    title = "Paired differences, method - baseline (points, mean ± sd; p: two-sided paired t-test, not corrected for the number of rows)"
    return Table(title, header, rows, "No pair of confirmed arms.")


def _brief_search(summary: Summary) -> Table:
    best = {line["arm"]: line for line in summary.best}
    settings = ["lambda", "lambda_grad_ratio", "k", "learning_rate", "pretrain_learning_rate", "loss_dropout"]
    settings = [name for name in settings if any(line.get(name) is not None for line in summary.best)]
    rows = [
        [
            line["arm"],
            *(str(line[name]) for name in ("search", "search_PRUNED", "search_FAILED")),
            *_brief_best(line, best.get(line["arm"]), settings, summary.metric),
        ]
        for line in summary.states
    ]
    header = ["arm", "trials", "cut early", "failed", *(_NAMES.get(name, name) for name in settings), f"{_words(summary.metric)} (%)"]
    return Table("Search: best of each arm on validation", header, rows, "No trial yet.")


def _brief_best(states: dict[str, Any], line: dict[str, Any] | None, settings: Sequence[str], metric: str) -> list[str]:
    if line is None:
        return [*["-"] * len(settings), states["standing"] or "none complete"]
    if line[metric] is None:  # complete trials without this metric
        return ["-"] * (len(settings) + 1)
    return [*("-" if (value := line.get(name)) is None else f"{value:.3g}" for name in settings), f"{100 * line[metric]:.2f}"]


def _brief_confirmation(summary: Summary, seeds: Sequence[int]) -> Table:
    """By the metric of the verdict; the selecting metric, if different, has its own column."""
    name = JUDGED.partition("_")[2]
    tested = any(line[JUDGED]["n"] for line in summary.confirmation)
    split = "test" if tested else "val"
    metric = f"{split}_{name}"
    differences = {line["method"]: line for line in summary.differences if line["metric"] == metric and line["own"]}
    masked = any(line["test_accuracy_untrained"]["n"] for line in summary.confirmation)
    selecting = summary.metric.partition("_")[2]
    others = ("accuracy_untrained", "retrieval", "retrieval_untrained") if masked else ("prefix", "contains", "stopped")
    shown = [f"{split}_{other}" for other in dict.fromkeys([selecting, *others]) if other != name]
    shown = [other for other in shown if any(line.get(other, {"n": 0})["n"] for line in summary.confirmation)]
    shown = [*(["chance"] if any(line["chance"]["mean"] for line in summary.confirmation) else []), *shown]
    rows = []
    for states in summary.states:
        arm = states["arm"]
        line = next((line for line in summary.confirmation if line["arm"] == arm), None)
        if line is None:
            rows.append([arm, "0", states["standing"] or "-", "-", *["-"] * len(shown)])
            continue
        difference = percent(differences[arm], sign=True) if arm in differences else "-"
        means = ["-" if line[other]["mean"] is None else f"{100 * line[other]['mean']:.2f}" for other in shown]
        rows.append([arm, str(line["n"]), percent(line[metric]), difference, *means])
    header = ["arm", "seeds", "mean ± sd", "minus baseline", *(_words(other.removeprefix(f"{split}_")) for other in shown)]
    return Table(
        f"Confirmation: {_words(metric)} on seeds {', '.join(map(str, seeds))} (%, differences in points)", header, rows, "No trial yet."
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
