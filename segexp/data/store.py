"""Decoded volumes on disk: read whole or as crops, without keeping anything in memory.

Glossary: K classes, D/H/W depth/height/width (the canonical axes: right, anterior, superior).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from segexp.data.intensity import Intensity, ZScore
from segexp.data.labelmap import IGNORE
from segexp.errors import DataError

SAMPLES = 64  # voxels remembered per class, from which crops are centred on a structure

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class StoredVolume:
    """One decoded file of a data set in the cache.

    ``key`` names its content (and the label map it was encoded with); ``affine`` [4, 4] in mm, as nested tuples.
    """

    folder: Path
    key: str
    shape: Triple
    dtype: str
    affine: tuple[tuple[float, ...], ...]
    spacing: tuple[float, float, float]
    orientation: str
    warning: str

    def array(self) -> np.ndarray:
        """Return the voxels [D, H, W], mapped from disk and read only.

        Every call maps the file anew: when the result is dropped, so are the pages that were read through it, and a
        process stays as small as one crop however many cases it draws from.
        """
        return self._mapped(self.shape)

    def _mapped(self, shape: Triple) -> np.ndarray:
        """Map the file, which holds an array of ``shape``."""
        path = self.folder / "volume.npy"
        try:
            size = path.stat().st_size
            offset = size - int(np.prod(shape)) * np.dtype(self.dtype).itemsize
            return np.asarray(np.memmap(path, self.dtype, "r", offset, shape))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: this cache file is gone or cut off; start again to rebuild it") from error


@dataclass(frozen=True)
class StoredImage(StoredVolume):
    """An image with the statistics of the whole volume and the intensity through which networks see it."""

    mean: float
    std: float
    minimum: float
    maximum: float
    intensity: Intensity = field(default=ZScore(), kw_only=True)

    def crop(self, start: Triple, size: Triple) -> np.ndarray:
        """Return voxels ``start`` .. ``start + size`` as the intensity makes them, float32, also outside the volume."""
        inside, place = overlap(start, size, self.shape)
        if inside is None:
            return np.full(size, self.intensity.outside(self), np.float32)
        part = self.intensity(self.array()[inside], self)
        if part.shape == tuple(size):
            return part
        padded = np.full(size, self.intensity.outside(self), np.float32)
        padded[place] = part
        return padded

    def whole(self) -> np.ndarray:
        """Return the whole volume [D, H, W] as the intensity makes it, float32."""
        return self.intensity(self.array(), self)


@dataclass(frozen=True)
class StoredLabels(StoredVolume):
    """A label map as class indices, with what the check and the sampling ask about it.

    ``counts``: voxels per class (length K). ``boxes``: per class, first and last voxel along each axis, or None where
    the class is absent. ``unknown``: file value -> voxels that became background.
    """

    counts: tuple[int, ...]
    boxes: tuple[tuple[Triple, Triple] | None, ...]
    unknown: tuple[tuple[int, int], ...]

    def crop(self, start: Triple, size: Triple) -> np.ndarray:
        """Return the classes of voxels ``start`` .. ``start + size``, int64; IGNORE outside the volume."""
        return _crop_classes(self.array(), start, size, None)

    def whole(self) -> np.ndarray:
        """Return the classes of the whole volume [D, H, W], uint8."""
        return np.array(self.array())

    def voxel(self, rng: np.random.Generator, label: int) -> Triple:
        """Draw one of the remembered voxels of class ``label``, which must be present."""
        row = np.load(self.folder / "samples.npy", mmap_mode="r")[label]
        return tuple(int(v) for v in row[rng.integers(min(SAMPLES, self.counts[label]))])  # type: ignore[return-value]


@dataclass(frozen=True)
class DerivedLabels:
    """A label map that is a lookup of another one: class ``table[c]`` wherever ``source`` has class c."""

    source: StoredLabels
    table: np.ndarray  # uint8 [K of source]
    num_classes: int

    @property
    def key(self) -> str:
        """Name of the content."""
        return f"{self.source.key}:{bytes(self.table).hex()}"

    @property
    def shape(self) -> Triple:
        """Size of the volume."""
        return self.source.shape

    @property
    def affine(self) -> tuple[tuple[float, ...], ...]:
        """Affine of the canonical array, mm."""
        return self.source.affine

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Voxels per class."""
        summed = np.zeros(self.num_classes, np.int64)
        np.add.at(summed, self.table, np.asarray(self.source.counts))
        return tuple(int(n) for n in summed)

    def crop(self, start: Triple, size: Triple) -> np.ndarray:
        """Return the classes of voxels ``start`` .. ``start + size``, int64; IGNORE outside the volume."""
        return _crop_classes(self.source.array(), start, size, self.table)

    def whole(self) -> np.ndarray:
        """Return the classes of the whole volume [D, H, W], uint8."""
        return np.take(self.table, self.source.array())

    def voxel(self, rng: np.random.Generator, label: int) -> Triple:
        """Draw a remembered voxel of class ``label``: a member class by its size, then a voxel of it."""
        weights = np.where(self.table == label, self.source.counts, 0).astype(np.float64)
        return self.source.voxel(rng, int(rng.choice(len(weights), p=weights / weights.sum())))


Labels = StoredLabels | DerivedLabels


def draw_samples(classes: np.ndarray, counts: np.ndarray, boxes: list) -> np.ndarray:
    """Return up to SAMPLES voxels of every class, evenly drawn: int16 [K, SAMPLES, 3], unused rows 0.

    The draw is seeded by nothing but the array, so the same content always remembers the same voxels.
    """
    samples = np.zeros((len(counts), SAMPLES, 3), np.int16)
    rng = np.random.default_rng(0)
    for label, box in enumerate(boxes):
        if label == 0 or box is None:
            continue  # no crop is centred on the background
        first, last = np.array(box[0]), np.array(box[1])
        part = classes[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))] == label
        found = np.flatnonzero(part)
        chosen = np.sort(rng.choice(found, min(SAMPLES, len(found)), replace=False))
        samples[label, : len(chosen)] = np.stack(np.unravel_index(chosen, part.shape), 1) + first
    return samples


def class_boxes(classes: np.ndarray, num_classes: int) -> list[tuple[Triple, Triple] | None]:
    """Return first and last voxel along each axis of every class of [D, H, W], None where it is absent."""
    from scipy.ndimage import find_objects

    # find_objects counts from 1 and would skip class 0.
    found = find_objects(classes.astype(np.int32) + 1, num_classes)
    return [None if box is None else (tuple(s.start for s in box), tuple(s.stop - 1 for s in box)) for box in found]


def overlap(start: Triple, size: Triple, shape: Triple) -> tuple[tuple[slice, ...] | None, tuple[slice, ...]]:
    """Return where a window lies in the volume and where that part lies in the window; None where they are apart."""
    low = [max(a, 0) for a in start]
    high = [min(a + n, m) for a, n, m in zip(start, size, shape, strict=True)]
    if any(b <= a for a, b in zip(low, high, strict=True)):
        return None, ()
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return inside, tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))


def _crop_classes(array: np.ndarray, start: Triple, size: Triple, table: np.ndarray | None) -> np.ndarray:
    inside, place = overlap(start, size, array.shape)
    if inside is None:
        return np.full(size, IGNORE, np.int64)
    part = array[inside] if table is None else np.take(table, array[inside])
    if part.shape == tuple(size):
        return part.astype(np.int64)
    padded = np.full(size, IGNORE, np.int64)
    padded[place] = part
    return padded
