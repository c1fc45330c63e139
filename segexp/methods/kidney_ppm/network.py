"""The 3D fully convolutional network with pyramid pooling (Yang et al. 2018, section II-A and figure 3)."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from segexp.errors import ConfigError, DataError
from segexp.methods.kidney_ppm.layers import (
    ACTIVATIONS,
    NORMS,
    Bottleneck,
    Layer,
    MaxPool,
    by_target,
    crop_to,
    pad_high,
    total,
)
from segexp.methods.kidney_ppm.ppm import DECONVOLUTIONS, POOLINGS, PyramidPooling

REDUCTION = 4  # the two poolings between input and features
CHOICES = {"pooling": POOLINGS, "ppm_pooling": POOLINGS, "ppm_deconvolution": DECONVOLUTIONS,
           "gefm": ("trunk", "progressive"), "norm": tuple(NORMS), "activation": tuple(ACTIVATIONS),
           "deconvolution_init": ("fan_in", "torch")}


class FCNPPM(nn.Module):
    """Thirteen narrow residual blocks at a half and a quarter of the resolution, then pyramid pooling.

    Stem, pooling, stage 1, pooling, stage 2, dilated stage 3, pyramid pooling, 1^3 convolution, two deconvolutions, a
    last 1^3 convolution. With the defaults 13 x 3 = 39 convolutions in the main branches, as the paper counts, and
    5,217,715 parameters for three classes, 4,808,960 of them in the pyramid pooling.

    Images of any size: they are padded to multiples of 4 by repeating their far edge and the logits cut back.

    Args:
        targets: target -> number of classes K, background included.
        stem: channels of the first convolution.
        c1: channels of stage 1, at half the resolution.
        c2: channels of stages 2 and 3, at a quarter of it.
        blocks: residual blocks of the three stages.
        reduction: the middle convolution of a block has so many times fewer channels.
        dilations: of the blocks of stage 3, one each.
        pooling: of the two poolings of the trunk, ``max`` or ``average``.
        ppm_kernels: edges of the pyramid's cells in voxels of the features, strides of its deconvolutions.
        ppm_branch: channels of a branch of the pyramid.
        ppm_pooling: ``average`` or ``max``.
        ppm_deconvolution: ``full``, ``depthwise`` or ``trilinear`` (see ``ppm.Branch``).
        head: channels after the pyramid, at half and at full resolution.
        gefm: ``trunk``: the chain of residual and dilated blocks is the "gradually enhanced feature module", which the
            paper names but does not describe. ``progressive``: an invention of ours, not the paper's: the projected
            input of stage 2 is enhanced by the sum of stage 2, then of stage 3.
        norm: ``batch`` or ``group`` (up to eight groups of at least two channels).
        activation: ``relu`` or ``leaky_relu``.
        deconvolution_init: ``fan_in``: torch's rule with the inputs that a voxel really sums, the channels before;
            ``torch``: torch's own count, k^3 times as many, which makes branches of large cells start almost silent.

    Raises:
        ConfigError: an unknown word, no target, or a wrong number of blocks, dilations or channels.
    """

    stride = 1  # what sizes must be multiples of: the network pads by itself

    def __init__(self, targets: Mapping[str, int], stem: int = 32, c1: int = 64, c2: int = 128,
                 blocks: Sequence[int] = (4, 5, 4), reduction: int = 4, dilations: Sequence[int] = (2, 2, 4, 4),
                 pooling: str = "max", ppm_kernels: Sequence[int] = (2, 4, 8, 16), ppm_branch: int = 32,
                 ppm_pooling: str = "average", ppm_deconvolution: str = "full", head: Sequence[int] = (64, 32, 16),
                 gefm: str = "trunk", norm: str = "batch", activation: str = "relu",
                 deconvolution_init: str = "fan_in") -> None:
        super().__init__()
        choose(pooling=pooling, ppm_pooling=ppm_pooling, ppm_deconvolution=ppm_deconvolution, gefm=gefm, norm=norm,
               activation=activation, deconvolution_init=deconvolution_init)
        check(blocks, dilations, head)
        self.targets, classes = dict(targets), total(targets)
        self.stem = Layer(nn.Conv3d(1, stem, 3, padding=1, bias=False), norm, None)
        self.stem_activation = ACTIVATIONS[activation]()
        self.pools = nn.ModuleList(MaxPool() if pooling == "max" else nn.AvgPool3d(2) for _ in range(2))
        self.stages = nn.ModuleList([
            stage(stem, c1, blocks[0] * [1], reduction, norm, activation),
            stage(c1, c2, blocks[1] * [1], reduction, norm, activation),
            stage(c2, c2, list(dilations), reduction, norm, activation)])
        self.enhance = Layer(nn.Conv3d(c1, c2, 1, bias=False), norm, None) if gefm == "progressive" else None
        self.ppm = PyramidPooling(c2, ppm_branch, ppm_kernels, ppm_pooling, ppm_deconvolution, norm, activation)
        self.head = nn.Sequential(
            Layer(nn.Conv3d(self.ppm.channels, head[0], 1, bias=False), norm, activation),
            Layer(nn.ConvTranspose3d(head[0], head[1], 2, 2, bias=False), norm, activation),
            Layer(nn.ConvTranspose3d(head[1], head[2], 2, 2, bias=False), norm, activation),
            nn.Conv3d(head[2], classes, 1))
        if deconvolution_init == "fan_in":
            for module in self.modules():
                if isinstance(module, nn.ConvTranspose3d):
                    # Kernel and stride are equal: every voxel of the result sums over the channels of one input voxel.
                    bound = (module.in_channels / module.groups) ** -0.5
                    nn.init.uniform_(module.weight, -bound, bound)

    def encode(self, image: Tensor) -> Tensor:
        """Image [B, 1, D, H, W] of sizes divisible by 4 -> features [B, c2, D / 4, H / 4, W / 4] before the pyramid."""
        # The activation is monotone, so it commutes with a maximum: an eighth of the voxels to activate.
        features = self.stem(image)
        commutes = isinstance(self.pools[0], MaxPool)
        features = self.pools[0](features) if commutes else self.pools[0](self.stem_activation(features))
        features = self.stem_activation(features) if commutes else features
        features = self.pools[1](self.stages[0](features))
        second = self.stages[1](features)
        third = self.stages[2](second)
        if self.enhance is None:
            return third
        return self.enhance(features) + second + third

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image [B, 1, D, H, W] -> target -> logits [B, K, D, H, W].

        Raises:
            DataError: the image has not one channel and three axes.
        """
        if image.ndim != 5 or image.shape[1] != 1:
            raise DataError(f"the network takes images [B, 1, D, H, W], not {list(image.shape)}")
        logits = self.head(self.ppm(self.encode(pad_high(image, REDUCTION))))
        return by_target(crop_to(logits, image.shape[2:]), self.targets)


