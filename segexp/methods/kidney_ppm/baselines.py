"""The networks that the paper's is compared with, from torchvision and MONAI; they share data, loss and schedule."""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segexp.errors import ConfigError, DataError
from segexp.methods.kidney_ppm.layers import BatchNorm2d, by_target, crop_to, pad_high, total


class Baseline(nn.Module):
    """A network image -> [B, sum of K, D, H, W] whose channels are shared out to the targets.

    Args:
        network: takes sizes that are multiples of ``multiple`` and at least ``least``.
        targets: target -> number of classes K, background included.
        multiple: what sizes are padded to by repeating the far edge; the logits are cut back.
        least: the smallest size the network takes.
    """

    stride = 1  # what sizes must be multiples of: the network pads by itself

    def __init__(self, network: nn.Module, targets: Mapping[str, int], multiple: int = 1, least: int = 1) -> None:
        super().__init__()
        self.network, self.targets = network, dict(targets)
        self.multiple, self.least = multiple, least

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image [B, 1, D, H, W] -> target -> logits [B, K, D, H, W].

        Raises:
            DataError: the image has not one channel and three axes.
        """
        if image.ndim != 5 or image.shape[1] != 1:
            raise DataError(f"the network takes images [B, 1, D, H, W], not {list(image.shape)}")
        logits = self.network(pad_high(image, self.multiple, self.least))
        return by_target(crop_to(logits, image.shape[2:]), self.targets)


class UNet3D(Baseline):
    """The 3D U-Net of Cicek et al. 2016 as MONAI's ``BasicUNet``.

    MONAI's has five resolutions, and channels are doubled after a pooling, not before; odd sizes are repaired in its
    up-sampling path.

    Args:
        targets: target -> number of classes K, background included.
        features: channels of the five resolutions and of the last up-sampling.
        norm: MONAI's name of the normalisation.
        activation: MONAI's name of the activation.

    Raises:
        ConfigError: no target, or not six channel counts.
    """

    def __init__(self, targets: Mapping[str, int], features: Sequence[int] = (32, 64, 128, 256, 512, 32),
                 norm: str = "batch", activation: str = "relu") -> None:
        from monai.networks.nets import BasicUNet

        if len(features) != 6:
            raise ConfigError(f"network.features={list(features)}: expected six channel counts, one per resolution and "
                              "one for the last up-sampling")
        with redirect_stdout(StringIO()):  # it prints its features
            network = BasicUNet(3, 1, total(targets), tuple(features), act=activation, norm=norm)
        super().__init__(network, targets, least=32)


class DynUNet(Baseline):
    """The U-Net of nnU-Net (Isensee et al. 2021) as MONAI's ``DynUNet``, without deep supervision.

    Args:
        targets: target -> number of classes K, background included.
        features: channels per resolution; each halves the one before.
        norm: MONAI's name of the normalisation.

    Raises:
        ConfigError: no target, or fewer than three resolutions.
    """

    def __init__(self, targets: Mapping[str, int], features: Sequence[int] = (32, 64, 128, 256, 320),
                 norm: str = "instance") -> None:
        from monai.networks.nets import DynUNet as MonaiDynUNet

        if len(features) < 3:
            raise ConfigError(f"network.features={list(features)}: expected at least three resolutions")
        halvings = len(features) - 1
        network = MonaiDynUNet(3, 1, total(targets), kernel_size=[3] * len(features),
                               strides=[1] + [2] * halvings, upsample_kernel_size=[2] * halvings,
                               filters=list(features), norm_name=(norm, {"affine": True}))
        # Two voxels per axis at the coarsest resolution: instance normalisation needs more than one.
        super().__init__(network, targets, multiple=2**halvings, least=2 ** (halvings + 1))


class PSPNet2D(Baseline):
    """PSPNet (Zhao et al. 2017) slice by slice along the last axis, on torchvision's dilated ResNet.

    Trained from scratch on one channel, without the auxiliary output. The defaults are those of ResNet-50.

    Args:
        targets: target -> number of classes K, background included.
        layers: bottleneck blocks of the four stages.
        width: channels of the first stage's 3x3 convolutions.
        bins: cells per axis of the pyramid's branches.
        branch: channels of a branch.
        head: channels of the last 3x3 convolution.
        dropout: part of the channels dropped before the last layer in training.
        chunk: slices labelled at once at evaluation; 0: all. (In training all slices of a batch go together.)

    Raises:
        ConfigError: no target, not four stages, or a negative ``chunk``.
    """

    def __init__(self, targets: Mapping[str, int], layers: Sequence[int] = (3, 4, 6, 3), width: int = 64,
                 bins: Sequence[int] = (1, 2, 3, 6), branch: int = 512, head: int = 512, dropout: float = 0.1,
                 chunk: int = 16) -> None:
        if len(layers) != 4 or chunk < 0:
            raise ConfigError(f"network.layers={list(layers)}, network.chunk={chunk}: expected four numbers of blocks, "
                              "and slices from 0 (all at once) on")
        network = PSPNet(total(targets), layers, width, bins, branch, head, dropout)
        super().__init__(SliceBySlice(network, chunk), targets)


class SliceBySlice(nn.Module):
    """Apply a network of slices [N, C, D, H] to all slices [..., w] of volumes [B, C, D, H, W].

    Args:
        network: [N, C, D, H] -> [N, K, D, H].
        chunk: slices at once at evaluation; 0: all.
    """

    def __init__(self, network: nn.Module, chunk: int) -> None:
        super().__init__()
        self.network, self.chunk = network, chunk

    def forward(self, image: Tensor) -> Tensor:
        """[B, C, D, H, W] -> [B, K, D, H, W]."""
        slices = image.movedim(-1, 1).flatten(0, 1)
        chunk = 0 if self.training else self.chunk
        logits = torch.cat([self.network(part) for part in (slices.split(chunk) if chunk else (slices,))])
        return logits.unflatten(0, (image.shape[0], -1)).movedim(1, -1)


class PSPNet(nn.Module):
    """PSPNet for slices; arguments as for ``PSPNet2D``, ``classes`` is the number of output channels."""

    def __init__(self, classes: int, layers: Sequence[int], width: int, bins: Sequence[int], branch: int, head: int,
                 dropout: float) -> None:
        from torchvision.models.resnet import Bottleneck, ResNet

        super().__init__()
        resnet = ResNet(Bottleneck, list(layers), width_per_group=width, norm_layer=BatchNorm2d,
                        replace_stride_with_dilation=[False, True, True])
        deepest = resnet.fc.in_features
        # A grey image repeated three times meets the sum of three kernels: one kernel can do the same.
        first = nn.Conv2d(1, resnet.conv1.out_channels, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        self.trunk = nn.Sequential(first, resnet.bn1, resnet.relu, resnet.maxpool, resnet.layer1, resnet.layer2,
                                   resnet.layer3, resnet.layer4)
        self.branches = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(cells), *unit(deepest, branch, 1))
                                      for cells in bins)
        self.head = nn.Sequential(*unit(deepest + len(bins) * branch, head, 3), nn.Dropout2d(dropout),
                                  nn.Conv2d(head, classes, 1))

    def forward(self, slices: Tensor) -> Tensor:
        """[N, 1, D, H] -> [N, K, D, H]."""
        features = self.trunk(slices)
        pyramid = [resize(branch(features), features.shape[2:]) for branch in self.branches]
        return resize(self.head(torch.cat([features, *pyramid], 1)), slices.shape[2:])


def unit(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    """Return convolution, normalisation and activation."""
    return (nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), BatchNorm2d(outputs),
            nn.ReLU(inplace=True))


def resize(features: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate bilinearly, corners on corners, as the released PSPNet does."""
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=True)
