"""From one channel in [0, 1] to what VGG19 is fed: the readings of "preprocessing steps outlined for VGG19".

Every reading is a map x -> scale_c x + shift_c of the replicated image, one pair per colour c (red, green, blue), in
the scale of torchvision's weights, which want (x - mean_c) / std_c of images in [0, 1].
"""

from collections.abc import Iterable

from torch import Tensor, nn, tensor

from segexp.errors import ConfigError

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's colours, images in [0, 1]
STD = (0.229, 0.224, 0.225)

SCALE = tuple(1 / std for std in STD)
SHIFT = tuple(-mean / std for mean, std in zip(MEAN, STD, strict=True))

READINGS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # The mean of 0..255 taken off an image in 0..1: the text, read word for word.
    "caffe01": (tuple(scale / 255 for scale in SCALE), SHIFT),
    # The image multiplied by 255 first: with weights in torchvision's scale, torchvision's own recipe.
    "caffe255": (SCALE, SHIFT),
    "torch": (SCALE, SHIFT),
    "none": ((1.0,) * 3, (0.0,) * 3),
}


class Preprocessing(nn.Module):
    """Replicate and scale: [B, 1, H, W] in [0, 1] -> [B, 3, H, W] (Mac et al. 2020, section 3.2.1).

    Args:
        reading: a key of ``READINGS``.
        key: name of the setting, for the message.

    Raises:
        ConfigError: an unknown reading.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, reading: str, key: str) -> None:
        super().__init__()
        choose(key, reading, READINGS)
        scale, shift = (tensor(values).view(1, 3, 1, 1) for values in READINGS[reading])
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return scale x + shift of an image [B, 1, H, W] as [B, 3, H, W]."""
        return image * self.scale + self.shift


def choose(key: str, value: object, known: Iterable[str]) -> None:
    """Raise ConfigError unless ``value`` is one of ``known``."""
    if value not in known:
        raise ConfigError(f"{key}={value}: expected one of {', '.join(known)}")
