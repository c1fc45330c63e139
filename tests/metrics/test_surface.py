"""Surface distances: closed forms, MONAI as the oracle, both exact ways, properties."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial.distance import cdist

from segexp.metrics import surface as room
from segexp.metrics import surface_distances

spacings = st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 1.25, 3.0])] * 3)
labels = hnp.arrays(np.uint8, st.just((5, 6, 7)), elements=st.integers(0, 2))


def by_definition(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """hd95 and assd of two masks from the table of all distances."""
    points = [np.argwhere(mask & ~binary_erosion(mask)) * np.array(spacing) for mask in (a, b)]
    table = cdist(*points)
    there, back = table.min(1), table.min(0)
    both = np.concatenate([there, back])
    return max(np.percentile(there, 95), np.percentile(back, 95)), both.mean()


def blobs(seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Two label maps of smooth blobs, also at the border of the volume."""
    generator = np.random.default_rng(seed)
    fields = gaussian_filter(generator.normal(size=(classes, 24, 21, 18)), (0, 2, 2, 2), mode="nearest")
    other = fields + 0.4 * gaussian_filter(generator.normal(size=fields.shape), (0, 2, 2, 2), mode="nearest")
    return fields.argmax(0).astype(np.uint8), other.argmax(0).astype(np.uint8)


def monai(prediction: np.ndarray, reference: np.ndarray, classes: int, spacing: tuple[float, ...]) -> np.ndarray:
    """[K, 2]: hd95 and assd of every class, background included."""
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
    from monai.networks import one_hot

    hot = [one_hot(torch.from_numpy(each)[None, None], classes) for each in (prediction, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hd95 = compute_hausdorff_distance(*hot, include_background=True, percentile=95, spacing=spacing)[0]
        assd = compute_average_surface_distance(*hot, include_background=True, symmetric=True, spacing=spacing)[0]
    return np.stack([hd95.numpy(), assd.numpy()], 1)


def test_two_parallel_planes() -> None:
    prediction, reference = np.zeros((2, 9, 9, 9), np.uint8)
    prediction[2], reference[6] = 1, 1
    found = surface_distances(prediction, reference, [1], (0.5, 1, 1))[1]
    assert found == pytest.approx((2.0, 2.0))


def test_two_voxels() -> None:
    prediction, reference = np.zeros((2, 9, 9, 9), np.uint8)
    prediction[0, 0, 0], reference[3, 4, 0] = 1, 1
    assert surface_distances(prediction, reference, [1], (1, 1, 1))[1] == pytest.approx((5.0, 5.0))


def test_equal_maps_have_distance_zero() -> None:
    volume = blobs(0)[0]
    assert set(surface_distances(volume, volume, range(4), (1, 2, 3)).values()) == {(0.0, 0.0)}


def test_inner_voxels_do_not_count() -> None:
    prediction, reference = np.zeros((2, 11, 11, 11), np.uint8)
    prediction[1:10, 1:10, 1:10] = reference[1:10, 1:10, 1:10] = 1
    prediction[5, 5, 5] = 0  # a hole of one voxel makes six new surface voxels, each 4 - 1 voxels from the hull
    found = surface_distances(prediction, reference, [1], (1, 1, 1))[1]
    surface = 9**3 - 7**3
    assert found.assd == pytest.approx(6 * 3 / (2 * surface + 6))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.0, 3.3)])
def test_equals_monai(seed: int, spacing: tuple[float, ...]) -> None:
    prediction, reference = blobs(seed)
    prediction[20:, 3:5, 3], reference[0, 0, 0] = 4, 4  # thin, at the border; a single voxel in a corner
    found = surface_distances(prediction, reference, range(5), spacing)
    assert set(found) == set(range(5))
    np.testing.assert_allclose([found[k] for k in range(5)], monai(prediction, reference, 5, spacing), rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(labels, labels, spacings)
def test_equals_the_definition(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]
) -> None:
    found = surface_distances(prediction, reference, [1, 2], spacing)
    for structure in (1, 2):
        masks = prediction == structure, reference == structure
        assert (structure in found) == (masks[0].any() and masks[1].any())
        if structure in found:
            np.testing.assert_allclose(found[structure], by_definition(*masks, spacing), rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(labels, labels, spacings)
def test_symmetric_and_bounded(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> None:
    there = surface_distances(prediction, reference, [0, 1, 2], spacing)
    back = surface_distances(reference, prediction, [2, 1, 0], spacing)
    diagonal = np.linalg.norm(np.multiply(prediction.shape, spacing))
    assert there.keys() == back.keys()
    for structure, found in there.items():
        assert found == pytest.approx(back[structure])
        assert 0 <= found.hd95 < diagonal and 0 <= found.assd < diagonal


@pytest.mark.parametrize("cost", [0, np.inf], ids=["tree", "transform"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.0, 2.5)])
def test_both_ways_are_exact(cost: float, spacing: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, reference = blobs(7)
    monkeypatch.setattr(room, "_nearby", lambda points, *_: np.full(points.shape[1], np.inf))
    monkeypatch.setattr(room, "TREE_COST", cost)
    found = surface_distances(prediction, reference, range(4), spacing)
    for structure, values in found.items():
        expected = by_definition(prediction == structure, reference == structure, spacing)
        np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("layout", ["fortran", "reversed", "int64"])
def test_memory_layout_does_not_matter(layout: str) -> None:
    prediction, reference = blobs(3)
    plain = surface_distances(prediction, reference, range(4), (1, 2, 3))
    change = {"fortran": np.asfortranarray, "reversed": lambda a: a[::-1].copy()[::-1], "int64": np.int64}[layout]
    assert surface_distances(change(prediction), change(reference), range(4), (1, 2, 3)) == plain


def test_a_volume_one_voxel_thick() -> None:
    prediction, reference = np.zeros((2, 1, 6, 6), np.uint8)
    prediction[0, 1, 1], reference[0, 1, 4] = 1, 1
    assert surface_distances(prediction, reference, [1], (5, 1, 2))[1].hd95 == pytest.approx(6)


@pytest.mark.parametrize(("shape", "spacing", "message"), [
    ((3, 3), (1, 1, 1), "one shape"), ((3, 3, 3), (1, 0, 1), "positive"), ((3, 3, 3), (1, 1), "three positive"),
])
def test_refuses(shape: tuple[int, ...], spacing: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        surface_distances(np.zeros(shape, int), np.zeros(shape, int), [1], spacing)
