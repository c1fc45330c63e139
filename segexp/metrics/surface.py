"""Surface distances of many structures in one pass over two label maps."""

from collections.abc import Sequence
from typing import NamedTuple

import edt
import numpy as np
from scipy.spatial import KDTree

# Most surface voxels have one of the other surface within so many voxels along each axis. Squares of one more, and of
# itself, add up to less than 256; steps of 1, 2 and 4 lead as far.
REACH = 7
STEPS = (1, 2, 4)
POINTS = 1024  # surface voxels that look around at once
PAIRS = ((1, 2), (0, 1), (0, 2))
# Cost of the two exact ways for all others, in nanoseconds per box voxel and per query of a tree; only their ratio
# matters. One stray voxel far away makes the box huge; many voxels far from a large surface are cheapest by a
# distance transform of the box.
TRANSFORM_COST = 40
TREE_COST = 1200
# To make a tree costs, per point, this part of a query.
TREE_MAKING = 1 / 8


class SurfaceDistances(NamedTuple):
    """Distances between the surfaces of one structure in two label maps, in mm."""

    hd95: float
    """Greater of the two directed 95th percentiles (linear interpolation between ranks)."""
    assd: float
    """Mean over the surface voxels of both maps of the distance to the other map's surface."""


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, structures: Sequence[int], spacing: Sequence[float]
) -> dict[int, SurfaceDistances]:
    """Compare the surfaces of ``structures`` in two label maps.

    A surface voxel is a voxel of the structure with one of its six neighbours outside the structure; what
    lies beyond the volume counts as outside. Distances run between voxel centres. These are the definitions
    of MONAI's ``compute_hausdorff_distance(percentile=95)`` and
    ``compute_average_surface_distance(symmetric=True)``.

    Instead of eroding one mask per structure, all surfaces are found at once (a voxel is on its structure's
    surface where its label differs from a neighbour's), and each structure then costs only its own bounding
    box: a distance transform in bytes that ends after a few voxels, and one without end for what is left.

    Args:
        prediction: class indices [D, H, W].
        reference: same shape.
        structures: class indices to compare.
        spacing: voxel size in mm along each axis.

    Returns:
        structure -> distances, for the structures present in both maps. The others are left out.

    Raises:
        ValueError: when the shapes differ or are not three-dimensional, or a spacing is not positive.
    """
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    spacing = np.asarray(spacing, np.float64)
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise ValueError(f"expected two volumes of one shape, got {prediction.shape} and {reference.shape}")
    if spacing.shape != (3,) or not (spacing > 0).all():
        raise ValueError(f"expected three positive voxel sizes in mm, got {spacing.tolist()}")
    wanted = sorted({int(structure) for structure in structures})
    ours, theirs = _surfaces(prediction, wanted), _surfaces(reference, wanted)
    results = {}
    for structure in wanted:
        if structure in ours and structure in theirs:
            there = _nearest(ours[structure], theirs[structure], spacing)
            back = _nearest(theirs[structure], ours[structure], spacing)
            hd95 = max(_percentile(there, 0.95), _percentile(back, 0.95))
            assd = (there.sum() + back.sum()) / (there.size + back.size)
            results[structure] = SurfaceDistances(float(hd95), float(assd))
    return results


def _percentile(values: np.ndarray, share: float) -> float:
    """Return what ``np.percentile`` does, which for a thousand values takes longer than the distances themselves."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    ordered = np.partition(values, (low, high))
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _surfaces(labels: np.ndarray, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Return the coordinates [3, N] of the surface voxels of each wanted structure that is present."""
    low, labels = _crop(labels, wanted)
    flat, differs = labels.reshape(-1), np.zeros(labels.shape, bool)
    marks = differs.reshape(-1)
    for stride in (labels.shape[1] * labels.shape[2], labels.shape[2], 1):
        # In memory order; the pairs that this takes across an edge of the volume are marked anyway.
        step = flat[stride:] != flat[:-stride]
        marks[stride:] |= step
        marks[:-stride] |= step
    differs[[0, -1]] = differs[:, [0, -1]] = differs[..., [0, -1]] = True
    where = np.flatnonzero(marks)
    values = flat[where]
    order = np.argsort(values, kind="stable")
    values = values[order]
    found = {}
    for structure, start, stop in zip(wanted, np.searchsorted(values, wanted), np.searchsorted(values, wanted, "right"),
                                      strict=True):
        if start < stop:
            found[structure] = np.stack(np.unravel_index(where[order[start:stop]], labels.shape)) + low
    return found


