"""Which knobs mattered, per arm: PED-ANOVA (Watanabe et al. 2023) over the arm's Optuna study. Optuna is imported only if needed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from analysis.figures import style
from analysis.figures.style import Plot
from analysis.inputs.sweep import Sweep
from analysis.text_tables import Table

FEWEST = 10
"""With fewer COMPLETE trials (including repeats of a configuration) an importance would be noise."""


def plot(sweep: Sweep) -> Plot:
    """Share of each knob in separating the better trials from the rest; arms with few trials are named and left out."""
    title = "Importance of the knobs"
    by_arm, notes = importances(sweep.folder / "study.db")
    rows = [[arm, str(count), knob, f"{100 * share:.1f}"] for arm, (count, shares) in by_arm.items() for knob, share in shares.items()]
    table = Table(title, ["arm", "trials", "knob", "share %"], rows, "No arm has enough trials.")
    if not by_arm:
        has_study = (sweep.folder / "study.db").is_file()
        why = f"No arm has {FEWEST} COMPLETE search trials over two knobs: use `search.num_trials={2 * FEWEST}` or more."
        return Plot("importance", title, why, table, sources=("study.db",) if has_study else (), notes=tuple(notes))
    looks = style.looks(sweep)
    arms = list(by_arm)
    with style.drawing():
        most = max(len(shares) for _, shares in by_arm.values())
        figure, axes = style.panels(arms, columns=2, height=0.7 + 0.25 * most)
        for arm, axis in zip(arms, axes, strict=True):
            _, shares = by_arm[arm]
            look = looks.get(arm.partition("/")[0])
            axis.barh(
                [name.rpartition(".")[2].replace("_", " ") for name in shares],
                [100 * s for s in shares.values()],
                color=look.colour if look else style.FAINT,
                height=0.65,
            )
            axis.set_xlim(0, 100)
            axis.invert_yaxis()
            axis.set_xlabel("share (%)")
            axis.grid(axis="y", visible=False)
    counts = ", ".join(f"{arm} {count}" for arm, (count, _) in by_arm.items())
    caption = (
        f"PED-ANOVA over COMPLETE search trials ({counts}): how strongly a knob separates the best tenth of them from the rest. It "
        "describes this search, not the method."
    )
    return Plot("importance", title, caption, table, figure, ("study.db",), tuple(notes))


def importances(path: Path) -> tuple[dict[str, tuple[int, dict[str, float]]], list[str]]:
    """Arm -> (number of COMPLETE trials, knob -> share), and a sentence on arms that are left out."""
    if not path.is_file():
        return {}, ["study.db is missing, so the importance of knobs is unknown."]
    try:
        import optuna
        from optuna.importance import PedAnovaImportanceEvaluator
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return {}, ["Optuna isn't installed, so the importance of knobs is unknown."]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    by_arm, few = {}, []
    # Copied, as a sweep may be writing to the database, and the results folder may be read-only.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "study.db"
        shutil.copyfile(path, copy)
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{copy}")
            names = optuna.get_all_study_names(storage)
            studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
        except (SQLAlchemyError, RuntimeError, KeyError) as error:
            return {}, [f"study.db cannot be read ({type(error).__name__}), so the importance of knobs is unknown."]
        for study in studies:
            complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE]
            knobs = {name for trial in complete for name in trial.params}
            constant = len({trial.value for trial in complete}) < 2
            if len(complete) < FEWEST or len(knobs) < 2 or constant:
                few.append(f"{study.study_name} ({len(complete)})")
                continue
            by_arm[study.study_name] = (
                len(complete),
                optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()),
            )
    note = f"Left out (fewer than {FEWEST} COMPLETE trials, fewer than two knobs, or all scores equal): {', '.join(few)}."
    return by_arm, [note] if few else []
