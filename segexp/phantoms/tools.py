"""What a scanner and the five tools make of a head, each with its habits and failures."""

import numpy as np
from scipy import ndimage

from segexp.phantoms.head import CSF, FIRST, GREY, WHITE, Head, distance, smooth_field

MALP_TO_TISSUE = np.full(139, 2, np.uint8)
"""MALP-EM's own merging of its 138 structures into five tissues."""
MALP_TO_TISSUE[0] = 0
MALP_TO_TISSUE[[1, 2, 21, 22, 23, 24]] = 1
MALP_TO_TISSUE[41:] = 3
MALP_TO_TISSUE[[12, 13, 16, 17]] = 4
MALP_TO_TISSUE[[14, 15, 18, 33, 34]] = 5


def scan(head: Head, rng: np.random.Generator) -> np.ndarray:
    """Return the T1-weighted image [D, H, W], int16: blur, smooth bias field, Rician noise of sd 25."""
    image = ndimage.gaussian_filter(head.intensity, 0.45)
    image *= np.exp(0.12 * smooth_field(image.shape, 4, rng))
    real, imaginary = rng.normal(0, 25, (2, *image.shape))
    noisy = np.sqrt((image + real) ** 2 + imaginary**2)
    noisy[head.intensity == 0] = 0  # defaced voxels hold no noise
    return noisy.round().astype(np.int16)


def fast(head: Head, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """FSL FAST: three intensity classes inside a brain mask; bright deep grey matter counts as white."""
    mask = head.brain_distance + 0.6 * smooth_field(image.shape, 8, rng) < 0.8
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 0.5)
    values = smooth[mask]
    centres = np.quantile(values, [0.1, 0.45, 0.9])
    for _ in range(20):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        centres = np.array([values[nearest == k].mean() if (nearest == k).any() else centres[k] for k in range(3)])
    labels = np.zeros(image.shape, np.uint8)
    labels[mask] = 1 + np.abs(values[:, None] - np.sort(centres)).argmin(1)
    return labels


def spm(head: Head, rng: np.random.Generator, failed: bool) -> np.ndarray:
    """SPM: smoothed tissue with a prior for CSF around the brain; a failure is misplaced and permuted."""
    chances = np.stack([ndimage.gaussian_filter((head.tissue == k).astype(np.float32), 0.6) for k in range(4)])
    chances[CSF] += 0.05 * (head.brain_distance < 4.5)
    chances[0] *= head.brain_distance > 0
    labels = chances.argmax(0).astype(np.uint8)
    labels[head.brain_distance > 4.5] = 0
    if failed:
        labels = ndimage.rotate(labels, 30, axes=(1, 2), reshape=False, order=0)
        labels = ndimage.shift(labels, (0, 45 / head.spacing, 35 / head.spacing), order=0)
        labels = np.array([0, WHITE, CSF, GREY], np.uint8)[labels]
    return labels


def malp_em(head: Head, rng: np.random.Generator) -> np.ndarray:
    """MALP-EM: the truth warped by 0.8 mm, with half of the CSF in the folds missed."""
    warped = warp(head.malp_em, 0.8 / head.spacing, rng)
    missed = head.sulci & (smooth_field(warped.shape, 10, rng) > 0)
    warped[missed & (warped == 18)] = 0
    return warped


def warp(labels: np.ndarray, voxels: float, rng: np.random.Generator) -> np.ndarray:
    """Return label values displaced smoothly by about ``voxels``."""
    where = [index + voxels * smooth_field(labels.shape, 8, rng) for index in np.indices(labels.shape, np.float32)]
    return ndimage.map_coordinates(labels, where, order=0, mode="nearest")


def first(head: Head, rng: np.random.Generator, failed: bool, ellipsoids: bool) -> np.ndarray:
    """FSL FIRST: smooth shapes, centres off by 0.6 mm, sizes by 3 %; a failure has one structure 8 mm away.

    Heads from real label maps have no ellipsoids: their structures are moved instead.
    """
    labels = np.zeros(head.first.shape, np.uint8)
    lost = rng.choice(list(FIRST))
    for value, (centre, axes) in FIRST.items():
        jitter = rng.normal(0, 0.6, 3) + (np.array([0, 8.0, 0]) if failed and value == lost else 0)
        size = 1 + rng.normal(0, 0.03)
        if ellipsoids:
            inside = distance(head.points, tuple(np.add(centre, jitter)), tuple(size * axis for axis in axes)) < 0
        else:
            inside = ndimage.shift((head.first == value).astype(np.float32), jitter / head.spacing, order=1) > 0.5
        labels[inside] = value
    return labels
