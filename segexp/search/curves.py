"""The validation values of a run while it trains, from the CSV that every run writes."""

import csv
import math
from pathlib import Path

from segexp.errors import ConfigError
from segexp.runs.directory import Run

FILE = Path("metrics") / "metrics.csv"


def check_metric(metric: str) -> None:
    """Refuse a metric that is none of validation: what is chosen by test scores is no test any more.

    Raises:
        ConfigError: the name does not begin with ``val/``.
    """
    if not metric.startswith("val/"):
        raise ConfigError(f"metric={metric}: a search may look at validation only, never at the test cases: expected a "
                          "name that begins with val/, such as val/dice or val/dice_<target>")


def read_values(run: Run, metric: str) -> dict[int, float]:
    """Return steps taken -> value of a metric, in order; empty as long as there is none."""
    found = {}
    for row in rows(run):
        try:
            if row.get(metric) not in (None, ""):
                found[int(float(row["step"])) + 1] = float(row[metric])
        except (KeyError, ValueError):
            continue
    return dict(sorted(found.items()))


def names(run: Run) -> list[str]:
    """Return the validation metrics that a run has."""
    return sorted({name for row in rows(run) for name, value in row.items() if value and name.startswith("val/")})


def rows(run: Run) -> list[dict[str, str]]:
    """Return the rows of a run's curves; empty where there are none yet."""
    try:
        with (run.path / FILE).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def final(values: dict[int, float], which: str, direction: str) -> float:
    """Return the value that a finished trial counts with: the ``last``, or the ``best`` of all validations.

    NaN where there is none.
    """
    known = [value for value in values.values() if not math.isnan(value)]
    if not values or not known:
        return math.nan
    if which == "last":
        return list(values.values())[-1]
    return max(known) if direction == "maximize" else min(known)
