"""Volumes on a grid of another spacing.

The grid keeps the directions and the outer corner of the volume; only the size of the voxels changes, and with it
their number (rounded, at least 1). Glossary: D/H/W = the canonical axes right, anterior, superior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segexp.data.nifti import Volume

Spacing = tuple[float, float, float]


def resampled(volume: Volume, spacing: Sequence[float] | None, order: int = 1) -> Volume:
    """Return ``volume`` with voxels of ``spacing``, mm along D, H, W; None, or the spacing it has: as it is.

    ``order`` 1 is trilinear, for images; 0 the nearest voxel, for label maps. Integer images stay integers, rounded.
    """
    if spacing is None or np.allclose(spacing, volume.spacing, rtol=1e-4, atol=0):
        return volume
    ratio = np.asarray(spacing, np.float64) / volume.spacing
    shape = tuple(max(1, round(n / r)) for n, r in zip(volume.array.shape, ratio, strict=True))
    step = np.diag([*ratio, 1.0])
    step[:3, 3] = (ratio - 1) / 2  # voxel 0 covers the corner of the volume, as before
    array = sampled(volume.array, ratio, shape, order)
    return replace(volume, array=array, affine=volume.affine @ step, spacing=tuple(float(size) for size in spacing))


def sampled(array: np.ndarray, ratio: Sequence[float], shape: Sequence[int], order: int) -> np.ndarray:
    """Return an array [D, H, W] at voxels ``ratio`` times as large, ``shape`` of them from the same outer corner on.

    Positions beyond the outermost voxel centres have the value of the nearest voxel.
    """
    from scipy.ndimage import affine_transform

    ratio = np.asarray(ratio, np.float64)
    whole = array.dtype.kind in "iub"
    result = affine_transform(array, ratio, (ratio - 1) / 2, tuple(shape), order=order, mode="nearest",
                              prefilter=False, output=np.float32 if order and whole else array.dtype)
    return np.rint(result).astype(array.dtype) if order and whole else result
