import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segexp.data import IGNORE, Slices
from segexp.data.cases import Case
from segexp.data.resizing import resize, rotate
from segexp.errors import ConfigError
from tests.data.brains import Challenge

RNG = np.random.default_rng(4)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    challenge = Challenge(tmp_path_factory.mktemp("slices"))
    challenge.add("Singapore", 50)
    return challenge.module().examine().reports[0].case


def as_skimage(plane, size, order=1):
    """What skimage.transform.resize(mode="reflect", order=order) computes, with scipy as it does."""
    factors = np.divide(plane.shape, size)
    if order and (factors > 1).any():
        plane = ndimage.gaussian_filter(plane, np.maximum(0, (factors - 1) / 2), mode="mirror")
    return ndimage.zoom(plane, 1 / factors, order=order, mode="mirror", grid_mode=True)


SIZES = [((24, 20), (16, 16)), ((132, 256), (224, 224)), ((240, 240), (224, 224)), ((256, 232), (224, 224)),
         ((17, 9), (5, 40)), ((100, 90), (13, 90)), ((7, 5), (7, 5)), ((3, 2), (11, 9)), ((512, 512), (112, 96))]


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_resizing_gives_skimages_numbers(shape, size):
    plane = RNG.random(shape)
    found = resize(torch.from_numpy(plane), size)
    assert found.dtype == torch.float32 and found.shape == size
    np.testing.assert_allclose(found, as_skimage(plane, size), atol=2e-6)


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_nearest_resizing_gives_skimages_numbers(shape, size):
    plane = RNG.integers(0, 2, shape).astype(np.float32)
    np.testing.assert_array_equal(resize(torch.from_numpy(plane), size, nearest=True), as_skimage(plane, size, 0))


def test_resizing_by_hand():
    # Twice as many pixels: a quarter of the way to each neighbour; mirrored at the border, -0.25 is 0.25.
    found = resize(torch.tensor([[0.0, 4.0, 8.0]]), (1, 6))
    assert found.tolist() == [[1.0, 1.0, 3.0, 5.0, 7.0, 7.0]]
    # Half as many: smoothed with sigma 0.5 (weights e^-2 and e^-8 beside 1), then the mean of two.
    weight = np.exp([-8.0, -2, 0, -2, -8])
    weight /= weight.sum()
    impulse = torch.zeros(1, 8)
    impulse[0, 4] = 1
    expected = [0, (weight[0] + weight[1]) / 2, (weight[2] + weight[1]) / 2, weight[0] / 2]
    np.testing.assert_allclose(resize(impulse, (1, 4))[0], expected, atol=1e-7)
    assert resize(impulse, (1, 8)).data_ptr() == impulse.data_ptr()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.floats(-5, 5))
def test_resizing_keeps_constants_and_the_range(rows, columns, wanted, value):
    assert torch.allclose(resize(torch.full((rows, columns), value), (wanted, wanted)), torch.tensor(value), atol=1e-5)
    noise = torch.from_numpy(RNG.random((2, rows, columns)))
    found = resize(noise, (wanted, wanted))
    assert noise.min() - 1e-6 <= found.min() and found.max() <= noise.max() + 1e-6
    assert torch.equal(found[1], resize(noise[1], (wanted, wanted)))


@pytest.mark.parametrize("shape", [(17, 17), (16, 16), (12, 21), (2, 5)])
@pytest.mark.parametrize("degrees", [0.0, 7.0, -30.0, 90.0])
def test_rotation_gives_keras_numbers(shape, degrees):
    plane = RNG.random(shape)
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]).T
    centre = np.array(shape) / 2 - 0.5
    expected = ndimage.affine_transform(plane, turn, centre - turn @ centre, order=1, mode="nearest")
    mirrored = ndimage.affine_transform(plane, turn.T, centre - turn.T @ centre, order=1, mode="nearest")
    found = rotate(torch.from_numpy(plane)[None], degrees)[0].numpy()
    assert min(abs(found - expected).max(), abs(found - mirrored).max()) < 1e-5


def test_rotation_by_nothing_is_the_identity_and_a_quarter_turn_is_exact():
    planes = torch.from_numpy(RNG.random((3, 16, 16))).float()
    assert torch.equal(rotate(planes, 0.0), planes)
    assert torch.allclose(rotate(planes, 1e-4), planes, atol=1e-4)
    quarter = rotate(planes, 90.0)
    assert any(torch.allclose(quarter, torch.rot90(planes, k, (1, 2)), atol=1e-5) for k in (1, 3))
    assert torch.allclose(rotate(quarter, -90.0), planes, atol=1e-5)


