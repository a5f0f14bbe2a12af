"""From a sweep to its trials: the configuration an assignment stands for, and the plan that is printed before any money is spent.

Imports neither torch nor Ray: a dry run answers at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_ray.config import Arm, CrossEntropyConfig, ObjectiveConfig, SweepConfig, TrialConfig, canonical, compared
from jepa_ray.config.space import Distribution, enumerate_grid, show
from jepa_ray.data.datasets import DATASETS
from jepa_ray.plan import warm_start


@dataclass(frozen=True)
class Estimate:
    """What one trial of an arm at its defaults amounts to, counted from the tokenised data."""

    train_examples: int
    train_tokens: float
    train_flops: float
    checkpoint_bytes: float
    test_examples: int = 0
    """Of the sealed test split; 0: there is none."""


def space(sweep: SweepConfig, arm: Arm) -> dict[str, Distribution]:
    """What is searched in an arm: all of the space, but nothing of the objective, nor what depends on it, where the arm has none, or where
    it has no effect there (predictor tokens of an in-sequence layout, say)."""
    objective = sweep.methods[arm.method]
    if objective is not None and objective.control in ("monitor", "zero"):
        objective = None  # no knob of a term that trains nothing changes what is selected
    out: dict[str, Distribution] = {}
    for path, distribution in sweep.space.items():
        if path.startswith("objective.") and (objective is None or not _takes(objective, path, distribution)):
            continue
        if all(name in out for name in distribution.when or ()):
            out[path] = distribution
    return out


def _takes(objective: ObjectiveConfig, path: str, distribution: Distribution) -> bool:
    """Whether a knob has an effect on an objective: its least favourable legal values are not all refused."""
    leaf = path.partition(".")[2]
    return any(accepts(objective, leaf, value) for value in distribution.probes())


def accepts(objective: ObjectiveConfig, leaf: str, value: Any) -> bool:
    """Whether an objective can have this value of a knob, which then is no idle one."""
    try:
        changed = ObjectiveConfig.model_validate({**canonical(objective), leaf: value})
    except ValueError:
        return False
    return leaf != "k" or changed.encodes_views


def trial_config(sweep: SweepConfig, arm: Arm, params: Mapping[str, Any]) -> TrialConfig:
    """The resolved configuration of an assignment: the arm's defaults with `params` (paths in YAML's words) put in."""
    tree = _tree(sweep, arm)
    for path, value in params.items():
        part, _, leaf = path.partition(".")
        tree[part] = {**tree[part], leaf: sweep.space[path].snap(value) if path in sweep.space else value}
    return TrialConfig.model_validate(tree)


def defaults(sweep: SweepConfig, arm: Arm) -> dict[str, Any]:
    """The arm's own values of what is searched, as far as they lie in the space: its first trial."""
    tree = _tree(sweep, arm)
    out: dict[str, Any] = {}
    for path, distribution in space(sweep, arm).items():
        value = _own(tree, path)
        if distribution.applies(out) and distribution.contains(value):
            out[path] = value
    return out


def _own(tree: Mapping[str, Any], path: str) -> Any:
    part, _, leaf = path.partition(".")
    return (tree[part] or {}).get(leaf)


def grid(sweep: SweepConfig, arm: Arm) -> list[dict[str, Any]]:
    """Every distinct assignment of the arm's space. ValueError where a range has no step."""
    return list(enumerate_grid(space(sweep, arm)))


def _tree(sweep: SweepConfig, arm: Arm) -> dict[str, Any]:
    objective = sweep.methods[arm.method]
    base = canonical(sweep.base)
    cap = sweep.max_new_tokens_of(arm.task) or DATASETS[arm.task].max_new_tokens
    return {
        "model": {**base["model"], "family": arm.family, "model": sweep.model_of(arm.family)},
        "pretrain": canonical(sweep.pretrain) if sweep.pretrain is not None else None,
        "lora": base["lora"],
        "data": canonical(sweep.data_of(arm.task)),
        "objective": canonical(objective) if objective is not None else None,
        "masked": base["masked"],
        "optim": base["optim"] | canonical_without_none(sweep.cross_entropy.get(arm.method)),
        "evaluation": {**base["evaluation"], "max_new_tokens": cap},
        "seed": sweep.base.seed,
    }


def canonical_without_none(record: CrossEntropyConfig | None) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_none=True) if record is not None else {}


