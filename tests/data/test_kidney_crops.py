import numpy as np
import pytest
import torch

from segexp.data import ClassCrops
from segexp.data.labelmap import IGNORE
from segexp.errors import ConfigError
from tests.data.kidneys import Folder, abdomen, reports

LABEL_MAPS = {"kidney": {0: "background", 1: "kidney", 2: "tumor"}, "organ": {0: "background", 1: "kidney_or_tumor"}}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A whole CT with a tumour of two millilitres or less."""
    folder = Folder(tmp_path_factory.mktemp("crops"))
    folder.add("a", *abdomen({"left": 1.5}))
    found = reports(folder, view="whole", targets=["kidney", "organ"])["a"].case
    assert 0 < found.targets["kidney"].counts[2] * 0.125 < 2.5
    return found


def draws(case, crops, targets=("kidney",), count=400):
    return [crops.draw(case, targets, np.random.default_rng((1, number))) for number in range(count)]


def hits(samples, label, target="kidney"):
    return np.mean([bool((sample["target"][target] == label).any()) for sample in samples])


def test_about_half_of_the_crops_hold_a_tumour_even_a_small_one(case):
    crops = ClassCrops(LABEL_MAPS, (6, 6, 6))
    samples = draws(case, crops)
    assert hits(samples, 2) == pytest.approx(0.5 + 0.3 * 0.1, abs=0.1)
    centred = [crops.centre(case, ["kidney"], np.random.default_rng((2, number))) for number in range(2000)]
    at = case.targets["kidney"].whole()[tuple(np.array(centred).T)]
    share = np.bincount(at, minlength=3) / 2000
    organ = np.array(case.targets["kidney"].counts) / case.targets["kidney"].whole().size
    np.testing.assert_allclose(share, [0.2 * organ[0], 0.3 + 0.2 * organ[1], 0.5 + 0.2 * organ[2]], atol=0.04)
    assert hits(draws(case, ClassCrops(LABEL_MAPS, (6, 6, 6), ratios={"any": 1})), 2) < 0.1
    assert hits(draws(case, ClassCrops(LABEL_MAPS, (6, 6, 6), ratios={"tumor": 3}), count=50), 2) == 1


def test_structures_of_other_targets_are_passed_over(case):
    """One sampling serves the run on kidneys and the run that finds them."""
    crops = ClassCrops(LABEL_MAPS, (4, 4, 4), ratios={"tumor": 1, "kidney_or_tumor": 1})
    assert hits(draws(case, crops, ("organ",), 50), 1, "organ") == 1
    assert hits(draws(case, crops, ("kidney",), 50), 2) == 1
    only_any = ClassCrops(LABEL_MAPS, (4, 4, 4), ratios={"tumor": 1})
    assert hits(draws(case, only_any, ("organ",), 100), 1, "organ") < 0.5


def test_flips_move_image_and_labels_together(case):
    array, classes = case.image.whole(), case.targets["kidney"].whole()
    size = array.shape  # a crop as large as the volume: only flips are left
    seen = set()
    for sample in draws(case, ClassCrops(LABEL_MAPS, size), count=120):
        image, target = sample["image"][0].numpy(), sample["target"]["kidney"].numpy()
        for number in range(8):
            axes = [axis for axis in range(3) if number >> axis & 1]
            if np.array_equal(image, np.flip(array, axes)):
                assert np.array_equal(target, np.flip(classes, axes))
                seen.add(number)
                break
        else:
            pytest.fail("the crop is no flip of the volume")
    assert seen == set(range(8))
    always = draws(case, ClassCrops(LABEL_MAPS, size, flip=(1, 0, 0)), count=2)
    assert all(np.array_equal(one["image"][0], np.flip(array, 0)) for one in always)


def test_half_of_the_crops_are_flipped_along_each_axis(case):
    marker = case.image.whole()
    size = marker.shape
    flipped = np.zeros(3)
    for sample in draws(case, ClassCrops(LABEL_MAPS, size), count=200):
        corner = sample["image"][0].numpy()
        for axis in range(3):
            others = [False, True]
            flipped[axis] += any(np.array_equal(corner, np.flip(marker, [axis, *rest])) for rest in (
                [b for b, use in zip([a for a in range(3) if a != axis], (x, y), strict=True) if use]
                for x in others for y in others))
    np.testing.assert_allclose(flipped / 200, 0.5, atol=0.12)


def test_crops_stay_inside_and_are_the_same_for_the_same_number(case):
    crops = ClassCrops(LABEL_MAPS, (20, 16, 12), flip=0)
    array = case.image.whole()
    for number in range(30):
        one, two = (crops.draw(case, ["kidney"], np.random.default_rng((3, number))) for _ in range(2))
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["target"]["kidney"], two["target"]["kidney"])
        assert one["image"].shape == (1, 20, 16, 12) and one["image"].dtype == torch.float32
        assert one["target"]["kidney"].dtype == torch.int64 and one["case"] == "a"
        assert (one["target"]["kidney"] != IGNORE).all()
    assert array.shape == (60, 44, 40)


def test_a_crop_larger_than_the_volume_has_air_and_ignore_around_it(case):
    sample = ClassCrops(LABEL_MAPS, (64, 44, 50), flip=0).draw(case, ["kidney", "other"], np.random.default_rng(0))
    image, target = sample["image"][0], sample["target"]["kidney"]
    np.testing.assert_array_equal(image[2:62, :, 5:45], case.image.whole())
    np.testing.assert_array_equal(target[2:62, :, 5:45], case.targets["kidney"].whole())
    for outside in (slice(None, 2), slice(62, None)):
        assert (image[outside] == case.image.intensity.outside()).all() and (target[outside] == IGNORE).all()
    assert (target[..., :5] == IGNORE).all() and (target[..., 45:] == IGNORE).all()
    assert (sample["target"]["other"] == IGNORE).all()


@pytest.mark.parametrize("options", [
    {"size": (4, 4)}, {"size": (4, 4, 0)}, {"batch_size": 0}, {"ratios": {}}, {"ratios": {"any": 0}},
    {"ratios": {"any": -1, "tumor": 2}}, {"flip": 2}, {"flip": (0.5, 0.5)}, {"ratios": {"tumour": 1}},
])
def test_senseless_settings_are_refused(options):
    with pytest.raises(ConfigError, match="sampling"):
        ClassCrops(LABEL_MAPS, **options)
