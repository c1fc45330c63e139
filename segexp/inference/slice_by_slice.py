"""Label a volume slice by slice with a network of two dimensions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segexp.data.resizing import resize
from segexp.errors import ConfigError
from segexp.inference.components import LargestComponent

HEAD = 0.02
"""Part of the volume's maximum above which a voxel may belong to the head."""


class SliceBySlice:
    """Axial slices are resized to the size of training, labelled, and their probabilities resized back.

    The labels are decided on the volume's own grid (Mac et al. 2020 do not say where): bilinear probabilities, then a
    threshold where a target has one logit, the most probable class where it has several.

    Glossary: B batch, C channels, K classes, D/H/W = right, anterior, superior; slices lie along W, the last axis.

    Args:
        size: pixels of a slice as the network sees it, one number or [rows, columns].
        batch_size: slices per forward pass.
        threshold: least probability of the structure, for targets of one logit.
        head_mask: keep only what lies in the head: the largest component (6 neighbours) above 2 % of the volume's
            maximum, holes filled in every slice.

    Attributes:
        removed: target -> voxels that the head mask took away in the last volume; empty without a head mask.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(self, size: int | Sequence[int] = 224, batch_size: int = 16, threshold: float = 0.5,
                 head_mask: bool = False) -> None:
        pixels = tuple(size) if isinstance(size, Sequence) else (size,) * 2
        if len(pixels) != 2 or not all(isinstance(n, int) and n > 0 for n in pixels):
            raise ConfigError(f"inference.size={size}: expected one positive number of pixels, or two")
        if batch_size < 1:
            raise ConfigError(f"inference.batch_size={batch_size}: expected at least 1 slice")
        if not 0 < threshold < 1:
            raise ConfigError(f"inference.threshold={threshold}: expected a probability between 0 and 1")
        self.pixels: tuple[int, int] = pixels  # type: ignore[assignment]
        self.batch_size, self.threshold, self.head_mask = batch_size, threshold, head_mask
        self.removed: dict[str, int] = {}

    def __call__(self, network: nn.Module, image: Tensor) -> dict[str, Tensor]:
        """Return target -> class indices [1, D, H, W] (uint8) of an image [1, C, D, H, W].

        ``network`` maps slices [B, C, rows, columns] to target -> logits [B, K, rows, columns]; K = 1 is one structure
        against the background, as class 1.
        """
        slices = image[0].permute(3, 0, 1, 2)
        labels: dict[str, Tensor] = {}
        with torch.no_grad():
            for first in range(0, len(slices), self.batch_size):
                batch = slices[first:first + self.batch_size]
                for target, logits in network(resize(batch, self.pixels).contiguous()).items():
                    found = self.decided(logits, tuple(image.shape[2:4]))
                    if target not in labels:
                        labels[target] = found.new_zeros(image.shape[2:])
                    labels[target][..., first:first + len(batch)] = found.permute(1, 2, 0)
            if self.head_mask:
                outside = ~head_of(image[0, 0])
                self.removed = {target: int(found[outside].count_nonzero()) for target, found in labels.items()}
                for found in labels.values():
                    found[outside] = 0
        return {target: found[None] for target, found in labels.items()}

    def decided(self, logits: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return class indices uint8 [B, *grid] of logits [B, K, rows, columns]."""
        if logits.shape[1] == 1:
            return (resize(logits.float().sigmoid(), grid)[:, 0] >= self.threshold).to(torch.uint8)
        return resize(logits.float().softmax(1), grid).argmax(1).to(torch.uint8)


def head_of(volume: Tensor) -> Tensor:
    """Return where the head is, bool [D, H, W], in a volume whose air is near 0."""
    import numpy as np
    from scipy import ndimage

    bright = (volume > HEAD * volume.max()).cpu().numpy()
    if not bright.any():
        return torch.ones(volume.shape, dtype=torch.bool, device=volume.device)
    head = LargestComponent(connectivity=6).component(bright)
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1, :, 1] = in_plane[:, 1, 1] = True
    return torch.from_numpy(ndimage.binary_fill_holes(head, in_plane)).to(volume.device)
