"""Volumes of the structures: counted when a label map is written, kept in its sidecar, merged into one table."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segexp.files import written_whole
from segexp.predictions.images import Image

if TYPE_CHECKING:
    from segexp.data.labelmap import LabelMap

COLUMNS = ("subject", "session", "image", "target", "structure", "voxels", "volume_ml")
WHOLE, PART = "volumes.csv", "volumes_partial.csv"


def count(classes: np.ndarray, label_map: LabelMap, affine: np.ndarray) -> dict[str, Any]:
    """Return the volume of one voxel and how many voxels every structure has, the background left out.

    Args:
        classes: class indices, any shape.
        label_map: names them.
        affine: [4, 4] of the file, mm; the volume of a voxel is the determinant, so that sheared grids count right.

    """
    voxels = np.bincount(np.asarray(classes).reshape(-1), minlength=label_map.num_classes)
    voxel = abs(float(np.linalg.det(np.asarray(affine, np.float64)[:3, :3])))
    return {"voxel_mm3": round(voxel, 9),
            "voxels": {name: int(n) for name, n in zip(label_map.names[1:], voxels[1:], strict=True)}}


def rows(image: Image, target: str, volumes: Mapping[str, Any]) -> Iterator[tuple]:
    """Yield the rows of one label map, in the order of its structures."""
    for structure, voxels in volumes["voxels"].items():
        yield (image.subject, image.session, image.name, target, structure, voxels,
               f"{voxels * volumes['voxel_mm3'] / 1000:.6f}")


def write_table(folder: Path, lines: Iterable[tuple], whole: bool) -> Path:
    """Write the table, row by row, and remove the one that is no longer true; return its file.

    A table that lacks images has another name, so that nobody takes it for the whole.
    """
    file, other = folder / (WHOLE if whole else PART), folder / (PART if whole else WHOLE)
    with written_whole(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(lines)
    other.unlink(missing_ok=True)
    return file


def outdated(folder: Path) -> None:
    """Remove the tables, because label maps are about to change."""
    for name in (WHOLE, PART):
        if os.path.lexists(folder / name):
            (folder / name).unlink(missing_ok=True)
