"""From the score rows of runs to the cells of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from segexp.metrics.scores import bootstrap_interval, case_means, summary
from segexp.tables.declaration import Declaration
from segexp.tables.plan import Planned


@dataclass(frozen=True)
class Cell:
    """One measured cell.

    Attributes:
        value: the statistic times the factor; None when a run is missing. With several seeds: their mean.
        low: lower end of the 95 % bootstrap interval over cases, for means.
        high: upper end.
        defined: cases with a value.
        cases: cases in the test.
        reason: why there is no value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    defined: int = 0
    cases: int = 0
    reason: str = ""


class Scores:
    """The score rows of a table's runs, each file read once."""

    def __init__(self, planned: Sequence[Planned]) -> None:
        self.runs = {(item.name, item.seed): item for item in planned}
        self._rows: dict[tuple[str, int], pd.DataFrame] = {}

    def seeds(self, run: str) -> list[int]:
        """Return the seeds of a run."""
        return [seed for name, seed in self.runs if name == run]

    def missing(self, run: str) -> str:
        """Return what is wrong with a run's seeds, empty when all are usable."""
        bad = {item.status for (name, _), item in self.runs.items() if name == run and not item.usable}
        return ", ".join(sorted(bad))

    def rows(self, run: str, seed: int) -> pd.DataFrame:
        """Return the score rows of one run."""
        if (run, seed) not in self._rows:
            self._rows[run, seed] = self.runs[run, seed].run.scores()
        return self._rows[run, seed]

    def cases(self, run: str, seed: int, metric: str, target: str) -> pd.DataFrame:
        """Return case, group and value: the mean over the defined structures of each case."""
        means = case_means(self.rows(run, seed), metric)
        return means[means["target"].fillna("") == target]


def measure(declaration: Declaration, scores: Scores) -> dict[tuple[str, str], Cell]:
    """Return (row, column) -> measured cell."""
    return {where: measure_cell(cell, scores) for where, cell in declaration.cells().items()}


def measure_cell(settings: Mapping[str, Any], scores: Scores) -> Cell:
    """Return one cell: the statistic over cases for each seed, then the mean over seeds."""
    run = settings["run"]
    missing = scores.missing(run)
    if missing:
        return Cell(None, reason=missing)
    values, lows, highs, defined, total = [], [], [], 0, 0
    for seed in scores.seeds(run):
        rows = scores.cases(run, seed, settings["metric"], settings["target"])
        known = rows["value"].dropna().to_numpy()
        total += len(rows)
        defined += len(known)
        if not len(known):
            return Cell(None, reason="no defined value", cases=total)
        values.append(settings["factor"] * summary(known)[settings["statistic"]])
        if settings["statistic"] == "mean" and len(known) > 1:
            low, high = bootstrap_interval(known, seed=0)
            lows.append(settings["factor"] * low)
            highs.append(settings["factor"] * high)
    interval = (float(np.mean(lows)), float(np.mean(highs))) if lows else (None, None)
    return Cell(float(np.mean(values)), *interval, defined, total)