def _crop(labels: np.ndarray, wanted: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first corner [3, 1] and the part of a label map, in memory order, that holds all but background.

    All of it where background is wanted: no wanted structure goes on beyond the part.
    """
    plane = labels.max(0)
    if 0 in wanted or not plane.any():
        return np.zeros((3, 1), int), np.ascontiguousarray(labels)
    found = labels.max((1, 2)), plane.max(1), plane.max(0)
    hits = [np.flatnonzero(along) for along in found]
    box = tuple(slice(hit[0], hit[-1] + 1) for hit in hits)
    return np.array([[span.start] for span in box]), np.ascontiguousarray(labels[box])


def _nearest(points: np.ndarray, others: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return the distance in mm of each voxel of ``points`` [3, N] to the nearest of ``others`` [3, M]."""
    pair = next((pair for pair in PAIRS if abs(spacing[pair[0]] / spacing[pair[1]] - 1) < 1e-6), None)
    if pair is None:
        return _far(points, others, spacing)
    order = [3 - sum(pair), *pair]
    distances = _nearby(points[order], others[order], *spacing[order[:2]].tolist())
    far = np.flatnonzero(np.isinf(distances))
    if far.size:
        distances[far] = _far(points[:, far], others, spacing)
    return distances


def _nearby(points: np.ndarray, others: np.ndarray, first: float, second: float) -> np.ndarray:
    """Return the distances of ``_nearest`` that are less than about ``REACH`` voxels, inf for all else.

    Args:
        points: voxels [3, N] of a grid whose last two axes have the same spacing.
        others: voxels [3, M].
        first: voxel size in mm along the first axis.
        second: voxel size in mm along the two others.
    """
    # Room for steps beyond the box: at both ends of the first axis, and between the rows.
    low = np.minimum(points.min(1), others.min(1)) - (REACH, 0, 0)
    shape = np.maximum(points.max(1), others.max(1)) - low + 1 + (REACH, 0, REACH)
    squared = _squared_in_planes(_places(others, low, shape), shape)
    at = _places(points, low, shape)
    table = np.arange(256) * second**2
    best = table[squared[at]]
    # Another plane of the first axis costs at least one step.
    waiting = np.flatnonzero(best > first**2)
    steps = np.array([step for step in range(-REACH, REACH + 1) if step])[:, None]
    places, costs = steps * (shape[1] * shape[2]), (steps * first) ** 2
    for start in range(0, len(waiting), POINTS):
        chosen = waiting[start:start + POINTS]
        here = table[squared[at[chosen] + places]]
        here += costs
        best[chosen] = np.minimum(best[chosen], here.min(0))
    # What lies further away along one axis was not looked at.
    best[best >= ((REACH + 1) * min(first, second)) ** 2] = np.inf
    return np.sqrt(best)


def _places(points: np.ndarray, low: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Return the places [N] in memory of voxels [3, N] of an array of ``shape`` that starts at the voxel ``low``."""
    first, second, third = low.tolist()
    return ((points[0] - first) * shape[1] + points[1] - second) * shape[2] + points[2] - third


def _squared_in_planes(places: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Return, flat, the squared distance in voxels of every voxel to the nearest of ``places`` in its plane.

    A plane spans the last two axes, of which the last ends with ``REACH`` voxels that hold nothing. Bytes: what is more
    than ``REACH`` voxels away along an axis counts as one more.
    """
    after = np.full(np.prod(shape), REACH + 1, np.uint8)
    after[places] = 0
    before, cost = after.copy(), np.empty_like(after)
    for step in STEPS:
        np.add(after[:-step], step, out=cost[step:])
        np.minimum(after[step:], cost[step:], out=after[step:])
        np.add(before[step:], step, out=cost[step:])
        np.minimum(before[:-step], cost[step:], out=before[:-step])
    along = np.minimum(after, before, out=after)
    np.multiply(along, along, out=along)
    before[:] = along
    along, squared, cost = along.reshape(shape), before.reshape(shape), cost.reshape(shape)
    for step in range(1, min(REACH + 1, shape[1])):
        np.add(along, step * step, out=cost)
        np.minimum(squared[:, step:], cost[:, :-step], out=squared[:, step:])
        np.minimum(squared[:, :-step], cost[:, step:], out=squared[:, :-step])
    return squared.reshape(-1)


def _far(points: np.ndarray, others: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return what ``_nearest`` does, by tree or by distance transform, for points that may be anywhere."""
    low = np.minimum(points.min(1), others.min(1))[:, None]
    shape = np.maximum(points.max(1), others.max(1)) - low[:, 0] + 1
    if TREE_COST * (points.shape[1] + TREE_MAKING * others.shape[1]) < TRANSFORM_COST * int(np.prod(shape)):
        tree = KDTree(others.T * spacing, leafsize=32, compact_nodes=False, balanced_tree=False)
        return tree.query(points.T * spacing)[0]
    outside = np.ones(shape, np.uint8)
    outside[tuple(others - low)] = 0
    squared = edt.edtsq(outside, anisotropy=tuple(spacing))
    return np.sqrt(squared[tuple(points - low)], dtype=np.float64)
