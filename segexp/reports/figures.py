"""Figures made of scores: box plots of cases, curves of training."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segexp.files import written_whole
from segexp.metrics.scores import case_means
from segexp.reports.colours import series_colour

LABELS = {"dice": "Dice", "hd95": "95th percentile Hausdorff distance (mm)", "assd": "mean surface distance (mm)",
          "avd": "absolute volume difference (%)"}


def box_plot(
    runs: Mapping[str, pd.DataFrame], path: str | Path | Any, metric: str = "dice", title: str = ""
) -> None:
    """Draw per-case means of one metric as boxes, one group per target (Rajchl et al. 2018, figure 5).

    A box spans the quartiles with a line at the median, whiskers reach 1.5 times that range, a diamond is
    the mean, and every case is a dot, because the cases far below the box are what to look at.

    Args:
        runs: name in the legend -> score rows (`segexp.metrics.scores.read_scores`).
        path: file to write; the ending chooses the format (.png, .svg, .pdf). Or an open binary file (SVG).
        metric: name of the metric.
        title: line above the figure; say here when the data are phantoms.

    Raises:
        ValueError: when no run has the metric.
    """
    means = {name: case_means(scores, metric).dropna(subset=["value"]) for name, scores in runs.items()}
    targets = list(dict.fromkeys(target for table in means.values() for target in table["target"]))
    if not targets:
        raise ValueError(f"no run has a defined {metric}")
    figure = new_figure(max(4.0, 1.2 + 0.6 * len(targets) * (len(runs) + 0.6)), 3.6)
    axes = figure.add_subplot()
    width = 0.8 / len(runs)
    for index, (name, table) in enumerate(means.items()):
        groups = [table.loc[table["target"] == target, "value"].to_numpy() for target in targets]
        places = [at + (index - (len(runs) - 1) / 2) * width for at in range(len(targets))]
        draw_boxes(axes, groups, places, width * 0.8, series_colour(index), name)
    axes.set_xticks(range(len(targets)), [target.replace("_", " ") for target in targets])
    axes.set_ylabel(LABELS.get(metric, metric.replace("_", " ")))
    axes.set_xlim(-0.6, len(targets) - 0.4)
    if len(runs) > 1:
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    finish(figure, axes, title, path)


def draw_boxes(
    axes: Any, groups: list[np.ndarray], places: list[float], width: float, colour: str, name: str
) -> None:
    """Draw the boxes and dots of one run: one group of values per place on the axis."""
    shown = [(group, place) for group, place in zip(groups, places, strict=True) if group.size]
    if not shown:
        return
    values, positions = zip(*shown, strict=True)
    axes.boxplot(
        values, positions=positions, widths=width, patch_artist=True, showfliers=False, showmeans=True,
        manage_ticks=False, label=name,
        boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour}, medianprops={"color": colour, "lw": 1.6},
        whiskerprops={"color": colour}, capprops={"color": colour},
        meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": colour},
    )
    # Spread the dots by rank, not at random: the same scores give the same picture.
    for group, place in shown:
        offsets = (np.arange(group.size) * 0.618 % 1 - 0.5) * width * 0.7
        axes.plot(place + offsets, group, ".", color=colour, markersize=5, alpha=0.7, markeredgewidth=0)


def curves(series: Mapping[str, tuple[np.ndarray, np.ndarray]], path: str | Path | Any, title: str = "") -> None:
    """Draw curves over optimiser steps.

    Args:
        series: name in the legend -> (steps [N], values [N]).
        path: as in `box_plot`.
        title: line above the figure.
    """
    figure = new_figure(5.2, 2.9)
    axes = figure.add_subplot()
    for index, (name, (steps, values)) in enumerate(series.items()):
        marker = "." if len(steps) <= 40 else ""
        axes.plot(steps, values, marker=marker, color=series_colour(index), lw=1.2, label=name.replace("_", " "))
    axes.set_xlabel("step")
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8)
    finish(figure, axes, title, path)


def new_figure(width: float, height: float) -> Any:
    """Return a figure that belongs to no window and no global state (inches)."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def finish(figure: Any, axes: Any, title: str, path: str | Path | Any) -> None:
    """Tidy the axes and write the file, whole or not at all; the same figure gives the same bytes."""
    import matplotlib

    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    if title:
        axes.set_title(title, fontsize=10)
    named = isinstance(path, str | Path)
    kind = Path(path).suffix[1:] if named else "svg"
    metadata = {"Date": None} if kind == "svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "segexp", "svg.fonttype": "none"}):
        with written_whole(path) if named else nullcontext(path) as target:
            figure.savefig(target, format=kind, dpi=150, metadata=metadata)