def notes(sweep: SweepConfig, declared: Sequence[Arm]) -> list[str]:
    """Repeated and no-op configurations that the space contains, each with its reason."""
    out = []
    for arm in declared:
        own = space(sweep, arm)
        try:
            size = sum(1 for _ in itertools.islice(enumerate_grid(own), sweep.search.num_trials))
        except ValueError:
            continue
        if size < sweep.search.num_trials:
            ending = "the arm ends early" if sweep.search.algorithm == "grid" else "repeats are answered from the table, not run again"
            out.append(f"{arm.name}: only {_count(size, 'distinct configuration')} for {sweep.search.num_trials} trials; {ending}")
    for arm in declared:
        own, first, tree = space(sweep, arm), defaults(sweep, arm), _tree(sweep, arm)
        for path, distribution in sweep.space.items():
            absent = [name for name in distribution.when or {} if name not in own]
            if absent and not path.startswith("objective."):
                out.append(
                    f"{arm.name}: {path} is never searched, for its `when` looks at {', '.join(absent)}, which this arm does not have"
                )
        for path, distribution in own.items():
            if path not in first and distribution.applies(first):
                values = distribution.model_copy(update={"when": None}).text()
                out.append(
                    f"{arm.name}: its own {path} = {show(_own(tree, path))} lies outside {values}; the first trial draws one instead"
                )
    for path, distribution in sweep.space.items():
        probes = distribution.probes()
        if len(probes) == 1:
            out.append(f"{path} has a single value ({show(probes[0])}): nothing is searched")
        if path == "objective.lambda" and 0 in probes:
            out.append("objective.lambda = 0 is the baseline, whatever the other knobs of the objective")
    for name, objective in sweep.methods.items():
        if objective is not None and objective.fixed_lambda == 0 and objective.control == "none" and "objective.lambda" not in sweep.space:
            searched = [path for path in sweep.space if path.startswith("objective.")]
            also = f"; searching {', '.join(searched)} changes nothing" if searched else ""
            out.append(f"method {name}: lambda = 0 equals the baseline bit for bit{also}")
    if idle := idle_early_stopping(sweep):
        out.append(idle)
    return out


def idle_early_stopping(sweep: SweepConfig) -> str | None:
    """Why ASHA can never stop a trial of this sweep; None where it can, where there is none, or where it counts FLOPs.

    A trial is stopped after a validation before its last epoch, and not before `grace_period`.
    """
    scheduler, every = sweep.scheduler, sweep.base.evaluation.every
    if scheduler.name == "none" or scheduler.time_attr != "epoch":
        return None
    searched = sweep.space.get("optim.num_epochs")
    lengths = (searched.int_ or searched.choice or ()) if searched is not None else ()
    epochs = max([sweep.base.optim.num_epochs, *(length for length in lengths if isinstance(length, int))])
    latest = (epochs - 1) // every * every
    if latest >= scheduler.grace_period:
        return None
    when = f"the last validation before the end is after epoch {latest}" if latest else "there is no validation before the end"
    return (
        f"early stopping has no effect: trials have {_count(epochs, 'epoch')}, {when}, and scheduler.grace_period is "
        f"{scheduler.grace_period:g}; lower it, train longer, or set scheduler=none"
    )


def describe(
    sweep: SweepConfig,
    declared: Sequence[Arm],
    estimates: Mapping[str, Estimate] | None = None,
    facts: Sequence[str] = (),
    power: Sequence[str] = (),
) -> str:
    """The plan as text: arms, space, budget, confirmation, notes; with estimates also tokens, FLOPs and disk.

    `declared`: the sweep's arms, with what each is compared with. `power`: what the confirmation can detect, in words.
    """
    search = sweep.search

    def source(task: str) -> str:
        return f"{task} from {sweep.data_of(task).train or 'built-in generator'}"

    model = sweep.model if isinstance(sweep.model, str) else ", ".join(f"{family}: {name}" for family, name in sweep.model.items())
    trained = "full fine-tuning" if sweep.base.masked is None else "masked encoder, trained whole"
    adapters = f"LoRA r = {sweep.base.lora.r}" if sweep.base.lora is not None else trained
    optim = sweep.base.optim
    scheduler = sweep.scheduler
    stopping = f"ASHA on {scheduler.time_attr}, keeps 1/{scheduler.reduction_factor:g} after {scheduler.grace_period:g}"
    stopping = "none" if scheduler.name == "none" or idle_early_stopping(sweep) else stopping
    seeds = sweep.confirm.seeds
    total = f"{_count(len(declared), 'arm')} x {_count(search.num_trials, 'trial')}"
    total += f" + {len(declared)} x {_count(len(seeds), 'confirmation')}" if seeds else ""
    most = most_matched(sweep, declared)
    again = f"; up to {most} more at equal FLOPs" if most else ""
    searched = [(f"    {path}", distribution.text()) for path, distribution in sweep.space.items()]
    lines = [
        f"Sweep {sweep.name}   ->   {sweep.output}/{sweep.name}",
        f"  {'task ' if len(sweep.tasks) == 1 else 'tasks'}     {', '.join(map(source, sweep.tasks))}; model {model}, {adapters}; "
        f"{_count(optim.num_epochs, 'epoch')}, batch {optim.batch_size}, {optim.schedule} schedule",
        *_pretraining(sweep),
        f"  search    {search.algorithm}, {_count(search.num_trials, 'trial')} per arm, by {search.metric} ({search.mode}); "
        f"seed {sweep.base.seed}; early stopping: {stopping}",
        f"  confirm   best of each arm on seeds {', '.join(map(str, seeds))}, test split opened once" if seeds else "  confirm   no",
        f"  total     {total} = {_count(total_trials(sweep, declared), 'run')}{again}",
        "  space",
        *_table(searched or [("    (empty)", "every trial of an arm is the same")]),
        "  arms",
        *_table(_arm_rows(sweep, declared, estimates)),
    ]
    if estimates:
        flops = sum(estimates[arm.name].train_flops * (search.num_trials + len(seeds)) for arm in declared if arm.name in estimates)
        lines.append(
            f"  cost      about {flops:.3g} computed FLOPs of training, an estimate at the methods' defaults; early stopping spends less"
        )
    lines += [f"  begins    {line}" for line in _warm_start(sweep, declared)]
    lines += [f"  power     {line}" for line in power]
    lines += [f"  data      {fact}" for fact in facts]
    lines += [f"  note      {note}" for note in notes(sweep, declared)]
    return "\n".join(lines)


