"""A run's result as text."""

from pathlib import Path

from segexp.runs.directory import Run


def describe(run: Run) -> str:
    """Return the test result per target and where the run lies."""
    return describe_scores(run.path / "scores.csv", bool(run.info.get("phantom")))


def describe_scores(file: Path, phantom: bool) -> str:
    """Return the result per metric and target, and where it lies.

    One line each: mean, population standard deviation, minimum and maximum over the cases, of the mean over the
    structures of a case. Comparisons with a phantom's truth and times are in the file only.
    """
    from segexp.metrics.scores import case_means, read_scores, summary

    scores = read_scores(file)
    lines = []
    for metric in dict.fromkeys(scores["metric"]):
        if metric.endswith("_truth") or metric == "predict_seconds":
            continue
        unit = next((unit for unit in scores.loc[scores["metric"] == metric, "unit"] if unit not in ("", "1")), "")
        for target, rows in case_means(scores, metric).groupby("target", sort=False):
            values = summary(rows["value"])
            numbers = "".join(f"{values[key]:10.3f}" for key in ("mean", "sd", "min", "max"))
            name = f"{target}, {metric}" + (f" [{unit}]" if unit else "")
            lines.append(f"{name:<30}{numbers}{values['n']:>7}")
    title = "on phantoms" if phantom else ""
    heading = f"{title:<30}{'mean':>10}{'sd':>10}{'min':>10}{'max':>10}{'cases':>7}"
    return "\n".join([heading, *lines, f"in {file.parent}"])
