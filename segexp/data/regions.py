"""Regions of interest: where in a CT the kidneys are looked for.

The paper aligns eight low-resolution atlases to a CT and cuts a window of 150 x 150 pixels around each kidney (Yang et
al. 2018, section II). Here the window comes from the labels (the truth; what the paper's scores assume), from a file,
or from a low-resolution network.

Glossary: D/H/W = the canonical axes right, anterior, superior; the slices of a region lie along W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from segexp.data.kidneys import SIDES, Kidney, side_of
from segexp.data.roots import Roots, read_json
from segexp.data.store import Triple
from segexp.errors import ConfigError, DataError
from segexp.files import sha256


@dataclass(frozen=True)
class Region:
    """A box of a CT.

    ``side`` is the patient's; ``start`` its first voxel, negative where the window is larger than the CT; ``size`` in
    voxels; ``score`` 0 to 1 how sure it is that a kidney lies there.
    """

    side: str
    start: Triple
    size: Triple
    score: float = 1.0


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT as a provider of regions sees it.

    ``voxels`` [D, H, W] in HU; ``middle`` of the body along D; ``kidneys`` per side, None where there are no labels;
    ``zoom``: voxels here per voxel of the file, per axis, when it was resampled.
    """

    id: str
    voxels: np.ndarray
    spacing: tuple[float, float, float]
    middle: float
    kidneys: Sequence[Kidney] | None = None
    root: Path | None = None
    zoom: Sequence[float] = (1.0, 1.0, 1.0)


class RegionProvider(Protocol):
    """Finds the regions of a CT.

    ``every_kidney``: whether every kidney with a tumour is a case of its own, or only the one per patient with the
    largest. ``frame``: how it lays windows; None where they are given. ``key`` names everything but the CT that its
    regions depend on, where finding them takes long enough to be kept; else it is empty.
    """

    every_kidney: bool
    frame: Frame | None
    key: str

    def boxes(self, scan: Scan) -> list[Region]:
        """Return the regions of a CT."""


@dataclass(frozen=True)
class Frame:
    """How a window is laid around a kidney: fixed in the axial plane, as long as the kidney and a margin along W.

    Args:
        unit: of ``size``: ``px`` (voxels, as in the paper) or ``mm``.
        size: edge of the window in the axial plane.
        margin_mm: added at both ends along W.

    """

    unit: str = "px"
    size: float = 150
    margin_mm: float = 20.0

    def __post_init__(self) -> None:
        if self.unit not in ("px", "mm"):
            raise ConfigError(f"data.roi.unit={self.unit}: expected px or mm")
        if not self.size > 0 or (self.unit == "px" and self.size != int(self.size)):
            raise ConfigError(f"data.roi.size={self.size}: expected a positive number, whole for data.roi.unit=px")
        if self.margin_mm < 0:
            raise ConfigError(f"data.roi.margin_mm={self.margin_mm}: expected 0 mm or more")

    def around(self, kidney: Kidney, shape: Triple, spacing: Sequence[float]) -> tuple[Triple, Triple]:
        """Return start and size of the window around a kidney in a CT of ``shape`` voxels of ``spacing`` mm.

        The window is centred on the kidney; on its tumour along an axis where the kidney is longer than the window. It
        stays inside the CT unless the CT is smaller; then the CT is in its middle.
        """
        start, size = [], []
        for axis in (0, 1):
            edge = self.edge(spacing[axis])
            low, high = kidney.low[axis], kidney.high[axis]
            middle = (low + high) / 2
            if high - low > edge:
                middle = min(max(kidney.focus[axis] + 0.5, low + edge / 2), high - edge / 2)
            start.append(placed(math.floor(middle - edge / 2), edge, shape[axis]))
            size.append(edge)
        margin = round(self.margin_mm / spacing[2])
        first, last = max(kidney.low[2] - margin, 0), min(kidney.high[2] + margin, shape[2])
        return (*start, first), (*size, last - first)

    def edge(self, spacing: float) -> int:
        """Return the window's edge in voxels of ``spacing`` mm."""
        return int(self.size) if self.unit == "px" else max(1, round(self.size / spacing))


