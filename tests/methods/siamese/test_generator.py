"""Parameters, shapes and messages of the generator."""

import pytest
import torch
from torch import nn

from segexp.errors import ConfigError, DataError
from segexp.methods.siamese import DenseUNet
from segexp.methods.siamese.generator import Unit

SMALL = {"n_blocks": 2, "base_filters": 4}


@pytest.mark.parametrize(("n_blocks", "parameters"), [(4, 12_120_993), (3, 3_006_625)])
def test_parameter_counts(n_blocks, parameters):
    assert sum(one.numel() for one in DenseUNet("wmh", n_blocks=n_blocks).parameters()) == parameters


def test_channels_and_sizes_of_every_scale():
    network, seen = DenseUNet(["wmh"], base_filters=4).eval(), []
    for block in (*network.encoder, network.bottom, *network.decoder):
        block.register_forward_hook(lambda module, inputs, output: seen.append(
            (sum(part.shape[1] for part in inputs), *output.shape[1:])))
    with torch.no_grad():
        network(torch.rand(2, 1, 32, 48))
    assert seen == [(3, 4, 32, 48), (4, 8, 16, 24), (8, 16, 8, 12), (16, 32, 4, 6), (32, 64, 2, 3),
                    (64, 32, 4, 6), (32, 16, 8, 12), (16, 8, 16, 24), (8, 4, 32, 48)]


def test_a_unit_convolves_the_concatenation_of_its_parts():
    torch.manual_seed(0)
    unit = Unit(7, 5, 3, 0.1, {"eps": 1e-3, "momentum": 0.1}).double()
    parts = [torch.randn(2, channels, 9, 6, dtype=torch.float64, requires_grad=True) for channels in (3, 4)]
    plain = nn.Sequential(*unit)(torch.cat(parts, 1))
    torch.testing.assert_close(unit(parts), plain)
    wanted = torch.autograd.grad(plain.square().sum(), [*unit.parameters(), *parts])
    found = torch.autograd.grad(unit(parts).square().sum(), [*unit.parameters(), *parts])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_recomputed_blocks_give_the_same_gradients_and_statistics():
    image, found = torch.rand(3, 1, 24, 20), []
    for recompute in (True, False):
        torch.manual_seed(0)
        network = DenseUNet("wmh", **SMALL, recompute=recompute)
        for _ in range(2):
            network(image)["wmh"].square().sum().backward()
        found.append((dict(network.named_parameters()), network.state_dict()))
    for (name, one), other in zip(found[0][0].items(), found[1][0].values(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    for (name, one), other in zip(found[0][1].items(), found[1][1].values(), strict=True):
        assert torch.equal(one, other), name
    assert found[0][1]["encoder.0.units.0.1.num_batches_tracked"] == 2


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (5, 3), (1, 1)])
def test_any_size_comes_back(size):
    network = DenseUNet("wmh", **SMALL).eval()
    image = torch.rand(2, 1, *size)
    logits = network(image)["wmh"]
    assert logits.shape == (2, 1, *size)
    filled = nn.functional.pad(image, (0, -size[1] % 4, 0, -size[0] % 4))
    torch.testing.assert_close(logits, network(filled)["wmh"][..., : size[0], : size[1]])


def test_one_logit_per_target():
    network = DenseUNet(["wmh", "other"], **SMALL)
    logits = network(torch.rand(1, 1, 8, 8))
    assert {target: tuple(value.shape) for target, value in logits.items()} == {
        "wmh": (1, 1, 8, 8), "other": (1, 1, 8, 8)}
    assert not torch.equal(logits["wmh"], logits["other"])


def test_without_transition_a_block_returns_all_it_has_seen():
    network = DenseUNet("wmh", **SMALL, transition="none", layers_per_block=3)
    assert [block.outputs for block in network.encoder] == [3 + 3 * 4, 15 + 3 * 8]
    assert network.bottom.outputs == 39 + 3 * 16
    network(torch.rand(1, 1, 8, 8))["wmh"].sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(("settings", "expected"), [
    ({"preproc": "caffe01"}, lambda x, mean, std: (x - 255 * mean) / (255 * std)),
    ({"preproc": "caffe255"}, lambda x, mean, std: (255 * x - 255 * mean) / (255 * std)),
    ({"preproc": "torch"}, lambda x, mean, std: (x - mean) / std),
    ({"preproc": "none"}, lambda x, mean, std: x + 0 * mean),
    ({"generator_input": "raw01"}, lambda x, mean, std: x + 0 * mean),
])
def test_what_the_first_block_is_fed(settings, expected):
    network, seen = DenseUNet("wmh", **SMALL, **{"generator_input": "vgg", **settings}), []
    network.encoder[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 1, 8, 8)
    network(image)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(seen[0], expected(image, mean, std), rtol=1e-5, atol=1e-5)


def test_one_channel_is_the_image_itself():
    network, seen = DenseUNet("wmh", **SMALL, in_channels=1), []
    network.encoder[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 1, 8, 8)
    network(image)
    assert torch.equal(seen[0], image)


def test_keras_initialisation_and_normalisation():
    network = DenseUNet("wmh", norm={"momentum": 0.1})
    weight = network.bottom.units[0][0].weight
    assert weight.abs().max().item() == pytest.approx((6 / (9 * (256 + 512))) ** 0.5, rel=1e-3)
    assert not network.head.bias.any() and not network.ups[0].bias.any()
    norm = network.bottom.units[0][1]
    assert (norm.eps, norm.momentum) == (1e-3, 0.1)
    assert network.bottom.units[0][2].negative_slope == 0.1


@pytest.mark.parametrize(("settings", "message"), [
    ({"transition": "conv"}, "network.transition=conv: expected one of conv1x1, none"),
    ({"generator_input": "raw"}, "network.generator_input=raw: expected one of vgg, raw01"),
    ({"preproc": "caffe"}, "network.preproc=caffe: expected one of caffe01"),
    ({"n_blocks": 0}, "network.n_blocks=0: expected at least 1"),
    ({"in_channels": 1, "generator_input": "vgg"}, "expected 3, or 1 with raw01"),
    ({"in_channels": 2, "generator_input": "raw01"}, "network.in_channels=2"),
    ({"targets": []}, "network.targets is empty"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        DenseUNet(**{"targets": "wmh", **settings})


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 1, 8, 8, 8), (8, 8)])
def test_images_it_cannot_take(shape):
    with pytest.raises(DataError, match="takes slices"):
        DenseUNet("wmh", **SMALL)(torch.zeros(shape))
