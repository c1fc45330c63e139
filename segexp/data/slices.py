"""Axial slices as training samples: one plane of a volume, resized and turned.

Glossary: D/H/W right, anterior, superior; slices lie along W, the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from segexp.data.cases import Case
from segexp.data.labelmap import IGNORE
from segexp.data.resizing import resize, resize_classes, rotate, structures
from segexp.errors import ConfigError

MASKS = ("linear", "nearest")


class Slices:
    """Draw axial slices, all of a volume alike, with and without structures (Mac et al. 2020, section 2.3).

    A slice is resized without keeping its aspect ratio, then turned about its centre. Every class of a label map is a
    mask of its own on the way: it holds where the resized mask is at least 0.5, and again where the turned one is.
    Where two classes hold, the lower one stays.

    Args:
        size: pixels of a sample, one number or [rows, columns].
        batch_size: slices per batch; a step is ``trainer.accumulate_grad_batches`` batches.
        rotation_degrees: turn every slice by an angle drawn evenly from +- this; 0 is off.
        mask_interpolation: ``linear`` resizes masks as the image; ``nearest`` takes the nearest pixel. (skimage
            resizes a mask of booleans by nearest without saying so.)

    Attributes:
        size: None: a slice of any volume is a whole sample, none is padded.
        pixels: rows and columns of a sample.

    Raises:
        ConfigError: an argument is out of its range.

    """

    size = None

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        batch_size: int = 8,
        rotation_degrees: float = 30.0,
        mask_interpolation: str = "linear",
    ) -> None:
        pixels = tuple(size) if isinstance(size, Sequence) else (size,) * 2
        if len(pixels) != 2 or not all(isinstance(n, int) and n > 0 for n in pixels):
            raise ConfigError(f"sampling.size={size}: expected one positive number of pixels, or two")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"sampling.batch_size={batch_size}: expected a positive number")
        if not 0 <= rotation_degrees <= 180:
            raise ConfigError(f"sampling.rotation_degrees={rotation_degrees}: expected 0 to 180")
        if mask_interpolation not in MASKS:
            raise ConfigError(f"sampling.mask_interpolation={mask_interpolation}: expected {' or '.join(MASKS)}")
        self.pixels: tuple[int, int] = pixels  # type: ignore[assignment]
        self.batch_size, self.rotation_degrees = batch_size, rotation_degrees
        self.nearest = mask_interpolation == "nearest"

    def parts(self, case: Case) -> int:
        """Return the number of slices of a case: the stream gives every one of them once per epoch."""
        return case.image.shape[2]

    def draw(
        self, case: Case, targets: Sequence[str], rng: np.random.Generator, part: int | None = None
    ) -> dict[str, Any]:
        """Return slice ``part``, or any: ``image`` float32 [1, H, W], ``target`` name -> int64 [H, W], ``case``.

        A target that the case does not have is IGNORE everywhere.
        """
        index = int(rng.integers(self.parts(case))) if part is None else part
        degrees = rng.uniform(-self.rotation_degrees, self.rotation_degrees) if self.rotation_degrees else 0.0
        start, shape = (0, 0, index), (*case.image.shape[:2], 1)
        planes = [resize(torch.from_numpy(case.image.crop(start, shape))[..., 0], self.pixels)]
        masks = []
        for name in targets:
            if name in case.targets:
                classes = torch.from_numpy(case.targets[name].crop(start, shape))[..., 0]
                resized = resize_classes(classes, self.pixels, self.nearest)
                for label in structures(resized):
                    planes.append((resized == label).float())
                    masks.append((name, label))
        turned = rotate(torch.stack(planes), degrees)
        target = {name: torch.full(self.pixels, 0 if name in case.targets else IGNORE) for name in targets}
        for (name, label), plane in reversed(list(zip(masks, turned[1:], strict=True))):
            target[name][plane >= 0.5] = label
        return {"image": turned[:1], "target": target, "case": case.id}
