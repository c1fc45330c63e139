"""The structure that the paper fixes, parameter counts, any size of image, messages."""

import copy

import pytest
import torch
from torch import nn

from segexp.errors import ConfigError, DataError
from segexp.methods.kidney_ppm import FCNPPM
from segexp.methods.kidney_ppm.layers import Bottleneck, Layer
from tests.methods.kidney_ppm.common import SMALL, TARGETS, layer_by_layer, settle, small


@pytest.fixture(scope="module")
def paper():
    return FCNPPM(TARGETS)


def of_type(module, kind):
    return [one for one in module.modules() if isinstance(one, kind)]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_blocks_and_convolutions_of_the_paper(paper):
    blocks = of_type(paper, Bottleneck)
    assert len(blocks) == 13
    main = [layer.convolution for block in blocks for layer in (block.reduce, block.spatial, block.expand)]
    assert len(main) == 39
    assert {one.kernel_size for one in main[::3] + main[2::3]} == {(1, 1, 1)}
    assert {one.kernel_size for one in main[1::3]} == {(3, 3, 3)}
    assert [one.dilation[0] for one in main[1::3]] == [1] * 9 + [2, 2, 4, 4]
    # The rest: stem, two projections, four branches, after the pyramid, last; four plus two deconvolutions.
    assert len(of_type(paper, nn.Conv3d)) == 48
    assert len(of_type(paper, nn.ConvTranspose3d)) == 6


def test_two_poolings_outside_the_pyramid(paper):
    assert len(of_type(paper, nn.MaxPool3d)) == 2
    assert all(pool.kernel_size == 2 for pool in of_type(paper, nn.MaxPool3d))
    strided = [one for one in of_type(paper, nn.Conv3d) if one.stride != (1, 1, 1)]
    assert not strided and not of_type(paper, nn.AvgPool3d) and not of_type(paper, nn.AdaptiveAvgPool3d)


def test_kernels_of_the_pyramid_are_its_strides(paper):
    assert [branch.kernel for branch in paper.ppm.branches] == [2, 4, 8, 16]
    for branch in paper.ppm.branches:
        assert branch.deconvolution.stride == branch.deconvolution.kernel_size == (branch.kernel,) * 3


def test_parameter_counts(paper):
    assert count(paper) == 5_217_715
    assert count(paper.ppm) == 4_808_960
    assert count(FCNPPM(TARGETS, stem=12, c1=24, c2=48, ppm_branch=12, head=(24, 16, 8))) == 736_399
    # The deconvolutions go from 32 x 32 x k^3 weights to 32 x k^3 and to none.
    kernels = sum(kernel**3 for kernel in (2, 4, 8, 16))
    assert count(FCNPPM(TARGETS, ppm_deconvolution="depthwise")) == 5_217_715 - 31 * 32 * kernels
    assert count(FCNPPM(TARGETS, ppm_deconvolution="trilinear")) == 5_217_715 - 32 * 32 * kernels
    # One more projection with its normalisation.
    assert count(FCNPPM(TARGETS, gefm="progressive")) == 5_217_715 + 64 * 128 + 2 * 128


def test_the_pyramid_sees_a_quarter_of_the_resolution():
    network = small().eval()
    shapes = []
    network.ppm.register_forward_hook(lambda _, inputs, output: shapes.append((inputs[0].shape, output.shape)))
    assert network(torch.randn(1, 1, 50, 50, 64))["kidney"].shape == (1, 3, 50, 50, 64)
    assert shapes == [((1, 12, 13, 13, 16), (1, 12 + 4 * 4, 13, 13, 16))]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(64, 64, 32), (17, 33, 31), (5, 1, 3)])
def test_any_size(size, training):
    network = small().train(training)
    logits = network(torch.randn(1, 1, *size))["kidney"]
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    silent = [name for name, parameter in network.named_parameters()
              if parameter.grad is None or not parameter.grad.isfinite().all()]
    assert silent == []


def test_a_window_of_the_paper():
    with torch.no_grad():
        assert small().eval()(torch.randn(1, 1, 150, 150, 64))["kidney"].shape == (1, 3, 150, 150, 64)


def test_gradients_reach_every_weight():
    network = small()
    network(torch.randn(2, 1, 32, 40, 32))["kidney"].square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_padding_repeats_the_far_edge():
    network = settle(small()).eval()
    image = torch.randn(1, 1, 14, 16, 15)
    padded = torch.cat([image, image[:, :, -1:], image[:, :, -1:]], 2)
    padded = torch.cat([padded, padded[..., -1:]], 4)
    torch.testing.assert_close(network(image)["kidney"], network(padded)["kidney"][:, :, :14, :, :15])


@pytest.mark.parametrize("settings", [{}, {"gefm": "progressive"}, {"pooling": "average"},
                                      {"activation": "leaky_relu"}])
