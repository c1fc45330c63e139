"""What networks see of stored voxels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segexp.data.intensity import LoadedImage, MaxScale, Window, ZScore
from segexp.errors import ConfigError


def image(*values):
    return LoadedImage.of(np.array(values, np.float32).reshape(1, 1, -1))


@given(st.lists(st.integers(-2000, 4000), min_size=2, max_size=40).filter(lambda v: len(set(v)) > 1))
def test_z_scores_have_mean_zero_and_variance_one(values):
    one = image(*values)
    scaled = ZScore()(one.voxels, one).astype(np.float64)
    assert scaled.mean() == pytest.approx(0, abs=1e-4) and scaled.std() == pytest.approx(1, abs=1e-4)
    assert ZScore().outside(one) == pytest.approx(scaled.min(), abs=1e-6)


def test_max_scale_divides_by_the_maximum_of_the_whole_volume_also_for_a_part():
    one = image(0, 5, 20)
    assert MaxScale()(one.voxels[..., :2], one).ravel().tolist() == [0, 0.25]
    assert MaxScale().outside(one) == 0
    assert "expected above 0" in MaxScale().problem(image(-3, -1))
    assert MaxScale().problem(one) == ""


def test_a_percentile_keeps_one_hot_voxel_from_squeezing_the_rest():
    one = image(*range(100), 100_000)
    scaled = MaxScale(percentile=99)(one.voxels, one).ravel()
    assert scaled[-1] == 1 and scaled[50] == pytest.approx(50 / np.percentile(one.voxels, 99))


def test_the_window_of_the_kidney_paper():
    hu = np.array([-1024, -200, 150, 500, 3071], np.int16)
    assert Window(-200, 500)(hu).tolist() == [0, 0, 0.5, 1, 1]
    assert Window(-200, 500, mean=0.25)(hu).tolist() == [-0.25, -0.25, 0.25, 0.75, 0.75]
    assert Window(-200, 500, mean=0.25).outside() == -0.25
    assert "are they in HU?" in Window(-200, 500).problem(image(2000, 3000))


@pytest.mark.parametrize("make", [lambda: Window(5, 5), lambda: MaxScale(0), lambda: MaxScale(101)])
def test_senseless_settings_are_refused(make):
    with pytest.raises(ConfigError, match=r"data\.intensity"):
        make()
