"""Figures that are declared with a table and drawn from the same score rows."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from segexp.files import written_whole
from segexp.tables.declaration import Declaration
from segexp.tables.measure import Scores


def avd_by_density(settings: Mapping[str, Any], rows: Mapping[str, pd.DataFrame], folder: Path, name: str,
                   title: str) -> None:
    """Draw volume differences by positive class density, and write the numbers of every bin beside the picture.

    ``edges`` of the settings replaces the bins' edges in percent (Mac et al. 2020, Figure 5).
    """
    from segexp.metrics.density import EDGES, density_bins
    from segexp.reports.density import density_plot

    edges = settings.get("edges", EDGES)
    with written_whole(folder / f"{name}.png", suffix=".png") as temporary:
        density_plot(rows, temporary, edges, title)
    bins = [density_bins(scores, edges).bins.assign(run=run) for run, scores in rows.items()]
    with written_whole(folder / f"{name}.csv") as temporary:
        pd.concat(bins).to_csv(temporary, index=False)


KINDS: dict[str, Callable[..., None]] = {"avd_by_density": avd_by_density}


def draw_figures(declaration: Declaration, scores: Scores, folder: Path, note: str = "") -> list[str]:
    """Draw the declared figures into ``folder``; return a line for each: its file, or why it is not drawn.

    A figure is ``{kind, runs, evaluation, title, ...}``. ``note`` is put behind its title.
    """
    said = []
    for name, settings in declaration.figures.items():
        on = settings.get("evaluation")
        missing = {run: scores.missing(run, on) for run in settings["runs"] if scores.missing(run, on)}
        if missing:
            said.append(f"{name}: not drawn, " + "; ".join(f"{run} is {why}" for run, why in missing.items()))
            continue
        rows = {run: pd.concat([scores.rows(run, seed, on).assign(seed=seed) for seed in scores.seeds(run)])
                for run in settings["runs"]}
        KINDS[settings["kind"]](settings, rows, folder, name, settings["title"] + note)
        said.append(f"{name}: {folder / name}.png, .csv")
    return said
