"""The generator: a U-Net whose scales are dense blocks (Mac et al. 2020, section 2.1 and figure 2).

Glossary: B batch, C channels, H/W height/width.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from segexp.errors import ConfigError, DataError
from segexp.methods.siamese.preprocessing import READINGS, Preprocessing, choose

KERAS_NORM = {"eps": 1e-3, "momentum": 0.01}  # Keras' defaults; its momentum 0.99 is torch's 0.01


class Unit(nn.Sequential):
    """Convolution of a concatenation, batch normalisation, leaky ReLU: [B, inputs, H, W] -> [B, outputs, H, W].

    The concatenation is never made: a convolution of it is the sum of the convolutions of its parts. The backward pass
    then keeps every part once instead of once more in every concatenation.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, slope: float, norm: Mapping[str, float]) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, **norm),
            # In place: the normalisation before it does not need its result for the backward pass.
            nn.LeakyReLU(slope, inplace=True),
        )

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts [B, C, H, W], together ``inputs`` channels -> [B, outputs, H, W]."""
        convolution, normalise, activate = self
        weights = convolution.weight.split([part.shape[1] for part in parts], 1)
        mixed = F.conv2d(parts[0], weights[0], padding=convolution.padding)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            mixed += F.conv2d(part, weight, padding=convolution.padding)
        return activate(normalise(mixed))


class DenseBlock(nn.Module):
    """Units that see everything before them in the block (Huang et al. 2017).

    Each of ``layers`` 3x3 units reads the concatenation of the block's input and all earlier units. With
    ``transition=conv1x1`` a 1x1 unit then mixes all of it into ``filters`` channels; with ``none`` the block returns
    the concatenation, ``inputs + layers * filters`` channels.
    """

    def __init__(self, inputs: int, filters: int, layers: int, transition: str, slope: float,
                 norm: Mapping[str, float]) -> None:
        super().__init__()
        self.units = nn.ModuleList(Unit(inputs + i * filters, filters, 3, slope, norm) for i in range(layers))
        total = inputs + layers * filters
        self.transition = Unit(total, filters, 1, slope, norm) if transition == "conv1x1" else None
        self.outputs = filters if transition == "conv1x1" else total

    def forward(self, *parts: Tensor) -> Tensor:
        """Parts [B, C, H, W], together ``inputs`` channels -> [B, outputs, H, W]."""
        seen = list(parts)
        for unit in self.units:
            seen.append(unit(seen))
        return self.transition(seen) if self.transition is not None else torch.cat(seen, 1)


@contextmanager
def statistics_kept(block: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch normalisation as they are: the batch has been counted already."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def run_again(block: DenseBlock, *parts: Tensor) -> Tensor:
    """Return what ``block`` makes of ``parts``, and run it again for the backward pass instead of keeping its insides.

    The numbers are the same.
    """
    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), statistics_kept(block)

    return checkpoint(block, *parts, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


class DenseUNet(nn.Module):
    """U-Net of dense blocks with one logit per target (Mac et al. 2020, section 2.1).

    Encoder blocks with ``base_filters``, twice as many after each 2x2 max-pooling; a bottleneck; the mirrored decoder
    with 2x2 transposed convolutions and skips. Weights are Glorot-uniform and biases zero, as Keras makes them.

    Args:
        targets: names of the targets, or of the one.
        n_blocks: blocks of the encoder; the paper's value, found by grid search, is only in its figure 2.
        layers_per_block: 3x3 units per block.
        base_filters: channels of the first block.
        transition: ``conv1x1`` or ``none`` (see ``DenseBlock``).
        in_channels: 3: the replicated image, 1: the image itself.
        generator_input: ``raw01``: as it comes, 0 to 1; ``vgg``: preprocessed as for VGG19.
        preproc: how VGG19's preprocessing is read (``READINGS``).
        negative_slope: of the leaky ReLU.
        norm: ``eps`` and ``momentum`` (weight of a batch in the running statistics) of batch normalisation.
        recompute: in training, blocks run again for the backward pass: half the memory for a quarter more time.

    Raises:
        ConfigError: an unknown word, no target, a size below one.
    """

    def __init__(self, targets: Sequence[str] | str, n_blocks: int = 4, layers_per_block: int = 2,
                 base_filters: int = 32, transition: str = "conv1x1", in_channels: int = 3,
                 generator_input: str = "raw01", preproc: str = "caffe01", negative_slope: float = 0.1,
                 norm: Mapping[str, float] | None = None, recompute: bool = True) -> None:
        super().__init__()
        self.recompute = recompute
        self.targets = [targets] if isinstance(targets, str) else list(targets)
        if not self.targets:
            raise ConfigError("network.targets is empty; name a target in method.targets")
        for key, value in (("n_blocks", n_blocks), ("layers_per_block", layers_per_block),
                           ("base_filters", base_filters)):
            if value < 1:
                raise ConfigError(f"network.{key}={value}: expected at least 1")
        choose("network.transition", transition, ("conv1x1", "none"))
        choose("network.generator_input", generator_input, ("vgg", "raw01"))
        choose("network.preproc", preproc, READINGS)
        if in_channels not in (1, 3) or (in_channels == 1 and generator_input == "vgg"):
            raise ConfigError(f"network.in_channels={in_channels} with network.generator_input={generator_input}: "
                              "expected 3, or 1 with raw01")
        self.multiple = 2**n_blocks
        self.prepare = Preprocessing(preproc if generator_input == "vgg" else "none", "network.preproc")
        self.in_channels = in_channels
        shared = (layers_per_block, transition, negative_slope, {**KERAS_NORM, **(norm or {})})
        self.encoder, self.ups, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels = in_channels
        for level in range(n_blocks):
            self.encoder.append(DenseBlock(channels, base_filters * 2**level, *shared))
            channels = self.encoder[-1].outputs
        self.bottom = DenseBlock(channels, base_filters * 2**n_blocks, *shared)
        channels = self.bottom.outputs
        for level in reversed(range(n_blocks)):
            filters = base_filters * 2**level
            self.ups.append(nn.ConvTranspose2d(channels, filters, 2, 2))
            self.decoder.append(DenseBlock(filters + self.encoder[level].outputs, filters, *shared))
            channels = self.decoder[-1].outputs
        self.head = nn.Conv2d(channels, len(self.targets), 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image [B, 1, H, W], values 0 to 1, any size -> target -> logits [B, 1, H, W].

        Sizes that ``multiple`` does not divide are filled up with air (0) at the far ends and cropped back.

        Raises:
            DataError: the image is not [B, 1, H, W].
        """
        if image.ndim != 4 or image.shape[1] != 1:
            raise DataError(f"DenseUNet takes slices [B, 1, H, W], not {list(image.shape)}; use sampling=slices and "
                            "inference=slice_by_slice")
        height, width = image.shape[2:]
        features = F.pad(image, (0, -width % self.multiple, 0, -height % self.multiple))
        if self.in_channels == 3:
            features = self.prepare(features)
        skips = []
        for block in self.encoder:
            skips.append(self._run(block, features))
            features = F.max_pool2d(skips[-1], 2)
        features = self._run(self.bottom, features)
        for up, block, skip in zip(self.ups, self.decoder, reversed(skips), strict=True):
            features = self._run(block, up(features), skip)
        logits = self.head(features)[..., :height, :width]
        return {target: logits[:, i : i + 1] for i, target in enumerate(self.targets)}

    def _run(self, block: DenseBlock, *parts: Tensor) -> Tensor:
        again = self.recompute and self.training and torch.is_grad_enabled()
        return run_again(block, *parts) if again else block(*parts)
