"""A run's result as text."""

from pathlib import Path
from typing import TYPE_CHECKING

from segexp.runs.directory import Run

if TYPE_CHECKING:
    import pandas as pd

FEW = 3  # structures of a target that get a line each


def describe(run: Run) -> str:
    """Return the test result per target and where the run lies."""
    return describe_scores(run.path / "scores.csv", bool(run.info.get("phantom")))


def describe_scores(file: Path, phantom: bool) -> str:
    """Return the result per metric and target, and where it lies.

    One line each: mean, population standard deviation, minimum and maximum over the cases, of the mean over the
    structures of a case, and of every structure where there are a few. Comparisons with a phantom's truth and times are
    in the file only.
    """
    from segexp.metrics.scores import case_means, read_scores

    scores = read_scores(file)
    lines = []
    for metric in dict.fromkeys(scores["metric"]):
        if metric.endswith("_truth") or metric == "predict_seconds":
            continue
        unit = next((unit for unit in scores.loc[scores["metric"] == metric, "unit"] if unit not in ("", "1")), "")
        measured = metric + (f" [{unit}]" if unit else "")
        for target, rows in case_means(scores, metric).groupby("target", sort=False):
            lines.append(line(f"{target}, {measured}" if target else measured, rows["value"]))
            own = scores[(scores["metric"] == metric) & (scores["target"] == target) & scores["defined"]]
            if 1 < own["structure"].nunique() <= FEW:
                lines += [line(f"  {structure}", rows["value"])
                          for structure, rows in own.groupby("structure", sort=False)]
    title = "on phantoms" if phantom else ""
    heading = f"{title:<30}{'mean':>10}{'sd':>10}{'min':>10}{'max':>10}{'cases':>7}"
    return "\n".join([heading, *lines, f"in {file.parent}"])


def line(name: str, values: "pd.Series") -> str:
    """Return one line of the result."""
    from segexp.metrics.scores import summary

    found = summary(values)
    return f"{name:<30}" + "".join(f"{found[key]:10.3f}" for key in ("mean", "sd", "min", "max")) + f"{found['n']:>7}"
