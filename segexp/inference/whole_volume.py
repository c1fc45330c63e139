"""Label a whole volume with one forward pass."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segexp.errors import ConfigError
from segexp.inference.slabs import SlabLogits

Box = tuple[slice, slice, slice]


class WholeVolume:
    """One forward pass over the whole volume, slab by slab from logits to labels.

    The volume is padded at its far ends with its own minimum (air) to a multiple of the network's stride, and the
    labels are cut back. Against windows this differs only near their borders, where a window sees zeros instead of
    its neighbourhood.

    Args:
        box_above: None: every target is decoded everywhere. A number: targets of more classes than this are decoded
            only inside the bounding box of the structures that the other targets find, and are background outside.
            Exact inside the box; what such a target would find outside it is lost.
        box_margin: voxels by which that box is widened on every side.

    Raises:
        ConfigError: a negative number.
    """

    def __init__(self, box_above: int | None = None, box_margin: int = 8) -> None:
        if box_margin < 0 or (box_above is not None and box_above < 0):
            raise ConfigError(f"inference.box_above={box_above}, box_margin={box_margin}: expected numbers from 0 on")
        self.box_above, self.box_margin = box_above, box_margin

    def __call__(self, network: nn.Module, image: Tensor) -> dict[str, Tensor]:
        """Return target -> class indices [1, D, H, W] (uint8) of an image [1, C, D, H, W].

        ``network`` maps an image to target -> logits (a Tensor or ``SlabLogits``) and has ``stride``.
        """
        grid = image.shape[2:]
        with torch.no_grad():
            outputs = dict(network(pad_to_multiple(image, network.stride)))
            targets = list(outputs)
            boxed = {target for target in targets if self._boxed(outputs[target])}
            boxed = boxed if len(boxed) < len(targets) else set()
            labels: dict[str, Tensor] = {}
            box: Box | None = None
            for target in sorted(targets, key=boxed.__contains__):
                # Popped, so that a target's logits are freed before the next one's labels are made.
                logits = outputs.pop(target)
                if target in boxed:
                    box = box or self._box(labels.values())
                    labels[target] = inside(logits, box)
                else:
                    labels[target] = logits.argmax() if isinstance(logits, SlabLogits) else to_labels(logits)
            return {target: labels[target][:, : grid[0], : grid[1], : grid[2]].contiguous() for target in targets}

    def _boxed(self, logits: Tensor | SlabLogits) -> bool:
        return self.box_above is not None and isinstance(logits, SlabLogits) and logits.shape[1] > self.box_above

    def _box(self, found: Iterable[Tensor]) -> Box:
        """Return the box around everything found, widened by the margin; it starts and ends at even voxels."""
        structures = torch.stack([labels[0] > 0 for labels in found]).any(0)
        sides = []
        for axis, size in enumerate(structures.shape):
            others = [other for other in range(3) if other != axis]
            where = structures.any(others[1]).any(others[0]).nonzero()
            if not len(where):
                return (slice(0, 0),) * 3
            first, last = int(where[0]) - self.box_margin, int(where[-1]) + 1 + self.box_margin
            sides.append(slice(max(first - first % 2, 0), min(last + last % 2, size)))
        return tuple(sides)  # type: ignore[return-value]


def inside(logits: SlabLogits, box: Box) -> Tensor:
    """Return the labels [1, D, H, W] of logits inside a box, background outside."""
    labels = torch.zeros((1, *logits.shape[2:]), dtype=torch.uint8 if logits.shape[1] <= 256 else torch.int16,
                         device=logits.device)
    if all(side.stop > side.start for side in box):
        labels[(slice(None), *box)] = logits.argmax(box)
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
