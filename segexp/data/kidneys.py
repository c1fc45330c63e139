"""Where the kidneys and tumours of a CT lie: connected parts, sides, extents.

Left and right are those of the patient, told by the middle of the body: the world's origin may lie anywhere (that of
KiTS files is a corner of the volume). Glossary: D/H/W = the canonical axes right, anterior, superior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segexp.data.resampling import sampled
from segexp.data.store import Triple, overlap

SIDES = ("left", "right")
COARSE = 4.0  # mm, the grid on which the body is found
BODY = -300  # HU: between lung and fat
SPECK = 1.0  # ml; smaller parts do not widen the extent of a kidney


@dataclass(frozen=True)
class Kidney:
    """What is labelled kidney or tumour on one side of a CT.

    ``low`` and ``high``: first voxel and the one after the last along each axis; ``focus``: the mean voxel of the
    tumour, of everything where there is none.
    """

    side: str
    low: Triple
    high: Triple
    focus: tuple[float, float, float]
    volume_ml: float
    tumor_ml: float


def side_of(position: float, middle: float) -> str:
    """Return ``left`` or ``right`` of a position along D, which runs to the patient's right."""
    return "right" if position > middle else "left"


def middle_of_body(voxels: np.ndarray, spacing: Sequence[float]) -> float:
    """Return where along D the centroid of the body lies, in voxels of ``voxels`` [D, H, W] (HU).

    The body is the largest connected part above -300 HU on a grid of about 4 mm; the middle of the volume where there
    is none.
    """
    from scipy import ndimage

    steps = [max(1, round(COARSE / size)) for size in spacing]
    body, count = ndimage.label(voxels[tuple(slice(step // 2, None, step) for step in steps)] > BODY)
    if not count:
        return (voxels.shape[0] - 1) / 2
    sizes = np.bincount(body.reshape(-1))
    sizes[0] = 0
    planes = (body == sizes.argmax()).sum((1, 2))
    return float((planes * np.arange(len(planes))).sum() / planes.sum()) * steps[0] + steps[0] // 2


class Parts:
    """The connected parts (26 neighbours) of what is not background in a label map, each on a side.

    Args:
        classes: class indices [D, H, W] of a box of the CT; those above 0 count.
        start: first voxel of the box in the CT.
        spacing: mm.
        middle: of the body, see `middle_of_body`.
        tumor: class index of the tumour; None where tumours are not told apart.

    """

    def __init__(self, classes: np.ndarray, start: Triple, spacing: Sequence[float], middle: float,
                 tumor: int | None = None) -> None:
        from scipy import ndimage

        self.start, self.tumor, self.classes = start, tumor, classes
        self.labels, count = ndimage.label(classes > 0, np.ones((3, 3, 3)))
        self.ml = float(np.prod(np.asarray(spacing, np.float64))) / 1000
        planes = np.array([np.bincount(plane.reshape(-1), minlength=count + 1) for plane in self.labels])
        self.sizes = planes.sum(0)
        self.sizes[0] = 0
        centres = (planes * np.arange(len(planes))[:, None]).sum(0) / np.maximum(self.sizes, 1) + start[0]
        self.sides = ["", *(side_of(centre, middle) for centre in centres[1:])]

    def kidney(self, side: str) -> Kidney | None:
        """Return what lies on a side; None where nothing does."""
        members = np.flatnonzero([one == side for one in self.sides])
        if not len(members):
            return None
        large = members[self.sizes[members] * self.ml >= SPECK]
        return self._kidney(side, members, large if len(large) else members[[self.sizes[members].argmax()]])

    def largest(self, side: str, least_ml: float) -> Kidney | None:
        """Return the largest part on a side of at least ``least_ml``; None without one."""
        members = [index for index, one in enumerate(self.sides) if one == side]
        best = max(members, key=lambda index: self.sizes[index], default=0)
        if self.sizes[best] * self.ml < max(least_ml, 1e-9):
            return None
        return self._kidney(side, np.array([best]), np.array([best]))

    def recall(self, side: str, start: Triple, size: Triple) -> float:
        """Return the share inside a box of the parts that lie on ``side`` or reach into the box; 0 without any."""
        box, _ = overlap(tuple(a - b for a, b in zip(start, self.start, strict=True)), size,  # type: ignore[arg-type]
                         self.labels.shape)
        inside = np.bincount(self.labels[box].reshape(-1), minlength=len(self.sizes)) if box else np.zeros(1)
        judged = self.judged(side, start, size)
        total = self.sizes[judged].sum()
        return float(inside[1:].sum() / total) if total else 0.0

    def judged(self, side: str, start: Triple, size: Triple) -> np.ndarray:
        """Return the numbers of the parts that lie on ``side`` or reach into a box."""
        box, _ = overlap(tuple(a - b for a, b in zip(start, self.start, strict=True)), size,  # type: ignore[arg-type]
                         self.labels.shape)
        touched = set(np.unique(self.labels[box])) if box else set()
        own = {index for index, one in enumerate(self.sides) if one == side}
        return np.array(sorted((touched | own) - {0}), np.int64)

    def _kidney(self, side: str, members: np.ndarray, shaping: np.ndarray) -> Kidney:
        kept = np.isin(self.labels, shaping)
        places = np.nonzero(kept)
        low = tuple(int(axis.min()) + first for axis, first in zip(places, self.start, strict=True))
        high = tuple(int(axis.max()) + 1 + first for axis, first in zip(places, self.start, strict=True))
        tumor = (self.classes == self.tumor) & np.isin(self.labels, members) if self.tumor is not None else kept[:0]
        found = np.nonzero(tumor) if tumor.any() else places
        focus = tuple(float(axis.mean()) + first for axis, first in zip(found, self.start, strict=True))
        return Kidney(side, low, high, focus, float(self.sizes[members].sum()) * self.ml,  # type: ignore[arg-type]
                      float(tumor.sum()) * self.ml)


def coarse(voxels: np.ndarray, spacing: Sequence[float], size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume [D, H, W] at ``size`` mm along every axis, and how many voxels one of its voxels spans [3]."""
    ratio = np.full(3, size) / np.asarray(spacing, np.float64)
    shape = [max(1, round(n / r)) for n, r in zip(voxels.shape, ratio, strict=True)]
    return sampled(voxels, ratio, shape, order=1), ratio
