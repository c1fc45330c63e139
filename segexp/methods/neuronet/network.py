"""The network of NeuroNet: a residual encoder and one light, linear decoder per target.

Glossary: B batch, C channels, K classes, D/H/W depth/height/width.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from segexp.errors import ConfigError, DataError
from segexp.inference.slabs import SlabLogits
from segexp.methods.neuronet.fold import fold

EPSILON = 1e-3  # of batch normalisation, as in the released code
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    # In place: what comes before, a normalisation, does not need its result for the backward pass.
    "relu6": lambda: nn.ReLU6(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.1, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
}
VARIANTS = {"code": "relu6", "paper": "leaky_relu"}


class ResidualUnit(nn.Module):
    """Pre-activation residual unit (He et al. 2016; Rajchl et al. 2018, section 2.1).

    Normalisation and activation before each of two convolutions. With stride 2 the first convolution has a 4^3
    kernel and the identity is max-pooled; new channels of the identity are zeros, half before and half after.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str, momentum: float) -> None:
        super().__init__()
        self.stride, self.added = stride, outputs - inputs
        self.norm1 = nn.BatchNorm3d(inputs, eps=EPSILON, momentum=momentum)
        self.conv1 = nn.Conv3d(inputs, outputs, 2 * stride if stride > 1 else 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(outputs, eps=EPSILON, momentum=momentum)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, D, H, W] -> [B, outputs, D / stride, H / stride, W / stride]."""
        residual = self.conv1(self.activation(self.norm1(features)))
        residual = self.conv2(self.activation(self.norm2(residual)))
        if self.stride > 1:
            features = F.max_pool3d(features, self.stride)
        if self.added:
            features = F.pad(features, (0, 0, 0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return features + residual


class Decoder(nn.Module):
    """Upscore decoder of one target: linear upsampling of the scores plus a skip from every encoder scale.

    Skips are 1x1x1 convolutions with batch normalisation, without activation; a last 1x1x1 convolution mixes the
    classes. Everything is affine, which is why it folds (see ``fold``).
    """

    def __init__(self, filters: Sequence[int], classes: int, momentum: float) -> None:
        super().__init__()
        *skips, deepest = filters
        self.coarsest = nn.Conv3d(deepest, classes, 1, bias=False)
        self.skips = nn.ModuleList(nn.Conv3d(channels, classes, 1, bias=False) for channels in skips)
        self.norms = nn.ModuleList(nn.BatchNorm3d(classes, eps=EPSILON, momentum=momentum) for _ in skips)
        self.last = nn.Conv3d(classes, classes, 1, bias=False)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of all scales, finest first -> logits [B, K, D, H, W]."""
        scores = self.coarsest(features[-1])
        for scale in reversed(range(len(self.skips))):
            scores = F.interpolate(scores, scale_factor=2, mode="trilinear", align_corners=False)
            scores = scores + self.norms[scale](self.skips[scale](features[scale]))
        return self.last(scores)


class NeuroNet(nn.Module):
    """One encoder for all targets, one decoder for each (Rajchl et al. 2018, figure 3).

    Args:
        targets: target -> number of classes K, background included.
        variant: ``code``: as released, the initial convolution alone at full resolution and ReLU6; ``paper``: as
            written, residual units at full resolution too and leaky ReLU (0.1).
        filters: channels per scale; every scale halves the resolution of the one before.
        units: residual units per scale.
        activation: ``relu6``, ``leaky_relu`` or ``relu`` instead of the variant's.
        bn_momentum: weight of a batch in the running statistics.
        decoder: ``folded``: logits as ``SlabLogits``, exact and light; ``plain``: layer by layer, dense logits.

    Raises:
        ConfigError: an unknown word, no target, or fewer than two scales.
    """

    def __init__(self, targets: Mapping[str, int], variant: str = "code",
                 filters: Sequence[int] = (16, 32, 64, 128), units: int = 2, activation: str | None = None,
                 bn_momentum: float = 0.01, decoder: str = "folded") -> None:
        super().__init__()
        _choose("variant", variant, VARIANTS)
        activation = activation or VARIANTS[variant]
        _choose("activation", activation, ACTIVATIONS)
        _choose("decoder", decoder, ("folded", "plain"))
        if not targets:
            raise ConfigError("network.targets is empty; name at least one target in method.targets")
        if len(filters) < 2 or units < 1:
            raise ConfigError(f"network.filters={list(filters)}, network.units={units}: expected at least two scales "
                              "of at least one unit")
        self.targets, self.decoder = dict(targets), decoder
        self.stride = 2 ** (len(filters) - 1)
        self.initial = nn.Conv3d(1, filters[0], 3, padding=1, bias=False)
        full_resolution = units if variant == "paper" else 0
        self.scales = nn.ModuleList([nn.Sequential(*(
            ResidualUnit(filters[0], filters[0], 1, activation, bn_momentum) for _ in range(full_resolution)))])
        for before, channels in itertools.pairwise(filters):
            self.scales.append(nn.Sequential(
                ResidualUnit(before, channels, 2, activation, bn_momentum),
                *(ResidualUnit(channels, channels, 1, activation, bn_momentum) for _ in range(units - 1))))
        self.decoders = nn.ModuleDict(
            {target: Decoder(filters, classes, bn_momentum) for target, classes in self.targets.items()})
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                # Uniform in +-sqrt(3 / fan in), as the released code.
                nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")

    def encode(self, image: Tensor) -> list[Tensor]:
        """Image [B, 1, D, H, W] -> features of all scales, finest first: [B, C, D / 2^s, H / 2^s, W / 2^s].

        Raises:
            DataError: the image has not one channel, or a size that ``stride`` does not divide.
        """
        if image.ndim != 5 or image.shape[1] != 1 or any(size % self.stride for size in image.shape[2:]):
            raise DataError(f"NeuroNet takes images [B, 1, D, H, W] whose sizes are multiples of {self.stride}, not "
                            f"{list(image.shape)}; pad them, or set sampling.size to a multiple")
        features = [self.initial(image)]
        features[0] = self.scales[0](features[0])
        for scale in self.scales[1:]:
            features.append(scale(features[-1]))
        return features

    def forward(self, image: Tensor) -> dict[str, Tensor | SlabLogits]:
        """Image [B, 1, D, H, W] -> target -> logits [B, K, D, H, W]."""
        features = self.encode(image)
        if self.decoder == "folded":
            return fold(self.decoders, features, self.training)
        return {target: decoder(features) for target, decoder in self.decoders.items()}


def _choose(key: str, value: str, known: Sequence[str] | Mapping[str, object]) -> None:
    if value not in known:
        raise ConfigError(f"network.{key}={value}: expected one of {', '.join(known)}")
