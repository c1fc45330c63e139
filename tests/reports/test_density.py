"""The figure of volume differences by positive class density."""

import io
from pathlib import Path

import pandas as pd
import pytest

from segexp.reports.density import density_plot


def scores(cases: list[tuple[float, float]]) -> pd.DataFrame:
    """Rows of cases with (density, volume difference)."""
    return pd.DataFrame([
        {"case": f"sub-{index}", "group": "", "target": "wmh", "structure": "wmh", "metric": metric, "value": value,
         "unit": "%", "defined": value == value, "reason": ""}
        for index, case in enumerate(cases) for metric, value in zip(("pcd", "avd"), case, strict=True)
    ])


ONE = scores([(0.01, 100.0), (0.02, 150.0), (0.03, 40.0), (2.0, 10.0), (0.0, float("nan"))])
TWO = scores([(0.01, 90.0), (0.02, 80.0), (0.03, 30.0), (2.0, 5.0), (0.0, float("nan"))])


def texts(runs: dict[str, pd.DataFrame], **settings: object) -> str:
    content = io.BytesIO()
    density_plot(runs, content, **settings)
    return content.getvalue().decode()


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_files(ending: str, tmp_path: Path) -> None:
    file = tmp_path / "figures" / f"siamese_5.{ending}"
    density_plot({"Dice": ONE, "Siamese": TWO}, file, title="Figure 5 (phantoms)")
    assert file.stat().st_size > 2000 and list(file.parent.iterdir()) == [file]


def test_a_figure_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "figure.unknown"
    file.write_text("old")
    with pytest.raises(ValueError, match="unknown"):
        density_plot({"Dice": ONE}, file)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_names_models_bins_counts_and_cases_left_out() -> None:
    text = texts({"Dice": ONE, "Siamese": TWO}, title="Figure 5 (phantoms)")
    for word in ("Dice", "Siamese", "0–0.03", "n = 2", "≥ 1", "n = 0", "positive class density (%)",
                 "not shown, no lesions in the reference: sub-4", "100 %: nothing found", "Figure 5 (phantoms)"):
        assert f">{word}</text>" in text or f">{word}</tspan>" in text, word
    assert ">1000</text>" not in text
    many = pd.concat([ONE, *(ONE[ONE["case"] == "sub-4"].assign(case=f"empty-{index}") for index in range(5))])
    assert "reference: empty-0, empty-1, empty-2, empty-3 and 2 more" in texts({"Dice": many})
    assert "not shown" not in texts({"Dice": ONE[ONE["case"] != "sub-4"]})


def test_differences_of_another_order_make_the_axis_logarithmic() -> None:
    text = texts({"Siamese, trained": scores([(0.01, 1211.0), (0.2, 30.0)])})
    assert ">1000</text>" in text and ">75</text>" in text


def test_own_edges() -> None:
    text = texts({"Dice": ONE}, edges=(0, 0.5, float("inf")))
    assert "0–0.5" in text and "n = 3" in text and "0.03" not in text


def test_refuses_scores_without_lesions() -> None:
    with pytest.raises(ValueError, match="no case of these scores has lesions"):
        density_plot({"Dice": scores([(0.0, float("nan"))])}, io.BytesIO())


def test_figures_are_reproducible() -> None:
    assert texts({"Dice": ONE}) == texts({"Dice": ONE})