def test_normalisation_folds_into_the_convolutions(settings):
    network = settle(small(**settings)).eval()
    image = torch.randn(2, 1, 24, 20, 18)
    with torch.no_grad():
        folded, plain = network(image)["kidney"], layer_by_layer(copy.deepcopy(network))(image)["kidney"]
    assert (folded - plain).abs().max() < 1e-5 * plain.abs().max()
    # Not because normalisation does nothing here.
    network.stages[1][0].spatial.norm.running_mean += 1
    with torch.no_grad():
        assert (network(image)["kidney"] - plain).abs().max() > 1e-2 * plain.abs().max()


@pytest.mark.parametrize("convolution", [nn.Conv3d(4, 6, 3, padding=2, dilation=2, bias=False),
                                         nn.ConvTranspose3d(4, 6, 2, 2, bias=False)])
def test_a_folded_layer_is_torchs_fusion(convolution):
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    layer = settle(Layer(convolution, "batch", None)).eval()
    features = torch.randn(2, 4, 6, 5, 7)
    fused = fuse_conv_bn_eval(layer.convolution, layer.norm, transpose=isinstance(convolution, nn.ConvTranspose3d))
    torch.testing.assert_close(layer(features), fused(features))


def test_a_group_normalisation_is_never_folded():
    network = small(norm="group")
    image = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(network.eval()(image), network.train()(image))


def test_activation_after_the_maximum_changes_nothing():
    network = settle(small()).eval()
    image = torch.randn(1, 1, 16, 16, 16)
    before = nn.functional.max_pool3d(network.stem_activation(network.stem(image)), 2)
    assert torch.equal(before, network.stem_activation(network.pools[0](network.stem(image))))


def test_training_and_evaluation_take_the_same_maximum():
    pool = small().pools[0]
    features = torch.randn(2, 3, 8, 6, 4)
    assert torch.equal(pool(features), nn.functional.max_pool3d(features, 2))
    assert torch.equal(pool(features), pool(features.requires_grad_()).detach())


def test_a_saved_network_loads(tmp_path):
    network = settle(small())
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other = small()
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    image = torch.randn(1, 1, 17, 9, 12)
    assert torch.equal(network.eval()(image)["kidney"], other.eval()(image)["kidney"])


def test_several_targets_share_the_last_convolution():
    outputs = FCNPPM({"a": 2, "b": 4}, **SMALL)(torch.randn(1, 1, 16, 16, 16))
    assert {target: logits.shape[1] for target, logits in outputs.items()} == {"a": 2, "b": 4}


def test_deconvolutions_start_with_the_variance_of_the_channels_they_sum():
    # Uniform within 1 / sqrt(inputs): the standard deviation is 1 / sqrt(3 inputs), for every kernel.
    for branch in FCNPPM(TARGETS).ppm.branches:
        assert branch.deconvolution.weight.std().item() == pytest.approx((3 * 32) ** -0.5, rel=0.02)
    last = FCNPPM(TARGETS, deconvolution_init="torch").ppm.branches[-1]
    assert last.deconvolution.weight.std().item() == pytest.approx((3 * 32 * 16**3) ** -0.5, rel=0.02)


def test_a_few_steps_learn_a_ball():
    torch.manual_seed(0)
    network = small(c1=16, c2=16)
    axis = torch.arange(16.0) - 7.5
    distance = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2).sqrt()
    labels = ((distance < 6).long() + (distance < 3).long())[None].expand(2, -1, -1, -1)
    image = labels[:, None].float() + 0.1 * torch.randn(2, 1, 16, 16, 16)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(nn.functional.cross_entropy(network(image)["kidney"], labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("settings", "message"), [
    ({"targets": {}}, "network.targets is empty"),
    ({"blocks": (4, 5)}, "network.blocks=.4, 5.: expected three"),
    ({"dilations": (2, 2)}, "network.dilations=.2, 2.: expected 4 numbers"),
    ({"head": (64, 32)}, "network.head=.64, 32.: expected three"),
    ({"pooling": "median"}, "network.pooling=median: expected one of average, max"),
    ({"ppm_pooling": "adaptive"}, "network.ppm_pooling=adaptive: expected one of average, max"),
    ({"ppm_deconvolution": "bilinear"}, "expected one of full, depthwise, trilinear"),
    ({"gefm": "on"}, "network.gefm=on: expected one of trunk, progressive"),
    ({"norm": "instance"}, "network.norm=instance: expected one of batch, group"),
    ({"activation": "gelu"}, "network.activation=gelu: expected one of relu"),
    ({"deconvolution_init": "he"}, "network.deconvolution_init=he: expected one of fan_in, torch"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        FCNPPM(**{"targets": TARGETS, **settings})


@pytest.mark.parametrize("shape", [(1, 2, 8, 8, 8), (1, 8, 8, 8)])
def test_images_it_cannot_take(shape):
    with pytest.raises(DataError, match="takes images"):
        small()(torch.zeros(shape))
