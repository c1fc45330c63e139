"""A finished run on disk, small but with everything a page shows."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segexp.data.labelmap import LabelMap
from segexp.metrics import Scorer
from segexp.metrics.scores import write_scores
from segexp.reports.overlay import overlay_figure
from segexp.runs import Run

LABEL_MAP = LabelMap("fast", (0, 1, 2), ("background", "csf", "grey_matter"))


def volumes() -> tuple[np.ndarray, np.ndarray]:
    """Image and labels [12, 16, 10]: a bright box, two structures."""
    labels = np.zeros((12, 16, 10), np.uint8)
    labels[2:9, 3:10, 2:8], labels[2:9, 10:13, 2:8] = 1, 2
    return labels * 40.0 + np.random.default_rng(0).normal(size=labels.shape), labels


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Return a function that makes a run; ``empty`` leaves out scores, curves and pictures."""

    def make(empty: bool = False, **info: object) -> Run:
        run = Run(tmp_path / "outputs" / "runs" / "neuronet" / "single-seed1-3f2a9c1b")
        run.path.mkdir(parents=True)
        run.update(**{
            "schema": 1, "id": run.id, "hash": run.hash, "name": "single", "status": "done", "seed": 1,
            "scale": "demo", "phantom": True, "data_fingerprint": "f" * 8, "command": "segexp train seed=1",
            "git": {"commit": "abc", "changed": True}, "packages": {"torch": "2.12"}, "error": None, "steps": 40,
            "hardware": {"cores": 2, "gpus": []}, "started": "2025-01-01T00:00:00+00:00", "finished": None,
            "resources": {"train_seconds": 75, "peak_memory_gb": 1.5, "device": "CPU"}, **info,
        })
        if empty:
            return run
        image, labels = volumes()
        rows = []
        for case in range(4):
            guess = labels if case else np.where(labels == 1, 1, 0)  # the first case misses grey matter
            group = "rotated" if case == 0 else "clean"
            rows += Scorer()({"fast": guess}, {"fast": labels}, {"fast": LABEL_MAP}, (1, 1, 1), str(case), group)
        rows[-1] |= {"value": math.nan, "defined": False, "reason": "absent in both"}
        write_scores(rows, run.path / "scores.csv")
        (run.path / "figures").mkdir()
        overlay_figure(image, {"target": labels}, LABEL_MAP, run.path / "figures" / "test_0_fast.png")
        (run.path / "metrics").mkdir()
        (run.path / "metrics" / "metrics.csv").write_text(
            "step,epoch,train/loss,val/dice_fast,lr\n9,0,1.5,,0.1\n19,0,1.0,,0.1\n19,0,,0.4,\n")
        return run

    return make
