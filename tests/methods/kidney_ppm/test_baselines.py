"""The networks that the paper's is compared with: sizes, parameters, slices, messages."""

import pytest
import torch

from segexp.errors import ConfigError, DataError
from segexp.methods.kidney_ppm import DynUNet, PSPNet2D, UNet3D

TARGETS = {"kidney": 3}
MAKERS = {
    "pspnet2d": lambda **settings: PSPNet2D(**{"targets": TARGETS, "layers": (1, 1, 1, 1), "width": 8, "branch": 8,
                                               "head": 8, **settings}),
    "unet3d": lambda **settings: UNet3D(**{"targets": TARGETS, "features": (4, 4, 8, 8, 8, 4), **settings}),
    "dynunet": lambda **settings: DynUNet(**{"targets": TARGETS, "features": (4, 8, 8), **settings}),
}


def make(name, **settings):
    torch.manual_seed(0)
    return MAKERS[name](**settings)


@pytest.mark.parametrize(("network", "expected"), [
    # The three-channel stem of PSPNet would have 2 x 64 x 49 weights more.
    (PSPNet2D, 46_577_091), (UNet3D, 22_625_347), (DynUNet, 16_543_683)])
def test_parameter_counts(network, expected):
    assert sum(parameter.numel() for parameter in network(TARGETS).parameters()) == expected


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(32, 32, 16), (17, 33, 31), (3, 9, 1)])
@pytest.mark.parametrize("name", MAKERS)
def test_any_size(name, size, training):
    network = make(name).train(training)
    logits = network(torch.randn(1, 1, *size))["kidney"]
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", MAKERS)
def test_a_window_of_the_paper(name):
    with torch.no_grad():
        logits = make(name).eval()(torch.randn(1, 1, 150, 150, 4 if name == "pspnet2d" else 64))["kidney"]
    assert logits.shape[1:4] == (3, 150, 150)


@pytest.mark.parametrize("name", MAKERS)
def test_several_targets(name):
    outputs = make(name, targets={"a": 2, "b": 4})(torch.randn(1, 1, 32, 32, 32))
    assert {target: logits.shape[1] for target, logits in outputs.items()} == {"a": 2, "b": 4}


def test_a_slice_depends_on_its_own_slice_only():
    network = make("pspnet2d").eval()
    image = torch.randn(2, 1, 24, 31, 7)
    whole = network(image)["kidney"]
    for index in range(7):
        alone = network.network.network(image[..., index])
        torch.testing.assert_close(whole[..., index], alone, rtol=1e-4, atol=1e-5)


def test_slices_by_chunks_are_the_same():
    image = torch.randn(2, 1, 24, 24, 5)
    found = [make("pspnet2d", chunk=chunk).eval()(image)["kidney"] for chunk in (0, 1, 4)]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-4, atol=1e-5)


def test_the_resnet_keeps_an_eighth_of_the_resolution():
    network = make("pspnet2d").eval().network.network
    assert network.trunk(torch.zeros(1, 1, 150, 150)).shape == (1, 2048, 19, 19)


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("pspnet2d", {"layers": (1, 1, 1)}, "network.layers=.1, 1, 1., network.chunk=16"),
    ("pspnet2d", {"chunk": -1}, "network.chunk=-1"),
    ("unet3d", {"features": (4, 4)}, "network.features=.4, 4.: expected six"),
    ("dynunet", {"features": (4, 4)}, "network.features=.4, 4.: expected at least three"),
    *((name, {"targets": {}}, "network.targets is empty") for name in MAKERS),
])
def test_wrong_settings_name_the_key(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **settings)


@pytest.mark.parametrize("name", MAKERS)
def test_images_it_cannot_take(name):
    with pytest.raises(DataError, match="takes images"):
        make(name)(torch.zeros(1, 2, 32, 32, 32))
