"""Dice and the joint histogram: closed forms, MONAI, and the definition as a loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segexp.metrics import dice, joint_histogram
from segexp.metrics import overlap as room

CLASSES = 5
labels = hnp.arrays(np.uint8, st.just((4, 5, 6)), elements=st.integers(0, CLASSES - 1))


def dice_by_loop(prediction: np.ndarray, reference: np.ndarray, num_classes: int) -> list[float]:
    values = []
    for index in range(num_classes):
        a, b = prediction == index, reference == index
        values.append(2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else np.nan)
    return values


def test_closed_forms() -> None:
    reference = np.zeros((4, 4, 4), int)
    reference[:2, 0, 0], reference[0, 1, :] = 1, 2
    prediction = np.zeros_like(reference)
    prediction[1:4, 0, 0] = 1  # 2 and 3 voxels, one in common
    prediction[0, 2, 0] = 3  # only predicted; class 2 only in the reference; class 4 in neither
    values = dice(prediction, reference, 5)
    assert values[1] == pytest.approx(2 * 1 / 5)
    assert values[2] == 0 and values[3] == 0
    assert np.isnan(values[4])


def test_histogram_names_rows_after_the_reference() -> None:
    counts = joint_histogram(np.array([2, 2, 0]), np.array([1, 1, 0]), 3)
    assert counts.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 0]]


@given(labels, labels)
def test_equals_the_definition(prediction: np.ndarray, reference: np.ndarray) -> None:
    values = dice(prediction, reference, CLASSES)
    np.testing.assert_allclose(values, dice_by_loop(prediction, reference, CLASSES))
    assert ((values[~np.isnan(values)] >= 0) & (values[~np.isnan(values)] <= 1)).all()


@given(labels, labels)
def test_is_symmetric(prediction: np.ndarray, reference: np.ndarray) -> None:
    np.testing.assert_array_equal(dice(prediction, reference, CLASSES), dice(reference, prediction, CLASSES))


@given(labels, labels, st.permutations(range(CLASSES)))
def test_renaming_classes_only_permutes(prediction: np.ndarray, reference: np.ndarray, order: list[int]) -> None:
    table = np.array(order)
    renamed = dice(table[prediction], table[reference], CLASSES)
    np.testing.assert_array_equal(renamed[table], dice(prediction, reference, CLASSES))


@pytest.mark.parametrize("num_classes", [2, 139, 256, 300])
@pytest.mark.parametrize("chunk", [7, 1 << 18])
def test_chunks_and_code_types_change_nothing(
    num_classes: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CHUNK", chunk)
    generator = np.random.default_rng(0)
    kind = np.uint8 if num_classes <= 256 else np.int64
    pair = generator.integers(0, num_classes, (2, 11, 12, 13)).astype(kind)
    pair[:, 0, 0, 0] = num_classes - 1  # the greatest code
    counts = joint_histogram(*pair, num_classes)
    expected = np.zeros((num_classes, num_classes), int)
    np.add.at(expected, (pair[1].ravel(), pair[0].ravel()), 1)
    np.testing.assert_array_equal(counts, expected)


def test_equals_monai() -> None:
    import torch
    from monai.metrics import compute_dice
    from monai.networks import one_hot

    generator = np.random.default_rng(1)
    reference = generator.integers(0, 8, (20, 22, 24)).astype(np.uint8)
    prediction = np.where(generator.random(reference.shape) < 0.3, 0, reference).astype(np.uint8)
    prediction[prediction == 7] = 1  # class 7 only in the reference; 8 and 9 in neither
    hot = [one_hot(torch.from_numpy(each)[None, None], 10) for each in (prediction, reference)]
    np.testing.assert_allclose(dice(prediction, reference, 10), compute_dice(*hot)[0].numpy(), rtol=1e-6)


@pytest.mark.parametrize(("prediction", "reference", "message"), [
    (np.zeros((2, 2), int), np.zeros((2, 3), int), "differ in shape"),
    (np.array([0, 3]), np.array([0, 1]), "prediction holds values from 0 to 3, expected 0 to 2"),
    (np.array([0, 1]), np.array([-1, 1]), "reference holds values from -1 to 1"),
    (np.array([0.5, 1]), np.array([0, 1]), "prediction holds float64"),
])
def test_refuses(prediction: np.ndarray, reference: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        joint_histogram(prediction, reference, 3)
