"""Files of images to be damaged."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (24, 28, 20)
AFFINE = np.array([[-1.0, 0, 0, 12], [0, 1.5, 0, -20], [0, 0, 2.0, -18], [0, 0, 0, 1]])


def voxels(seed: int = 0, shape: tuple[int, ...] = SHAPE, dtype: str = "<i2") -> np.ndarray:
    """Return made-up intensities."""
    return np.random.default_rng(seed).integers(1, 2000, shape).astype(dtype)


def raw(array: np.ndarray | None = None, affine: np.ndarray = AFFINE, kind: type = nib.Nifti1Image) -> bytes:
    """Return the bytes of an uncompressed file with equal sform and qform."""
    image = kind(voxels() if array is None else array, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    return image.to_bytes()


def packed(content: bytes, level: int = 6) -> bytes:
    """Return what ``content`` is as .gz."""
    return gzip.compress(content, level, mtime=0)


def written(path: Path, content: bytes) -> Path:
    """Write ``content`` and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
