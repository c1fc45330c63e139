"""Bins of the positive class density: edges, statistics, cases without lesions, errors."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segexp.data.labelmap import LabelMap
from segexp.metrics import WmhChallenge
from segexp.metrics.density import EDGES, density_bins
from segexp.metrics.scores import read_scores, write_scores

CAIN = {"wmh": LabelMap("wmh", (0, 1), ("background", "wmh"))}
SHAPE = (100, 50, 4)  # 20,000 voxels: 6 of them are 0.03 %
STATISTICS = ["n", "mean", "median", "q1", "q3", "at_100", "above_100"]


def volume(voxels: int) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels.reshape(-1)[:voxels] = 1
    return labels


def scored(pairs: list[tuple[int, int]], file: Path) -> pd.DataFrame:
    """Rows of cases with so many voxels in the reference and in the prediction, written and read back."""
    rows = []
    for index, (reference, predicted) in enumerate(pairs):
        rows += WmhChallenge()({"wmh": volume(predicted)}, {"wmh": volume(reference)}, CAIN, (1, 1, 3), f"sub-{index}")
    write_scores(rows, file)
    return read_scores(file)


def test_a_density_on_an_edge_belongs_to_the_bin_above(tmp_path: Path) -> None:
    # 0.005, 0.025, exactly 0.03, 0.035, exactly 0.06, 0.12, 0.25, 0.5 and 1 %, just below 1 %, all
    counts = [1, 5, 6, 7, 12, 24, 50, 100, 200, 199, 20000]
    found = density_bins(scored([(count, count) for count in counts], tmp_path / "scores.csv"))
    binned = dict(zip(found.cases["case"], found.cases["bin"], strict=True))
    assert [binned[f"sub-{index}"] for index in range(len(counts))] == [0, 0, 1, 1, 2, 3, 4, 5, 6, 5, 6]
    assert found.bins["n"].tolist() == [2, 2, 1, 1, 1, 2, 2] and not found.empty
    assert found.bins["bin"].tolist() == ["0–0.03", "0.03–0.06", "0.06–0.12", "0.12–0.25", "0.25–0.5", "0.5–1", "≥ 1"]
    assert [*found.bins["low"], found.bins["high"].iloc[-1]] == list(EDGES)


def test_statistics_of_a_bin(tmp_path: Path) -> None:
    # differences of 0, 25, 100 (nothing found), 100 (twice as much) and 300 % of four voxels
    found = density_bins(scored([(4, 4), (4, 3), (4, 0), (4, 8), (4, 16)], tmp_path / "scores.csv"))
    assert found.bins.loc[0, STATISTICS].tolist() == [5, 105, 100, 25, 100, 2, 1]
    rest = found.bins.loc[1:]
    assert (rest[["n", "at_100", "above_100"]] == 0).all(axis=None)
    assert rest[["mean", "median", "q1", "q3"]].isna().all(axis=None)


def test_cases_without_lesions_are_listed_apart(tmp_path: Path) -> None:
    found = density_bins(scored([(4, 4), (0, 0), (0, 9)], tmp_path / "scores.csv"))
    assert found.empty == ("sub-1", "sub-2") and found.cases["case"].tolist() == ["sub-0"]
    assert found.bins["n"].sum() == 1
    none = density_bins(scored([(0, 9)], tmp_path / "none.csv"))
    assert none.empty == ("sub-0",) and none.bins["n"].sum() == 0 and none.cases.empty


def test_own_edges(tmp_path: Path) -> None:
    scores = scored([(5, 5), (6, 0)], tmp_path / "scores.csv")
    assert density_bins(scores, [0, 0.03, math.inf]).bins["n"].tolist() == [1, 1]
    assert density_bins(scores, (0, 101)).bins.loc[0, ["bin", "n", "at_100"]].tolist() == ["0–101", 2, 1]


def test_rows_of_several_seeds(tmp_path: Path) -> None:
    scores = scored([(4, 4), (0, 0)], tmp_path / "scores.csv")
    both = pd.concat([scores.assign(seed=1), scores.assign(seed=2)])
    assert density_bins(both).bins.loc[0, "n"] == 2 and density_bins(both).empty == ("sub-1",)
    with pytest.raises(ValueError, match=r"sub-0.*occurs twice"):
        density_bins(pd.concat([scores, scores]))


@pytest.mark.parametrize("edges", [(), (0,), (0.03, 1, math.inf), (0, 1, 1, math.inf), (0, 2, 1, math.inf), (0, 1),
                                   (0, math.nan, math.inf), ((0, 1), (2, 101))])
def test_refuses_edges(edges: tuple, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ascending percentages from 0 to inf"):
        density_bins(scored([(4, 4)], tmp_path / "scores.csv"), edges)


@pytest.mark.parametrize("metric", ["avd", "pcd"])
def test_refuses_scores_without_the_metrics(metric: str, tmp_path: Path) -> None:
    scores = scored([(4, 4)], tmp_path / "scores.csv")
    with pytest.raises(ValueError, match=r"lack the metrics pcd and avd.*metrics=wmh_challenge"):
        density_bins(scores[scores["metric"] != metric])
