"""Environment and fixtures of all tests: offline, one thread, a separate cache. Imports neither torch nor Ray unless a test does."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepa_ray.orchestration import cluster

ROOT = Path(__file__).resolve().parents[1]

_CACHE_OF_USER = Path(os.environ.get("JEPA_RAY_CACHE", Path.home() / ".cache" / "jepa_ray"))
_SMOLLM2 = Path(os.environ.get("JEPA_RAY_SMOLLM2") or _CACHE_OF_USER / "smollm2-135m-instruct")
"""Where `benchmarks.smollm2_checkpoint` writes; read before the tests get a cache of their own."""
# Set on import, not in a fixture: test modules and the libraries that they import read these before the first fixture runs.
# Processes that tests start (Ray's workers, the command line) inherit them.
_CACHE = tempfile.mkdtemp(prefix="jepa-ray-test-cache-")
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # otherwise Ray's workers get less CPU than the tests of the other process
    "OMP_NUM_THREADS": "1",
    # Empty at the start of every session, so that no test passes because of a base trained by older code.
    "JEPA_RAY_CACHE": _CACHE,
}
cluster.settings()  # Ray reads some of them on import, which a test may do long before another test connects


def pytest_collection_finish() -> None:
    """Exempt what the imports have made from garbage collection: about a million objects, which `gc.collect()` after every trial visits."""
    gc.freeze()


def pytest_unconfigure() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for `make test`, and skip `gpu` tests without CUDA; `-ra` prints the reason.

    pytest-xdist gives whole files to its processes, in this order, because a file's fixtures are made once (`--dist loadfile`; its groups,
    `loadgroup`, have no effect with pytest 9.2). A long file that starts last would leave the other processes without work, so files with
    tests that start Ray come first, then those with slow tests, and small files last. torch is imported only if there are `gpu` tests.
    """
    sizes = Counter(item.path for item in items)
    ranks = dict.fromkeys(sizes, 2)
    for item in items:
        ranks[item.path] = min(ranks[item.path], 0 if item.get_closest_marker("ray") else 1 if item.get_closest_marker("slow") else 2)
    items.sort(key=lambda item: (ranks[item.path], -sizes[item.path] if ranks[item.path] else 0))
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs CUDA, but torch finds none"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Reset torch's threads, so that no test's speed or rounding depends on the test before it."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout: where `search_spaces/` is, and where `python -m benchmarks.step` runs."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real NL-RX-SYNTH, Spider and GSM8K files, next to the checkout; they are never copied into it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the data sets in {folder}, but this folder does not exist")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The checkpoint folder of SmolLM2-135M-Instruct, a real model; it is never part of the repository."""
    if not (_SMOLLM2 / "config.json").is_file():
        pytest.skip(
            f"needs SmolLM2-135M-Instruct in {_SMOLLM2} (or JEPA_RAY_SMOLLM2), but there is none; "
            "`python -m benchmarks.smollm2_checkpoint` writes it"
        )
    return _SMOLLM2


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> checkpoint folder of its tiny instance: real architecture and tokenizer, random weights without pre-training."""
    from tests import tiny_models

    return tiny_models.write_checkpoints(tmp_path_factory.mktemp("checkpoints"))
