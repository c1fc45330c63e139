import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segexp.data import IGNORE, Crops
from segexp.data.cases import Case
from segexp.data.sampling import SampleStream, StepSampler, collate, permutation
from segexp.errors import ConfigError
from tests.data.heads import TARGETS, Folder, bulk_id

SHAPE = (9, 11, 10)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("cases"))
    for number in range(1, 6):
        folder.add(bulk_id(number), number, SHAPE)
    return [report.case for report in folder.module().examine().reports]


def whole(case):
    return case.image.whole(), {target: labels.whole() for target, labels in case.targets.items()}


def positions(case, image):
    """Every position at which a crop of a case's image could have been cut."""
    full = case.image.whole()
    windows = np.lib.stride_tricks.sliding_window_view(full, image.shape)
    return np.argwhere((windows == image).all(axis=(3, 4, 5)))


def test_crops_are_parts_of_the_volume_at_every_position_equally_often(cases):
    case, seen = cases[0], {}
    labels = whole(case)[1]
    for index in range(1800):
        sample = Crops((7, 10, 10)).draw(case, TARGETS, np.random.default_rng(index))
        crop = sample["image"][0].numpy()
        (start,) = positions(case, crop)
        seen[tuple(start)] = seen.get(tuple(start), 0) + 1
        if index < 50:
            part = tuple(slice(a, a + n) for a, n in zip(start, crop.shape, strict=True))
            for target in TARGETS:
                assert sample["target"][target].dtype == torch.int64
                np.testing.assert_array_equal(sample["target"][target], labels[target][part])
    # 3 x 2 x 1 positions, the last of each axis included; 1800 draws leave each within 5 standard deviations.
    assert set(seen) == {(a, b, 0) for a in range(3) for b in range(2)}
    expected, deviation = 1800 / 6, math.sqrt(1800 * 5 / 36)
    assert all(abs(count - expected) < 5 * deviation for count in seen.values())


def test_a_crop_larger_than_the_volume_is_centred_and_padded(cases):
    case = cases[0]
    image, labels = whole(case)
    sample = Crops((12, 11, 4)).draw(case, ["malp_em"], np.random.default_rng(0))
    crop, target = sample["image"][0].numpy(), sample["target"]["malp_em"].numpy()
    z = int(positions(case, crop[1:10])[0, 2])
    np.testing.assert_array_equal(crop[1:10], image[:, :, z : z + 4])
    np.testing.assert_array_equal(target[1:10], labels["malp_em"][:, :, z : z + 4])
    for outside in (slice(0, 1), slice(10, 12)):
        assert (crop[outside] == image.min()).all()
        assert (target[outside] == IGNORE).all()


def test_a_target_that_the_case_lacks_is_ignored_everywhere(cases):
    case = cases[0]
    without = Case(case.id, case.person, case.path, case.image, {"fsl_fast": case.targets["fsl_fast"]})
    sample = Crops(8).draw(without, ["fsl_fast", "fsl_first"], np.random.default_rng(0))
    assert (sample["target"]["fsl_first"] == IGNORE).all()
    assert (sample["target"]["fsl_fast"] >= 0).all()


def test_foreground_crops_are_centred_on_evenly_drawn_structures(cases):
    case = cases[1]
    _, labels = whole(case)
    only = Case(case.id, case.person, case.path, case.image, {"fsl_first": case.targets["fsl_first"]})
    counts = np.zeros(16)
    for index in range(600):
        sample = Crops(1, foreground=1.0).draw(only, ["fsl_first"], np.random.default_rng(index))
        counts[sample["target"]["fsl_first"].item()] += 1
    assert counts[0] == 0
    assert (abs(counts[1:] - 40) < 5 * math.sqrt(40)).all()
    for index in range(50):  # near the border the crop stays inside the volume
        sample = Crops(5, foreground=1.0).draw(case, TARGETS, np.random.default_rng(index))
        assert (sample["target"]["malp_em"] >= 0).all()
    share = np.mean([Crops(1, foreground=0.5).draw(only, ["fsl_first"], np.random.default_rng(i))
                     ["target"]["fsl_first"].item() == 0 for i in range(1000)])
    background = (labels["fsl_first"] == 0).mean()
    assert share == pytest.approx(background / 2, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), workers=st.sampled_from([0, 2]), start=st.integers(0, 6))
