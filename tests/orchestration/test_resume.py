"""The sweep process itself is killed, stopped and started again: nothing runs twice and nothing is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from jepa_ray import results
from jepa_ray.config import canonical
from jepa_ray.orchestration.studies import open_storage
from jepa_ray.plan.load import dump
from jepa_ray.results import damaged
from tests import fake_training as fake

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(500)]


class CommandLine:
    """`python -m jepa_ray.sweep` with the fake training, in its own process (and process group)."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.repository, self.file, self.processes = repository, folder / "fake.yaml", list[subprocess.Popen[str]]()
        self.environment = {**os.environ, "PYTHONPATH": str(repository), "COLUMNS": "160"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fake_training", str(self.file), *arguments],
            cwd=self.repository,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture
def command(repository: Path, tmp_path: Path) -> Iterator[CommandLine]:
    line = CommandLine(repository, tmp_path)
    yield line
    line.end()


@pytest.fixture(scope="module")
def finished(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CommandLine, Path, str, str]]:
    """A finished sweep: its command line, its folder, and what it printed on a terminal of 80 columns, as output and error."""
    place = tmp_path_factory.mktemp("finished")
    line = CommandLine(repository, place)
    sweep = fake.make_sweep(place / "results", confirm={"seeds": [5, 6]}, search={"num_trials": 2}, resources=fake.ONE_AT_A_TIME)
    line.file.write_text(dump(sweep), encoding="utf-8")
    line.environment |= {"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm"}
    process = line.start()
    try:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        yield line, place / "results" / "fake", out, err
    finally:
        line.end()


def test_a_terminal_of_80_columns(finished: tuple[CommandLine, Path, str, str]) -> None:
    """Finished trials above the live table, nothing wider than the terminal, no broken word, and a clean shutdown of Ray."""
    _, folder, out, err = finished
    assert err == ""
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out).replace("\r", "\n").split("\n")
    assert max(len(line.rstrip()) for line in lines if str(folder.parents[1]) not in line) <= 80
    assert [line.split()[0] for line in lines if line.startswith("[")] == [f"[{n}/4]" for n in (1, 2, 3, 4)] * 2
    assert any("Starting Ray" in line for line in lines) and any("Preparing data and models" in line for line in lines)
    assert "GCS" not in out


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie that nobody has waited for yet is also dead.
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_sweep_killed_then_stopped_then_finished(command: CommandLine, tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path / "results", search={"num_trials": 3}, confirm={"seeds": [5, 6]})
    command.file.write_text(yaml.safe_dump(canonical(sweep)))
    folder = tmp_path / "results" / "fake"

    # 1. SIGKILL while two trials are in epoch 2.
    with fake.hold(folder):
        first = command.start()
        killed = fake.wait_for(lambda: len(found := fake.holding(folder)) == 2 and found, "two trials in epoch 2")
        first.kill()
        first.wait()
        for _, pid in killed:
            fake.wait_for(lambda pid=pid: gone(pid), "the killed sweep's workers to end")  # type: ignore[misc]
    assert not list((folder / "trials").glob("*.parquet"))

    # 2. Ctrl-C while the same two are in epoch 2 again; meanwhile, a second process is refused.
    with fake.hold(folder):
        second = command.start()
        fake.wait_for(lambda: all(fake.epochs_trained(folder, config_id) == [1, 2, 2] for config_id, _ in killed), "both to continue")
        refused = command.start()
        _, complaint = refused.communicate(timeout=120)
        assert refused.returncode == 2 and f"pid {second.pid}" in complaint and "in use by another process" in complaint
        second.send_signal(signal.SIGINT)
        output, complaint = second.communicate(timeout=120)
    assert second.returncode == 130, output + complaint
    assert complaint == ""
    assert f"To continue: python -m jepa_ray.sweep {command.file}" in output

    # 3. Run to the end, one trial at a time.
    third = command.start("resources.max_concurrent=1")
    output, complaint = third.communicate(timeout=200)
    assert third.returncode == 0, output + complaint
    assert complaint == ""

    trials = results.read_trials(folder)
    assert trials["state"].unique().tolist() == ["COMPLETE"]
    assert trials["config_id"].is_unique
    assert trials.groupby(["stage", "arm"]).size().to_dict() == {
        (stage, arm): count for stage, count in (("search", 3), ("confirm", 2)) for arm in ("base/llama3", "jepa/llama3")
    }
    for config_id in trials["config_id"]:
        trained = fake.epochs_trained(folder, config_id)
        again = config_id in dict(killed)
        assert trained == ([1, 2, 2, 2, 3] if again else [1, 2, 3]), "a finished epoch was trained again"
    for arm in ("base/llama3", "jepa/llama3"):
        states = [trial.state for trial in optuna.load_study(study_name=arm, storage=open_storage(folder)).get_trials()]
        assert states == [TrialState.COMPLETE] * 3
    assert not list((folder / "scratch").iterdir())
    for _, pid in killed:
        assert gone(pid)
    lines = output.splitlines()
    assert [line.partition("]")[0] for line in lines if line.startswith("[")] == [
        *(f"[{n}/6" for n in range(1, 7)),
        *(f"[{n}/4" for n in range(1, 5)),
    ]
    assert any("minus baseline" in line for line in lines) and any(
        line.startswith("jepa/llama3") and "+0.0000" not in line for line in lines
    )

    # 4. Once more: nothing is left to do, and a changed file is noticed.
    changed = command.start("search.num_trials=4")
    _, complaint = changed.communicate(timeout=120)
    assert changed.returncode == 2 and "search.num_trials: 3 -> 4" in complaint and "--extend" in complaint
    before = sorted((folder / "log").iterdir()), results.read_trials(folder)
    fourth = command.start()
    output, _ = fourth.communicate(timeout=150)
    assert fourth.returncode == 0 and "continuing: 6 of 6 done" in output
    assert (sorted((folder / "log").iterdir()), len(results.read_trials(folder))) == (before[0], len(before[1]))


def test_damaged_files_are_set_aside_and_the_sweep_goes_on(finished: tuple[CommandLine, Path, str, str]) -> None:
    command, folder, _, _ = finished
    before = results.read_trials(folder)
    searched = before[(before["stage"] == "search") & (before["number"] == 2)]["trial_id"].iloc[0]
    confirmed = before[before["stage"] == "confirm"]["trial_id"].iloc[0]

    (folder / "trials" / f"{searched}.parquet").write_bytes(b"PAR1")
    (folder / "predictions" / f"{confirmed}.parquet").write_bytes(b"")
    (folder / "arms.parquet").write_bytes(b"garbage")
    (folder / "study.db").write_bytes(b"garbage" * 1000)
    command.environment = {**command.environment, "COLUMNS": "160"}
    output, complaint = (process := command.start()).communicate(timeout=300)
    assert process.returncode == 0, output + complaint
    lines = complaint.splitlines()
    assert len(lines) == 4 and all("cannot be read" in line and ".damaged" in line for line in lines), complaint
    after = results.read_trials(folder)
    columns = ["trial_id", "arm", "stage", "state", "number", "val_accuracy", "test_accuracy", "learning_rate"]
    assert after[columns].equals(before[columns])
    assert set(results.read_predictions(folder)["trial_id"]) == set(after["trial_id"])
    for trial_id in after["trial_id"]:
        assert fake.epochs_trained(folder, trial_id) == [1, 2, 3] * (1 + (trial_id in (searched, confirmed))), "ran twice, or not again"
    assert len(list(folder.rglob("*.damaged"))) == 4 and len(list(folder.rglob("*.incomplete"))) == 1
    assert damaged.mend(folder) == []
