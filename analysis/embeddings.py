"""Text and Code states of confirmed trials: reading them, their distances, and two projections to two dimensions.

Every function handles one trial, whose states of all pairs fit in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jepa_ray import results

Array = NDArray[np.float64]
PERPLEXITY = 30.0
"""For t-SNE (its usual value), if there are enough points."""


@dataclass(frozen=True)
class Pairs:
    """Enc(Text) and Enc(Code) of the same examples, one row per example."""

    example_ids: tuple[str, ...]
    text_PD: Array
    code_PD: Array


def read_pairs(folder: Path, trial_id: str) -> tuple[Pairs | None, str]:
    """The pairs of one committed trial by example id (None if there are none), and a sentence on what is missing (empty if nothing is)."""
    path = folder / "embeddings" / f"{trial_id}.parquet"
    if not path.is_file():
        return None, ""
    try:
        frame = pq.read_table(path, schema=results.EMBEDDINGS).to_pandas()
    except (pa.ArrowInvalid, OSError):
        return None, f"embeddings/{path.name} cannot be read and is left out."
    sides = [frame[frame["view"] == view].set_index("example_id")["vector"] for view in ("text", "code")]
    common = sorted(set(sides[0].index) & set(sides[1].index))
    if not common:
        return None, f"embeddings/{path.name} contains no example with both views."
    text_PD, code_PD = (np.stack(side[common].to_list()).astype(np.float64) for side in sides)
    finite: NDArray[np.bool_] = np.all(np.isfinite(np.concatenate([text_PD, code_PD], axis=1)), axis=1)
    note = "" if finite.all() else f"{int((~finite).sum())} pairs of {path.stem} have states beyond half precision and are left out."
    ids = tuple(name for name, keep in zip(common, finite.tolist(), strict=True) if keep)
    return (Pairs(ids, text_PD[finite], code_PD[finite]), note) if ids else (None, note)


def cosine_distances(text_PD: Array, code_PD: Array) -> tuple[float, float]:
    """Mean of 1 - cosine over pairs, and over all Texts with other examples' Codes (nan for a single pair). A zero state has cosine 0."""
    unit = [side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-300) for side in (text_PD, code_PD)]
    distance_PP = 1 - unit[0] @ unit[1].T
    number = len(distance_PP)
    paired = float(np.trace(distance_PP)) / number
    unpaired = (float(distance_PP.sum()) - float(np.trace(distance_PP))) / (number * (number - 1)) if number > 1 else float("nan")
    return paired, unpaired


def principal(points_ND: Array) -> tuple[Array, Array]:
    """(N, 2) coordinates on the first two principal components, and each component's share of the variance (2,).

    The sign of a component is arbitrary; its largest loading is made positive. Equal points have zero coordinates and shares.
    """
    centred_ND = points_ND - points_ND.mean(axis=0)
    u_NR, s_R, vt_RD = np.linalg.svd(centred_ND, full_matrices=False)
    rank = min(2, len(s_R))
    signs = np.sign(vt_RD[np.arange(rank), np.abs(vt_RD[:rank]).argmax(axis=1)])
    found_N2, share_2 = np.zeros((len(points_ND), 2)), np.zeros(2)
    found_N2[:, :rank] = u_NR[:, :rank] * s_R[:rank] * np.where(signs == 0, 1, signs)
    if (total := float((s_R**2).sum())) > 0:
        share_2[:rank] = s_R[:rank] ** 2 / total
    return found_N2, share_2


def tsne(points_ND: Array) -> Array | None:
    """(N, 2) coordinates by t-SNE (van der Maaten and Hinton, 2008), started from the principal components and therefore reproducible.

    None without scikit-learn, for fewer than four points, or if all points are equal.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return None
    if len(points_ND) < 4 or not np.ptp(points_ND, axis=0).any():
        return None
    perplexity = min(PERPLEXITY, (len(points_ND) - 1) / 3)
    found = TSNE(n_components=2, perplexity=perplexity, init="pca", method="exact", random_state=0).fit_transform(points_ND)
    return np.asarray(found, dtype=np.float64)
