"""Scores of sparse lesions in two masks: overlap, volume, edge distance, detection of single lesions.

The definitions are those of the WMH segmentation challenge (hjkuijf/wmhchallenge, evaluation.py). Only sparse masks are
expected, so all work happens inside the bounding box of the lesions, and distances come from a k-d tree of their edge
voxels: there it is several times faster than a distance transform.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_erosion, label
from scipy.spatial import KDTree

from segexp.metrics.scorer import diagonal

LESION_F1 = ("official", "legacy2017")
H95_PENALTY = (None, "image_diagonal")

IN_PLANE = np.ones((3, 3, 1), bool)
ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)


class WmhScores(NamedTuple):
    """Scores of one volume. NaN where a metric is undefined."""

    dice: float
    """2|T&P| / (|T| + |P|), 0 to 1."""
    hd95: float
    """Greater of the two directed 95th percentiles of edge distances, mm."""
    avd: float
    """Absolute volume difference 100 | |T| - |P| | / |T|, percent; above 100 only by over-segmentation."""
    lesion_recall: float
    """Reference lesions that the prediction touches, as a part of all (1 when there are none)."""
    lesion_f1: float
    """Harmonic mean of lesion precision and recall (0 when both are 0)."""
    lesion_precision: float
    """Predicted lesions that touch the reference, as a part of all (1 when there are none)."""
    pcd: float
    """Positive class density of the reference, 100 |T| / voxels of the volume, percent."""
    reference_ml: float
    """Volume of the reference's lesions, ml."""
    predicted_ml: float
    """Volume of the predicted lesions, ml."""


def mask_scores(
    truth: np.ndarray, predicted: np.ndarray, spacing: Sequence[float], lesion_f1: str = "official",
    h95_penalty: str | None = None, strict_official: bool = False,
) -> WmhScores:
    """Score two masks of lesions.

    Edges are a mask minus its in-plane erosion, slice by slice, by the full 3x3 neighbourhood, where voxels beyond the
    volume count as foreground: no edge at its border, nor above and below a lesion. Distances run from every edge voxel
    of one mask to the nearest of the other; their 95th percentile is interpolated linearly. Lesions are connected by
    26 neighbours; one shared voxel is a detection.

    Args:
        truth: bool [x, y, z].
        predicted: same shape.
        spacing: voxel size in mm along x, y, z.
        lesion_f1: ``official``, or ``legacy2017``: until August 2017 the script divided the detected reference lesions
            by the predicted ones and called that precision, which can exceed 1; it is undefined where a mask is empty.
        h95_penalty: distance of a volume where only one mask is empty: None leaves it undefined, as the script does;
            ``image_diagonal`` is the diagonal of the volume.
        strict_official: a mask that fills the volume has no lesion (see `wmh_scores`).

    Raises:
        ValueError: see `wmh_scores`.
    """
    _check(truth, predicted, spacing, lesion_f1, h95_penalty)
    voxels, volume = truth.size, math.prod(map(float, spacing)) / 1000
    ours, theirs = int(np.count_nonzero(truth)), int(np.count_nonzero(predicted))
    inside = _box(truth | predicted)
    inner, guess = np.ascontiguousarray(truth[inside]), np.ascontiguousarray(predicted[inside])
    hd95 = math.nan
    if ours and theirs:
        hd95 = _hd95(_edge_points(inner, spacing), _edge_points(guess, spacing))
    elif h95_penalty and ours + theirs:
        hd95 = diagonal(truth.shape, "hd95", spacing)
    found, lesions = _touched(inner, guess)
    right, detections = _touched(guess, inner)
    if strict_official:
        lesions, detections = lesions * (ours < voxels), detections * (theirs < voxels)
    recall = found / lesions if lesions else 1.0
    if lesion_f1 == "official":
        precision = right / detections if detections else 1.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    else:
        precision = found / detections if detections else math.nan
        f1 = 2 * precision * recall / (precision + recall) if found else math.nan
    return WmhScores(
        dice=2 * int(np.count_nonzero(inner & guess)) / (ours + theirs) if ours + theirs else math.nan,
        hd95=hd95, avd=100 * abs(ours - theirs) / ours if ours else math.nan,
        lesion_recall=recall, lesion_f1=f1, lesion_precision=precision,
        pcd=100 * ours / voxels, reference_ml=ours * volume, predicted_ml=theirs * volume,
    )


def _check(truth: np.ndarray, predicted: np.ndarray, spacing: Sequence[float], lesion_f1: str, penalty: object) -> None:
    """Raise ValueError for what `mask_scores` cannot score."""
    if truth.shape != predicted.shape or truth.ndim != 3 or not truth.size:
        raise ValueError(f"expected two volumes of one shape, got {truth.shape} and {predicted.shape}")
    steps = np.asarray(spacing, np.float64)
    if steps.shape != (3,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError(f"expected three positive voxel sizes in mm, got {steps.tolist()}")
    if lesion_f1 not in LESION_F1:
        raise ValueError(f"lesion_f1={lesion_f1}: expected {' or '.join(LESION_F1)}")
    if penalty not in H95_PENALTY:
        raise ValueError(f"h95_penalty={penalty}: expected null or image_diagonal")


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the bounding box of a mask, one voxel wider where the volume allows it."""
    box = []
    for axis in range(3):
        where = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        low, high = (max(int(where[0]) - 1, 0), int(where[-1]) + 2) if where.size else (0, 0)
        box.append(slice(low, high))
        mask = mask[(slice(None),) * axis + (box[-1],)]  # the next axis reads only what is left
    return tuple(box)


def _edge_points(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the coordinates [N, 3] in mm of the edge voxels of a mask that its box surrounds."""
    return np.argwhere(mask & ~binary_erosion(mask, IN_PLANE, border_value=1)) * np.asarray(spacing, np.float64)


def _hd95(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the greater of the two directed 95th percentiles; NaN when one mask has no edge inside the volume."""
    if not (len(ours) and len(theirs)):
        return math.nan
    pairs = ((ours, theirs), (theirs, ours))
    return max(float(np.percentile(KDTree(nearest).query(points)[0], 95)) for points, nearest in pairs)


def _touched(mask: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Return how many lesions of a mask share a voxel with the other mask, and how many it has."""
    lesions, count = label(mask, ALL_NEIGHBOURS)
    return np.count_nonzero(np.bincount(lesions[other & mask], minlength=1)), count
