"""The plan as text: the runs of a sweep, their cost, and notes on anything odd. Printed before anything expensive starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jepa_ray.config import Arm, ObjectiveConfig, SweepConfig, canonical, comparisons, rates
from jepa_ray.config.record import show
from jepa_ray.config.space import enumerate_grid
from jepa_ray.data.datasets import OWN
from jepa_ray.plan import warm_start
from jepa_ray.plan.arms import Estimate, canonical_without_none, defaults, method_tree, most_matched, own_value, space, total_trials
from jepa_ray.plan.table import table


def notes(sweep: SweepConfig, declared: Sequence[Arm], estimates: Mapping[str, Estimate] | None = None) -> list[str]:
    """Notes on repeated and no-op configurations in the space, each with its reason."""
    out = []
    for arm in declared:
        try:
            size = sum(1 for _ in itertools.islice(enumerate_grid(space(sweep, arm)), sweep.search.num_trials))
        except ValueError:
            continue
        if size < sweep.search.num_trials:
            ending = "the arm ends early" if sweep.search.algorithm == "grid" else "repeats are read from the table, not run again"
            out.append(f"{arm.name}: only {_count(size, 'distinct configuration')} for {sweep.search.num_trials} trials; {ending}")
    for arm in declared:
        searched, first, tree = space(sweep, arm), defaults(sweep, arm), method_tree(sweep, arm)
        for path, distribution in sweep.space.items():
            absent = [name for name in distribution.when or {} if name not in searched]
            if absent and not path.startswith("objective."):
                why = f"because its `when` refers to {', '.join(absent)}, which this arm does not have"
                out.append(f"{arm.name}: {path} is never searched, {why}")
        for path, distribution in searched.items():
            if path not in first and distribution.applies(first):
                values = distribution.model_copy(update={"when": None}).text()
                value = show(own_value(tree, path))
                out.append(f"{arm.name}: its own {path} = {value} is outside {values}; the first trial draws another value instead")
    for path, distribution in sweep.space.items():
        probes = distribution.probes()
        if len(probes) == 1:
            out.append(f"{path} has a single value ({show(probes[0])}): nothing is searched")
        if path == "objective.lambda" and 0 in probes:
            out.append("objective.lambda = 0 is the baseline, regardless of the other knobs of the objective")
    for name, objective in sweep.methods.items():
        if objective is not None and objective.fixed_lambda == 0 and objective.control == "none" and "objective.lambda" not in sweep.space:
            knobs = [path for path in sweep.space if path.startswith("objective.")]
            also = f"; searching {', '.join(knobs)} changes nothing" if knobs else ""
            out.append(f"method {name}: lambda = 0 equals the baseline bit for bit{also}")
    if idle := idle_early_stopping(sweep, estimates):
        out.append(idle)
    return [*out, *_rates(sweep)]


def _rates(sweep: SweepConfig) -> list[str]:
    """For pretrained models: the learning rate of the file or its default, and rates that only tiny models are trained at."""
    tree = canonical(sweep)
    if not rates.pretrained(tree) and not rates.mixed(tree):
        return []
    how, name = ("lora", "LoRA") if sweep.base.lora is not None else ("full", "full fine-tuning")
    low, high = rates.USUAL[how]
    searched, rate = sweep.space.get("optim.learning_rate"), sweep.base.optim.learning_rate
    usual = f"{name} of a pretrained model usually takes {show(low)} to {show(high)}"
    highest = max(searched.probes()) if searched is not None else rate
    if rates.mixed(tree) and (searched is None or highest > high):
        real = ", ".join(family for family in sweep.families if sweep.model_of(family) != "tiny")
        value = f"{'up to ' if searched is not None else ''}{show(highest)}"
        return [f"optim.learning_rate is {value} in every trial, tiny models and {real} alike; {usual}: give {real} a sweep of its own"]
    if highest > high:
        change = f"'space.optim.learning_rate={{float: [{show(low)}, {show(high)}], log: true}}'"
        return [f"optim.learning_rate is up to {show(highest)}, higher than usual (the tiny models need it); {usual}: {change}"]
    return [f"optim.learning_rate is {show(rate)} in every trial; {usual}"] if searched is None else []


def idle_early_stopping(sweep: SweepConfig, estimates: Mapping[str, Estimate] | None = None) -> str | None:
    """Why ASHA can never stop a trial of this sweep. None if it can, if there is no ASHA, or if it counts FLOPs.

    A trial can be stopped only after a validation before its last epoch (in steps: before its last step, whose number is known from the
    estimates unless epochs or batches are searched), and not before `grace_period`.
    """
    scheduler, every = sweep.scheduler, sweep.base.evaluation.every
    if scheduler.at_steps and estimates and not {"optim.num_epochs", "optim.batch_size"} & set(sweep.space):
        optim, examples = sweep.base.optim, max(estimate.train_examples for estimate in estimates.values())
        steps = optim.num_epochs * -(-examples // optim.batch_size)
        return (
            f"early stopping has no effect: trials have at most {_count(steps, 'optimizer step')}, and scheduler.grace_period is "
            f"{scheduler.grace_period:g}; lower it, train longer, or set scheduler=none"
            if scheduler.at_steps[0] >= steps
            else None
        )
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
    hardware: Sequence[str] = (),
    folder: Sequence[str] = (),
) -> str:
    """The plan as text: arms, space, budget, confirmation, notes; with estimates also tokens, FLOPs and disk.

    `declared`: the sweep's arms, each with its baseline. `power`: differences that the confirmation can detect, in words. `hardware`:
    memory, hours and cost (`budget.lines`). `folder`: what a run would find in the results folder.
    """
    search = sweep.search

    def source(task: str) -> str:
        data = sweep.data_of(task)
        judged = f" (judge {data.judge or 'exact'})" if task == OWN else ""
        return f"{task} from {data.train or 'built-in generator'}{judged}"

    model = sweep.model if isinstance(sweep.model, str) else ", ".join(f"{family}: {name}" for family, name in sweep.model.items())
    trained = "full fine-tuning" if sweep.base.masked is None else "masked encoder, trained whole"
    adapters = f"LoRA r = {sweep.base.lora.r}" if sweep.base.lora is not None else trained
    optim = sweep.base.optim
    scheduler = sweep.scheduler
    stopping = f"ASHA on {scheduler.time_attr}, keeps 1/{scheduler.reduction_factor:g} after {scheduler.grace_period:g}"
    stopping = "none" if scheduler.name == "none" or idle_early_stopping(sweep, estimates) else stopping
    seeds = sweep.confirm.seeds
    total = f"{_count(len(declared), 'arm')} x {_count(search.num_trials, 'trial')}"
    total += f" + {len(declared)} x {_count(len(seeds), 'confirmation')}" if seeds else ""
    most = most_matched(sweep, declared)
    again = f"; up to {most} more at equal FLOPs" if most else ""
    searched = [(f"    {path}", distribution.text()) for path, distribution in sweep.space.items()]
    lines = [
        f"Sweep {sweep.name}   ->   {sweep.output}/{sweep.name}",
        *(f"  folder    {line}" for line in folder),
        f"  {'task ' if len(sweep.tasks) == 1 else 'tasks'}     {', '.join(map(source, sweep.tasks))}; model {model}, {adapters}; "
        f"{_count(optim.num_epochs, 'epoch')}, batch {optim.batch_size}, {optim.schedule} schedule",
        *_pretraining(sweep),
        f"  search    {search.algorithm}, {_count(search.num_trials, 'trial')} per arm, by {search.metric} ({search.mode}); "
        f"seed {sweep.base.seed}; early stopping: {stopping}",
        f"  confirm   best of each arm on seeds {', '.join(map(str, seeds))}, scored once on the test split{_until(sweep)}"
        if seeds
        else "  confirm   none",
        *_claims(sweep, declared),
        f"  total     {total} = {_count(total_trials(sweep, declared), 'run')}{again}",
        "  space",
        *table(searched or [("    (empty)", "every trial of an arm is the same")]),
        "  arms",
        *table(_arm_rows(sweep, declared, estimates)),
    ]
    if estimates:
        flops = sum(estimates[arm.name].train_flops * (search.num_trials + len(seeds)) for arm in declared if arm.name in estimates)
        lines.append(
            f"  cost      about {flops:.3g} computed FLOPs of training, an estimate at the methods' defaults"
            + ("; early stopping spends less" if stopping != "none" else "")
        )
    lines += hardware
    lines += [f"  start     {line}" for line in _warm_start(sweep, declared)]
    lines += [f"  power     {line}" for line in power]
    lines += [f"  data      {fact}" for fact in facts]
    lines += [f"  note      {note}" for note in notes(sweep, declared, estimates)]
    lines += [f"  {row}" for estimate in (estimates or {}).values() for row in estimate.rows]
    return "\n".join(lines)


def _warm_start(sweep: SweepConfig, declared: Sequence[Arm]) -> list[str]:
    """The suggestions that each method takes from earlier sweeps."""
    search, firsts = sweep.search, {arm.method: arm for arm in reversed(declared)}
    if not search.warm_start:
        return []
    read = {name: warm_start.read(search.warm_start, name, space(sweep, arm), search.metric, search.mode) for name, arm in firsts.items()}
    missing = [folder for folder in search.warm_start if not Path(folder).is_dir()]
    lines = [f"{name}: {start.text()}" for name, start in reversed(read.items())] if len(missing) < len(search.warm_start) else []
    return [*lines, *(f"{folder} no longer exists; arms that have started keep its suggestions" for folder in missing)]


def _claims(sweep: SweepConfig, declared: Iterable[Arm]) -> list[str]:
    """What the verdict compares, by method, if the file says so."""
    if sweep.claims is None:
        return []
    methods = {arm.name: arm.method for arm in declared}
    claims = comparisons(list(declared), controls=False)
    pairs = dict.fromkeys(f"{methods[one.arm]} against {methods[one.other]}" for one in claims)
    return [f"  claims    {_count(len(claims), 'claim')}: {', '.join(pairs) or 'none'}"]


def _until(sweep: SweepConfig) -> str:
    """What follows the planned seeds."""
    if sweep.confirm.until == "planned":
        return ""
    return f"; then more, up to {sweep.confirm.max_seeds}, until every claim is decided or hopeless"


def _pretraining(sweep: SweepConfig) -> list[str]:
    if sweep.pretrain is None:
        return []
    stage = sweep.pretrain
    where = {"pretrain": "in this stage only", "finetune": "not in this stage", "both": "in both stages"}[stage.objective_in]
    source = stage.data.train or "built-in generator"
    return [f"  pretrain  {stage.data.task} from {source}; {_count(stage.num_epochs, 'epoch')}, batch {stage.batch_size}; JEPA {where}"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _arm_rows(sweep: SweepConfig, declared: Iterable[Arm], estimates: Mapping[str, Estimate] | None) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for arm in declared:
        objective = sweep.methods[arm.method]
        tokens = "next-token" if sweep.base.masked is None else "masked-token"
        packed = " (shared prefixes once)" if sweep.base.masked is None else ""
        method = f"{tokens} loss only" if objective is None else objective_text(objective)
        method += "".join(f", {key} {show(value)}" for key, value in canonical_without_none(sweep.cross_entropy.get(arm.method)).items())
        row: tuple[str, ...] = (f"    {arm.name}", method, f"{len(space(sweep, arm))} searched")
        if estimates and arm.name not in estimates:
            row += ("cannot run: see below",)
        elif estimates:
            estimate = estimates[arm.name]
            row += (
                f"{estimate.train_examples} examples, {estimate.train_tokens:.3g} tokens{packed}, "
                f"{estimate.train_flops:.3g} computed FLOPs a trial, {estimate.checkpoint_bytes / 1e6:.1f} MB working checkpoint",
            )
        rows.append(row)
    return rows


def objective_text(objective: ObjectiveConfig) -> str:
    """An objective in a few words: distance, weight, predictor tokens, and every other setting that differs from the paper."""
    weight = f"lambda {objective.fixed_lambda:.3g}" if objective.fixed_lambda is not None else "lambda from gradients"
    paper = canonical(ObjectiveConfig())
    always = ("distance", "lambda", "lambda_effective", "k")
    rest = [f"{name} {show(value)}" for name, value in canonical(objective).items() if name not in always and value != paper[name]]
    return ", ".join([objective.distance, weight, f"k {objective.k}", *rest]).replace("'", "")
