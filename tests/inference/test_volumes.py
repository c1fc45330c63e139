"""Whole volumes and sliding windows against the argmax of one dense forward pass."""

import copy

import pytest
import torch
from torch.nn import functional as F

from segexp.errors import ConfigError
from segexp.inference import SlidingWindow, WholeVolume
from segexp.inference.slabs import SlabLogits
from segexp.inference.whole_volume import pad_to_multiple
from segexp.methods.neuronet import NeuroNet

TARGETS = {"tissue": 4, "parcels": 33}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(3)
    folded = NeuroNet(TARGETS, filters=(4, 6, 8, 10)).eval()
    plain = copy.deepcopy(folded)
    plain.decoder = "plain"
    return folded, plain


def differing(labels, expected):
    return {target: int((labels[target] != expected[target]).sum()) for target in TARGETS}


def dense_labels(network, image):
    with torch.no_grad():
        return {target: logits.argmax(1) for target, logits in network(image).items()}


@pytest.mark.parametrize("which", [0, 1], ids=["folded", "plain"])
@pytest.mark.parametrize("shape", [(16, 24, 8), (17, 9, 13), (5, 3, 31)])
def test_whole_volume_is_the_dense_argmax(networks, shape, which):
    image = torch.randn(1, 1, *shape)
    missing = [-size % 8 for size in shape]
    padded = F.pad(image, (0, missing[2], 0, missing[1], 0, missing[0]), value=float(image.min()))
    expected = dense_labels(networks[1], padded)
    labels = WholeVolume()(networks[which], image)
    for target in TARGETS:
        assert labels[target].shape == (1, *shape) and labels[target].dtype == torch.uint8
        inside = expected[target][:, : shape[0], : shape[1], : shape[2]]
        assert torch.equal(labels[target].long(), inside), differing(labels, expected)


def test_padding_keeps_what_needs_none():
    image = torch.randn(1, 1, 8, 16, 8)
    assert pad_to_multiple(image, 8) is image


@pytest.mark.parametrize("average", ["probability", "logit"])
def test_one_window_is_the_whole_volume(networks, average):
    image = torch.randn(1, 1, 16, 16, 16)
    labels = SlidingWindow(16, average=average)(networks[0], image)
    assert differing(labels, WholeVolume()(networks[0], image)) == {"tissue": 0, "parcels": 0}


def test_windows_agree_with_the_whole_where_none_sees_its_border(networks):
    # Two windows along depth that share half. What lies on either side of their cut is constant, so in both only the
    # zeros of the convolutions' padding differ from the whole volume; at a receptive field from a cut nothing differs.
    network = NeuroNet(TARGETS, filters=(3, 4), units=1).eval()
    image = torch.full((1, 1, 96, 32, 32), -0.7)
    image[:, :, 44:52] = torch.randn(1, 1, 8, 32, 32)
    windows = SlidingWindow((64, 32, 32), overlap=0.5, average="logit")(network, image)
    whole = WholeVolume()(network, image)
    for target in TARGETS:
        assert torch.equal(windows[target][:, 42:54], whole[target][:, 42:54])
        assert len(whole[target].unique()) > 1


def test_probabilities_are_averaged_like_the_released_code(networks):
    image = torch.randn(1, 1, 24, 16, 16)
    labels = SlidingWindow(16, overlap=0.5)(networks[0], image)
    total = {target: torch.zeros(1, classes, 24, 16, 16) for target, classes in TARGETS.items()}
    count = torch.zeros(24, 1, 1)
    for start in (0, 8):
        count[start:start + 16] += 1
        with torch.no_grad():
            for target, logits in networks[1](image[:, :, start:start + 16]).items():
                total[target][:, :, start:start + 16] += logits.softmax(1)
    for target in TARGETS:
        assert torch.equal(labels[target].long(), (total[target] / count).argmax(1))


def test_volumes_smaller_than_a_window(networks):
    labels = SlidingWindow(16)(networks[0], torch.randn(1, 1, 9, 16, 20))
    assert labels["parcels"].shape == (1, 9, 16, 20)


@pytest.mark.parametrize(("settings", "message"), [
    ({"average": "mean"}, "inference.average=mean: expected probability or logit"),
    ({"overlap": 1.0}, "inference.overlap=1.0"),
    ({"overlap": -0.1}, "inference.overlap=-0.1"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        SlidingWindow(**settings)


class Given(torch.nn.Module):
    """A network whose tissues are a block in the middle of the volume, and whose parcels are noise."""

    stride = 2

    def __init__(self, block, shape):
        super().__init__()
        self.tissue = torch.zeros(1, 4, *shape)
        self.tissue[(0, 2, *block)] = 1
        half = tuple(size // 2 for size in shape)
        self.parcels = SlabLogits(torch.randn(1, 33, *half), torch.randn(1, 5, *shape), torch.randn(33, 5),
                                  torch.randn(33))

    def forward(self, image):
        return {"parcels": self.parcels, "tissue": self.tissue}


def test_a_box_is_exact_inside_and_background_outside():
    shape, block = (24, 20, 16), (slice(9, 15), slice(0, 7), slice(4, 10))
    network, image = Given(block, shape), torch.zeros(1, 1, *shape)
    everywhere = WholeVolume()(network, image)["parcels"]
    labels = WholeVolume(box_above=32, box_margin=3)(network, image)
    assert list(labels) == ["parcels", "tissue"]
    box = (slice(6, 18), slice(0, 10), slice(0, 14))  # the block, 3 voxels more, on even borders
    expected = torch.zeros_like(everywhere)
    expected[(0, *box)] = everywhere[(0, *box)]
    assert torch.equal(labels["parcels"], expected) and not torch.equal(expected, everywhere)


def test_a_box_without_structures_is_all_background_and_a_lone_target_has_no_box(networks):
    image = torch.zeros(1, 1, 8, 8, 8)
    network = Given((slice(0, 0),) * 3, (8, 8, 8))
    assert not WholeVolume(box_above=32)(network, image)["parcels"].any()
    image = torch.randn(1, 1, 16, 16, 16)
    everywhere = WholeVolume()(networks[0], image)
    assert differing(WholeVolume(box_above=0)(networks[0], image), everywhere) == {"tissue": 0, "parcels": 0}


def test_a_senseless_box_is_refused():
    with pytest.raises(ConfigError, match="box_margin=-1"):
        WholeVolume(box_margin=-1)
