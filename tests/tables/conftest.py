"""Runs that were never trained: directories with chosen scores, where the real configuration looks for them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from segexp.config import compose
from segexp.config.objects import plain
from segexp.files import write_json, write_text
from segexp.metrics.scores import write_scores
from segexp.runs import Run, locate_run

Row = dict[str, Any]


def row(case: str, target: str, value: float, metric: str = "dice", structure: str = "a", group: str = "clean") -> Row:
    """Return one score row."""
    return {"case": case, "group": group, "target": target, "structure": structure, "metric": metric, "value": value,
            "unit": "1", "defined": True, "reason": ""}


@pytest.fixture
def finished(tmp_path: Path) -> Callable[..., Run]:
    """Return a function that writes a finished run of an experiment with the given scores."""

    def write(experiment: str, rows: Iterable[Row], seed: int = 1, phantom: bool = True, **info: Any) -> Run:
        config = compose("train", overrides(tmp_path, f"experiment=neuronet/{experiment}", f"seed={seed}"))
        run = locate_run(config)
        write_text(run.path / "config.yaml", yaml.safe_dump(plain(config)))
        write_scores(list(rows), run.path / "scores.csv")
        write_json(run.path / "run.json", {
            "id": run.id, "name": experiment, "status": "done", "seed": seed, "scale": "smoke", "phantom": phantom,
            "data_fingerprint": "f" * 64, "git": {"commit": "c" * 40, "changed": False}, "finished": "2026-01-01",
            "packages": {"segexp": "0.1.0", "torch": "2.12.0"}, "resources": {"train_seconds": 61.0}, **info})
        return run

    return write


def overrides(outputs: Path, *more: str) -> list[str]:
    """Return the words that send a table's runs to ``outputs``."""
    return [*more, "scale=smoke", f"paths.outputs={outputs}"]
