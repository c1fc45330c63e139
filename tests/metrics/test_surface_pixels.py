"""Mean surface distance in voxels: reference numbers, unit spacing, missing structures, the edge of a crop."""

import math

import numpy as np
import pytest

from segexp.data.labelmap import LabelMap
from segexp.errors import ConfigError
from segexp.metrics import Scorer, surface_distances

MAPS = {"kidney": LabelMap("kidney", (0, 1, 2), ("background", "kidney", "tumor"))}


def ball(radius: float) -> np.ndarray:
    axes = np.ogrid[tuple(slice(-16, 17) for _ in range(3))]
    return (sum(axis**2 for axis in axes) <= radius**2).astype(np.uint8)


def cube(start: tuple[int, ...], size: int, shape: tuple[int, ...] = (50, 50, 50)) -> np.ndarray:
    volume = np.zeros(shape, np.uint8)
    volume[tuple(slice(first, first + size) for first in start)] = 1
    return volume


def assd(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1)) -> float:
    return surface_distances(prediction, reference, [1], spacing)[1].assd


def scores(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], **settings) -> dict:
    rows = Scorer(["dice", "assd", "assd_px"], **settings)(
        {"kidney": prediction}, {"kidney": reference}, MAPS, spacing, "case1")
    return {(row["structure"], row["metric"]): row for row in rows}


def test_reference_numbers() -> None:
    # Pooled over both directions, 6-neighbour surfaces: what MONAI (symmetric) and medpy (connectivity 1) give.
    assert assd(ball(12), ball(10)) == pytest.approx(1.8909, abs=5e-5)
    assert assd(ball(12), ball(10), (3, 0.7, 0.7)) == pytest.approx(1.8420, abs=5e-5)
    assert assd(cube((10, 10, 10), 20), cube((11, 10, 10), 20)) == pytest.approx(0.3339, abs=5e-5)
    far = cube((10, 10, 10), 20) | cube((40, 40, 40), 2)
    assert assd(far, cube((10, 10, 10), 20)) == pytest.approx(0.0367, abs=5e-5)


def test_equals_monai_on_both_spacings() -> None:
    import torch
    from monai.metrics import SurfaceDistanceMetric

    pair = ball(12), ball(10)
    hot = [torch.from_numpy(np.stack([1 - mask, mask]))[None] for mask in pair]
    found = scores(*pair, (3.0, 0.7, 0.7))
    for metric, spacing in (("assd_px", (1.0, 1.0, 1.0)), ("assd", (3.0, 0.7, 0.7))):
        theirs = SurfaceDistanceMetric(symmetric=True)(*hot, spacing=spacing)
        assert found["kidney", metric]["value"] == pytest.approx(theirs.item(), abs=1e-4)


def test_pixels_ignore_the_spacing_and_millimetres_do_not() -> None:
    pair = ball(12), ball(10)
    thick, cubic = scores(*pair, (5, 0.8, 0.8)), scores(*pair, (1, 1, 1))
    assert thick["kidney", "assd_px"]["unit"] == "px" and thick["kidney", "assd"]["unit"] == "mm"
    pixels = thick["kidney", "assd_px"]["value"]
    assert pixels == cubic["kidney", "assd_px"]["value"] == cubic["kidney", "assd"]["value"]
    assert thick["kidney", "assd"]["value"] != pytest.approx(pixels, rel=0.05)
    double = scores(*pair, (2, 2, 2))
    assert double["kidney", "assd"]["value"] == pytest.approx(2 * double["kidney", "assd_px"]["value"])


def test_missing_structures() -> None:
    reference, empty = cube((2, 2, 2), 3, (8, 9, 10)), np.zeros((8, 9, 10), np.uint8)
    worst = scores(empty, reference, (2, 1, 1))
    assert worst["kidney", "assd_px"]["value"] == pytest.approx(math.hypot(8, 9, 10))
    assert worst["kidney", "assd"]["value"] == pytest.approx(math.hypot(16, 9, 10))
    for prediction, truth, reason in ((empty, reference, "missing in the prediction"),
                                      (reference, empty, "missing in the reference")):
        found = scores(prediction, truth, (2, 1, 1), missing="undefined")
        assert found["kidney", "dice"]["value"] == 0 and found["kidney", "dice"]["defined"]
        for metric in ("assd", "assd_px"):
            row = found["kidney", metric]
            assert math.isnan(row["value"]) and not row["defined"] and row["reason"] == reason
            assert found["tumor", metric]["reason"] == "absent in both" and not found["tumor", metric]["defined"]
        assert math.isnan(found["tumor", "dice"]["value"])


def test_the_plane_of_a_crop_is_a_surface() -> None:
    # A crop cuts both masks at one plane. What lies outside counts as outside, so that there both have a surface.
    prediction, reference = cube((10, 10, 10), 20), cube((15, 15, 15), 10)
    whole, crop = assd(prediction, reference), assd(prediction[..., 20:], reference[..., 20:])
    assert whole > 5 > 4.5 > crop


def test_dice_per_case_is_not_dice_of_pooled_voxels() -> None:
    large, small = cube((5, 5, 5), 20), cube((5, 5, 5), 4)
    values = [scores(large, large, (1, 1, 1))["kidney", "dice"]["value"],
              scores(cube((7, 5, 5), 4), small, (1, 1, 1))["kidney", "dice"]["value"]]
    assert values == [1.0, 0.5]
    pooled = 2 * (8000 + 32) / (2 * 8000 + 2 * 64)
    assert np.mean(values) == 0.75 != pytest.approx(pooled)


def test_wrong_settings_name_the_key() -> None:
    with pytest.raises(ConfigError, match=r"metrics\.missing=nan: expected worst or undefined"):
        Scorer(["assd_px"], missing="nan")


def test_the_configuration() -> None:
    import yaml

    from segexp.config import conf_dir, instantiate

    node = yaml.safe_load((conf_dir() / "metrics" / "surface_pixels.yaml").read_text(encoding="utf-8"))
    scorer = instantiate(node)
    assert scorer.metrics == ("dice", "assd", "assd_px") and scorer.missing == "undefined"
