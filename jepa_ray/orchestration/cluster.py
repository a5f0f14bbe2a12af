"""Ray itself: quiet settings, a cluster to run on, how many trials fit on it, and prepared data in its object store.

Call `settings()` before `ray` is imported anywhere in the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jepa_ray.config import ResourcesConfig, SweepConfig
from jepa_ray.orchestration.environment import allowed_cpus, check_home, cluster_address, short_folder
from jepa_ray.orchestration.recipes import Prepare, model_size, preparation

if TYPE_CHECKING:
    from jepa_ray.orchestration.jobs import TrialResources

Workload = tuple[str, str]
"""Family and task."""

SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0: no progress tables from Tune
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # we handle Ctrl-C
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the console reports failures, once
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # no snapshots of the experiment: the tables are authoritative
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # keeps relative paths in the YAML valid
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # shows Train runs on the dashboard
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # saves one process per worker group
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # the console reports it in terms of the trial
}


def settings() -> None:
    """Set those of Ray's environment variables that the user has not set; workers inherit them."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


class Interrupt:
    """Ctrl-C and SIGTERM. While Tune's loop runs (`enabled`), they wait for its next turn, when nothing is half done."""

    def __init__(self) -> None:
        self.requested = self.enabled = False

    def install(self) -> None:
        """Handle both signals; call again after `ray.init`, which installs its own handler. Python allows that in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._handle)

    def check(self) -> None:
        """Called in every turn of the loop; raises KeyboardInterrupt if a signal has arrived."""
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
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(frozen=True)
class Cluster:
    """The connected cluster and its capacity for trials."""

    resources: TrialResources
    max_concurrent: int
    """Number of trials that run at the same time."""
    address: str | None
    """Address of the dashboard, without http://; None if it is switched off."""
    local: bool
    """Whether we started the cluster."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about the choice of the cluster."""


@contextlib.contextmanager
def connect(resources: ResourcesConfig, num_cpus: int | None = None) -> Iterator[Cluster]:
    """Start Ray on this machine, or join `resources.address` or RAY_ADDRESS; shut down on exit what was started.

    If the process is already connected (tests), that cluster is used and not shut down. `num_cpus` None: all CPUs that this process may
    use. Raises ValueError if a single trial needs more than the cluster has, the address cannot be reached, or Ray cannot start.
    """
    settings()
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are in the tables, and the console reports them once
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
    """Start a cluster on this machine; return the address of its dashboard, and notes for the user."""
    import ray
    from ray._private.utils import get_num_cpus

    check_home(os.environ)
    folder = short_folder(os.environ)
    if num_cpus is None:  # Ray knows the quota of a container, but not this process's CPU affinity
        num_cpus = max(1, min(allowed_cpus(), int(get_num_cpus(override_docker_cpu_warning=True))))
    try:
        # "local": always our own cluster, even if `ray start` has started another one.
        started = ray.init(**QUIET, address="local", include_dashboard=dashboard, num_cpus=num_cpus, _temp_dir=folder)
    except (OSError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"Ray cannot start on this machine ({first}); to let it write to another folder, set RAY_TMPDIR") from error
    notes = (f"The path of the temporary folder is too long for Ray's sockets. Ray writes to {folder} instead.",) if folder else ()
    return started.dashboard_url or None, notes


def _join(address: str) -> str | None:
    """Join a running cluster; return the address of its dashboard."""
    import ray
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    # `ray start` requires a token as soon as ~/.ray contains one; a client sends it on its own only for the address "auto".
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        return ray.init(**QUIET, address=address, runtime_env={"env_vars": SETTINGS}).dashboard_url or None
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        raise ValueError(
            f"resources.address: cannot reach a Ray cluster at {address!r} ({str(error).strip().partition(chr(10))[0]}); "
            "start one with `ray start --head`, or run on this machine with resources.address=local (if a cluster of another user or "
            "machine requires a token, set RAY_AUTH_TOKEN_PATH to the file that contains it)"
        ) from error


def _fit(resources: ResourcesConfig, nodes: list[dict[str, Any]], address: str | None, local: bool) -> Cluster:
    from jepa_ray.orchestration.jobs import TrialResources

    alive = [node["Resources"] for node in nodes if node["Alive"]]
    all_gpus = sum(node.get("GPU", 0.0) for node in alive)
    gpus = resources.gpus_per_worker if resources.gpus_per_worker is not None else (1.0 if all_gpus else 0.0)
    trial = TrialResources(
        workers=resources.workers_per_trial,
        cpus=resources.cpus_per_worker,
        gpus=gpus,
        sharding=resources.sharding,
        checkpoint_minutes=resources.checkpoint_minutes,
    )
    # A worker does not span nodes: three nodes with 3 CPUs each have room for three workers of 2 CPUs, not four.
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
    """Prepared data of a family and task: small values here, arrays in the object store."""

    identity: str
    """Identifies the inputs that determine a trial's results but are not in its config: `Prepared.identity`, workers, GPUs, shards."""
    report: dict[str, Any] = field(default_factory=dict)
    references: list[Any] = field(default_factory=list)
    """References to the data without its test table, and to the test table, which the search stage never fetches."""
    model_bytes: float = 0.0
    """Bytes of a trained model on disk, at most; 0 if none is kept."""
    former: str = ""
    """`identity` as earlier versions made it; empty if there is none."""
    written: str = ""
    """When the starting checkpoint was written (`Weights.written`)."""


def prepare(
    sweep: SweepConfig, cluster: Cluster, prepare_one: Prepare | None = None, mailbox: Any = None
) -> tuple[dict[Workload, Stored], dict[Workload, str]]:
    """Tokenise all families and tasks in parallel on the cluster, into its object store; for `model: tiny`, also pre-train the base.

    Progress goes to the Mailbox actor `mailbox`.

    Returns the prepared workloads and, for each of the others, the reason as a sentence: the rest of the sweep can continue.
    """
    import ray

    workloads = [(family, task) for family in sweep.families for task in sweep.tasks]
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)) // len(workloads))
    task: Any = ray.remote(num_cpus=cpus, num_returns=3, max_retries=1)(_prepare)
    others = (cpus, cluster.resources, prepare_one, mailbox)
    tasks = {workload: task.options(name=f"prepare {' '.join(workload)}").remote(sweep, workload, *others) for workload in workloads}
    stored, refused = {}, {}
    for workload, (facts, data, test) in tasks.items():
        found = ray.get(facts)
        if isinstance(found, str):
            refused[workload] = found
        else:
            stored[workload] = dataclasses.replace(found, references=[data, test])
    return stored, refused


def _prepare(
    sweep: SweepConfig, workload: Workload, cpus: int, resources: TrialResources, prepare_one: Prepare | None, mailbox: Any
) -> tuple[Any, Any, Any]:
    from jepa_ray.orchestration.progress import sending
    from jepa_ray.system.heartbeat import HEARTBEAT

    real = prepare_one is None
    if prepare_one is None:
        import torch

        torch.set_num_threads(cpus)
        prepare_one = preparation(sweep)
    try:
        with sending(mailbox, " ".join(workload)):
            prepared = prepare_one(sweep, *workload)
            size = model_size(sweep, workload[0], prepared) if real else 0.0
            HEARTBEAT.enter("ready")
    except (ValueError, OSError) as error:
        return str(error), None, None
    facts = Stored(
        prepared.identity + resources.place,
        prepared.report,
        model_bytes=size,
        former=prepared.former_identity and prepared.former_identity + resources.place,
        written=prepared.weights.written,
    )
    return facts, dataclasses.replace(prepared, test=None), prepared.test
