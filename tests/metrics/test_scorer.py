"""From label maps to rows: contract, missing policy, exclusions, errors."""

import math

import numpy as np
import pytest

from segexp.data.labelmap import LabelMap
from segexp.errors import ConfigError, DataError
from segexp.metrics import METRICS, Scorer
from segexp.metrics.scores import COLUMNS

MAPS = {
    "first": LabelMap("first", (0, 10, 11, 49), ("background", "thalamus_left", "caudate_left", "thalamus_right")),
    "fast": LabelMap("fast", (0, 1), ("background", "csf")),
}
SHAPE = (10, 12, 14)
SPACING = (1.0, 2.0, 0.5)
DIAGONAL = math.hypot(10, 24, 7)


@pytest.fixture
def reference() -> dict[str, np.ndarray]:
    first = np.zeros(SHAPE, np.uint8)
    first[1:5, 1:5, 1:5], first[6:9, 6:9, 6:9] = 1, 2
    fast = np.zeros(SHAPE, np.uint8)
    fast[2:6] = 1
    return {"first": first, "fast": fast}


def by_key(rows: list[dict]) -> dict[tuple[str, str, str], dict]:
    return {(row["target"], row["structure"], row["metric"]): row for row in rows}


def test_rows_of_a_perfect_prediction(reference: dict[str, np.ndarray]) -> None:
    rows = Scorer(list(METRICS))(reference, reference, MAPS, SPACING, "case1", "rotated")
    assert len(rows) == len(METRICS) * (3 + 1)
    assert all(tuple(row) == COLUMNS and row["case"] == "case1" and row["group"] == "rotated" for row in rows)
    found = by_key(rows)
    for (target, structure, metric), row in found.items():
        assert row["unit"] == METRICS[metric]
        if (target, structure) == ("first", "thalamus_right"):
            assert math.isnan(row["value"]) and not row["defined"] and row["reason"] == "absent in both"
        else:
            assert row["value"] == (1.0 if metric == "dice" else 0.0) and row["defined"] and row["reason"] == ""


def test_missing_is_the_worst_score_never_a_missing_value(reference: dict[str, np.ndarray]) -> None:
    prediction = {"first": np.where(reference["first"] == 1, 3, 0), "fast": reference["fast"]}
    found = by_key(Scorer(list(METRICS))(prediction, reference, MAPS, SPACING, "case1"))
    for structure, reason in (("caudate_left", "missing in the prediction"),
                              ("thalamus_right", "missing in the reference")):
        for metric, worst in (("dice", 0.0), ("hd95", DIAGONAL), ("assd", DIAGONAL)):
            row = found["first", structure, metric]
            assert row["value"] == pytest.approx(worst) and row["defined"] and row["reason"] == reason


def test_a_target_that_was_not_predicted_is_predicted_empty(reference: dict[str, np.ndarray]) -> None:
    rows = Scorer()({"fast": reference["fast"]}, reference, MAPS, SPACING, "case1")
    first = [row for row in rows if row["target"] == "first"]
    assert [row["reason"] for row in first] == [*["missing in the prediction"] * 2, "absent in both"]


def test_a_target_without_reference_has_no_rows(reference: dict[str, np.ndarray]) -> None:
    rows = Scorer()(reference, {"fast": reference["fast"]}, MAPS, SPACING, "case1")
    assert {row["target"] for row in rows} == {"fast"}


def test_background_and_exclusions(reference: dict[str, np.ndarray]) -> None:
    def structures(**settings: object) -> list[str]:
        rows = Scorer(**settings)(reference, {"first": reference["first"]}, MAPS, SPACING, "case1")
        return [row["structure"] for row in rows]

    assert structures() == ["thalamus_left", "caudate_left", "thalamus_right"]
    assert structures(include_background=True)[0] == "background"
    assert structures(exclude={"first": ["caudate_left", 49]}) == ["thalamus_left"]
    assert structures(exclude={"fast": ["csf"]}) == structures()


def test_unlabelled_voxels_do_not_count(reference: dict[str, np.ndarray]) -> None:
    truth = reference["fast"].astype(np.int64)
    guess = truth.copy()
    guess[:, :3] = 1 - guess[:, :3]  # wrong exactly where nobody labelled
    truth[:, :3] = -100
    rows = by_key(Scorer(list(METRICS))({"fast": guess}, {"fast": truth}, MAPS, SPACING, "case1"))
    assert rows["fast", "csf", "dice"]["value"] == 1 and rows["fast", "csf", "hd95"]["value"] == 0


def test_background_of_a_map_without_background() -> None:
    """Surfaces of the background exist only where the background does."""
    full, half = np.ones(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
    half[5:] = 0
    rows = by_key(Scorer(["hd95"], include_background=True)(
        {"fast": full}, {"fast": half}, MAPS, (1, 1, 1), "case1"))
    assert rows["fast", "background", "hd95"]["reason"] == "missing in the prediction"
    assert rows["fast", "csf", "hd95"]["value"] > 0


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'dcie', expected some of dice, hd95, assd, assd_px; did you mean 'dice'"):
        Scorer(["dcie"])
    with pytest.raises(ConfigError, match="empty"):
        Scorer([])


@pytest.mark.parametrize("wrong", ["thalamus_lefd", 12, True])
def test_unknown_exclusion_is_an_error(wrong: object, reference: dict[str, np.ndarray]) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.exclude\.first names"):
        Scorer(exclude={"first": [wrong]})(reference, reference, MAPS, SPACING, "case1")


def test_another_grid_is_an_error(reference: dict[str, np.ndarray]) -> None:
    prediction = {**reference, "fast": reference["fast"][1:]}
    with pytest.raises(DataError, match=r"case1, target fast: the prediction has shape \(9, 12, 14\)"):
        Scorer()(prediction, reference, MAPS, SPACING, "case1")


def test_a_class_outside_the_label_map_is_an_error(reference: dict[str, np.ndarray]) -> None:
    prediction = {**reference, "fast": reference["fast"] * 7}
    with pytest.raises(DataError, match="case1, target fast: the prediction holds values from 0 to 7"):
        Scorer()(prediction, reference, MAPS, SPACING, "case1")


@pytest.mark.parametrize(("name", "metrics"), [("overlap", ("dice",)), ("surface", ("dice", "hd95", "assd"))])
def test_configurations_make_scorers(name: str, metrics: tuple[str, ...]) -> None:
    import yaml

    from segexp.config import conf_dir, instantiate

    node = yaml.safe_load((conf_dir() / "metrics" / f"{name}.yaml").read_text(encoding="utf-8"))
    scorer = instantiate(node)
    assert isinstance(scorer, Scorer) and scorer.metrics == metrics and not scorer.include_background
