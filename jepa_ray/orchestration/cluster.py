"""Ray itself: quiet settings, a cluster to run on, how many trials fit on it, and prepared data in its object store.

`settings()` must have run before `ray` is imported anywhere in the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jepa_ray.config import ResourcesConfig, SweepConfig
from jepa_ray.orchestration.environment import allowed_cpus, check_home, cluster_address, short_folder
from jepa_ray.orchestration.recipes import Prepare, preparation

if TYPE_CHECKING:
    from jepa_ray.orchestration.jobs import TrialResources

Workload = tuple[str, str]
"""Family and task."""

SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0: no progress tables of Tune's
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the console says what failed, once
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # no snapshots of the experiment: the tables are the truth
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in the YAML mean what they say
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # Train runs on the dashboard
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less per worker group
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # the console says so in the trial's own terms
}


def settings() -> None:
    """Set Ray's environment variables, where the user has not; workers inherit them."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


class Interrupt:
    """Ctrl-C and SIGTERM. While Tune's loop runs (`enabled`) they wait for its next turn, where nothing is half done."""

    def __init__(self) -> None:
        self.requested = self.enabled = False

    def install(self) -> None:
        """Take over both signals; to be repeated after `ray.init`, which installs a handler of its own."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def check(self) -> None:
        """Called at every turn of the loop."""
        if self.requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: Any) -> None:
        if self.enabled and not self.requested:
            self.requested = True
        else:
            raise KeyboardInterrupt


@contextlib.contextmanager
def signals() -> Iterator[Interrupt]:
    """Ctrl-C and SIGTERM are ours inside, and whoever's they were afterwards."""
    interrupt = Interrupt()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupt.install()
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Cluster:
    """A cluster that we are connected to, and what fits on it."""

    resources: TrialResources
    max_concurrent: int
    """Trials at once."""
    address: str | None
    """Dashboard, without http://; None where it is switched off."""
    local: bool
    """Whether we started it."""
    notes: tuple[str, ...] = ()
    """What the user should know of how we came to it."""


@contextlib.contextmanager
def connect(resources: ResourcesConfig, num_cpus: int | None = None) -> Iterator[Cluster]:
    """Start Ray on this machine, or join `resources.address` or RAY_ADDRESS; on leaving, what was started is shut down.

    Inside a process that is connected already (tests), that cluster is used and left alone. `num_cpus` None: those that this process may
    use. Raises ValueError where a single trial needs more than the cluster has, the address leads nowhere, or Ray cannot start.
    """
    settings()
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is in the tables, and the console says so, once
    warnings.filterwarnings("ignore", module=r"ray\..*")
    ours = not ray.is_initialized()
    join, dashboard = resources.address, None
    notes: tuple[str, ...] = ()
    if ours:
        join, note = cluster_address(resources.address, os.environ)
        notes = (note,) if note else ()
        if join is None:
            dashboard, more = _start(resources.dashboard, num_cpus)
            notes += more
        else:
            dashboard = _join(join)
    try:
        fit = _fit(resources, ray.nodes(), dashboard if resources.dashboard else None, local=ours and join is None)
        yield dataclasses.replace(fit, notes=notes)
    finally:
        if ours:
            ray.shutdown()


QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}


def _start(dashboard: bool, num_cpus: int | None) -> tuple[str | None, tuple[str, ...]]:
    """Start a cluster on this machine; address of its dashboard, and notes for the user."""
    import ray
    from ray._private.utils import get_num_cpus

    check_home(os.environ)
    folder = short_folder(os.environ)
    if num_cpus is None:  # Ray knows the quota of a container, but not this process's CPU affinity
        num_cpus = max(1, min(allowed_cpus(), int(get_num_cpus(override_docker_cpu_warning=True))))
    try:
        # "local": a cluster of our own, also where a running `ray start` would lead to another.
        started = ray.init(**QUIET, address="local", include_dashboard=dashboard, num_cpus=num_cpus, _temp_dir=folder)
    except (OSError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"Ray cannot start on this machine ({first}); RAY_TMPDIR names the folder it writes to") from error
    notes = (f"The folder for temporary files has too long a path for Ray's sockets: Ray writes to {folder}.",) if folder else ()
    return started.dashboard_url or None, notes


