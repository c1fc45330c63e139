"""Slices labelled one by one against the same slices done by hand."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from segexp.data.resizing import resize
from segexp.errors import ConfigError
from segexp.inference import SliceBySlice
from segexp.inference.slice_by_slice import head_of


class Bright(torch.nn.Module):
    """Logits from the brightness alone, and the sizes of the batches it was given."""

    def __init__(self, classes=1):
        super().__init__()
        self.classes, self.batches = classes, []

    def forward(self, slices):
        self.batches.append(tuple(slices.shape))
        steps = torch.arange(self.classes).view(1, -1, 1, 1)
        return {"wmh": 40 * (slices - 0.5) if self.classes == 1 else -((slices * 3 - steps) ** 2)}


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_every_slice_is_labelled_by_itself_on_the_volumes_grid(batch_size):
    image = torch.rand(1, 1, 14, 23, 9)
    network = Bright()
    labels = SliceBySlice((32, 20), batch_size)(network, image)
    assert labels["wmh"].shape == (1, 14, 23, 9) and labels["wmh"].dtype == torch.uint8
    assert sum(batch[0] for batch in network.batches) == 9
    assert {batch[1:] for batch in network.batches} == {(1, 32, 20)}
    for index in range(9):
        logits = 40 * (resize(image[0, :, :, :, index], (32, 20)) - 0.5)
        probabilities = resize(logits.sigmoid(), (14, 23))[0]
        assert torch.equal(labels["wmh"][0, :, :, index], (probabilities >= 0.5).to(torch.uint8))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_the_threshold_is_a_probability(threshold):
    image = torch.rand(1, 1, 16, 16, 3)
    labels = SliceBySlice(16, threshold=threshold)(Bright(), image)["wmh"]
    assert torch.equal(labels[0] == 1, (40 * (image[0, 0] - 0.5)).sigmoid() >= threshold)


def test_several_logits_give_the_most_probable_class():
    image = torch.rand(1, 1, 16, 16, 5)
    labels = SliceBySlice(16, batch_size=2)(Bright(4), image)["wmh"]
    assert torch.equal(labels[0].long(), (image[0, 0] * 3).round().long())


@pytest.mark.parametrize("shape", [(240, 240, 4), (132, 256, 4), (256, 232, 4), (232, 256, 4), (96, 120, 4)])
def test_a_mask_survives_the_way_to_224_and_back(shape):
    rng = np.random.default_rng(sum(shape))
    # Small round lesions, 0.2 % of the voxels, as in a typical brain.
    wanted = 0.002 * np.prod(shape)
    mask = np.zeros(shape, bool)
    grid = np.indices(shape[:2])
    while mask.sum() < wanted:
        centre, radius = rng.integers(20, np.array(shape[:2]) - 20), rng.uniform(2, 5)
        disc = ((grid - centre[:, None, None]) ** 2).sum(0) < radius**2
        mask[..., rng.integers(shape[2])] |= disc
    image = torch.from_numpy(mask.astype(np.float32))[None, None]
    labels = SliceBySlice(224)(Bright(), image)["wmh"][0].numpy() == 1
    dice = 2 * (labels & mask).sum() / (labels.sum() + mask.sum())
    assert dice > 0.9


def test_a_volume_that_is_lit_outside_the_head_loses_only_that():
    grid = np.indices((30, 34, 6)).astype(float)
    head = ((grid[0] - 14) / 10) ** 2 + ((grid[1] - 16) / 12) ** 2 < 1
    hole = ((grid[0] - 14) / 4) ** 2 + ((grid[1] - 16) / 4) ** 2 < 1
    volume = np.where(head & ~hole, 0.9, 0.0)
    volume[1:3, 1:3, 2] = 1.0  # bright air
    image = torch.from_numpy(volume.astype(np.float32))[None, None]
    np.testing.assert_array_equal(head_of(image[0, 0]).numpy(), head)
    plain, masked = SliceBySlice((30, 34)), SliceBySlice((30, 34), head_mask=True)
    before, after = (inference(Bright(), image)["wmh"][0].numpy() for inference in (plain, masked))
    assert before.sum() - after.sum() == 4 and not after[~head].any()
    np.testing.assert_array_equal(before[head], after[head])
    assert (plain.removed, masked.removed) == ({}, {"wmh": 4})


def test_the_head_is_the_largest_component_and_an_empty_volume_keeps_everything():
    volume = torch.zeros(20, 20, 4)
    volume[2:8, 2:8], volume[10:18, 10:18], volume[8:10, 8:10, 1] = 1.0, 0.5, 0.01
    expected = np.zeros((20, 20, 4), bool)
    expected[10:18, 10:18] = True
    np.testing.assert_array_equal(head_of(volume).numpy(), expected)
    assert ndimage.label(head_of(volume))[1] == 1
    assert head_of(torch.zeros(3, 4, 5)).all()


def test_half_precision_logits_and_autocast_change_no_resizing():
    image = torch.rand(1, 1, 24, 28, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = resize(image[..., 0], (16, 16))
    assert torch.equal(found, resize(image[..., 0], (16, 16)))
    labels = SliceBySlice(16)(lambda slices: {"wmh": (40 * (slices - 0.5)).bfloat16()}, image)["wmh"]
    assert labels.dtype == torch.uint8


@pytest.mark.parametrize(("settings", "key"), [
    ({"size": 0}, "size"), ({"size": (8, 8, 8)}, "size"), ({"batch_size": 0}, "batch_size"),
    ({"threshold": 0}, "threshold"), ({"threshold": 1.2}, "threshold"),
])
def test_senseless_settings_name_the_key(settings, key):
    with pytest.raises(ConfigError, match=rf"inference\.{key}="):
        SliceBySlice(**settings)
