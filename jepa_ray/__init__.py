"""jepa_ray: does a joint-embedding predictive (JEPA) term improve a language model, at which knobs, and how sure are we?

In Python, for example in a notebook:

    import jepa_ray

    results = jepa_ray.run("search_spaces/lora.yaml", "search.num_trials=4")
    results.trials                              # a pandas table, one row per trial
    jepa_ray.open_results("results/lora").verdict()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jepa_ray.system.version import __version__ as __version__

if TYPE_CHECKING:
    from jepa_ray.sweep import Results as Results
    from jepa_ray.sweep import open_results as open_results
    from jepa_ray.sweep import run as run


__all__ = ["Results", "__version__", "open_results", "run"]


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """The Python API, imported when it is first used."""
    if name in __all__:
        return getattr(importlib.import_module("jepa_ray.sweep"), name)
    raise AttributeError(f"module 'jepa_ray' has no attribute {name!r}")