def _join(address: str) -> str | None:
    """Join a running cluster; address of its dashboard."""
    import ray
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    # `ray start` asks for a token as soon as there is one in ~/.ray; a client shows it by itself for the address "auto" only.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        return ray.init(**QUIET, address=address, runtime_env={"env_vars": SETTINGS}).dashboard_url or None
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        raise ValueError(
            f"resources.address: cannot reach a Ray cluster at {address!r} ({str(error).strip().partition(chr(10))[0]}); "
            "start one with `ray start --head`, or run on this machine with resources.address=local (where a cluster of another user or "
            "machine asks for a token, RAY_AUTH_TOKEN_PATH names the file that holds it)"
        ) from error


def _fit(resources: ResourcesConfig, nodes: list[dict[str, Any]], address: str | None, local: bool) -> Cluster:
    from jepa_ray.orchestration.jobs import TrialResources

    alive = [node["Resources"] for node in nodes if node["Alive"]]
    all_gpus = sum(node.get("GPU", 0.0) for node in alive)
    gpus = resources.gpus_per_worker if resources.gpus_per_worker is not None else (1.0 if all_gpus else 0.0)
    trial = TrialResources(workers=resources.workers_per_trial, cpus=resources.cpus_per_worker, gpus=gpus)
    # A worker lies on one node: three nodes with 3 CPUs each hold three workers of 2 CPUs, not four.
    places = sum(min(_times(node.get("CPU", 0.0), trial.cpus), _times(node.get("GPU", 0.0), gpus)) for node in alive)
    fit = places // trial.workers
    if fit < 1:
        cpus = sum(node.get("CPU", 0.0) for node in alive)
        raise ValueError(
            f"resources: a trial needs workers_per_trial = {trial.workers} workers of {trial.cpus} CPUs and {gpus:g} GPUs each, "
            f"but there is room for {places} ({cpus:g} CPUs and {all_gpus:g} GPUs on {len(alive)} node{'s' if len(alive) != 1 else ''}); "
            "lower workers_per_trial, cpus_per_worker or gpus_per_worker, or join a larger cluster with resources.address"
        )
    return Cluster(resources=trial, max_concurrent=min(fit, resources.max_concurrent or fit), address=address, local=local)


def _times(have: float, need: float) -> int:
    return int(have / need + 1e-9) if need else 10**9


@dataclass(frozen=True)
class Stored:
    """Prepared data of a family and task: small facts here, arrays in the object store."""

    identity: str
    """Of everything that trials' numbers depend on and their configurations do not hold: `Prepared.identity`, workers, GPUs."""
    report: dict[str, Any]
    references: list[Any]
    """Of the data without its test table, and of the test table: the search stage is never even given the second."""


def prepare(
    sweep: SweepConfig, cluster: Cluster, prepare_one: Prepare | None = None, mailbox: Any = None
) -> tuple[dict[Workload, Stored], dict[Workload, str]]:
    """Tokenise (and for `model: tiny` pre-train the base of) all families and tasks at once, on the cluster, into its object store.

    How far each is goes to the Mailbox actor `mailbox`.

    Returns what could be prepared, and for what could not the sentence that says why: the other arms of the sweep can go on.
    """
    import ray

    workloads = [(family, task) for family in sweep.families for task in sweep.tasks]
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)) // len(workloads))
    task: Any = ray.remote(num_cpus=cpus, num_returns=3, max_retries=1)(_prepare)
    others = (cpus, cluster.resources, prepare_one, mailbox)
    tasks = {workload: task.options(name=f"prepare {' '.join(workload)}").remote(sweep, *workload, *others) for workload in workloads}
    stored, refused = {}, {}
    for workload, (facts, data, test) in tasks.items():
        identity, report = ray.get(facts)
        if isinstance(report, str):
            refused[workload] = report
        else:
            stored[workload] = Stored(identity=identity, report=report, references=[data, test])
    return stored, refused


def _prepare(
    sweep: SweepConfig, family: str, task: str, cpus: int, resources: TrialResources, prepare_one: Prepare | None, mailbox: Any
) -> tuple[Any, Any, Any]:
    from jepa_ray.orchestration.progress import sending
    from jepa_ray.system.heartbeat import HEARTBEAT

    if prepare_one is None:
        import torch

        torch.set_num_threads(cpus)
        prepare_one = preparation(sweep)
    try:
        with sending(mailbox, f"{family} {task}"):
            prepared = prepare_one(sweep, family, task)
            HEARTBEAT.enter("ready")
    except (ValueError, OSError) as error:
        return ("", str(error)), None, None
    # Also what the configuration does not hold of where it runs: precision and the streams of dropout depend on it.
    where = (f" {resources.workers} workers" if resources.workers > 1 else "") + (" on GPUs" if resources.gpus else "")
    return (prepared.identity + where, prepared.report), dataclasses.replace(prepared, test=None), prepared.test
