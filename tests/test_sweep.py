"""The command line: what it refuses before anything is started, and how it keeps sweeps of one name apart."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from jepa_ray import results
from jepa_ray import sweep as command
from jepa_ray.config import ResourcesConfig, SweepConfig, arms, canonical
from jepa_ray.orchestration import planning
from jepa_ray.orchestration.cluster import Interrupt, _fit
from jepa_ray.orchestration.sweep_folder import lock_folder, same_command
from jepa_ray.plan import Estimate, trial_config
from tests import fake_training as fake


def write(sweep: SweepConfig, folder: Path) -> str:
    path = folder / "file.yaml"
    path.write_text(yaml.safe_dump(canonical(sweep)))
    return str(path)


def begin(sweep: SweepConfig) -> Path:
    """A folder in which a search has been started."""
    with lock_folder(sweep) as (_, folder):
        (folder / "study.db").touch()
    return folder


def test_bad_input_exits_2_and_imports_neither_ray_nor_torch(tmp_path: Path, repository: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("name: bad\nmethods: {base: none}\nserach: {num_trials: 3}\noutput: " + str(tmp_path / "results"))
    script = (
        "import sys; from jepa_ray import sweep; code = sweep.main(sys.argv[1:]); "
        "assert not {'ray', 'torch', 'optuna'} & set(sys.modules), 'imported too early'; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], cwd=repository, capture_output=True, text=True, timeout=50)
    assert done.returncode == 2, done.stderr
    assert "serach" in done.stderr and "search" in done.stderr and done.stdout == ""
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("arguments", [["missing.yaml"], [], ["--extend"]])
def test_no_such_file_or_none(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    assert capsys.readouterr().err


def test_dry_run_and_schema_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(fake.make_sweep(tmp_path / "results"), tmp_path)
    assert command.main([file, "--dry-run", "search.num_trials=7"]) == 0
    assert "7" in capsys.readouterr().out
    assert command.main(["--schema"]) == 0
    assert "search" in json.loads(capsys.readouterr().out)["properties"]
    assert not (tmp_path / "results").exists()


def test_more_workers_than_the_cluster_has() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]

    def fit(**resources: Any) -> Any:
        return _fit(ResourcesConfig(**resources), nodes, None, local=True)

    assert fit().max_concurrent == 6
    assert fit(max_concurrent=2).max_concurrent == 2
    assert fit(cpus_per_worker=2).max_concurrent == 2, "a worker of 2 CPUs does not lie across two nodes of 3"
    assert fit(cpus_per_worker=2, workers_per_trial=2).max_concurrent == 1
    with pytest.raises(
        ValueError, match=r"workers_per_trial = 3 workers of 2 CPUs.*room for 2 \(6 CPUs and 0 GPUs on 2 nodes\).*lower workers_per_trial"
    ):
        fit(cpus_per_worker=2, workers_per_trial=3)
    with pytest.raises(ValueError, match="1 GPUs each"):
        fit(gpus_per_worker=1)
    gpus = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}]
    with pytest.raises(ValueError, match="workers_per_trial = 3 workers of 1 CPUs and 1 GPUs each, but there is room for 2"):
        _fit(ResourcesConfig(workers_per_trial=3), gpus, None, local=True)
    assert _fit(ResourcesConfig(workers_per_trial=2, sharding="fsdp"), gpus, None, local=True).resources.sharding == "fsdp"
    assert _fit(ResourcesConfig(), gpus, None, local=True).resources.gpus == 1.0
    assert _fit(ResourcesConfig(gpus_per_worker=0.25), gpus, None, local=True).max_concurrent == 8


def test_the_same_sweep_goes_on_wherever_it_runs(tmp_path: Path) -> None:
    folder = begin(fake.make_sweep(tmp_path))
    with lock_folder(fake.make_sweep(tmp_path, resources={"workers_per_trial": 2})) as (_, again):
        assert again == folder
    assert yaml.safe_load((folder / "sweep.yaml").read_text())["resources"]["workers_per_trial"] == 2


def test_a_changed_sweep_is_refused_extended_or_started_afresh(tmp_path: Path) -> None:
    folder = begin(fake.make_sweep(tmp_path))
    before = (folder / "sweep.yaml").read_bytes()
    changed = fake.make_sweep(tmp_path, search={"num_trials": 9}, confirm={"seeds": [5]})
    with (
        pytest.raises(ValueError, match=r"search.num_trials: 4 -> 9(.|\n)*--extend adds to it, --fresh starts over"),
        lock_folder(changed),
    ):
        pass
    assert (folder / "sweep.yaml").read_bytes() == before

    with lock_folder(changed, extend=True) as (_, extended):
        assert extended == folder
    assert (folder / "sweep-1.yaml").read_bytes() == before
    assert yaml.safe_load((folder / "sweep.yaml").read_text())["search"]["num_trials"] == 9

    with lock_folder(fake.make_sweep(tmp_path), fresh=True) as (sweep, fresh):
        assert (sweep.name, fresh) == ("fake-2", tmp_path / "fake-2")
        (fresh / "study.db").touch()
    with lock_folder(fake.make_sweep(tmp_path), fresh=True) as (sweep, fresh):
        assert sweep.name == "fake-3"
    assert (
        same_command(["a.yaml", "--fresh", "name=fake"], fake.make_sweep(tmp_path), sweep) == "python -m jepa_ray.sweep a.yaml name=fake-3"
    )


@pytest.mark.parametrize("methods", [{"jepa": {}}, {"base": "none", "jepa": {}, "other": "none"}])
def test_a_baseline_that_comes_or_goes_is_a_change(methods: dict[str, Any], tmp_path: Path) -> None:
    """It has no value of its own in the file, and changes what is compared with what."""
    folder = begin(fake.make_sweep(tmp_path))
    before = (folder / "sweep.yaml").read_bytes()
    changed = fake.make_sweep(tmp_path, methods=methods, cross_entropy={"other": {"loss_on": "all"}} if "other" in methods else {})
    with pytest.raises(ValueError, match=r"methods\.(base is dropped|other is added)"), lock_folder(changed):
        pass
    assert (folder / "sweep.yaml").read_bytes() == before


def test_only_what_would_work_is_recommended(tmp_path: Path) -> None:
    begin(fake.make_sweep(tmp_path))
    other = fake.make_sweep(tmp_path, base={"optim": {"num_epochs": 9}}, search={"num_trials": 9})
    with pytest.raises(ValueError, match=r"--fresh starts over in a new folder \(--extend cannot add these\)"), lock_folder(other):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sweep = fake.make_sweep(tmp_path / "file")
    with pytest.raises(ValueError, match=r"output: cannot write to .*fake \(Not a directory\); name another"), lock_folder(sweep):
        pass


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"search": {"num_trials": 9, "algorithm": "random"}}, True),
        ({"space": {"optim.learning_rate": {"choice": [0.1, 0.2]}}}, True),
        ({"methods": {"base": "none", "jepa": {}, "strong": {"lambda": 4.0}}}, True),
        ({"families": ["llama3", "gemma2"]}, True),
        ({"methods": {"base": "none", "jepa": {"lambda": 4.0}}}, False),
        ({"methods": {"base": "none"}}, False),
        ({"methods": {"jepa": {}}}, False),
        ({"methods": {"base": "none", "jepa": {}, "jepa.v2": {"k": 2}}}, True),
        ({"methods": {"base": "none", "jepa": {}, "other": "none"}, "cross_entropy": {"other": {"loss_on": "all"}}}, True),
        ({"families": ["gemma2"]}, False),
        ({"model": "paper"}, False),
        ({"data": {"num_train": 10}}, False),
        ({"base": {"optim": {"num_epochs": 9}}}, False),
        ({"search": {"num_trials": 4, "metric": "val_prefix"}}, False),
    ],
)
def test_extending_only_adds(changes: dict[str, Any], allowed: bool, tmp_path: Path) -> None:
    folder = begin(fake.make_sweep(tmp_path))
    changed = fake.make_sweep(tmp_path, **changes)
    if allowed:
        with lock_folder(changed, extend=True):
            assert (folder / "sweep-1.yaml").exists()
    else:
        with pytest.raises(ValueError, match="--extend only adds trials"), lock_folder(changed, extend=True):
            pass
        assert not (folder / "sweep-1.yaml").exists()


def test_the_arms_table_grows_and_never_changes(tmp_path: Path) -> None:
    """A baseline that is moved, renamed or added takes over no comparison that was declared before; it serves arms that had none."""
    folder = begin(fake.make_sweep(tmp_path, methods={"jepa": {}}))
    assert [(arm.name, arm.kind, arm.baseline) for arm in results.read_arms(folder)] == [("jepa/llama3", "claim", None)]
    steps: list[dict[str, Any]] = [
        {"methods": {"jepa": {}, "base": "none"}},
        {"methods": {"all": "none", "base": "none", "jepa": {}}, "cross_entropy": {"all": {"loss_on": "all"}}},
        {"methods": {"base": "none", "jepa": {}, "all": "none"}, "cross_entropy": {"all": {"loss_on": "all"}}, "controls": ["shuffled"]},
    ]
    wanted = [
        [("jepa/llama3", "base/llama3"), ("base/llama3", None)],
        [("jepa/llama3", "base/llama3"), ("base/llama3", None), ("all/llama3", None)],
        [("jepa/llama3", "base/llama3"), ("base/llama3", None), ("all/llama3", None), ("jepa-shuffled/llama3", "base/llama3")],
    ]
    for step, rows in zip(steps, wanted, strict=True):
        with lock_folder(fake.make_sweep(tmp_path, **step), extend=True):
            assert [(arm.name, arm.baseline) for arm in results.read_arms(folder)] == rows


def test_a_folder_of_an_earlier_version_has_its_arms_derived_and_then_written(tmp_path: Path) -> None:
    folder = begin(fake.make_sweep(tmp_path))
    (folder / "arms.parquet").unlink()
    before = results.read_arms(folder)
    assert [(arm.name, arm.baseline) for arm in before] == [("base/llama3", None), ("jepa/llama3", "base/llama3")]
    with lock_folder(
        fake.make_sweep(tmp_path, methods={"new": "none", "base": "none", "jepa": {}}, cross_entropy={"new": {"loss_on": "all"}}),
        extend=True,
    ):
        assert [arm.name for arm in results.read_arms(folder)] == ["base/llama3", "jepa/llama3", "new/llama3"]
    (folder / "arms.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        ValueError, match=r"arms.parquet cannot be read .*`python -m jepa_ray.sweep FILE`.*, which sets it aside and rebuilds"
    ):
        results.read_arms(folder)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda text: "", r"it lacks families, model"),
        (lambda text: "- a\n- b\n", r"it lacks families, model"),
        (lambda text: "methods: [", "not valid YAML"),
        (lambda text: text[: text.index("confirm:") + 12], r"it lacks base|not valid YAML"),
        (lambda text: text[: text.index("  optim:")], "it is truncated"),
        (lambda text: b"\xff\xfe\x00PAR1", "not UTF-8 text"),
        (lambda text: None, "it is a folder"),
        (lambda text: text.replace("families:\n- llama3\n", "families: 5\n"), "families does not contain names"),
        (lambda text: text.replace("families:\n- llama3\n", "families: [[a]]\n"), "families does not contain names"),
        (lambda text: text.replace("optim.learning_rate:", "7:"), "space does not contain names"),
    ],
    ids=["empty", "list", "garbage", "cut", "cut in base", "bytes", "folder", "number", "nested", "key"],
)
def test_a_sweep_file_of_the_folder_that_cannot_be_read_is_one_sentence(
    spoil: Any, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = fake.make_sweep(tmp_path)
    folder = begin(sweep)
    path = folder / "sweep.yaml"
    content = spoil(path.read_text(encoding="utf-8"))
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert command.main([write(sweep, tmp_path)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert re.search(
        rf"sweep.yaml cannot be read \(({why}).*rename it and repeat the command with the file that this sweep was last", sentence
    )
    path.rename(folder / "sweep.yaml.damaged")
    with lock_folder(sweep):
        assert yaml.safe_load(path.read_text())["name"] == "fake"


def test_a_file_that_lacks_arms_of_the_folder_does_not_take_the_place_of_a_lost_one(tmp_path: Path) -> None:
    begin(fake.make_sweep(tmp_path))
    grown = fake.make_sweep(tmp_path, methods={"base": "none", "jepa": {}, "strong": {"lambda": 4.0}})
    with lock_folder(grown, extend=True) as (_, folder):
        declared = results.read_arms(folder)
    (folder / "sweep.yaml").unlink()
    with (
        pytest.raises(ValueError, match=r"arms that the given file lacks \(strong/llama3\): use"),
        lock_folder(fake.make_sweep(tmp_path)),
    ):
        pass
    assert not (folder / "sweep.yaml").exists() and results.read_arms(folder) == declared
    (folder / "arms.parquet").unlink()  # both are gone: what earlier files declared comes first
    with lock_folder(grown):
        assert results.read_arms(folder) == declared


def test_a_method_that_comes_or_goes_is_one_line(tmp_path: Path) -> None:
    begin(fake.make_sweep(tmp_path))
    grown = fake.make_sweep(tmp_path, methods={"base": "none", "jepa": {}, "strong": {"lambda": 4.0}})
    with pytest.raises(ValueError, match=r"methods\.strong is added") as refused, lock_folder(grown):
        pass
    assert str(refused.value).count("strong") == 1
    fewer = fake.make_sweep(tmp_path, methods={"base": "none"})
    with pytest.raises(ValueError, match=r"methods\.jepa would be dropped") as refused, lock_folder(fewer, extend=True):
        pass
    assert str(refused.value).count("jepa") == 1


def test_curves_in_epochs_and_in_steps_are_not_mixed(tmp_path: Path) -> None:
    begin(fake.make_sweep(tmp_path, scheduler={"name": "asha", "grace_period": 1}))
    steps = fake.make_sweep(tmp_path, scheduler={"name": "asha", "time_attr": "step", "grace_period": 1})
    with (
        pytest.raises(ValueError, match=r"scheduler\.time_attr: 'epoch' -> 'step' would mix epochs and steps"),
        lock_folder(steps, extend=True),
    ):
        pass


@pytest.mark.parametrize("name", ["trials", "predictions", "scratch", "data"])
def test_a_file_or_dead_link_in_the_place_of_a_folder_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = fake.make_sweep(tmp_path)
    folder = begin(sweep)
    (folder / name).symlink_to(tmp_path / "not mounted")
    assert command.main([write(sweep, tmp_path)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"fake/{name} is a link that leads nowhere" in sentence and "restore the folder" in sentence


@pytest.mark.parametrize(
    "rows", [{"z": [1, 2]}, {"arm": [None], "method": ["a"], "kind": ["claim"]}, {"arm": ["a"], "kind": ["other"]}], ids=str
)
def test_arms_of_another_table_are_set_aside(rows: dict[str, Any], tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path)
    folder = begin(sweep)
    declared = results.read_arms(folder)
    pd.DataFrame(rows).to_parquet(folder / "arms.parquet")
    with pytest.raises(ValueError, match=r"arms.parquet cannot be read \(a name is missing\)"):
        results.read_arms(folder)
    with lock_folder(sweep):
        assert results.read_arms(folder) == declared and (folder / "arms.parquet.damaged").exists()


@pytest.mark.parametrize("content", ["[]", "{", '{"sweep": "x"}', '{"sweep": "x", "arms": {"jepa/llama3": {"config": {"x": 1}}}}'])
def test_a_selection_that_cannot_be_read_is_refused_before_anything_starts(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = fake.make_sweep(tmp_path)
    (begin(sweep) / "selection.json").write_text(content)
    assert command.main([write(sweep, tmp_path)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "selection.json cannot be read" in sentence and "rename it" in sentence


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table at all", None], ids=["empty", "cut", "garbage", "folder"])
def test_damaged_arms_are_set_aside_and_declared_again_as_they_were(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A baseline that was added later takes no comparison over, although it stands first in the file."""
    begin(fake.make_sweep(tmp_path))
    grown = fake.make_sweep(
        tmp_path, methods={"new": "none", "base": "none", "jepa": {}}, cross_entropy={"new": {"train_end_of_turn": True}}
    )
    with lock_folder(grown, extend=True) as (_, folder):
        declared = results.read_arms(folder)
    path = folder / "arms.parquet"
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with lock_folder(grown):
        assert results.read_arms(folder) == declared and (folder / "arms.parquet.damaged").exists()
    assert "arms.parquet.damaged and rebuilt" in capsys.readouterr().err


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    sweep = fake.make_sweep(tmp_path)
    with lock_folder(sweep), pytest.raises(ValueError, match="in use by another process"), lock_folder(sweep):
        pass
    with lock_folder(sweep):
        pass


