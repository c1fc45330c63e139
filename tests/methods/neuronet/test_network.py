"""Parameters, shapes and messages of the network."""

import pytest
import torch

from segexp.errors import ConfigError, DataError
from segexp.methods.neuronet import NeuroNet

CLASSES = {"fsl_fast": 4, "fsl_first": 16, "spm_tissue": 4, "malp_em": 139, "malp_em_tissue": 6}
EXPERIMENTS = {
    **{target: [target] for target in CLASSES},
    "nn_tissue": ["fsl_fast", "spm_tissue", "malp_em_tissue"],
    "nn_all": list(CLASSES),
}
# Counted in the released network, its fixed upsampling kernels left out.
PARAMETERS = {
    "code": {"fsl_fast": 2432952, "spm_tissue": 2432952, "fsl_first": 2436144, "malp_em_tissue": 2433464,
             "malp_em": 2485467, "nn_tissue": 2435464, "nn_all": 2493171},
    "paper": {"fsl_fast": 2460728, "spm_tissue": 2460728, "fsl_first": 2463920, "malp_em_tissue": 2461240,
              "malp_em": 2513243, "nn_tissue": 2463240, "nn_all": 2520947},
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_counts(variant, experiment):
    network = NeuroNet({target: CLASSES[target] for target in EXPERIMENTS[experiment]}, variant=variant)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[variant][experiment]


@pytest.mark.parametrize("decoder", ["folded", "plain"])
@pytest.mark.parametrize("variant", ["code", "paper"])
def test_shapes(variant, decoder):
    network = NeuroNet({"a": 3, "b": 5}, variant, filters=(4, 6, 9, 8), decoder=decoder).eval()
    image = torch.randn(2, 1, 16, 8, 24)
    assert network.stride == 8
    assert [list(scale.shape) for scale in network.encode(image)] == [
        [2, 4, 16, 8, 24], [2, 6, 8, 4, 12], [2, 9, 4, 2, 6], [2, 8, 2, 1, 3]]
    assert {target: list(logits.shape) for target, logits in network(image).items()} == {
        "a": [2, 3, 16, 8, 24], "b": [2, 5, 16, 8, 24]}


def test_two_scales_and_any_number_of_units():
    network = NeuroNet({"a": 3}, filters=(4, 6), units=3)
    assert network.stride == 2
    assert list(network(torch.randn(1, 1, 4, 6, 2))["a"].dense().shape) == [1, 3, 4, 6, 2]


def test_initial_weights_are_uniform_by_fan_in():
    weight = NeuroNet({"a": 4}).scales[3][1].conv1.weight
    bound = (3 / (128 * 27)) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)


def test_activation_follows_the_variant_unless_given():
    def activation(**settings):
        return type(NeuroNet({"a": 2}, filters=(2, 4), **settings).scales[1][0].activation)

    assert activation() is torch.nn.ReLU6
    assert activation(variant="paper") is torch.nn.LeakyReLU
    assert activation(variant="paper", activation="relu") is torch.nn.ReLU


@pytest.mark.parametrize(("settings", "message"), [
    ({"variant": "papr"}, "network.variant=papr: expected one of code, paper"),
    ({"activation": "gelu"}, "network.activation=gelu: expected one of relu6"),
    ({"decoder": "dense"}, "network.decoder=dense: expected one of folded, plain"),
    ({"targets": {}}, "network.targets is empty"),
    ({"filters": (4,)}, "at least two scales"),
    ({"units": 0}, "at least two scales"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        NeuroNet(**{"targets": {"a": 2}, **settings})


@pytest.mark.parametrize("shape", [(1, 1, 12, 8, 8), (1, 2, 8, 8, 8), (1, 8, 8, 8)])
def test_images_it_cannot_take(shape):
    with pytest.raises(DataError, match="multiples of 8"):
        NeuroNet({"a": 2}, filters=(2, 2, 2, 2))(torch.zeros(shape))
