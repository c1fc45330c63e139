"""The challenge's metrics as score rows: contract, reasons, unlabelled voxels, means, configuration, errors."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from segexp.config import conf_dir, instantiate
from segexp.data.labelmap import IGNORE, LabelMap
from segexp.errors import ConfigError, DataError
from segexp.metrics import WMH_METRICS, WmhChallenge, wmh_scores
from segexp.metrics.scores import COLUMNS, case_means, read_scores, summary, write_scores

SHAPE, SPACING = (24, 20, 8), (0.96, 0.95, 3.0)
WMH = {"wmh": LabelMap("wmh", (0, 1, 2), ("background", "wmh", "other_pathology"))}
CAIN = {"wmh": LabelMap("wmh", (0, 1), ("background", "wmh"))}
DISTANCES = ("dice", "hd95", "avd")


def labels(kind: type = np.uint8) -> np.ndarray:
    volume = np.zeros(SHAPE, kind)
    volume[4:8, 4:8, 3:5] = 1
    return volume


def rows(prediction: np.ndarray, reference: np.ndarray, maps: dict = WMH, **policy: object) -> dict[str, dict]:
    found = WmhChallenge(**policy)({"wmh": prediction}, {"wmh": reference}, maps, SPACING, "case1", "Utrecht")
    assert all(tuple(row) == COLUMNS for row in found)
    return {row["metric"]: row for row in found}


@pytest.mark.parametrize("maps", [WMH, CAIN], ids=["wmh", "cain"])
def test_rows(maps: dict) -> None:
    reference, prediction = labels(), np.roll(labels(np.int64), 2, 0)
    found = rows(prediction, reference, maps)
    assert {metric: row["unit"] for metric, row in found.items()} == WMH_METRICS
    expected = wmh_scores(reference.astype(np.float32), prediction, SPACING)
    for metric, row in found.items():
        assert row["value"] == getattr(expected, metric) and row["defined"] and row["reason"] == ""
        assert (row["case"], row["group"], row["target"], row["structure"]) == ("case1", "Utrecht", "wmh", "wmh")
    assert [found[metric]["value"] for metric in DISTANCES] == pytest.approx([0.5, 1.92, 0])


def test_other_pathology_and_unlabelled_voxels_are_erased_from_the_prediction() -> None:
    reference, prediction = labels(np.int16), labels()
    reference[14:19, 4:9, 3:5], reference[0] = 2, IGNORE
    prediction[14:19, 4:9, 3:5], prediction[0] = 1, 1
    found = rows(prediction, reference)
    assert (found["dice"]["value"], found["hd95"]["value"], found["avd"]["value"]) == (1, 0, 0)
    assert found["predicted_ml"]["value"] == found["reference_ml"]["value"]


def test_predicted_other_pathology_is_no_lesion() -> None:
    prediction = labels()
    prediction[14:19, 4:9, 3:5] = 2
    assert rows(prediction, labels())["dice"]["value"] == 1


@pytest.mark.parametrize(("found", "there", "reason", "undefined"), [
    (False, True, "missing in the prediction", {"hd95"}),
    (True, False, "missing in the reference", {"hd95", "avd"}),
    (False, False, "absent in both", {"dice", "hd95", "avd"}),
])
def test_empty_masks(found: bool, there: bool, reason: str, undefined: set[str]) -> None:
    result = rows(labels() * found, labels() * there)
    assert {metric for metric, row in result.items() if not row["defined"]} == undefined
    for metric, row in result.items():
        assert math.isnan(row["value"]) == (metric in undefined)
        assert row["reason"] == ("" if metric in ("pcd", "reference_ml", "predicted_ml") else reason)


def test_other_reasons() -> None:
    slab = np.zeros(SHAPE, np.uint8)
    slab[:, :, 3] = 1
    row = rows(slab, labels())["hd95"]
    assert not row["defined"] and row["reason"] == "no edge inside the volume"
    row = rows(np.roll(labels(), 12, 0), labels(), lesion_f1="legacy2017")["lesion_f1"]
    assert not row["defined"] and row["reason"] == "nothing detected"


def test_a_target_that_was_not_predicted_is_predicted_empty() -> None:
    found = WmhChallenge("avd")({}, {"wmh": labels()}, CAIN, SPACING, "case1")
    assert [(row["metric"], row["value"]) for row in found] == [("avd", 100)]


@pytest.mark.parametrize(("penalty", "mean", "defined"), [
    (None, 1.92, 1), ("image_diagonal", (1.92 + math.hypot(24 * 0.96, 20 * 0.95, 24)) / 2, 2),
])
def test_mean_with_a_missed_volume(penalty: str | None, mean: float, defined: int, tmp_path: Path) -> None:
    scorer = WmhChallenge(h95_penalty=penalty)
    listed = []
    for case, prediction in (("a", np.roll(labels(), 2, 0)), ("b", labels() * 0)):
        listed += scorer({"wmh": prediction}, {"wmh": labels()}, CAIN, SPACING, case)
    write_scores(listed, tmp_path / "scores.csv")
    scores = read_scores(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(scores, pd.DataFrame(listed)[list(COLUMNS)], check_dtype=False)
    found = summary(case_means(scores, "hd95")["value"])
    assert found["mean"] == pytest.approx(mean) and (found["n"], found["of"]) == (defined, 2)
    assert summary(case_means(scores, "avd")["value"])["mean"] == 50


def test_configuration() -> None:
    node = yaml.safe_load((conf_dir() / "metrics" / "wmh_challenge.yaml").read_text(encoding="utf-8"))
    scorer = instantiate(node)
    assert isinstance(scorer, WmhChallenge)
    assert set(scorer.metrics) == set(WMH_METRICS) and scorer.lesion_f1 == "official" and scorer.h95_penalty is None


@pytest.mark.parametrize(("settings", "message"), [
    ({"metrics": ["dice", "h95"]}, "'h95' is no metric.*hd95"), ({"metrics": []}, "nothing is no metric"),
    ({"lesion_f1": "new"}, "metrics.lesion_f1=new: expected official or legacy2017"),
    ({"h95_penalty": "worst"}, "metrics.h95_penalty=worst: expected null or image_diagonal"),
])
def test_refuses_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WmhChallenge(**settings)


@pytest.mark.parametrize(("prediction", "reference", "maps", "message"), [
    (labels()[1:], labels(), WMH, r"case case1, target wmh: .*\(23, 20, 8\).*grid of the case"),
    (labels() * 2, labels(), CAIN, "the prediction holds values from 0 to 2, expected 0 to 1"),
    (labels(np.int16) * -1, labels(), CAIN, "the prediction holds values from -1 to 0"),
    (labels(), labels() * 3, WMH, "the reference holds values from 0 to 3, expected 0 to 2"),
    (labels(np.float32), labels(), WMH, "the prediction holds float32"),
    (labels()[..., 0], labels()[..., 0], WMH, "two volumes of one shape"),
])
def test_refuses_volumes(prediction: np.ndarray, reference: np.ndarray, maps: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows(prediction, reference, maps)


def test_refuses_targets_of_many_structures() -> None:
    maps = {"wmh": LabelMap("wmh", (0, 1, 2, 3), ("background", "a", "b", "c"))}
    with pytest.raises(ConfigError, match="wmh has 4 classes; choose metrics=surface"):
        rows(labels(), labels(), maps)
