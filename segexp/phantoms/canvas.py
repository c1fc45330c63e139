"""A grid to draw on in millimetres, and the textures of soft tissue.

Coordinates are mm from the middle of the grid, RAS: x to the right, y to the front, z up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SUBTYPES = ("clear_cell", "chromophobe", "papillary", "angiomyolipoma")
NECROSIS, FAT_IN_TUMOR = 30.0, -60.0  # HU


@dataclass
class Canvas:
    """Values and labels on one grid.

    Attributes:
        values: [D, H, W] HU, float32.
        labels: [D, H, W] uint8.
        body: [D, H, W] bool, where there is no air around the patient.
        spacing: mm.
    """

    values: np.ndarray
    labels: np.ndarray
    body: np.ndarray
    spacing: tuple[float, float, float]

    @classmethod
    def empty(cls, shape: Sequence[int], spacing: tuple[float, float, float], value: float) -> "Canvas":
        """Return a canvas of one value without labels, all of it body."""
        return cls(np.full(shape, value, np.float32), np.zeros(shape, np.uint8), np.ones(shape, bool), spacing)

    @property
    def voxel(self) -> float:
        """Volume of a voxel, ml."""
        return float(np.prod(self.spacing)) / 1000

    @property
    def everything(self) -> tuple[slice, ...]:
        """The box of the whole grid."""
        return tuple(slice(0, n) for n in self.values.shape)

    def box(self, centre: Sequence[float], reach: float | Sequence[float]) -> tuple[slice, ...]:
        """Return the part of the grid within ``reach`` mm of a point; empty where that lies outside."""
        slices = []
        for n, size, place, far in zip(self.values.shape, self.spacing, centre, np.broadcast_to(reach, 3), strict=True):
            middle, steps = place / size + (n - 1) / 2, far / size
            low, high = np.clip([np.floor(middle - steps), np.ceil(middle + steps) + 1], 0, n).astype(int)
            slices.append(slice(int(low), int(high)))
        return tuple(slices)

    def offsets(self, box: tuple[slice, ...], centre: Sequence[float] = (0, 0, 0)) -> list[np.ndarray]:
        """Return x, y and z (mm from ``centre``) of a box, shaped to broadcast against each other."""
        return [np.float32((axis - (n - 1) / 2) * size - place) for axis, n, size, place in
                zip(np.ogrid[box], self.values.shape, self.spacing, centre, strict=True)]


def smooth(shape: Sequence[int], sigma: float, spacing: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Return noise smoothed over ``sigma`` mm, with mean 0 and variance 1: float32 of ``shape``."""
    field = rng.standard_normal(tuple(shape), dtype=np.float32)
    field = ndimage.gaussian_filter(field, [sigma / size for size in spacing], mode="wrap")
    return (field - field.mean()) / max(float(field.std()), 1e-6)


def texture(subtype: str, shape: Sequence[int], spacing: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Return the HU of a tumour's tissue, float32 of ``shape``.

    clear_cell: bright and uneven, with necrosis; chromophobe: even; papillary: dark, like muscle; angiomyolipoma: fat
    and tissue.
    """
    field = smooth(shape, 2.7, spacing, rng)
    if subtype == "clear_cell":
        tissue = rng.uniform(130, 200) + 45 * field
        return np.where(smooth(shape, 6, spacing, rng) > 0.9, NECROSIS + 8 * field, tissue)
    if subtype == "chromophobe":
        return rng.uniform(90, 130) + 12 * field
    if subtype == "papillary":
        return rng.uniform(50, 85) + 8 * field
    return np.where(smooth(shape, 3.5, spacing, rng) > 0, FAT_IN_TUMOR, rng.uniform(80, 140)) + 10 * field
