"""The WMH challenge's metrics: the script's values, its edge cases, types, files, brute force, properties."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from segexp.metrics import WmhScores, mask_scores, wmh_scores
from segexp.metrics.wmh_challenge import challenge_masks

SHAPE, SPACING = (24, 20, 8), (0.96, 0.95, 3.0)
DIAGONAL = math.hypot(*np.multiply(SHAPE, SPACING))
FIVE = ("dice", "hd95", "avd", "lesion_recall", "lesion_f1")
NAN = math.nan

masks = hnp.arrays(np.bool_, st.just((5, 6, 4)), elements=st.sampled_from([False, False, False, True]))
spacings = st.tuples(*[st.sampled_from([0.5, 0.95, 1.0, 3.0])] * 3)


def box(x: tuple[int, int], y: tuple[int, int], z: tuple[int, int], value: float = 1) -> np.ndarray:
    """Float32 [24, 20, 8] with a box, both ends included, of ``value``."""
    volume = np.zeros(SHAPE, np.float32)
    volume[x[0] : x[1] + 1, y[0] : y[1] + 1, z[0] : z[1] + 1] = value
    return volume


T = box((4, 7), (4, 7), (3, 4))
CORNER = box((8, 8), (8, 8), (5, 5))
OTHER = box((14, 18), (4, 8), (3, 4))
SECOND = box((4, 7), (10, 13), (3, 4))
SPAN = box((4, 7), (4, 13), (3, 4))
EMPTY = np.zeros(SHAPE, np.float32)


def five(scores: WmhScores) -> list[float]:
    return [getattr(scores, metric) for metric in FIVE]


def assert_five(found: WmhScores, expected: Sequence[float]) -> None:
    np.testing.assert_allclose(five(found), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("truth", "result", "expected"), [
    pytest.param(T, np.roll(T, 2, 0), (0.5, 1.92, 0, 1, 1), id="shifted in x"),
    pytest.param(T, np.roll(T, 1, 2), (0.5, 3.0, 0, 1, 1), id="shifted in z"),
    pytest.param(T, box((4, 7), (4, 7), (3, 3)), (0.666667, 3.0, 50, 1, 1), id="without a slice"),
    pytest.param(T + CORNER, CORNER, (0.058824, 7.670811, 96.969697, 1, 1), id="corner contact"),
    pytest.param(T + 2 * OTHER, T + OTHER, (1, 0, 0, 1, 1), id="other pathology found"),
    pytest.param(T + 2 * OTHER, T, (1, 0, 0, 1, 1), id="other pathology left out"),
    pytest.param(T + SECOND, SPAN, (0.888889, 0.96, 25, 1, 1), id="one detection spans two lesions"),
    pytest.param(T, 0.5 * T, (1, 0, 0, 1, 1), id="0.5 is lesion"),
    pytest.param(T, 0.4999 * T, (0, NAN, 100, 0, 0), id="0.4999 is not"),
    pytest.param(T, EMPTY, (0, NAN, 100, 0, 0), id="nothing found"),
    pytest.param(EMPTY, T, (0, NAN, NAN, 1, 0), id="nothing there"),
    pytest.param(EMPTY, EMPTY, (NAN, NAN, NAN, 1, 1), id="both empty"),
    pytest.param(2 * OTHER, T, (0, NAN, NAN, 1, 0), id="only other pathology"),
    pytest.param(2 * OTHER, OTHER, (NAN, NAN, NAN, 1, 1), id="only other pathology, found"),
])
def test_what_the_script_returns(truth: np.ndarray, result: np.ndarray, expected: tuple[float, ...]) -> None:
    assert_five(wmh_scores(truth, result, SPACING), expected)
    assert_five(wmh_scores(truth, result, SPACING, strict_official=True), expected)


def test_precision_of_an_empty_mask_is_one() -> None:
    assert wmh_scores(T, EMPTY, SPACING).lesion_precision == wmh_scores(EMPTY, EMPTY, SPACING).lesion_precision == 1
    assert wmh_scores(EMPTY, T, SPACING).lesion_precision == 0


def test_lesions_of_2017() -> None:
    found = wmh_scores(T + SECOND, SPAN, SPACING, lesion_f1="legacy2017")
    assert found.lesion_precision == 2 and found.lesion_recall == 1 and found.lesion_f1 == pytest.approx(4 / 3)
    far = box((16, 18), (14, 16), (6, 6))
    for truth, result, precision in ((T, EMPTY, NAN), (EMPTY, T, 0), (EMPTY, EMPTY, NAN), (T, far, 0)):
        found = wmh_scores(truth, result, SPACING, lesion_f1="legacy2017")
        np.testing.assert_equal((found.lesion_precision, found.lesion_f1), (precision, NAN))
    one, two = T + far, np.roll(T, 1, 0) + CORNER  # corner contact: one detection of one of two lesions
    assert wmh_scores(one, two, SPACING) == wmh_scores(one, two, SPACING, lesion_f1="legacy2017")


@pytest.mark.parametrize(("truth", "result", "expected"), [
    (T, EMPTY, DIAGONAL), (EMPTY, T, DIAGONAL), (EMPTY, EMPTY, NAN), (T, np.roll(T, 2, 0), 1.92),
], ids=["missed", "only found", "both empty", "both there"])
def test_penalty_of_a_missed_volume(truth: np.ndarray, result: np.ndarray, expected: float) -> None:
    found = wmh_scores(truth, result, SPACING, h95_penalty="image_diagonal")
    np.testing.assert_allclose(found.hd95, expected, rtol=1e-9)
    plain = wmh_scores(truth, result, SPACING)
    np.testing.assert_equal(found._replace(hd95=0.0), plain._replace(hd95=0.0))


def test_density_and_volumes() -> None:
    found = wmh_scores(T + 2 * OTHER, SPAN + OTHER, SPACING)
    millilitres = 0.96 * 0.95 * 3 / 1000
    assert found.pcd == pytest.approx(100 * 32 / (24 * 20 * 8))
    assert (found.reference_ml, found.predicted_ml) == pytest.approx((32 * millilitres, 80 * millilitres))


def test_the_order_of_axes_and_spacing_matters() -> None:
    shifted = np.roll(T, 1, 2)
    assert wmh_scores(T, shifted, SPACING).hd95 == pytest.approx(3.0)
    assert wmh_scores(T, shifted, SPACING[::-1]).hd95 == pytest.approx(0.96)  # [x, y, z] with the spacing of [z, y, x]


def test_edges_are_those_of_slices() -> None:
    inner = T.copy()
    inner[5:7, 5:7] = 0  # without the inside of every slice: the same edges
    assert wmh_scores(T, inner, SPACING).hd95 == 0
    corner, moved = box((0, 3), (0, 3), (0, 1)), box((0, 3), (0, 4), (0, 1))
    # At the border of the volume there is no edge: only the sides x=3 and y=3 (y=4) are left.
    assert wmh_scores(corner, moved, SPACING).hd95 == pytest.approx(0.95)
    assert np.isnan(wmh_scores(np.ones(SHAPE), T, SPACING).hd95)


def test_a_volume_is_not_the_mean_of_its_slices() -> None:
    result = np.roll(T, 2, 0)
    result[..., 4] = T[..., 4]
    result[0, 0, 0] = 1
    slices = [mask_scores(T[..., [z]] > 0, result[..., [z]] > 0, SPACING).dice for z in range(SHAPE[2])]
    assert np.isnan(slices).sum() == 5
    assert np.nanmean(slices) == pytest.approx((0 + 0.5 + 1) / 3)
    assert wmh_scores(T, result, SPACING).dice == pytest.approx(2 * 24 / 65)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.float32])
def test_types_do_not_matter(kind: type) -> None:
    truth, result = T + 2 * OTHER, np.roll(T, 2, 0) + OTHER
    whole = np.float32 if kind is np.bool_ else kind
    assert_five(wmh_scores(truth.astype(whole), result.astype(kind), SPACING), (0.5, 1.92, 0, 1, 1))


@pytest.mark.parametrize("value", [2, 3, 127, 255])
def test_every_positive_value_is_lesion_and_warned_of(value: int) -> None:
    with pytest.warns(UserWarning, match=f"values up to {value}"):
        assert wmh_scores(T, (value * T).astype(np.uint8), SPACING).dice == 1
    with pytest.warns(UserWarning, match="up to 1000"):
        assert wmh_scores(T, 1001 * T, SPACING).dice == 0  # of floats only those up to 1000
    with pytest.warns(UserWarning, match="the truth holds values up to 255"):
        assert np.isnan(wmh_scores(255 * T, EMPTY, SPACING).dice)


@pytest.mark.parametrize(("value", "dice"), [(1, 1), (232, 1), (233, 0), (255, 0)])
def test_the_scripts_upper_bound_wraps_around_in_uint8(value: int, dice: float) -> None:
    result = (value * T).astype(np.uint8)
    assert wmh_scores(T, result, SPACING, strict_official=True).dice == dice
    assert wmh_scores(T, result.astype(np.uint16), SPACING, strict_official=True).dice == 1
    with pytest.raises(ValueError, match=r"int8.*write the result as uint8"):
        wmh_scores(T, T.astype(np.int8), SPACING, strict_official=True)


def test_the_script_breaks_an_integer_truth() -> None:
    truth = (T + 2 * OTHER).astype(np.uint8)
    lesions, predicted = challenge_masks(truth, T + SECOND, strict_official=True)
    assert np.array_equal(lesions, truth < 2) and np.array_equal(predicted, SECOND > 0)
    lesions, predicted = challenge_masks(truth, T + SECOND)
    assert np.array_equal(lesions, T > 0) and np.array_equal(predicted, (T + SECOND) > 0)
    filled = wmh_scores(T.astype(np.uint8), T, SPACING, strict_official=True)  # all is truth, nothing is left of T
    assert (filled.dice, filled.lesion_recall, filled.lesion_f1) == (0, 1, 1)


@pytest.mark.parametrize(("change", "message"), [
    ({"result": T[1:]}, "one grid"), ({"truth": T[0], "result": T[0]}, "one shape"), ({"spacing": (1, 1)}, "three pos"),
    ({"spacing": (1, 0, 1)}, "three positive"), ({"spacing": (1, NAN, 1)}, "three positive"),
    ({"truth": np.full(SHAPE, NAN)}, "truth holds NaN"), ({"result": T * NAN}, "result holds NaN"),
    ({"truth": T.astype(complex)}, "truth holds complex"), ({"lesion_f1": "new"}, "official or legacy2017"),
    ({"h95_penalty": "worst"}, "null or image_diagonal"), ({"truth": T[:0], "result": T[:0]}, "one shape"),
])
def test_refuses(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wmh_scores(**{"truth": T, "result": T, "spacing": SPACING, **change})


def test_oblique_files_on_disk(tmp_path: Path) -> None:
    """What nibabel reads from a rotated, flipped grid scores like the same grid along the scanner's axes."""
    angle = np.deg2rad(20)
    rotation = np.array([[-1, 0, 0], [0, -np.cos(angle), -np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * SPACING, (90, 110, -40)
    files = tmp_path / "wmh.nii.gz", tmp_path / "result.nii.gz"
    for file, volume in zip(files, (T + 2 * OTHER, np.roll(T, 2, 0)), strict=True):
        nib.save(nib.Nifti1Image(volume, affine), file)
    images = [nib.load(file) for file in files]
    found = wmh_scores(*(image.get_fdata(dtype=np.float32) for image in images), images[0].header.get_zooms())
    assert_five(found, (0.5, 1.92, 0, 1, 1))
    sitk = pytest.importorskip("SimpleITK")
    from tests.benchmarks.wmh_metrics import itk_scores

    truth, result = (sitk.ReadImage(str(file)) for file in files)
    result.CopyInformation(truth)
    np.testing.assert_allclose(five(found), itk_scores(truth, result), atol=1e-6)


# The definition, voxel by voxel, without any library that the code uses.


def neighbours(voxel: tuple[int, ...], reach: tuple[int, int, int]) -> list[tuple[int, ...]]:
    offsets = np.ndindex(*(2 * each + 1 for each in reach))
    return [tuple(int(v + o - r) for v, o, r in zip(voxel, offset, reach, strict=True)) for offset in offsets]


def slow_edge(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Foreground voxels with a background voxel among their eight neighbours in the slice, in mm."""
    inside = set(np.ndindex(mask.shape))
    edge = [voxel for voxel in np.ndindex(mask.shape) if mask[voxel]
            and any(other in inside and not mask[other] for other in neighbours(voxel, (1, 1, 0)))]
    return np.array(edge, float).reshape(-1, 3) * spacing


def slow_lesions(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    left, found = {tuple(map(int, voxel)) for voxel in np.argwhere(mask)}, []
    while left:
        waiting = [left.pop()]
        found.append(set(waiting))
        while waiting:
            for other in neighbours(waiting.pop(), (1, 1, 1)):
                if other in left:
                    left.remove(other)
                    found[-1].add(other)
                    waiting.append(other)
    return found


def slow_scores(truth: np.ndarray, predicted: np.ndarray, spacing: tuple[float, ...]) -> list[float]:
    ours, theirs, both = truth.sum(), predicted.sum(), (truth & predicted).sum()
    edges = [slow_edge(mask, spacing) for mask in (truth, predicted)]
    hd95 = NAN
    if len(edges[0]) and len(edges[1]):
        table = cdist(*edges)
        hd95 = max(np.percentile(table.min(1), 95), np.percentile(table.min(0), 95))
    parts = []
    for mask, other in ((truth, predicted), (predicted, truth)):
        listed = slow_lesions(mask)
        hit = [any(other[voxel] for voxel in lesion) for lesion in listed]
        parts.append(sum(hit) / len(hit) if hit else 1.0)
    recall, precision = parts
    dice, avd = 2 * both / (ours + theirs) if ours + theirs else NAN, abs(ours - theirs) / ours * 100 if ours else NAN
    return [dice, hd95, avd, recall, 2 * recall * precision / (recall + precision) if recall + precision else 0.0]


@settings(deadline=None, max_examples=150)
@given(masks, masks, spacings)
def test_equals_the_definition(truth: np.ndarray, predicted: np.ndarray, spacing: tuple[float, ...]) -> None:
    assert_five(mask_scores(truth, predicted, spacing), slow_scores(truth, predicted, spacing))


@settings(deadline=None, max_examples=60)
@given(masks, masks, spacings, st.permutations(["flip x", "flip y", "flip z", "swap"]), st.integers(1, 4))
def test_flips_and_swaps_change_nothing(
    truth: np.ndarray, predicted: np.ndarray, spacing: tuple[float, ...], changes: list[str], count: int
) -> None:
    before = mask_scores(truth, predicted, spacing)
    for change in changes[:count]:
        if change == "swap":
            truth, predicted = truth.transpose(1, 0, 2), predicted.transpose(1, 0, 2)
            spacing = (spacing[1], spacing[0], spacing[2])
        else:
            truth, predicted = (np.flip(mask, "xyz".index(change[-1])) for mask in (truth, predicted))
    np.testing.assert_allclose(mask_scores(truth, predicted, spacing), before, rtol=1e-9)


@settings(deadline=None, max_examples=60)
@given(masks, masks, masks)
def test_false_positives_never_help(truth: np.ndarray, predicted: np.ndarray, more: np.ndarray) -> None:
    before = mask_scores(truth, predicted, SPACING)
    after = mask_scores(truth, predicted | (more & ~truth), SPACING)
    assert after.lesion_recall >= before.lesion_recall
    assert not after.dice > before.dice


@settings(deadline=None, max_examples=60)
@given(masks, masks, st.tuples(*[st.integers(0, 3)] * 6))
def test_what_surrounds_the_lesions_does_not_matter(
    truth: np.ndarray, predicted: np.ndarray, widths: tuple[int, ...]
) -> None:
    """More background changes neither overlap nor lesions, nor, where no lesion lies at the border, distances."""
    inner = [np.pad(mask, 1) for mask in (truth, predicted)]
    outer = [np.pad(mask, np.reshape(widths, (3, 2))) for mask in inner]
    assert_five(mask_scores(*outer, SPACING), five(mask_scores(*inner, SPACING)))


# SimpleITK, as the challenge uses it.


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint8, np.int16, np.int32])
def test_equals_simpleitk(seed: int, kind: type) -> None:
    pytest.importorskip("SimpleITK")
    from tests.benchmarks.wmh_metrics import itk_image, itk_scores

    generator = np.random.default_rng(seed)
    truth = generator.choice([0, 1, 2, 7], SHAPE, p=[0.93, 0.05, 0.015, 0.005]).astype(np.float32)
    result = generator.choice([0, 1, 2, 232, 233, 255], SHAPE, p=[0.95, 0.02, 0.01, 0.01, 0.005, 0.005]).astype(kind)
    if seed < 3:  # larger lesions, so that erosion leaves something
        truth, result = (np.maximum(each, np.roll(each, 1, 0)) for each in (truth, result))
        truth, result = (np.maximum(each, np.roll(each, 1, 1)) for each in (truth, result))
    direction = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    direction[0] *= np.linalg.det(direction)
    images = [itk_image(each, SPACING, direction.ravel().tolist()) for each in (truth, result)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # strict: nothing is warned of
        found = wmh_scores(truth, result, SPACING, strict_official=True)
    assert_five(found, itk_scores(*images))
    if kind is not np.uint8:
        with pytest.warns(UserWarning):
            assert five(wmh_scores(truth, result, SPACING)) == five(found)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("labels", [(0, 1), (0, 1, 2), (1, 2), (2,), (0,)])
def test_equals_simpleitk_on_integer_truths(kind: type, labels: tuple[int, ...]) -> None:
    pytest.importorskip("SimpleITK")
    from tests.benchmarks.wmh_metrics import itk_image, itk_scores

    generator = np.random.default_rng(0)
    truth = generator.choice(labels, SHAPE).astype(kind)
    for result in (generator.choice([0, 1], SHAPE), np.zeros(SHAPE), np.ones(SHAPE), (truth > 0) * 1):
        result = result.astype(np.float32)
        found = wmh_scores(truth, result, SPACING, strict_official=True)
        assert_five(found, itk_scores(itk_image(truth, SPACING), itk_image(result, SPACING)))
