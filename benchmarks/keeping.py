"""What keeping the trained models costs: the share of a confirmed trial that writing its model takes, and of an arm that the choice takes.

    python -m benchmarks.keeping [--json] [--seeds N]

Runs the confirmation of `search_spaces/lora.yaml` and `search_spaces/full.yaml` (their `jepa/llama3`) in this process, with
`confirm.keep: best`, after a warm-up trial; the clock runs around `training.keeping.keep_model` and `orchestration.keeping.settle`.
A sweep spends most of its time on search trials, which write nothing, so its own share is smaller. Limit: 2 % of the confirmed trials.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.timing import finish

LIMIT = 0.02
"""Share of the confirmed trials' seconds."""
ROOT = Path(__file__).resolve().parents[1]
ARM = "jepa/llama3"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.keeping", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--seeds", type=int, default=3, help="confirmed trials of each kind")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="jepa-ray-keeping-") as folder:
        for kind in ("lora", "full"):
            figures |= {f"{kind} {name}": value for name, value in measure(kind, Path(folder) / kind, options.seeds).items()}
    limits = {f"{kind} share": ("<=", LIMIT) for kind in ("lora", "full")}
    finish("keeping", figures, limits, options.json, {"arm": ARM, "seeds": options.seeds})


def measure(kind: str, folder: Path, num_seeds: int) -> dict[str, float]:
    """Seconds per confirmed trial, of writing its model and of settling per trial, and the share of both; megabytes of a model."""
    from jepa_ray import plan, results
    from jepa_ray.config import arms, config_id
    from jepa_ray.orchestration.jobs import confirmation
    from jepa_ray.orchestration.keeping import settle
    from jepa_ray.plan.load import load_sweep
    from jepa_ray.preparation.prepare import prepare
    from jepa_ray.training import fine_tuning
    from jepa_ray.training.keeping import keep_model
    from jepa_ray.training.runtime import Runtime
    from jepa_ray.training.trial import run_trial

    sweep = load_sweep(ROOT / "search_spaces" / f"{kind}.yaml", [f"confirm.seeds={list(range(2, 2 + num_seeds))}"])
    best = plan.trial_config(sweep, next(arm for arm in arms(sweep) if arm.name == ARM), {})
    prepared = prepare(sweep, best.model.family, best.data.task)
    spent, seconds, size = 0.0, 0.0, 0

    def timed(*arguments: Any) -> str | None:
        nonlocal spent
        started = time.perf_counter()
        reason = keep_model(*arguments)
        spent += time.perf_counter() - started
        return reason

    with mock.patch.object(fine_tuning, "keep_model", timed):
        for number, seed in enumerate((1, *sweep.confirm.seeds)):  # the first one warms up
            config = confirmation(best, seed)
            identity = config_id(config, prepared.identity)
            started = time.perf_counter()
            keep = results.waiting_folder(folder, identity)
            result = run_trial(config, prepared, Runtime(keep=keep), lambda metrics: None, folder / "scratch" / identity)
            seconds += time.perf_counter() - started
            assert result.state == "COMPLETE" and result.summary["model_error"] is None, (result.error, result.summary.get("model_error"))
            size = sum(path.stat().st_size for path in keep.iterdir())
            if number == 0:
                seconds = spent = 0.0
            else:
                results.write_trial(folder, identity, config, ARM, "confirm", result)
    started = time.perf_counter()
    settle(sweep, folder, {ARM: best}, lambda arm, config: config_id(config, prepared.identity), lambda sentence: None)
    settled = time.perf_counter() - started
    (model,) = results.kept_models(folder)
    assert model.facts["median"]
    return {
        "trial_s": seconds / num_seeds,
        "write_s": spent / num_seeds,
        "settle_s_per_trial": settled / num_seeds,
        "share": (spent + settled) / seconds,
        "model_MB": size / 1e6,
    }


if __name__ == "__main__":
    main()
