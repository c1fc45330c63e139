"""The pyramid pooling module in three dimensions (Yang et al. 2018, section II-A).

Cells of 2^3, 4^3, 8^3 and 16^3 voxels of the features, not a fixed number of cells: what a cell means in millimetres is
the same for every input size. (The two-dimensional module of Zhao et al. 2017 divides any image into 1, 2, 3 and 6.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segexp.methods.kidney_ppm.layers import Layer, crop_to

POOLINGS = ("average", "max")
DECONVOLUTIONS = ("full", "depthwise", "trilinear")


def pool(features: Tensor, kernel: int, pooling: str = "average") -> Tensor:
    """Return the mean or maximum of every cell of ``kernel``^3 voxels, [B, C, D, H, W] -> [B, C, ceil(D / k), ...].

    Cells that reach beyond the features count the voxels inside only; features smaller than a cell make one cell.
    """
    if pooling == "max":
        missing = [-size % kernel for size in features.shape[2:]]
        return F.max_pool3d(F.pad(features, (0, missing[2], 0, missing[1], 0, missing[0]), value=-torch.inf), kernel)
    # Axis by axis: short sums, which round less than one over kernel^3 voxels, and the voxels inside are a box.
    for axis in (2, 3, 4):
        size = features.shape[axis]
        missing = -size % kernel
        if missing:
            features = F.pad(features, (*(0, 0) * (4 - axis), 0, missing))
        cells = features.unflatten(axis, (-1, kernel)).sum(axis + 1)
        inside = (size - kernel * torch.arange(cells.shape[axis], device=cells.device)).clamp(max=kernel)
        features = cells / inside.to(cells.dtype).view(-1, *(1,) * (4 - axis))
    return features


class Branch(nn.Module):
    """Pooling, 1^3 convolution, deconvolution back to the features' grid; kernels and strides are all ``kernel``.

    Args:
        inputs: channels before.
        outputs: channels after.
        kernel: edge of a cell in voxels.
        pooling: ``average`` or ``max``.
        deconvolution: ``full``; ``depthwise``: one kernel per channel; ``trilinear``: interpolation, no weights.
        norm: see ``Layer``.
        activation: see ``Layer``.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, pooling: str, deconvolution: str, norm: str,
                 activation: str) -> None:
        super().__init__()
        self.kernel, self.pooling = kernel, pooling
        self.mix = Layer(nn.Conv3d(inputs, outputs, 1, bias=False), norm, activation)
        if deconvolution == "trilinear":
            self.deconvolution = nn.Upsample(scale_factor=kernel, mode="trilinear", align_corners=False)
        else:
            groups = outputs if deconvolution == "depthwise" else 1
            self.deconvolution = nn.ConvTranspose3d(outputs, outputs, kernel, kernel, groups=groups, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, D, H, W] -> [B, outputs, D, H, W]."""
        cells = self.mix(pool(features, self.kernel, self.pooling))
        return crop_to(self.deconvolution(cells), features.shape[2:])


class PyramidPooling(nn.Module):
    """The features themselves and one branch per kernel, concatenated.

    Args:
        inputs: channels before.
        branch: channels of every branch.
        kernels: edge of the cells of every branch.
        pooling: see ``Branch``.
        deconvolution: see ``Branch``.
        norm: see ``Layer``.
        activation: see ``Layer``.
    """

    def __init__(self, inputs: int, branch: int, kernels: Sequence[int], pooling: str, deconvolution: str, norm: str,
                 activation: str) -> None:
        super().__init__()
        self.channels = inputs + len(kernels) * branch
        self.branches = nn.ModuleList(
            Branch(inputs, branch, kernel, pooling, deconvolution, norm, activation) for kernel in kernels)

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, D, H, W] -> [B, inputs + branches x branch, D, H, W]."""
        return torch.cat([features, *(branch(features) for branch in self.branches)], 1)
