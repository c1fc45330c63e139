"""The tidy score rows: their file, and the few statistics every table and page is made of."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from segexp.errors import DataError
from segexp.files import written_whole

COLUMNS = ("case", "group", "target", "structure", "metric", "value", "unit", "defined", "reason")
"""Columns of a scores file, in order. ``value`` is empty where it is undefined."""

RESAMPLES = 10_000


def write_scores(rows: Iterable[Mapping[str, Any]] | pd.DataFrame, path: str | Path) -> None:
    """Write score rows as CSV (UTF-8), whole or not at all.

    Numbers are written with as many digits as are needed to read the same number back; NaN is an empty
    field.

    Raises:
        ValueError: for a row whose keys are not exactly `COLUMNS`.
    """
    if isinstance(rows, pd.DataFrame):
        rows = rows.to_dict("records")
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            if set(row) != set(COLUMNS):
                raise ValueError(f"a score row has the keys {sorted(row)}, expected {sorted(COLUMNS)}")
            value = float(row["value"])
            fields = dict(row)
            fields["value"] = "" if math.isnan(value) else repr(value)
            fields["defined"] = bool(row["defined"])
            writer.writerow([fields[column] for column in COLUMNS])


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read a scores file: `COLUMNS`, ``value`` as float64 (NaN: undefined), ``defined`` as bool, rest text.

    Raises:
        DataError: when the file is missing or not such a file; the message names the column or the line.
    """
    path = Path(path)
    columns: dict[str, list[Any]] = {column: [] for column in COLUMNS}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if tuple(header) != COLUMNS:
                raise DataError(f"{path} has the columns {header}, expected {list(COLUMNS)}")
            for fields in lines:
                _check_fields(fields, f"{path}, line {lines.line_num}")
                for column, field in zip(COLUMNS, fields, strict=True):
                    columns[column].append(field)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; evaluate the run to write its scores") from None
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} is not a readable scores file: {error}") from error
    columns["value"] = [float(value) if value else math.nan for value in columns["value"]]
    columns["defined"] = [defined == "True" for defined in columns["defined"]]
    return pd.DataFrame(columns).astype({"value": float, "defined": bool})


def _check_fields(fields: Sequence[str], where: str) -> None:
    """Raise DataError unless these are the fields of a score row."""
    if len(fields) != len(COLUMNS):
        raise DataError(f"{where}: {len(fields)} fields, expected {len(COLUMNS)}")
    value, defined = fields[COLUMNS.index("value")], fields[COLUMNS.index("defined")]
    if defined not in ("True", "False"):
        raise DataError(f"{where}: defined is {defined!r}, expected True or False")
    try:
        float(value or "nan")
    except ValueError:
        raise DataError(f"{where}: value is {value!r}, expected a number or nothing") from None


def case_means(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Average one metric over the defined structures of every case and target.

    Returns:
        Columns ``case, group, target, value, defined_structures``, one row per case and target in the order
        of the scores; ``value`` is NaN where no structure is defined. Empty when no row has the metric.
    """
    chosen = scores[scores["metric"] == metric]
    values = chosen["value"].where(chosen["defined"])
    grouped = chosen.assign(value=values).groupby(["case", "group", "target"], sort=False)["value"]
    return grouped.agg(value="mean", defined_structures="count").reset_index()


def summary(values: Iterable[float]) -> dict[str, float | int]:
    """Describe values as the paper's tables do (Rajchl et al. 2018, tables 1 to 3).

    Returns:
        ``mean``, ``sd`` (of the population: ddof 0), ``min`` and ``max`` over the defined values (NaN when
        there are none), ``n`` how many are defined, ``of`` how many there are.
    """
    numbers = np.asarray(list(values), np.float64)
    defined = numbers[~np.isnan(numbers)]
    if not defined.size:
        return dict.fromkeys(("mean", "sd", "min", "max"), math.nan) | {"n": 0, "of": int(numbers.size)}
    return {
        "mean": float(defined.mean()), "sd": float(defined.std()), "min": float(defined.min()),
        "max": float(defined.max()), "n": int(defined.size), "of": int(numbers.size),
    }


def bootstrap_interval(values: Iterable[float], seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of the defined values.

    The same values in the same order and the same seed give the same interval. With fewer than two defined
    values nothing is known about the spread: (NaN, NaN).
    """
    numbers = np.asarray(list(values), np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if numbers.size < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    # In blocks, so that thousands of cases need no table of cases x resamples.
    block = max(1, 1_000_000 // numbers.size)
    means = np.concatenate([
        numbers[generator.integers(numbers.size, size=(min(block, RESAMPLES - start), numbers.size))].mean(1)
        for start in range(0, RESAMPLES, block)
    ])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, seed: int = 0, level: float = 0.95, on: Sequence[str] = ("case",)
) -> dict[str, float | int]:
    """Compare two sets of per-case values, ``a - b``, on the cases that both define.

    Args:
        a: columns of ``on`` and ``value``, such as `case_means` of one target.
        b: the same.
        seed: seed of the bootstrap.
        level: level of the interval.
        on: the columns that identify a pair, the case first; of several pairs of a case the mean counts.

    Returns:
        ``mean`` difference, its bootstrap interval ``low`` and ``high``, ``p`` of the two-sided Wilcoxon
        signed-rank test (1 when all differences are 0, NaN for fewer than two cases), ``n`` cases, and
        ``unpaired``: values that only one side defines.

    Raises:
        ValueError: when a key occurs twice on one side.
    """
    keys = list(on)
    sides = [side.dropna(subset=["value"])[[*keys, "value"]] for side in (a, b)]
    for side in sides:
        if side.duplicated(keys).any():
            twice = side.loc[side.duplicated(keys), keys].iloc[0].tolist()
            raise ValueError(f"{', '.join(keys)}: {twice} occurs twice, so that its pair is ambiguous")
    pairs = sides[0].merge(sides[1], on=keys, suffixes=("_a", "_b"))
    # Several pairs of one case (seeds) are no independent cases: they count once, by their mean.
    difference = (pairs["value_a"] - pairs["value_b"]).groupby(pairs[keys[0]]).mean().to_numpy(np.float64)
    low, high = bootstrap_interval(difference, seed, level)
    p = math.nan
    if difference.size >= 2:
        p = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
    return {
        "mean": float(difference.mean()) if difference.size else math.nan, "low": low, "high": high, "p": p,
        "n": int(difference.size), "unpaired": len(sides[0]) + len(sides[1]) - 2 * len(pairs),
    }