def stage(inputs: int, outputs: int, dilations: Sequence[int], reduction: int, norm: str,
          activation: str) -> nn.Sequential:
    """Return one block per dilation; the first one changes the channels."""
    return nn.Sequential(*(Bottleneck(outputs if index else inputs, outputs, reduction, dilation, norm, activation)
                           for index, dilation in enumerate(dilations)))


def choose(**given: str) -> None:
    """Refuse a word that is none of its key's choices (ConfigError)."""
    for key, word in given.items():
        if word not in CHOICES[key]:
            raise ConfigError(f"network.{key}={word}: expected one of {', '.join(CHOICES[key])}")


def check(blocks: Sequence[int], dilations: Sequence[int], head: Sequence[int]) -> None:
    """Refuse settings that do not fit together (ConfigError)."""
    if len(blocks) != 3 or min(blocks) < 1:
        raise ConfigError(f"network.blocks={list(blocks)}: expected three numbers, at least one block each")
    if len(dilations) != blocks[2]:
        raise ConfigError(f"network.dilations={list(dilations)}: expected {blocks[2]} numbers, one for each block of "
                          "stage 3 (the last of network.blocks)")
    if len(head) != 3:
        raise ConfigError(f"network.head={list(head)}: expected three channel counts, at a quarter, a half and full "
                          "resolution")
