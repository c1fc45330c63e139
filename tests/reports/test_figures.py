"""Box plots and curves."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segexp.reports.figures import box_plot, curves


def scores(values: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame([
        {"case": str(case), "group": "", "target": target, "structure": "a", "metric": "dice", "value": value,
         "unit": "1", "defined": value == value, "reason": ""}
        for target, listed in values.items() for case, value in enumerate(listed)
    ])


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_box_plot_of_runs_with_different_targets(ending: str, tmp_path: Path) -> None:
    runs = {"single": scores({"fsl_fast": [0.9, 0.8, float("nan")]}),
            "nn_all": scores({"fsl_fast": [0.7, 0.9], "malp_em": [0.5]})}
    file = tmp_path / f"figure5.{ending}"
    box_plot(runs, file, title="Figure 5 (phantoms)")
    assert file.stat().st_size > 2000


def test_box_plot_names_runs_and_targets() -> None:
    content = io.BytesIO()
    box_plot({"one": scores({"fsl_fast": [0.9, 0.8]}), "two": scores({"fsl_fast": [0.5]})}, content)
    text = content.getvalue().decode()
    for word in ("one", "two", "fsl fast", "Dice"):
        assert f">{word}</text>" in text


def test_box_plot_without_values_says_so() -> None:
    with pytest.raises(ValueError, match="no run has a defined hd95"):
        box_plot({"one": scores({"fsl_fast": [0.9]})}, io.BytesIO(), metric="hd95")


def test_figures_are_reproducible() -> None:
    contents = []
    for _ in range(2):
        content = io.BytesIO()
        curves({"loss": (np.arange(5), np.arange(5.0)), "other": (np.arange(3), np.ones(3))}, content, "Loss")
        contents.append(content.getvalue())
    assert contents[0] == contents[1] and b">Loss</text>" in contents[0]
