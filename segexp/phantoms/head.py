"""A synthetic head made of ellipsoids: what is where, before any scanner or tool has seen it.

Atlas coordinates are in mm, RAS: x to the right, y to the front, z up. Label values are those of the tools' files.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

PROFILES = {"nano": ((48, 56, 48), 3.75), "tiny": ((72, 88, 72), 2.5), "full": ((182, 218, 182), 1.0)}
"""Grid and voxel edge (mm)."""

# name: centre, semi-axes (mm)
BRAIN = ((0, -18, 8), (66, 84, 64))
HEAD = ((0, -16, 4), (80, 98, 88))
CEREBELLUM = ((0, -62, -38), (46, 32, 24))
# MALP-EM value: centre, semi-axes
VENTRICLES = {23: ((9, -5, 16), (5, 26, 7)), 24: ((-9, -5, 16), (5, 26, 7)), 1: ((0, -8, -2), (2.5, 11, 8)),
              2: ((0, -40, -32), (5, 6, 8))}
# FIRST value: centre, semi-axes; the left ones, mirrored for the right
FIRST_LEFT = {10: ((-12, -18, 8), (9, 14, 9)), 11: ((-13, 10, 10), (5, 12, 8)), 12: ((-25, 4, 0), (6, 14, 9)),
              13: ((-19, -3, -1), (4, 8, 6)), 17: ((-27, -22, -14), (6, 16, 6)), 18: ((-23, -4, -18), (7, 7, 7)),
              26: ((-10, 12, -8), (4, 5, 5))}
RIGHT_OF = {10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54, 26: 58}
BRAIN_STEM = ((0, -28, -34), (10, 11, 24))
FIRST = {**FIRST_LEFT, **{RIGHT_OF[value]: ((-centre[0], *centre[1:]), axes) for value, (centre, axes) in
                          FIRST_LEFT.items()}, 16: BRAIN_STEM}
FIRST_TO_MALP = {10: 30, 11: 9, 12: 28, 13: 26, 16: 7, 17: 20, 18: 6, 26: 4, 49: 29, 50: 8, 51: 27, 52: 25, 53: 19,
                 54: 5, 58: 3}
MEANS = {"air": 30, "csf": 250, "grey": 620, "white": 900, "skin": 1000, "skull": 120, "neck": 450}
FIRST_MEANS = {10: 760, 49: 760, 13: 850, 52: 850, 16: 850, 12: 690, 51: 690}
CSF, GREY, WHITE = 1, 2, 3


@dataclass
class Head:
    """One head on its grid.

    Attributes:
        tissue: [D, H, W] 0 outside, 1 CSF, 2 grey, 3 white matter.
        malp_em: [D, H, W] MALP-EM values.
        first: [D, H, W] FIRST values.
        intensity: [D, H, W] noise-free T1-weighted intensity.
        brain_distance: [D, H, W] mm from the brain's surface, negative inside.
        sulci: [D, H, W] bool, CSF inside the folds.
        spacing: voxel edge in mm.
        points: [3, D, H, W] atlas coordinates in mm.
    """

    tissue: np.ndarray
    malp_em: np.ndarray
    first: np.ndarray
    intensity: np.ndarray
    brain_distance: np.ndarray
    sulci: np.ndarray
    spacing: float
    points: np.ndarray


def atlas_points(profile: str, rng: np.random.Generator, rotated: bool) -> np.ndarray:
    """Return the atlas coordinates [3, D, H, W] of every voxel of a head in a random pose.

    Rotation N(0, 3 degrees) per axis, size 0.93 to 1.07, a smooth displacement of 2 mm; a rotated head has 25 to 40
    degrees of extra pitch, up or down.
    """
    shape, spacing = PROFILES[profile]
    axes = [(np.arange(size) - (size - 1) / 2) * spacing for size in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    angles = rng.normal(0, 3, 3)
    pitch = rng.uniform(25, 40) * rng.choice([-1, 1])
    if rotated:
        angles[0] += pitch
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    points = np.einsum("ji,jdhw->idhw", matrix, points) / rng.uniform(0.93, 1.07)
    points += np.reshape([0, -15, 8], (3, 1, 1, 1))
    for axis in range(3):
        points[axis] += smooth_field(shape, 6, rng) * 2.0
    return points


def smooth_field(shape: tuple[int, ...], knots: int, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random field [D, H, W] of unit variance at its ``knots``^3 knots."""
    grid = rng.standard_normal((knots,) * 3)
    return ndimage.zoom(grid, [size / knots for size in shape], order=3, mode="nearest", grid_mode=True)