def test_a_slice_of_the_same_size_is_the_slice(case):
    image, labels = case.image.whole(), case.targets["wmh"].whole()
    slices = Slices((22, 20), rotation_degrees=0)
    assert slices.parts(case) == 6
    for part in range(6):
        sample = slices.draw(case, ["wmh"], np.random.default_rng(0), part)
        assert sample["image"].shape == (1, 22, 20) and sample["image"].dtype == torch.float32
        assert sample["target"]["wmh"].dtype == torch.int64 and sample["case"] == "50"
        np.testing.assert_array_equal(sample["image"][0], image[..., part])
        np.testing.assert_array_equal(sample["target"]["wmh"], labels[..., part])
    assert {tuple(np.unique(labels[..., part])) for part in range(6)} == {(0,), (0, 2), (0, 1, 2), (0, 1)}


def test_every_slice_is_drawn_equally_often_empty_ones_too(case):
    image = case.image.whole()
    slices, counts = Slices((22, 20), rotation_degrees=0), np.zeros(6)
    for index in range(1200):
        plane = slices.draw(case, [], np.random.default_rng(index))["image"][0].numpy()
        counts[[np.array_equal(plane, image[..., part]) for part in range(6)]] += 1
    assert (abs(counts - 200) < 5 * math.sqrt(1200 * 5 / 36)).all()


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([40, (44, 30)]))
def test_masks_stay_classes_and_lie_on_the_image(case, interpolation, seed, size):
    slices = Slices(size, mask_interpolation=interpolation)
    one, two = (slices.draw(case, ["wmh"], np.random.default_rng(seed), part=2) for _ in range(2))
    assert torch.equal(one["image"], two["image"]) and torch.equal(one["target"]["wmh"], two["target"]["wmh"])
    target = one["target"]["wmh"]
    assert set(target.unique().tolist()) == {0, 1, 2}
    assert one["image"].shape[1:] == target.shape
    # Only the lesion is brighter than three quarters of the maximum: its mask lies on it.
    bright = one["image"][0] > 0.9
    assert bright.sum() > 4
    assert (target[bright] == 1).all()


def test_each_class_is_resized_by_itself(case):
    labels = case.targets["wmh"].whole()[..., 2]
    target = Slices(48, rotation_degrees=0).draw(case, ["wmh"], np.random.default_rng(0), part=2)["target"]["wmh"]
    for label in (1, 2):
        np.testing.assert_array_equal(target == label, as_skimage((labels == label).astype(float), (48, 48)) >= 0.5)
    # Between background and class 2 no rim of class 1 appears, as it would in a resized label map.
    assert ndimage.label(target == 1)[1] == 1


def test_image_and_masks_are_turned_by_one_angle_drawn_evenly(case):
    still = Slices(32, rotation_degrees=0).draw(case, ["wmh"], np.random.default_rng(0), part=2)
    for seed in range(20):
        sample = Slices(32, rotation_degrees=30).draw(case, ["wmh"], np.random.default_rng(seed), part=2)
        angle = np.random.default_rng(seed).uniform(-30, 30)
        assert torch.equal(sample["image"], rotate(still["image"], angle))
        for label in (1, 2):
            mask = (still["target"]["wmh"] == label).float()
            assert torch.equal(sample["target"]["wmh"] == label, rotate(mask[None], angle)[0] >= 0.5)


def test_a_target_that_the_case_lacks_is_ignored_everywhere(case):
    without = Case(case.id, case.person, case.path, case.image, {})
    sample = Slices(8).draw(without, ["wmh"], np.random.default_rng(0))
    assert (sample["target"]["wmh"] == IGNORE).all()


@pytest.mark.parametrize(("settings_", "key"), [
    ({"size": 0}, "size"), ({"size": [1, 2, 3]}, "size"), ({"size": 1.5}, "size"), ({"batch_size": 0}, "batch_size"),
    ({"rotation_degrees": 200}, "rotation_degrees"), ({"mask_interpolation": "cubic"}, "mask_interpolation"),
])
def test_senseless_settings_name_the_key(settings_, key):
    with pytest.raises(ConfigError, match=rf"sampling\.{key}="):
        Slices(**settings_)
