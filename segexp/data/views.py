"""Boxes cut from stored volumes: windows onto the same files, nothing is copied.

A window may reach beyond its volume, as a fixed window does on a small CT: there the image is air and the labels are
background. Beyond the window itself, where crops may reach, the image is the intensity's outside and labels are IGNORE.

Glossary: K classes, D/H/W depth/height/width (the canonical axes: right, anterior, superior).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from segexp.data.labelmap import IGNORE
from segexp.data.store import StoredImage, StoredLabels, Triple, overlap

AIR = -1024  # HU


@dataclass(frozen=True)
class ImageWindow(StoredImage):
    """A box of a CT: shape, affine and voxels are those of the box, the statistics those of the whole CT.

    ``start`` is the box's first voxel in the CT, negative where the CT is smaller; ``full_shape`` the CT's shape.
    """

    start: Triple = field(kw_only=True)
    full_shape: Triple = field(kw_only=True)

    def array(self) -> np.ndarray:
        """Return the voxels [D, H, W], mapped from disk and read only; a copy where the box reaches beyond the CT."""
        return cut(self._mapped(self.full_shape), self.start, self.shape, AIR)


def window(image: StoredImage, start: Triple, shape: Triple) -> ImageWindow:
    """Return the box of ``image`` that starts at voxel ``start``; its affine's origin moves with it."""
    values = {name: getattr(image, name) for name in StoredImage.__dataclass_fields__}
    values |= {"key": f"{image.key}{list(start)}{list(shape)}", "shape": tuple(shape),
               "affine": shifted(image.affine, start)}
    return ImageWindow(**values, start=tuple(start), full_shape=image.shape)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class LabelsWindow:
    """A box of a label map, its classes looked up in a table: class ``table[c]`` wherever ``source`` has class c.

    ``table`` [K of source] may hold IGNORE, for voxels that nobody should be judged by.
    """

    source: StoredLabels
    table: np.ndarray
    num_classes: int
    start: Triple
    shape: Triple

    @property
    def key(self) -> str:
        """Name of the content."""
        return f"{self.source.key}:{self.table.tolist()}{list(self.start)}{list(self.shape)}"

    @property
    def affine(self) -> tuple[tuple[float, ...], ...]:
        """Affine of the box, mm."""
        return shifted(self.source.affine, self.start)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size, mm."""
        return self.source.spacing

    @cached_property
    def planes(self) -> np.ndarray:
        """Voxels per class and plane of the first axis, int64 [K, D]."""
        counts = np.zeros((self.num_classes, self.shape[0]), np.int64)
        array, lookup = self.source.array(), self._lookup
        for index in range(self.shape[0]):
            start = (self.start[0] + index, *self.start[1:])
            plane = cut(array, start, (1, *self.shape[1:]), 0).reshape(-1)
            found = np.bincount(plane, minlength=len(lookup))
            for label in range(self.num_classes):
                counts[label, index] = found[lookup == label].sum()
        return counts

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Voxels per class; ignored ones are in none."""
        return tuple(int(n) for n in self.planes.sum(1))

    def crop(self, start: Triple, size: Triple) -> np.ndarray:
        """Return the classes of voxels ``start`` .. ``start + size``, int64; IGNORE outside the window."""
        inside, place = overlap(start, size, self.shape)
        result = np.full(size, IGNORE, np.int64)
        if inside is not None:
            result[place] = self.part(inside)
        return result

    def whole(self) -> np.ndarray:
        """Return the classes of the window [D, H, W]: uint8, or int16 where some are IGNORE."""
        result = self.part(tuple(slice(0, n) for n in self.shape))
        return result if (result < 0).any() else result.astype(np.uint8)

    def part(self, inside: tuple[slice, ...]) -> np.ndarray:
        """Return the classes of a part of the window, int16."""
        start = tuple(one.start + first for one, first in zip(inside, self.start, strict=True))
        size = tuple(one.stop - one.start for one in inside)
        return np.take(self._lookup, cut(self.source.array(), start, size, 0))

    def voxel(self, rng: np.random.Generator, label: int) -> Triple:
        """Draw a voxel of class ``label``, which must be present, each with the same probability."""
        ends = self.planes[label].cumsum()
        number = int(rng.integers(ends[-1]))
        plane = int(np.searchsorted(ends, number, side="right"))
        inside = (slice(plane, plane + 1), slice(0, self.shape[1]), slice(0, self.shape[2]))
        found = np.flatnonzero(self.part(inside) == label)
        place = found[number - (int(ends[plane - 1]) if plane else 0)]
        return (plane, int(place // self.shape[2]), int(place % self.shape[2]))

    @cached_property
    def _lookup(self) -> np.ndarray:
        return np.asarray(self.table, np.int16)


def cut(array: np.ndarray, start: Triple, size: Triple, outside: int) -> np.ndarray:
    """Return the box of an array that starts at ``start``; a view where it lies inside, else padded."""
    inside, place = overlap(start, size, array.shape)
    part = array[inside] if inside is not None else array[:0]
    if part.shape == tuple(size):
        return part
    padded = np.full(size, outside, np.result_type(array.dtype, np.int16) if outside < 0 else array.dtype)
    if inside is not None:
        padded[place] = part
    return padded


def shifted(affine: tuple[tuple[float, ...], ...], start: Triple) -> tuple[tuple[float, ...], ...]:
    """Return an affine [4, 4] whose voxel 0 is voxel ``start`` of the given one."""
    matrix = np.array(affine, np.float64)
    matrix[:3, 3] += matrix[:3, :3] @ np.asarray(start, np.float64)
    return tuple(tuple(float(value) for value in row) for row in matrix)