def _warm_start(sweep: SweepConfig, own: Sequence[Arm]) -> list[str]:
    """What each method takes from earlier sweeps."""
    search, firsts = sweep.search, {arm.method: arm for arm in reversed(own)}
    if not search.warm_start:
        return []
    read = {name: warm_start.read(search.warm_start, name, space(sweep, arm), search.metric, search.mode) for name, arm in firsts.items()}
    gone = [folder for folder in search.warm_start if not Path(folder).is_dir()]
    lines = [f"{name}: {found.text()}" for name, found in reversed(read.items())] if len(gone) < len(search.warm_start) else []
    return [*lines, *(f"{folder} is gone; arms that have begun keep what it suggested" for folder in gone)]


def _pretraining(sweep: SweepConfig) -> list[str]:
    if sweep.pretrain is None:
        return []
    stage = sweep.pretrain
    where = {"pretrain": "in this stage only", "finetune": "not in this stage", "both": "in both stages"}[stage.objective_in]
    source = stage.data.train or "built-in generator"
    return [f"  pretrain  {stage.data.task} from {source}; {_count(stage.num_epochs, 'epoch')}, batch {stage.batch_size}; JEPA {where}"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def most_matched(sweep: SweepConfig, declared: Sequence[Arm]) -> int:
    """Runs at equal FLOPs, where every method costs more or less than its baseline; controls have none."""
    if not sweep.confirm.equal_flops or sweep.pretrain is not None or sweep.base.masked is not None:
        return 0
    return len(compared(declared, controls=False)) * len(sweep.confirm.seeds)


def total_trials(sweep: SweepConfig, declared: Sequence[Arm]) -> int:
    """Runs of the whole sweep, search and confirmation."""
    return len(declared) * (sweep.search.num_trials + len(sweep.confirm.seeds))


def _arm_rows(sweep: SweepConfig, own: Iterable[Arm], estimates: Mapping[str, Estimate] | None) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for arm in own:
        objective = sweep.methods[arm.method]
        tokens = "next-token" if sweep.base.masked is None else "masked-token"
        method = f"{tokens} loss only" if objective is None else objective_text(objective)
        method += "".join(f", {key} {show(value)}" for key, value in canonical_without_none(sweep.cross_entropy.get(arm.method)).items())
        row: tuple[str, ...] = (f"    {arm.name}", method, f"{len(space(sweep, arm))} searched")
        if estimates and arm.name not in estimates:
            row += ("cannot be run: see below",)
        elif estimates:
            estimate = estimates[arm.name]
            row += (
                f"{estimate.train_examples} examples, {estimate.train_tokens:.3g} tokens, "
                f"{estimate.train_flops:.3g} computed FLOPs a trial, {estimate.checkpoint_bytes / 1e6:.1f} MB working checkpoint",
            )
        rows.append(row)
    return rows


def objective_text(objective: ObjectiveConfig) -> str:
    """An objective in a few words: its distance, weight and predictor tokens, and whatever else is not as in the paper."""
    weight = f"lambda {objective.fixed_lambda:.3g}" if objective.fixed_lambda is not None else "lambda from gradients"
    own = canonical(objective)
    usual = canonical(ObjectiveConfig())
    told = ("distance", "lambda", "lambda_effective", "k")
    rest = [f"{name} {show(value)}" for name, value in own.items() if name not in told and value != usual[name]]
    return ", ".join([objective.distance, weight, f"k {objective.k}", *rest]).replace("'", "")


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows with their columns aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