def test_signal_waits_for_the_loop_once() -> None:
    interrupt = Interrupt()
    with pytest.raises(KeyboardInterrupt):
        interrupt._handle(signal.SIGINT, None)
    interrupt.enabled = True
    interrupt._handle(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        interrupt.check()
    with pytest.raises(KeyboardInterrupt):
        interrupt._handle(signal.SIGINT, None)


@pytest.mark.slow
def test_a_dry_run_counts_tokens_and_flops_and_starts_nothing(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jepa_ray.sweep import main

    arguments = [
        str(repository / "search_spaces" / "lora.yaml"),
        "--dry-run",
        f"output={tmp_path}",
        "families=[llama3]",
        "data.num_train=200",
    ]
    assert main(arguments) == 0
    plan = capsys.readouterr().out
    assert "100 examples" in plan and "FLOPs a trial" in plan and "tokens" in plan and "MB working checkpoint" in plan
    assert list(tmp_path.iterdir()) == []


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_dry_run_says_what_is_in_the_folder_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real estimate would take a second for each of the plans below.
    monkeypatch.setattr(planning, "estimate", lambda sweep: ({arm.name: Estimate(10, 1e3, 1e6, 1e6) for arm in arms(sweep)}, []))
    sweep = fake.make_sweep(tmp_path / "results")
    file = write(sweep, tmp_path)
    folder = begin(sweep)
    config = trial_config(sweep, arms(sweep)[0], {})
    rows: list[tuple[str, results.Stage, results.State]] = [
        ("a", "search", "COMPLETE"),
        ("b", "search", "FAILED"),
        ("c", "search", "COMPLETE"),
        ("d", "confirm", "COMPLETE"),
    ]
    for name, stage, state in rows:
        results.write_trial(folder, name, config, "base/llama3", stage, results.TrialResult(state=state))
    with pytest.raises(ValueError, match="contains another sweep") as refused:
        begin(fake.make_sweep(tmp_path / "results", search={"num_trials": 9}))
    before = snapshot(tmp_path)
    assert before

    def said(*arguments: str) -> tuple[int, list[str], str]:
        code = command.main([file, "--dry-run", *arguments])
        out, err = capsys.readouterr()
        assert snapshot(tmp_path) == before, "a dry run wrote something"
        return code, [line for line in out.splitlines() if line.startswith("  folder ")], err

    code, (line,), _ = said()
    assert code == 0 and "3 COMPLETE trials are not run again (2 search, 1 confirm)" in line
    code, (line,), error = said("search.num_trials=9")
    assert code == 2 and "a run with these arguments is refused" in line
    assert error.strip() == str(refused.value)
    code, (changed, line), _ = said("search.num_trials=9", "--extend")
    assert code == 0 and "--extend changes the sweep" in changed and "search.num_trials: 4 -> 9" in changed and "3 COMPLETE" in line
    assert said("search.num_trials=9", "--fresh")[:2] == (0, [])
    assert said("name=other")[:2] == (0, [])
    assert said("data.num_train=10", "--extend")[0] == 2


def test_a_plan_needs_no_model(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without network and weights nothing can be counted, but arms, trials and notes are known."""
    output = f"output={tmp_path}"
    arguments = [str(repository / "search_spaces" / "lora.yaml"), "--dry-run", output, "model=some/checkpoint", "families=[llama3]"]
    assert command.main(arguments) == 2
    said = capsys.readouterr()
    assert "baseline/llama3" in said.out and "runs" in said.out
    assert "llama3" in said.err and "cannot load" in said.err


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def no_locks(*arguments: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    sweep = fake.make_sweep(tmp_path)
    with lock_folder(sweep) as (_, folder):
        assert "has no locks (Function not implemented)" in capsys.readouterr().err
    (folder / ".lock").write_text(f"pid {os.getppid()} on {platform.node()}")
    with pytest.raises(ValueError, match=rf"in use by another process \(pid {os.getppid()} on"), lock_folder(sweep):
        pass
    (folder / ".lock").write_text(f"pid {2**22 + 1} on {platform.node()}")  # no process has that number
    with lock_folder(sweep):
        pass


def test_a_dry_run_refuses_a_model_that_no_micro_batch_fits(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(repository / "search_spaces" / "paper" / "t15-llama3-8b.yaml")
    arguments = [file, "--dry-run", f"output={tmp_path}", "resources.hardware=h100", "resources.price_per_gpu_hour=2.5"]
    assert command.main(arguments) == 0
    said = capsys.readouterr()
    assert "H100 SXM, 76.3 GB for use" in said.out and "price" in said.out and said.err == ""
    assert command.main([*arguments, "resources.sharding=ddp"]) == 2
    said = capsys.readouterr()
    assert "cannot fit" in said.out and "resources.sharding=fsdp" in said.err
    assert command.main([*arguments, "resources.hardware=v100"]) == 2
    assert "has no bf16" in capsys.readouterr().err
