"""A window through the kidney network at evaluation: folded as it runs against layer by layer.

`python -m tests.benchmarks.kidney_network [--size 96 96 64] [--repeats 5]`. Both sides have the same weights. Layer by
layer: a convolution, its normalisation with the running statistics, its activation, and torch's own maxima over 2^3
voxels. The logits have to agree to 1e-5 of the largest first.
"""

import argparse
import copy
from collections.abc import Callable

import torch
from torch import nn

from segexp.methods.kidney_ppm import FCNPPM
from tests.benchmarks.common import Row, alternate, report
from tests.methods.kidney_ppm.common import TARGETS, layer_by_layer, settle


def sides(size: tuple[int, int, int]) -> dict[str, Callable[[], torch.Tensor]]:
    """Return both sides on the same window of noise."""
    torch.manual_seed(0)
    network = settle(FCNPPM(TARGETS)).eval()
    plain = layer_by_layer(copy.deepcopy(network))
    plain.pools = nn.ModuleList(nn.MaxPool3d(2) for _ in range(2))  # the network activates before these
    image = torch.randn(1, 1, *size)

    def side(net: FCNPPM) -> Callable[[], torch.Tensor]:
        return lambda: net(image)["kidney"]

    return {"folded": side(network), "layer by layer": side(plain)}


def main() -> None:
    """Assert equality and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=(96, 96, 64), help="voxels of the window")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    work = sides(tuple(arguments.size))
    with torch.no_grad():
        folded, plain = (side() for side in work.values())
        assert (folded - plain).abs().max() < 1e-5 * plain.abs().max()
        seconds = alternate(work, arguments.repeats)
    report([Row(f"logits of a window of {' x '.join(map(str, arguments.size))} voxels", seconds)])


if __name__ == "__main__":
    main()
