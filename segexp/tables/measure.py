"""From the score rows of runs to the cells of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from segexp.metrics.scores import bootstrap_interval, case_means, read_scores, summary
from segexp.tables.declaration import Declaration
from segexp.tables.plan import Planned


@dataclass(frozen=True)
class Cell:
    """One measured cell.

    Attributes:
        value: the statistic times the factor; None when a run is missing. With several seeds: their mean.
        sd: population standard deviation over cases, for means that show it.
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
    sd: float | None = None


class Scores:
    """The score rows of a table's runs, each file read once."""

    def __init__(self, planned: Sequence[Planned]) -> None:
        self.runs = {(item.name, item.seed): item for item in planned}
        self._rows: dict[tuple[str, int, str | None], pd.DataFrame] = {}

    def seeds(self, run: str) -> list[int]:
        """Return the seeds of a run."""
        return [seed for name, seed in self.runs if name == run]

    def missing(self, run: str, on: str | None = None) -> str:
        """Return what is wrong with a run's seeds, or with their evaluation ``on``; empty when all are usable."""
        items = [item for (name, _), item in self.runs.items() if name == run]
        bad = {item.status for item in items if not item.usable}
        if not bad and on is not None and not all(item.evaluations[on].done for item in items):
            bad = {f"not evaluated on {on}"}
        return ", ".join(sorted(bad))

    def rows(self, run: str, seed: int, on: str | None = None) -> pd.DataFrame:
        """Return the score rows of one run, or of its evaluation ``on``."""
        key = (run, seed, on)
        if key not in self._rows:
            item = self.runs[run, seed]
            self._rows[key] = item.run.scores() if on is None else read_scores(item.evaluations[on].scores_file)
        return self._rows[key]

    def cases(self, run: str, seed: int, metric: str, target: str, on: str | None = None,
              structure: str | None = None) -> pd.DataFrame:
        """Return case, group and value: the mean over the defined structures of each case, or one structure."""
        rows = self.rows(run, seed, on)
        if structure is not None:
            rows = rows[rows["structure"] == structure]
        means = case_means(rows, metric)
        return means[means["target"].fillna("") == target]


def measure(declaration: Declaration, scores: Scores) -> dict[tuple[str, str], Cell]:
    """Return (row, column) -> measured cell."""
    return {where: measure_cell(cell, scores) for where, cell in declaration.cells().items()}


def measure_cell(settings: Mapping[str, Any], scores: Scores) -> Cell:
    """Return one cell: the statistic over cases for each seed, then the mean over seeds."""
    run, on = settings["run"], settings.get("evaluation")
    if run is None:
        return Cell(None, reason=settings["reason"])
    missing = scores.missing(run, on)
    if missing:
        return Cell(None, reason=missing)
    values, lows, highs, spreads, defined, total = [], [], [], [], 0, 0
    for seed in scores.seeds(run):
        rows = scores.cases(run, seed, settings["metric"], settings["target"], on, settings.get("structure"))
        known = rows["value"].dropna().to_numpy()
        total += len(rows)
        defined += len(known)
        if not len(known):
            return Cell(None, reason="no defined value", cases=total)
        described = summary(known)
        values.append(settings["factor"] * described[settings["statistic"]])
        spreads.append(settings["factor"] * described["sd"])
        if settings["statistic"] == "mean" and len(known) > 1:
            low, high = bootstrap_interval(known, seed=0)
            lows.append(settings["factor"] * low)
            highs.append(settings["factor"] * high)
    interval = (float(np.mean(lows)), float(np.mean(highs))) if lows else (None, None)
    sd = float(np.mean(spreads)) if settings.get("spread") else None
    return Cell(float(np.mean(values)), *interval, defined, total, sd=sd)
