"""What the tests of this method share."""

import torch

from segexp.methods.kidney_ppm import FCNPPM
from segexp.methods.kidney_ppm.layers import BatchNorm3d

TARGETS = {"kidney": 3}
SMALL = {"stem": 4, "c1": 8, "c2": 12, "ppm_branch": 4, "head": (8, 6, 4)}


def small(**settings):
    torch.manual_seed(0)
    return FCNPPM(TARGETS, **{**SMALL, **settings})


def settle(network, seed=0):
    """Give the normalisations statistics and weights as a training leaves them, far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, BatchNorm3d):
            for values, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.5, 2),
                                      (module.weight.data, 0.5, 1.5), (module.bias.data, -1, 1)):
                values.uniform_(low, high, generator=generator)
    return network


def layer_by_layer(network):
    """Make a network normalise with the running statistics, but in layers of their own and not in the weights."""
    network.train()
    for module in network.modules():
        if isinstance(module, BatchNorm3d):
            module.eval()
    return network