def test_the_stream_depends_on_seed_and_number_only(cases, seed, workers, start):
    stream = SampleStream(cases, ["fsl_fast"], Crops(4, batch_size=2, foreground=0.5), seed)
    loader = torch.utils.data.DataLoader(stream, batch_sampler=StepSampler(7, 2, start), collate_fn=collate,
                                         num_workers=workers if seed % 8 == 0 else 0)
    batches = list(loader)
    assert len(batches) == 7 - start and len(loader) == 7
    for step, batch in enumerate(batches, start):
        expected = collate([stream[2 * step], stream[2 * step + 1]])
        assert batch["case"] == expected["case"]
        assert torch.equal(batch["image"], expected["image"])
        assert torch.equal(batch["target"]["fsl_fast"], expected["target"]["fsl_fast"])


def test_every_epoch_visits_every_case_once_in_an_order_of_its_own(cases):
    stream = SampleStream(cases, [], Crops(2), 3)
    ids = [stream[i]["case"] for i in range(50)]
    epochs = [tuple(ids[i : i + 5]) for i in range(0, 50, 5)]
    assert all(sorted(epoch) == [case.id for case in cases] for epoch in epochs)
    assert len(set(epochs)) > 5
    assert not np.array_equal(permutation(1, 0, 100), permutation(2, 0, 100))


@given(steps=st.integers(1, 20), batch=st.integers(1, 4), world=st.integers(1, 4))
def test_ranks_share_the_numbers_without_gap_or_overlap(steps, batch, world):
    dealt = [list(StepSampler(steps, batch, 0, rank, world)) for rank in range(world)]
    assert sorted(i for part in dealt for step in part for i in step) == list(range(steps * batch * world))
    # One rank with the batch of all ranks sees the same samples in the same steps.
    together = [sorted(i for part in dealt for i in part[step]) for step in range(steps)]
    assert together == list(StepSampler(steps, batch * world))


def test_rotation_turns_image_and_labels_together_about_the_first_axis(tmp_path):
    folder = Folder(tmp_path)
    folder.add(bulk_id(1), 1, (12, 40, 40))
    case = folder.module().examine().reports[0].case
    crops = Crops((6, 16, 16), rotation_degrees=90.0)
    start = (3, 12, 12)
    image, labels = whole(case)
    part = image[3:9, 12:28, 12:28], labels["malp_em"][3:9, 12:28, 12:28].astype(np.int64)
    still = crops._rotated(case, ["malp_em"], start, 0.0)
    np.testing.assert_allclose(still["image"][0], part[0], atol=1e-5)
    np.testing.assert_array_equal(still["target"]["malp_em"], part[1])
    quarter = crops._rotated(case, ["malp_em"], start, math.pi / 2)
    turns = [k for k in (1, 3) if np.allclose(np.rot90(part[0], k, (1, 2)), quarter["image"][0], atol=1e-3)]
    assert len(turns) == 1
    np.testing.assert_array_equal(quarter["target"]["malp_em"], np.rot90(part[1], turns[0], (1, 2)))
    # No corner is made up: what was outside the crop is read from the volume.
    eighth = crops._rotated(case, ["malp_em"], start, math.pi / 4)
    assert (eighth["target"]["malp_em"] >= 0).all()
    assert set(np.unique(eighth["target"]["malp_em"])) <= set(np.unique(labels["malp_em"]))


def test_rotation_is_drawn_per_sample_and_repeatable(cases):
    crops = Crops(6, rotation_degrees=30.0)
    one, two = (crops.draw(cases[0], ["fsl_fast"], np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one["image"], two["image"]) and one["image"].shape == (1, 6, 6, 6)
    assert one["target"]["fsl_fast"].dtype == torch.int64
    assert not torch.equal(one["image"], Crops(6).draw(cases[0], [], np.random.default_rng(5))["image"])


@pytest.mark.parametrize(("settings_", "key"), [
    ({"size": 0}, "size"), ({"size": [1, 2]}, "size"), ({"size": 1.5}, "size"), ({"batch_size": 0}, "batch_size"),
    ({"foreground": 1.5}, "foreground"), ({"rotation_degrees": -3}, "rotation_degrees"),
])
def test_senseless_settings_name_the_key(settings_, key):
    with pytest.raises(ConfigError, match=rf"sampling\.{key}="):
        Crops(**settings_)
