"""Cross entropy weighted by the name of the structure: closed forms, torch's own, ignored voxels, messages."""

import math

import pytest
import torch
from torch.nn import functional as F

from segexp.data import IGNORE
from segexp.errors import ConfigError
from segexp.inference import SlabLogits
from segexp.losses import WeightedCrossEntropy

STRUCTURES = {"kidney": ["background", "kidney", "tumor"]}
WEIGHTS = {"tumor": 2.0, "background": 0.2, "kidney": 1.0}  # by name: the order must not matter
VECTOR = torch.tensor([0.2, 1.0, 2.0])


def make(normalisation="weight_sum", structures=STRUCTURES, weights=WEIGHTS):
    return WeightedCrossEntropy(structures, weights, normalisation)


def batch_of(labels, target="kidney"):
    return {"target": {target: labels}}


@pytest.fixture
def sample():
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, 3, 4, 6, 5, generator=generator), torch.randint(3, (2, 4, 6, 5), generator=generator))


@pytest.mark.parametrize(("normalisation", "expected"), [("weight_sum", math.log(3)), ("voxel", 3.2 / 3 * math.log(3))])
def test_undecided_with_one_voxel_per_class(normalisation, expected):
    found = make(normalisation)({"kidney": torch.zeros(1, 3, 1, 1, 3)}, batch_of(torch.tensor([0, 1, 2])[None, None,
                                                                                                         None]))
    assert found["loss"].item() == pytest.approx(expected, rel=1e-6)
    assert round(found["loss"].item(), 4) in (1.0986, 1.1719)


def test_weight_sum_is_torchs_mean(sample):
    logits, labels = sample
    found = make()({"kidney": logits}, batch_of(labels))
    torch.testing.assert_close(found["loss"], F.cross_entropy(logits, labels, VECTOR))
    torch.testing.assert_close(found["kidney"], found["loss"])


def test_voxel_divides_by_the_number_of_voxels(sample):
    logits, labels = sample
    found = make("voxel")({"kidney": logits}, batch_of(labels))
    torch.testing.assert_close(found["loss"], F.cross_entropy(logits, labels, VECTOR, reduction="sum") / labels.numel())


@pytest.mark.parametrize("normalisation", ["weight_sum", "voxel"])
def test_exchanged_weights_are_another_loss(sample, normalisation):
    logits, labels = sample
    exchanged = {"background": 1.0, "kidney": 0.2, "tumor": 2.0}
    ours = make(normalisation)({"kidney": logits}, batch_of(labels))["loss"]
    other = make(normalisation, weights=exchanged)({"kidney": logits}, batch_of(labels))["loss"]
    assert ours > 0 and abs(ours - other) > 1e-3


@pytest.mark.parametrize("normalisation", ["weight_sum", "voxel"])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_batch_of_one_class_is_finite(normalisation, label):
    logits = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4, 4), label)
    found = make(normalisation)({"kidney": logits}, batch_of(labels))["loss"]
    scale = 1.0 if normalisation == "weight_sum" else VECTOR[label]
    torch.testing.assert_close(found, scale * F.cross_entropy(logits, labels))
    found.backward()
    assert logits.grad.isfinite().all() and logits.grad.any()


@pytest.mark.parametrize("normalisation", ["weight_sum", "voxel"])
def test_ignored_voxels_do_not_count(sample, normalisation):
    logits, labels = sample
    part = make(normalisation)({"kidney": logits[:, :, :3]}, batch_of(labels[:, :3]))
    masked = labels.clone()
    masked[:, 3:] = IGNORE
    torch.testing.assert_close(make(normalisation)({"kidney": logits}, batch_of(masked)), part)


@pytest.mark.parametrize("normalisation", ["weight_sum", "voxel"])
def test_nothing_that_weighs_is_zero_with_a_graph(normalisation):
    logits = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    weights = {"background": 0.0, "kidney": 1.0, "tumor": 1.0}
    for batch in (batch_of(torch.full((1, 2, 2, 2), IGNORE)), batch_of(torch.zeros(1, 2, 2, 2)), {"target": {}}):
        found = make(normalisation, weights=weights)({"kidney": logits}, batch)
        assert set(found) == {"loss"} and found["loss"].item() == 0
        found["loss"].backward()
    assert not logits.grad.any()


def test_bytes_and_half_precision(sample):
    logits, labels = sample
    expected = make()({"kidney": logits.bfloat16().float()}, batch_of(labels))
    torch.testing.assert_close(make()({"kidney": logits.bfloat16()}, batch_of(labels.byte())), expected)


def test_mean_over_the_targets_that_are_there(sample):
    logits, labels = sample
    structures = {"kidney": ["background", "kidney", "tumor"], "organ": ["background", "kidney"]}
    outputs = {"kidney": logits, "organ": logits[:, :2]}
    loss = make(structures=structures)
    found = loss(outputs, {"target": {"kidney": labels, "organ": labels.clamp(max=1)}})
    torch.testing.assert_close(found["organ"], F.cross_entropy(logits[:, :2], labels.clamp(max=1), VECTOR[:2]))
    torch.testing.assert_close(found["loss"], (found["kidney"] + found["organ"]) / 2)
    assert set(loss(outputs, batch_of(labels))) == {"loss", "kidney"}


def test_streamed_logits_are_the_dense_ones():
    torch.manual_seed(0)
    slabs = SlabLogits(torch.randn(2, 3, 4, 3, 2), torch.randn(2, 5, 8, 6, 4), torch.randn(3, 5), torch.randn(3))
    batch = batch_of(torch.randint(3, (2, 8, 6, 4)))
    torch.testing.assert_close(make()({"kidney": slabs}, batch), make()({"kidney": slabs.dense()}, batch))


def test_weights_are_no_part_of_a_checkpoint():
    assert not make().state_dict()


@pytest.mark.parametrize(("settings", "message"), [
    ({"normalisation": "mean"}, "loss.normalisation=mean: expected one of weight_sum, voxel"),
    ({"weights": {"background": 0.2, "kidney": 1, "tumour": 2, "tumor": 2}},
     "a weight for tumour, but the structures are background, kidney, tumor"),
    ({"weights": {"background": 0.2, "kidney": 1}}, "no weight for tumor; add loss.weights.tumor="),
    ({"weights": {"background": -0.2, "kidney": 1, "tumor": 2}}, "expected weights from 0 on"),
    ({"weights": {"background": 0, "kidney": 0, "tumor": 0}}, "one of them above 0"),
    ({"weights": {}}, "one of them above 0"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        make(**settings)
