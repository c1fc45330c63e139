"""One page per run: what it is, what came out, how it got there. A single file that needs no network."""

import base64
import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from segexp.console import duration
from segexp.files import write_text
from segexp.metrics.scores import case_means, summary

PAGE = "report.html"
# Beginning of a curve's name in the CSV, title of the figure that shows it.
SECTIONS = (("train/loss", "Training loss"), ("val/loss", "Validation loss"), ("val/dice", "Validation Dice"))


class RunLike(Protocol):
    """What a page needs of a run (`segexp.runs.Run`)."""

    path: Path
    id: str
    status: str
    info: dict[str, Any]

    def scores(self) -> pd.DataFrame:
        """Return the rows of scores.csv."""


def write_run_page(run: RunLike) -> Path:
    """Write ``report.html`` into the run's directory, whole or not at all, and return its path.

    Everything is inside the file: pictures as data, no script, nothing fetched (a content security policy
    says so to the browser). A run that has no scores, curves or figures yet has a page without those
    sections.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("segexp.reports"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    environment.filters.update(number=number, duration=duration)
    scores = run.scores() if (run.path / "scores.csv").exists() else None
    page = environment.get_template("run.html").render(
        id=run.id, status=run.status, info=run.info,
        facts=facts(run.info), provenance=provenance(run.info),
        tables=metric_tables(scores), boxes=boxes(scores, bool(run.info.get("phantom"))),
        structures=structure_tables(scores),
        curves=list(training_curves(run.path / "metrics" / "metrics.csv")),
        overlays=[(file.stem.replace("_", " "), picture(file.read_bytes(), "png"))
                  for file in sorted((run.path / "figures").glob("*.png"))],
    )
    target = run.path / PAGE
    write_text(target, page)
    return target


def number(value: Any, digits: int = 3) -> str:
    """Return a number for a table cell; a dash where it is undefined."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def picture(content: bytes, kind: str) -> str:
    """Return a picture as a data address."""
    kind = {"svg": "svg+xml"}.get(kind, kind)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def drawn(draw: Callable[[Any], None]) -> str:
    """Return what ``draw(file)`` draws as the data address of an SVG."""
    content = io.BytesIO()
    draw(content)
    return picture(content.getvalue(), "svg")


def facts(info: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the run is, as (label, text); what is not known is left out."""
    resources = info.get("resources") or {}
    seconds = resources.get("train_seconds")
    memory = resources.get("peak_memory_gb")
    listed = [
        ("experiment", info.get("name")), ("seed", info.get("seed")), ("scale", info.get("scale")),
        ("steps", info.get("steps")), ("command", info.get("command")),
        ("started", info.get("started")), ("finished", info.get("finished")),
        ("training", None if seconds is None else duration(seconds)),
        ("peak memory", None if memory is None else f"{memory:.2f} GB"), ("device", resources.get("device")),
        *(info.get("facts") or {}).items(), *(("caution", text) for text in info.get("cautions") or ()),
    ]
    return [(label, str(value)) for label, value in listed if value not in (None, "")]


def provenance(info: dict[str, Any]) -> list[tuple[str, str]]:
    """Return where the run came from, as (label, text)."""
    git, machine = info.get("git") or {}, info.get("hardware") or {}
    commit = git.get("commit")
    if commit and git.get("changed"):
        commit += " with changes (code.diff)"
    known = info.get("packages") or {}
    shown = ("torch", "pytorch-lightning", "monai", "numpy", "hydra-core", "segexp")
    listed = [
        ("hash", info.get("hash")), ("data fingerprint", info.get("data_fingerprint")), ("commit", commit),
        ("packages", ", ".join(f"{name} {known[name]}" for name in shown if name in known)),
        ("machine", "; ".join(
            f"{key.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}"
            for key, value in machine.items() if value not in (None, "", []))),
    ]
    return [(label, str(value)) for label, value in listed if value not in (None, "")]


def metric_tables(scores: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return per metric the summary over cases of every target: mean, sd, min, max, n defined of n."""
    tables = []
    for metric, rows in () if scores is None else scores.groupby("metric", sort=False):
        means = case_means(rows, str(metric))
        lines = []
        for target, part in means.groupby("target", sort=False):
            lines.append({"target": target, "group": "", **summary(part["value"])})
            if (part["group"] != "").any():  # phantoms: also apart for clean, rotated and failed cases
                lines += [{"target": target, "group": group or "no group", **summary(cases["value"])}
                          for group, cases in part.groupby("group")]
        tables.append({"metric": metric, "unit": rows["unit"].iloc[0], "lines": lines})
    return tables


def structure_tables(scores: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return per target one line per structure: for every metric the summary over the cases that define it."""
    tables = []
    for target, rows in () if scores is None else scores[scores["structure"] != ""].groupby("target", sort=False):
        metrics = list(dict.fromkeys(rows["metric"]))
        values = rows["value"].where(rows["defined"])
        grouped = dict(tuple(values.groupby([rows["structure"], rows["metric"]])))
        lines = [
            {"structure": structure,
             "cells": [summary(grouped.get((structure, metric), pd.Series(dtype=float))) for metric in metrics]}
            for structure in dict.fromkeys(rows["structure"])
        ]
        tables.append({"target": target, "metrics": metrics, "lines": lines})
    return tables


def boxes(scores: pd.DataFrame | None, phantom: bool) -> str:
    """Return the box plot of the cases' mean Dice as a picture; empty without Dice."""
    from segexp.reports.figures import box_plot

    if scores is None or not ((scores["metric"] == "dice") & scores["defined"]).any():
        return ""
    title = "Mean Dice of every test case" + (" (phantoms)" if phantom else "")
    return drawn(lambda file: box_plot({"this run": scores}, file, title=title))


def training_curves(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (title, picture) of the curves in Lightning's CSV, grouped by what they show."""
    from segexp.reports.figures import curves

    if not file.exists():
        return
    points: dict[str, tuple[list[int], list[float]]] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            for name, text in row.items():
                if name not in ("step", "epoch") and text:
                    steps, values = points.setdefault(name, ([], []))
                    steps.append(int(row["step"]))
                    values.append(float(text))
    groups = {title: {name: curve for name, curve in points.items() if name.startswith(prefix)}
              for prefix, title in SECTIONS}
    taken = {name for group in groups.values() for name in group}
    # Anything else that was logged, such as the learning rate, gets a figure of its own.
    groups |= {name: {name: curve} for name, curve in points.items() if name not in taken}
    for title, group in groups.items():
        if group:
            short = {name.rpartition("/")[2]: curve for name, curve in group.items()}
            yield title, drawn(lambda target, short=short, title=title: curves(short, target, title=title))
