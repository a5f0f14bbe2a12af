"""The arms table: what is compared with what, declared before the first trial. It only ever grows.

`results/<name>/arms.parquet`. The plan, the race, the console and `analysis` read it; nothing else derives what is compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from jepa_ray.config import Arm, SweepConfig, arms, grown
from jepa_ray.config.messages import finding
from jepa_ray.results.schema import ARMS, unsound_arms
from jepa_ray.system import atomic


def declare_arms(folder: Path, sweep: SweepConfig) -> list[Arm]:
    """The arms of a sweep, written to its folder. Arms that it declared before stay unchanged; new ones follow them."""
    before = declared_before(folder)
    declared = grown(before, arms(sweep))
    if declared != before:
        write_arms(folder, declared)
    return declared


def declared_before(folder: Path) -> list[Arm]:
    """The arms table; if it does not exist, the arms of the folder's earlier files (`sweep-N.yaml`)."""
    if (folder / "arms.parquet").exists():
        return read_arms(folder)
    declared: list[Arm] = []
    for version in sorted(folder.glob("sweep-*.yaml"), key=lambda path: (len(path.name), path.name)):
        with contextlib.suppress(OSError, yaml.YAMLError, ValueError):
            declared = grown(declared, _arms_of(version))
    return declared


def write_arms(folder: Path, declared: Sequence[Arm]) -> None:
    """Replace the arms table of the sweep in `folder`."""
    rows = [{**asdict(arm), "arm": arm.name} for arm in declared]
    with atomic.whole_file(folder / "arms.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=ARMS), temporary)


def read_arms(folder: Path) -> list[Arm]:
    """The arms that the sweep in `folder` has declared, in order, each with the arm that it is compared with.

    Without the table they come from sweep.yaml, each as declared by the first version of the file that names it (`sweep-N.yaml`).
    Raises ValueError if neither can be read.
    """
    path, plan = folder / "arms.parquet", folder / "sweep.yaml"
    try:
        rows = pq.read_table(path, schema=ARMS).to_pylist()
        why = unsound_arms(rows)
    except FileNotFoundError:
        rows, why = None, None
    except (pa.ArrowException, OSError) as error:
        rows, why = None, str(error).splitlines()[0]
    if why is not None:
        raise ValueError(
            f"{path} cannot be read ({why}); run `python -m jepa_ray.sweep FILE` with this sweep's file, which sets it aside and rebuilds "
            "it from sweep.yaml"
        )
    if rows is not None:
        return [Arm(name=row.pop("arm"), **{**row, "against": None if row["against"] is None else tuple(row["against"])}) for row in rows]
    try:
        return grown(declared_before(folder), _arms_of(plan))
    except ValidationError as error:
        place, law = finding(error.errors()[0])
        reason = f"{'.'.join(map(str, place))}: {law}" if place else law
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ValueError(
            f"{folder} has no arms.parquet, and its sweep.yaml is refused: {reason}{more}. "
            f"So it is not known which arms are compared; correct sweep.yaml there (this changes no trial)"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"
        raise ValueError(
            f"{folder} has no arms.parquet, and its sweep.yaml {why}: it is not known which arms are compared; put the sweep's file there"
        ) from error


def _arms_of(plan: Path) -> list[Arm]:
    return arms(SweepConfig.model_validate(yaml.safe_load(plan.read_text(encoding="utf-8"))))
