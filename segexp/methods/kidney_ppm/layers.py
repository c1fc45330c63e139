"""What the networks of this method are built from: layers that fold at evaluation, padding and cropping.

Glossary: B batch, C channels, K classes, D/H/W the canonical axes right, anterior, superior.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segexp.errors import ConfigError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    # In place: neither a normalisation nor a convolution needs its own result for the backward pass.
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
}


class _LoneValues:
    """Normalise a batch that holds one value per channel, and so no variance, with the running statistics."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the normalised features; torch refuses one value per channel in training."""
        if features.numel() > features.shape[1]:
            return super().forward(features)
        return F.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class BatchNorm2d(_LoneValues, nn.BatchNorm2d):
    """Batch normalisation of slices that takes a single value per channel."""


class BatchNorm3d(_LoneValues, nn.BatchNorm3d):
    """Batch normalisation of volumes that takes a single value per channel."""


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": BatchNorm3d,
    # At least two channels per group, so that even a single voxel has a variance.
    "group": lambda channels: nn.GroupNorm(math.gcd(8, channels // 2, channels), channels),
}


class Layer(nn.Module):
    """Convolution, normalisation, activation.

    At evaluation a batch normalisation is affine and goes into the weights of the convolution: the large features are
    written once instead of twice. The weights are folded anew in every pass, which costs nothing beside it and cannot
    be out of date.

    Args:
        convolution: without bias; plain, or transposed with a stride as large as its kernel.
        norm: ``batch`` or ``group``.
        activation: ``relu``, ``leaky_relu`` or None.
    """

    def __init__(self, convolution: nn.Conv3d | nn.ConvTranspose3d, norm: str, activation: str | None) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = NORMS[norm](convolution.out_channels)
        self.activation = ACTIVATIONS[activation]() if activation else nn.Identity()

    def forward(self, features: Tensor, added: Tensor | None = None) -> Tensor:
        """[B, C, D, H, W] -> [B, outputs, ...]; ``added`` is added before the activation."""
        if isinstance(self.norm, BatchNorm3d) and not (self.training or self.norm.training):
            outputs = self.folded(features)
        else:
            outputs = self.norm(self.convolution(features))
        if added is not None:
            outputs += added
        return self.activation(outputs)

    def folded(self, features: Tensor) -> Tensor:
        """Return convolution and normalisation with the running statistics as one convolution."""
        convolution, norm = self.convolution, self.norm
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = norm.bias - scale * norm.running_mean
        if isinstance(convolution, nn.ConvTranspose3d):
            return F.conv_transpose3d(features, convolution.weight * scale[:, None, None, None], bias,
                                      convolution.stride)
        return F.conv3d(features, convolution.weight * scale[:, None, None, None, None], bias, convolution.stride,
                        convolution.padding, convolution.dilation)


class MaxPool(nn.MaxPool3d):
    """Maximum over 2^3 voxels of features with even sizes."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, D, H, W] -> [B, C, D / 2, H / 2, W / 2]."""
        if features.requires_grad or features.device.type != "cpu":
            return super().forward(features)
        # torch's kernel looks for places too, voxel by voxel; three maxima of whole rows are several times faster.
        for axis in (2, 3, 4):
            features = torch.maximum(*features.unflatten(axis, (-1, 2)).unbind(axis + 1))
        return features


class Bottleneck(nn.Module):
    """Residual block of three convolutions, 1^3, 3^3 and 1^3 (He et al. 2016); a projection where channels change.

    Args:
        inputs: channels before.
        outputs: channels after.
        reduction: the middle convolution has ``outputs / reduction`` channels.
        dilation: of the middle convolution.
        norm: see ``Layer``.
        activation: see ``Layer``.
    """

    def __init__(self, inputs: int, outputs: int, reduction: int, dilation: int, norm: str, activation: str) -> None:
        super().__init__()
        middle = max(outputs // reduction, 1)
        self.reduce = Layer(nn.Conv3d(inputs, middle, 1, bias=False), norm, activation)
        self.spatial = Layer(nn.Conv3d(middle, middle, 3, padding=dilation, dilation=dilation, bias=False), norm,
                             activation)
        self.expand = Layer(nn.Conv3d(middle, outputs, 1, bias=False), norm, activation)
        self.project = Layer(nn.Conv3d(inputs, outputs, 1, bias=False), norm, None) if inputs != outputs else None

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, D, H, W] -> [B, outputs, D, H, W]."""
        shortcut = features if self.project is None else self.project(features)
        return self.expand(self.spatial(self.reduce(features)), shortcut)


def pad_high(image: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Pad the far end of every axis of [B, C, D, H, W] to a multiple of ``multiple``, at least ``least`` voxels.

    The edge is repeated, so that the padding is made of values that the image has there.
    """
    missing = [max(-(-size // multiple) * multiple, least) - size for size in image.shape[2:]]
    if not any(missing):
        return image
    return F.pad(image, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")


def crop_to(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Return the first D, H, W voxels of [B, C, ...]."""
    return features[..., : grid[0], : grid[1], : grid[2]]


def total(targets: Mapping[str, int]) -> int:
    """Return the number of classes of all targets together.

    Raises:
        ConfigError: there is no target.
    """
    if not targets:
        raise ConfigError("network.targets is empty; name at least one target in method.targets")
    return sum(targets.values())


def by_target(logits: Tensor, targets: Mapping[str, int]) -> dict[str, Tensor]:
    """Share the channels of [B, sum of K, ...] out to the targets, in their order."""
    return dict(zip(targets, logits.split(list(targets.values()), 1), strict=True))
