"""Volume differences by the density of the lesions: the numbers behind figure 5 of Mac et al. 2020."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

EDGES = (0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, float("inf"))
"""Edges of the bins of the positive class density, percent. The paper names the first bin only."""


class DensityBins(NamedTuple):
    """Volumes binned by their positive class density."""

    cases: pd.DataFrame
    """One row per volume with lesions: the identifying columns of the scores, ``pcd``, ``avd``, ``bin`` (from 0)."""
    bins: pd.DataFrame
    """One row per bin: ``bin`` (its name), ``low``, ``high``, ``n``, ``mean``, ``median``, ``q1``, ``q3`` of the
    absolute volume differences (NaN when n is 0), ``at_100`` and ``above_100``: how many are exactly 100, or more."""
    empty: tuple[str, ...]
    """Cases without lesions in the reference: their volume difference is undefined, so they are in no bin."""


def density_bins(scores: pd.DataFrame, edges: Sequence[float] = EDGES) -> DensityBins:
    """Bin volumes by positive class density and describe their absolute volume differences.

    A difference of exactly 100 % is what a volume gets in which nothing was found; more than that takes
    over-segmentation (Mac et al. 2020, section 4).

    Args:
        scores: score rows with the metrics ``pcd`` and ``avd`` (`segexp.metrics.WmhChallenge`). Rows of several seeds
            or models may be joined when a further column tells them apart.
        edges: ascending edges in percent from 0 on, of which the last is above 100. A density on an edge belongs to the
            bin above it.

    Raises:
        ValueError: for other edges, scores without these metrics, or a volume that occurs twice.
    """
    limits = np.asarray(edges, np.float64)
    if limits.ndim != 1 or limits.size < 2 or limits[0] != 0 or not (np.diff(limits) > 0).all() or limits[-1] <= 100:
        raise ValueError(f"edges={list(edges)}: expected ascending percentages from 0 to inf")
    chosen = scores[scores["metric"].isin(["avd", "pcd"])]
    if set(chosen["metric"]) != {"avd", "pcd"}:
        raise ValueError("these scores lack the metrics pcd and avd; evaluate the run with metrics=wmh_challenge")
    keys = [name for name in chosen.columns if name not in ("metric", "value", "unit", "defined", "reason")]
    twice = chosen[chosen.duplicated([*keys, "metric"])]
    if len(twice):
        raise ValueError(f"{dict(twice.iloc[0][keys])} occurs twice in these scores; tell the two apart by a column")
    wide = chosen.pivot(index=keys, columns="metric", values="value").reset_index().rename_axis(columns=None)
    none = wide["pcd"] == 0
    cases = wide[~none].reset_index(drop=True)
    cases["bin"] = np.searchsorted(limits, cases["pcd"], side="right") - 1
    bins = [_describe(cases.loc[cases["bin"] == index, "avd"], low, high)
            for index, (low, high) in enumerate(pairwise(limits))]
    return DensityBins(cases, pd.DataFrame(bins), tuple(dict.fromkeys(wide.loc[none, "case"])))


def _describe(avd: pd.Series, low: float, high: float) -> dict[str, object]:
    """Return the row of one bin."""
    q1, median, q3 = avd.quantile([0.25, 0.5, 0.75])
    return {
        "bin": f"{low:g}–{high:g}" if np.isfinite(high) else f"≥ {low:g}", "low": low, "high": high,
        "n": int(avd.size), "mean": avd.mean(), "median": median, "q1": q1, "q3": q3,
        "at_100": int((avd == 100).sum()), "above_100": int((avd > 100).sum()),
    }
