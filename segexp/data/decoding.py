"""From a file's bytes to an entry of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import ornt2axcodes

from segexp.data import nifti
from segexp.data.intensity import statistics
from segexp.data.labelmap import LabelMap
from segexp.data.resampling import resampled
from segexp.data.store import class_boxes, draw_samples


def decode_image(
    path: Path, content: bytes, folder: Path, spacing: Sequence[float] | None = None, unplaced: str = "error"
) -> dict[str, Any]:
    """Write the voxels of an image and return what else is known about it."""
    volume = resampled(nifti.read(path, content, unplaced), spacing)
    array = volume.array
    if array.dtype.kind in "iu" and array.dtype.itemsize > 4:
        array = array.astype(np.float32)
    np.save(folder / "volume.npy", array)
    return _meta(volume, array) | statistics(array)


def decode_labels(
    path: Path, content: bytes, folder: Path, label_map: LabelMap, on_unknown: str,
    spacing: Sequence[float] | None = None, unplaced: str = "error",
) -> dict[str, Any]:
    """Write the class indices of a label map and return what else is known about it."""
    volume = resampled(nifti.read_labels(path, content, unplaced), spacing, order=0)
    classes = label_map.encode(volume.array, path, on_unknown)
    unknown = label_map.unknown(volume.array) if on_unknown == "background" else {}
    counts = np.bincount(classes.reshape(-1), minlength=label_map.num_classes)
    boxes = class_boxes(classes, label_map.num_classes)
    np.save(folder / "volume.npy", classes)
    np.save(folder / "samples.npy", draw_samples(classes, counts, boxes))
    return _meta(volume, classes) | {
        "counts": counts.tolist(), "boxes": boxes, "unknown": sorted(unknown.items()),
    }


def _meta(volume: nifti.Volume, array: np.ndarray) -> dict[str, Any]:
    return {
        "shape": list(array.shape), "dtype": array.dtype.str, "affine": volume.affine.tolist(),
        "spacing": list(volume.spacing), "orientation": "".join(ornt2axcodes(volume.source.orientation)),
        "warning": volume.source.warning,
    }
