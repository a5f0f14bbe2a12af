"""The source of an example: examples of one source resemble each other, so the verdict treats sources as its sample, not examples.

Own data name the column (`data.cluster`); examples that run on a database (Spider's) come from that database. Generated examples have no
source: the generator's databases are all there are, not a sample of others. Imports the record of a trial's data only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jepa_ray.config import DataConfig

CLUSTER, DATABASE = "cluster", "db_id"
"""Keys of `Example.extra`: the value of the column `data.cluster`, and the name of the database."""
FEWEST = 6
"""With fewer sources in the test split there is no verdict (`analysis/stats/clusters.py`)."""


def cluster_of(data: DataConfig, extra: Mapping[str, Any]) -> str | None:
    """The source of an example from its `extra`; None if it has none."""
    name = extra.get(CLUSTER, extra.get(DATABASE)) if data.train is not None else None
    return None if name is None else str(name)


def counted(data: DataConfig, extras: Iterable[Mapping[str, Any]]) -> int:
    """Number of different sources of these examples; 0 if they have none."""
    return len({cluster_of(data, extra) for extra in extras} - {None})
