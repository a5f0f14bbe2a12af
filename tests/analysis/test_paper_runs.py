"""Every tiny run of the paper's tables and figures, shortened to seconds: trained, written as a sweep writes it, shown by its command."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.artefacts import ARTEFACTS, Artefact
from analysis.inputs.sweep import read
from analysis.paper import together
from jepa_ray import plan, results
from jepa_ray.config import SweepConfig, arms, config_id
from jepa_ray.orchestration.jobs import confirmation
from jepa_ray.plan.load import load_sweep

LOOPS = {
    "t8-lora-ranks.yaml": ("base.lora.r=2", "base.lora=none"),
    "t9-nested-rotten-tomatoes.yaml": ("pretrain.seed=82", "pretrain.seed=23"),
    "f7-grid.yaml": ("base.seed=1", "base.seed=2"),
    "f9-hellaswag-lambda.yaml": ("base.seed=1", "base.seed=2"),
}
"""Two values of the loop in a file's first lines."""
SMALL = (
    *("data.num_train=64", "data.num_val=8", "data.num_test=8"),
    *("base.optim.num_epochs=1", "base.evaluation.max_new_tokens=4", "base.evaluation.diagnostic_pairs=0"),
)
OWN = {
    "t14-embeddings.yaml": ("base.evaluation.diagnostic_pairs=128",),  # the only file whose tables and figures show diagnostics
    "t4-tasks.yaml": ("task.nq-open.num_train=96",),
    "t6-loss-dropout.yaml": ("base.optim.num_epochs=3", "base.optim.max_train_flops=6e9"),
    "t9-nested-rotten-tomatoes.yaml": ("pretrain.data.num_train=96", "pretrain.num_epochs=1"),
    "t12-synth.yaml": ("families=[llama3, gemma2]",),
    "f1-epochs.yaml": ("base.optim.num_epochs=2",),
}
RUNS: dict[tuple[str, ...], list[Artefact]] = {}
for artefact in ARTEFACTS:
    if artefact.tiny:
        RUNS.setdefault(artefact.tiny, []).append(artefact)


def run(sweep: SweepConfig, folder: Path) -> None:
    """Search (the arm's defaults, or every point of its grid) and confirmation, without Ray and without selection."""
    from jepa_ray.preparation.prepare import prepare
    from jepa_ray.training.runtime import Runtime
    from jepa_ray.training.trial import run_trial

    prepared = {(arm.family, arm.task): prepare(sweep, arm.family, arm.task) for arm in arms(sweep)}
    for arm in arms(sweep):
        data = prepared[arm.family, arm.task]
        points = plan.grid(sweep, arm) if sweep.search.algorithm == "grid" else [plan.defaults(sweep, arm)]
        searched = [plan.trial_config(sweep, arm, point) for point in points]
        confirmed = [confirmation(searched[0], seed) for seed in sweep.confirm.seeds]
        for stage, configs in (("search", searched), ("confirm", confirmed)):
            for config in configs:
                identity = config_id(config, data.identity)
                given = replace(data, test=data.test if config.evaluation.test else None)
                result = run_trial(config, given, Runtime(), lambda _: None, folder / "scratch" / identity)
                assert result.state == "COMPLETE", (arm.name, result.error)
                results.write_trial(folder, identity, config, arm.name, stage, result)  # type: ignore[arg-type]
    results.declare_arms(folder, sweep)
    (folder / "sweep.yaml").write_text(f"search: {{metric: {sweep.search.metric}, mode: max}}\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folders_of(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """The folders of a space's runs; a space that several artefacts share runs once."""

    @functools.cache
    def made(space: str) -> list[Path]:
        root, folders = tmp_path_factory.mktemp("runs"), []
        file, *overrides = shlex.split(space)
        name = Path(file).name
        for number, loop in enumerate(LOOPS.get(name, ("",))):
            sweep = load_sweep(repository / file, [*overrides, *SMALL, *OWN.get(name, ()), *([loop] if loop else [])])
            if sweep.confirm.seeds:
                sweep = sweep.model_copy(update={"confirm": sweep.confirm.model_copy(update={"seeds": sweep.confirm.seeds[:2]})})
            folders.append(root / f"{sweep.name}-{number}")
            run(sweep, folders[-1])
        return folders

    return made


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("spaces", RUNS, ids=["+".join(Path(shlex.split(space)[0]).stem for space in spaces) for spaces in RUNS])
def test_a_tiny_run_fills_its_tables_and_figures(
    spaces: tuple[str, ...], folders_of: Callable[[str], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jepa_ray.preparation import tiny_base
    from jepa_ray.training import trial

    monkeypatch.setattr(tiny_base, "STEPS", 2)  # an untrained base is sufficient
    monkeypatch.setattr(trial, "provenance", functools.cache(trial.provenance))  # which starts git three times
    folders = [folder for space in spaces for folder in folders_of(space)]
    for artefact in RUNS[spaces]:
        for sweep in together(artefact, [read(folder) for folder in folders]):
            if artefact.plot is not None:
                plot = artefact.plot(sweep)
                assert plot.figure is not None and plot.table.rows, (artefact.name, plot.caption)
            else:
                assert artefact.tables is not None
                assert artefact.tables(sweep)[0].rows, artefact.name