def placed(start: int, edge: int, length: int) -> int:
    """Return the start nearest to ``start`` whose window stays inside; centred where there is no room for it."""
    return min(max(start, 0), length - edge) if edge <= length else -((edge - length) // 2)


class LabelRegions:
    """Regions from the labels: every side that has a tumour. This is the truth, so scores are those of given regions.

    A patient's regions keep to the paper, where every region is of another patient, unless ``every_kidney``.

    Args:
        unit, size, margin_mm: see `Frame`.
        every_kidney: False: one case per patient, the kidney with the largest tumour.

    """

    key = ""

    def __init__(self, unit: str = "px", size: float = 150, margin_mm: float = 20.0,
                 every_kidney: bool = False) -> None:
        self.frame, self.every_kidney = Frame(unit, size, margin_mm), every_kidney

    def boxes(self, scan: Scan) -> list[Region]:
        """Return one region per side with a tumour."""
        if scan.kidneys is None:
            raise DataError("data/roi=label takes the regions from the labels, and this image has none; "
                            "give data/roi=lowres data.roi.run=RUN to have them found, data/roi=precomputed to read "
                            "them, or data/roi=none where every image is one region already")
        return [Region(kidney.side, *self.frame.around(kidney, scan.voxels.shape, scan.spacing))
                for kidney in scan.kidneys if kidney.tumor_ml > 0]


class PrecomputedRegions:
    """Regions from a file: case -> list of {side, start_zyx, size_zyx, score, method}, in voxels of the canonical axes.

    Args:
        file: JSON file, relative to the data's root and below it, or an absolute path, which names its own folder.

    """

    every_kidney = True
    frame = None
    key = ""

    def __init__(self, file: str | Path = "rois.json") -> None:
        self.file = Path(file)
        self.known: dict[Path, dict[str, list]] = {}

    def path(self, root: Path) -> Path:
        """Return where the file is; DataError when it leads out of the folders that were named."""
        return Roots(root, self.file.parent if self.file.is_absolute() else None).check(root / self.file)

    def digest(self, root: Path) -> str:
        """Return what names the content of the file; DataError when it cannot be read."""
        path = self.path(root)
        read_regions(path)
        return f"precomputed {sha256(path)}"

    def boxes(self, scan: Scan) -> list[Region]:
        """Return the regions of the case in the file, each on the side of the body where its middle lies.

        Raises DataError: no such file, no entry, or one that cannot be read.
        """
        path = self.path(scan.root or Path())
        if path not in self.known:
            self.known[path] = read_regions(path)
        entries = self.known[path].get(scan.id)
        if not entries:
            raise DataError(f"{path}: no region for {scan.id}")
        found = []
        for entry in entries:
            try:
                start, size = ([float(value) for value in reversed(entry[key])] for key in ("start_zyx", "size_zyx"))
                if len(start) != 3 or len(size) != 3 or min(size) <= 0:
                    raise ValueError("three numbers each, sizes above 0")
                score = float(entry.get("score", 1.0))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DataError(f"{path}: the region {entry} of {scan.id} cannot be read ({error}); expected "
                                f"{{side, start_zyx, size_zyx, score}}") from error
            begin = tuple(round(value * zoom) for value, zoom in zip(start, scan.zoom, strict=True))
            extent = tuple(max(1, round(value * zoom)) for value, zoom in zip(size, scan.zoom, strict=True))
            if any(a >= n or a + m <= 0 for a, m, n in zip(begin, extent, scan.voxels.shape, strict=True)):
                raise DataError(f"{path}: the region {entry} of {scan.id} lies outside the image "
                                f"{scan.voxels.shape[::-1]} (slices, height, width)")
            found.append(Region(side_of(begin[0] + (extent[0] - 1) / 2, scan.middle), begin, extent, score))
        return found


def read_regions(path: Path) -> dict[str, list]:
    """Return the content of a file of regions; DataError when it cannot be read."""
    try:
        content = read_json(path)
    except DataError as error:
        raise DataError(f"{error}; data.roi=precomputed expects a JSON file "
                        f"{{case: [{{side, start_zyx, size_zyx, score}}]}}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping from case to a list of regions")
    return content


def chosen(found: Sequence[Region], scan: Scan, frame: Frame | None, every_kidney: bool) -> list[Region]:
    """Return one region per kidney that is judged: those with a tumour, largest first, or only the largest.

    A side where nothing was found gets a window in a corner of the CT, with score 0: on the CT, a kidney that was
    missed counts as the worst result, not as none.
    """
    with_tumor = sorted((one for one in scan.kidneys or () if one.tumor_ml > 0), key=lambda one: -one.tumor_ml)
    result = []
    for kidney in with_tumor if every_kidney else with_tumor[:1]:
        here = [region for region in found if region.side == kidney.side]
        if here and frame is None:
            result += here
        elif here:
            result.append(max(here, key=lambda region: region.score))
        elif frame is not None:
            result.append(missed(kidney.side, scan, frame))
    return result


def missed(side: str, scan: Scan, frame: Frame) -> Region:
    """Return a window in the corner of the CT where air is, on the given side: it holds no kidney, by luck neither."""
    shape = scan.voxels.shape
    low = (0 if side == SIDES[0] else shape[0] - 1, shape[1] - 1, 0)
    nowhere = Kidney(side, low, tuple(value + 1 for value in low), low, 0.0, 0.0)  # type: ignore[arg-type]
    return Region(side, *frame.around(nowhere, shape, scan.spacing), score=0.0)
