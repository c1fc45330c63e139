"""Overlays: orientation, colours, choice of slices."""

import io

import numpy as np
import pytest
from PIL import Image

from segexp.data.labelmap import LabelMap
from segexp.reports import overlay
from segexp.reports.colours import structure_colours
from segexp.reports.overlay import overlay_figure
from tests.reports.conftest import LABEL_MAP, volumes


def drawn(image: np.ndarray, rows: dict, label_map: LabelMap = LABEL_MAP, **settings: object) -> np.ndarray:
    content = io.BytesIO()
    overlay_figure(image, rows, label_map, content, **settings)
    return np.asarray(Image.open(content).convert("RGB")).astype(int)


def where(pixels: np.ndarray, index: int, label_map: LabelMap = LABEL_MAP) -> np.ndarray:
    """Pixels (row, column) in the pure colour of a class."""
    colour = np.round(np.array(structure_colours(label_map.num_classes)[index]) * 255)
    return np.argwhere(np.abs(pixels - colour).sum(-1) < 8)


@pytest.mark.parametrize(("corner", "side"), [
    ((slice(0, 4), slice(8, 12), slice(8, 12)), "left"), ((slice(16, 20), slice(8, 12), slice(8, 12)), "right"),
    ((slice(8, 12), slice(0, 4), slice(8, 12)), "back"), ((slice(8, 12), slice(16, 20), slice(8, 12)), "front"),
])
def test_left_is_left_and_front_is_up(corner: tuple[slice, ...], side: str) -> None:
    """In the axial picture (the first) the patient's left is on the left and the front on top."""
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[corner] = 1
    image = np.random.default_rng(0).random(labels.shape)
    pixels = drawn(image, {"target": labels})
    panel = overlay.PANEL_PIXELS
    found = where(pixels[22 + panel + 6 : 22 + 2 * panel + 6, 26 : 26 + panel], 1) / panel
    assert len(found)
    row, column = found.mean(0)
    expected = {"left": column < 0.3, "right": column > 0.7, "back": row > 0.7, "front": row < 0.3}
    assert expected[side], (row, column)


def test_structures_have_their_colours() -> None:
    image, labels = volumes()
    pixels = drawn(image, {"target": labels, "prediction": np.where(labels == 1, 1, 0)})
    third = np.array_split(pixels[:-40], 3)  # rows of the figure, without the legend
    assert len(where(third[0], 1)) == len(where(third[0], 2)) == 0
    assert len(where(third[1], 1)) and len(where(third[1], 2))
    assert len(where(third[2], 1)) and not len(where(third[2], 2))


def test_slices_follow_the_first_row_only() -> None:
    _, labels = volumes()
    assert overlay._position({"target": labels}, labels.shape) == (5, 8, 5)
    assert overlay._position({"target": labels, "prediction": labels * 0}, labels.shape) == (5, 8, 5)
    assert overlay._position({"target": labels * 0}, (12, 16, 10)) == (6, 8, 5)


def test_voxel_size_shapes_the_panels() -> None:
    image, labels = volumes()
    flat, tall = drawn(image, {"a": labels}), drawn(image, {"a": labels}, spacing=(1, 1, 3))
    # The axial panel is 12 mm wide of 16 mm at most, then of 30 mm; the coronal one 10 and 30 mm high.
    panel = overlay._factor(labels.shape) * 16
    assert flat.shape[1] == pytest.approx(26 + panel * (12 + 12 + 16) / 16 + 18, abs=1)
    assert tall.shape[1] == pytest.approx(26 + panel * (12 + 12 + 16) / 30 + 18, abs=1)


def test_many_structures_have_a_line_instead_of_a_legend() -> None:
    names = ("background", *(f"region_{index}" for index in range(138)))
    label_map = LabelMap("malp_em", tuple(range(139)), names)
    image, labels = volumes()
    few, many = drawn(image, {"a": labels}), drawn(image, {"a": labels * 60}, label_map)
    assert abs(few.shape[0] - many.shape[0]) < 20
    assert len(set(structure_colours(139))) == 139


@pytest.mark.parametrize("image", [np.zeros((6, 7, 8)), np.full((6, 7, 8), np.nan)], ids=["constant", "nan"])
def test_odd_images_are_drawn(image: np.ndarray) -> None:
    assert drawn(image, {"a": np.zeros(image.shape, np.uint8)}).size


def test_same_input_same_bytes() -> None:
    image, labels = volumes()
    contents = [io.BytesIO(), io.BytesIO()]
    for content in contents:
        overlay_figure(image, {"a": labels}, LABEL_MAP, content, title="case")
    assert contents[0].getvalue() == contents[1].getvalue()


def test_other_shapes_are_refused() -> None:
    image, labels = volumes()
    with pytest.raises(ValueError, match=r"prediction has shape \(11, 16, 10\), the image \(12, 16, 10\)"):
        drawn(image, {"prediction": labels[1:]})
