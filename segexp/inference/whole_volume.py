"""Label a whole volume with one forward pass."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segexp.inference.slabs import SlabLogits


class WholeVolume:
    """One forward pass over the whole volume, slab by slab from logits to labels.

    The volume is padded at its far ends with its own minimum (air) to a multiple of the network's stride, and the
    labels are cut back. Against windows this differs only near their borders, where a window sees zeros instead of
    its neighbourhood.
    """

    def __call__(self, network: nn.Module, image: Tensor) -> dict[str, Tensor]:
        """Return target -> class indices [1, D, H, W] (uint8) of an image [1, C, D, H, W].

        ``network`` maps an image to target -> logits (a Tensor or ``SlabLogits``) and has ``stride``.
        """
        grid = image.shape[2:]
        with torch.no_grad():
            outputs = dict(network(pad_to_multiple(image, network.stride)))
            labels = {}
            for target in list(outputs):
                # Popped, so that a target's logits are freed before the next one's labels are made.
                logits = outputs.pop(target)
                whole = logits.argmax() if isinstance(logits, SlabLogits) else to_labels(logits)
                labels[target] = whole[:, : grid[0], : grid[1], : grid[2]].contiguous()
        return labels


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad the far ends of [B, C, D, H, W] with the image's minimum to multiples of ``multiple``."""
    missing = [-size % multiple for size in image.shape[2:]]
    if not any(missing):
        return image
    return F.pad(image, (0, missing[2], 0, missing[1], 0, missing[0]), value=float(image.min()))


def to_labels(logits: Tensor) -> Tensor:
    """Return the class of the largest logit, [B, K, D, H, W] -> [B, D, H, W], in the smallest integer type."""
    return logits.argmax(1).to(torch.uint8 if logits.shape[1] <= 256 else torch.int16)