def distance(points: np.ndarray, centre: tuple[float, ...], axes: tuple[float, ...]) -> np.ndarray:
    """Return about how far (mm) points are outside an ellipsoid, along the ray from its centre; negative inside."""
    offset = points - np.reshape(centre, (3, 1, 1, 1))
    ratio = np.sqrt(((offset / np.reshape(axes, (3, 1, 1, 1))) ** 2).sum(0))
    radius = np.sqrt((offset**2).sum(0))
    return np.where(ratio > 1e-6, radius * (1 - 1 / np.maximum(ratio, 1e-6)), -min(axes))


def parcels(points: np.ndarray, count: int) -> np.ndarray:
    """Return MALP-EM's cortical values: the nearest of ``count`` fixed directions; right 41 + 2i, left 42 + 2i."""
    rng = np.random.default_rng(7)
    pool = rng.standard_normal((2000, 3))
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    chosen = [0]
    nearest = np.full(len(pool), np.inf)
    while len(chosen) < count:  # farthest-point sampling
        nearest = np.minimum(nearest, ((pool - pool[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(nearest.argmax()))
    offset = (points - np.reshape(BRAIN[0], (3, 1, 1, 1))).copy()
    right = offset[0] > 0
    offset[0] = np.abs(offset[0])  # left and right parcels mirror each other
    seeds = pool[chosen] * [1, 1, 1]
    seeds[:, 0] = np.abs(seeds[:, 0])
    index = np.einsum("kc,cdhw->kdhw", seeds.astype(np.float32), offset.astype(np.float32)).argmax(0)
    return np.where(right, 41 + 2 * index, 42 + 2 * index)


def ellipsoid_head(profile: str, rng: np.random.Generator, rotated: bool, n_parcels: int) -> Head:
    """Return a random head made of ellipsoids, with a folded cortex."""
    shape, spacing = PROFILES[profile]
    points = atlas_points(profile, rng, rotated)
    brain = distance(points, *BRAIN)
    cerebellum = distance(points, *CEREBELLUM)
    cerebrum = (brain < 0) & (points[2] > -30) & (cerebellum >= 0)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 3.6 / spacing)
    fold = np.abs(noise) / noise.std()
    right = points[0] > 0
    sulci = cerebrum & (fold < 0.16) & (brain > -16)
    grey = cerebrum & ~sulci & ((brain > -4.5) | ((fold < 1.0) & (brain > -19)))
    tissue = np.zeros(shape, np.uint8)
    tissue[brain < 3] = CSF
    tissue[cerebrum] = WHITE
    tissue[grey] = GREY
    tissue[sulci] = CSF
    malp = np.where(tissue == CSF, 18, 0)
    malp = np.where(cerebrum & (tissue == WHITE), np.where(right, 16, 17), malp)
    malp = np.where(grey, parcels(points, n_parcels), malp)
    inner = distance(points, CEREBELLUM[0], tuple(0.72 * axis for axis in CEREBELLUM[1])) < 0
    tissue[cerebellum < 0] = GREY
    malp = np.where(cerebellum < 0, np.where(right, 10, 11), malp)
    tissue[inner] = WHITE
    malp = np.where(inner, np.where(right, 12, 13), malp)
    vermis = (cerebellum < 0) & (np.abs(points[0]) < 6)
    tissue[vermis] = GREY
    malp = np.where(vermis, 37, malp)
    for value, ellipsoid in VENTRICLES.items():
        inside = distance(points, *ellipsoid) < 0
        tissue[inside] = CSF
        malp = np.where(inside, value, malp)
    first = np.zeros(shape, np.uint8)
    for value, ellipsoid in FIRST.items():
        first[distance(points, *ellipsoid) < 0] = value
    tissue[first > 0] = GREY
    for value, into in FIRST_TO_MALP.items():
        malp = np.where(first == value, into, malp)
    return Head(tissue, malp.astype(np.uint8), first, intensity(points, tissue, first), brain, sulci, spacing, points)


def intensity(points: np.ndarray, tissue: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the noise-free T1-weighted intensity: brain, skull, skin, neck, and no face (defaced)."""
    scalp = distance(points, *HEAD)
    skull = distance(points, HEAD[0], tuple(0.93 * axis for axis in HEAD[1]))
    image = np.full(tissue.shape, MEANS["air"], np.float32)
    image[(points[0] ** 2 + (points[1] + 20) ** 2 < 55**2) & (points[2] < -50)] = MEANS["neck"]
    image[scalp < 0] = MEANS["skin"]
    image[skull < 0] = MEANS["skull"]
    for value, name in ((CSF, "csf"), (GREY, "grey"), (WHITE, "white")):
        image[tissue == value] = MEANS[name]
    for value, mean in FIRST_MEANS.items():
        image[first == value] = mean
    image[(points[1] > 62) & (points[2] < -15)] = 0
    return image
