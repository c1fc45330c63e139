"""Figure 5 of Mac et al. 2020: absolute volume difference by positive class density, one box per bin and model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from segexp.metrics.density import EDGES, density_bins
from segexp.reports.colours import series_colour
from segexp.reports.figures import draw_boxes, finish, new_figure

# Up to here the axis is linear. Beyond it differences are of another order and would press all boxes flat.
LINEAR = 100.0
NAMED = 4


def density_plot(
    runs: Mapping[str, pd.DataFrame], path: str | Path | Any, edges: Sequence[float] = EDGES, title: str = ""
) -> None:
    """Draw the absolute volume differences of the cases in every bin of the positive class density.

    Boxes as in `segexp.reports.figures.box_plot`. The dashed line is at 100 %: on it lie volumes in which nothing was
    found, above it those that are over-segmented. When a case lies above 250 % the axis is logarithmic from 100 % on.

    Args:
        runs: name of the model -> score rows with ``pcd`` and ``avd`` (of several seeds: see `density_bins`).
        path: as in `box_plot`.
        edges: as in `density_bins`.
        title: line above the figure; say here when the data are phantoms.

    Raises:
        ValueError: for bad edges or scores (see `density_bins`), or when no case has lesions.
    """
    binned = {name: density_bins(scores, edges) for name, scores in runs.items()}
    cases = pd.concat([each.cases for each in binned.values()])
    if cases.empty:
        raise ValueError("no case of these scores has lesions")
    names = next(iter(binned.values())).bins["bin"]
    figure = new_figure(2.8 + len(names) * (0.5 + 0.13 * len(runs)), 3.6)
    axes = figure.add_subplot()
    width = 0.8 / len(runs)
    for index, (name, each) in enumerate(binned.items()):
        groups = [each.cases.loc[each.cases["bin"] == at, "avd"].to_numpy() for at in range(len(names))]
        places = [at + (index - (len(runs) - 1) / 2) * width for at in range(len(names))]
        draw_boxes(axes, groups, places, width * 0.8, series_colour(index), name)
    axes.axhline(LINEAR, color="#555555", lw=0.9, ls="--", zorder=1, label="100 %: nothing found")
    highest = float(cases["avd"].max())
    if highest > 2.5 * LINEAR:
        _logarithmic(axes, highest)
    else:
        axes.set_ylim(0, 1.08 * max(highest, LINEAR))
    counts = [cases.loc[cases["bin"] == at, "case"].nunique() for at in range(len(names))]
    axes.set_xticks(range(len(names)), [f"{name}\nn = {count}" for name, count in zip(names, counts, strict=True)])
    axes.set_xlim(-0.6, len(names) - 0.4)
    empty = list(dict.fromkeys(case for each in binned.values() for case in each.empty))
    axes.set_xlabel("positive class density (%)" + _left_out(empty))
    axes.set_ylabel("absolute volume difference (%)")
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    finish(figure, axes, title, path)


def _logarithmic(axes: Any, highest: float) -> None:
    """Make the axis linear up to 100 % and logarithmic from there on, with ticks that say so."""
    axes.set_yscale("symlog", linthresh=LINEAR, linscale=1.5)
    ticks = [tick for decade in (100, 1000, 10000, 100000) for tick in (decade, 2 * decade, 5 * decade)]
    axes.set_yticks([0, 25, 50, 75, *(tick for tick in ticks if tick <= 1.25 * highest)])
    axes.get_yaxis().set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_ylim(0, 1.25 * highest)


def _left_out(empty: Sequence[str]) -> str:
    """Return a line that names the cases that are in no bin, empty when there are none."""
    if not empty:
        return ""
    more = f" and {len(empty) - NAMED} more" if len(empty) > NAMED else ""
    return f"\nnot shown, no lesions in the reference: {', '.join(empty[:NAMED])}{more}"
