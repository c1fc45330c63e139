"""A run's result as text."""

from pathlib import Path

from segexp.runs.directory import Run


def describe(run: Run) -> str:
    """Return the test result per target and where the run lies."""
    return describe_scores(run.path / "scores.csv", bool(run.info.get("phantom")))


def describe_scores(file: Path, phantom: bool) -> str:
    """Return the result per target and where it lies.

    One line per target: mean, population standard deviation, minimum and maximum over the cases of the mean Dice
    over the structures of a case.
    """
    from segexp.metrics.scores import case_means, read_scores, summary

    means = case_means(read_scores(file), "dice")
    lines = [f"{'Dice on phantoms' if phantom else 'Dice':<20}{'mean':>8}{'sd':>8}{'min':>8}{'max':>8}{'cases':>7}"]
    for target, rows in means.groupby("target", sort=False):
        values = summary(rows["value"])
        numbers = "".join(f"{values[key]:8.3f}" for key in ("mean", "sd", "min", "max"))
        lines.append(f"{target:<20}{numbers}{values['n']:>7}")
    return "\n".join([*lines, f"in {file.parent}"])
