"""Synthetic FLAIR brains with white matter hyperintensities, as several scanners would show them.

Coordinates are mm from the middle of the head, RAS: x to the right, y to the front, z up.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from scipy import ndimage

PRESETS = ("full", "small", "tiny")
"""full: the scanner's grid; small: half of it in-plane, 16 slices; tiny: 48 x 48 x 8 voxels."""
SLICES = {"small": 16, "tiny": 8}
SKULL = (1.09, 1.16)  # shell, in radii of the brain
CORTEX, RIM = 9.0, 2.5  # mm below the surface: end of the cortex, end of the fluid on it
VENTRICLES = ((12.0, 0.0, 0.0), (-12.0, 0.0, 0.0))
VENTRICLE_AXES = (9.0, 34.0, 13.0)
CAP = 1.06  # the normal bright cap ends here, in radii of the ventricle
PERIVENTRICULAR = 0.45  # share of lesions at the ventricles
WOBBLE = 0.35  # of lesion outlines
OTHER = 0.4  # share of cases with other pathology
LEFT_OF_BIAS = 0.25  # what a bias correction leaves


@dataclass(frozen=True)
class Scanner:
    """A centre's grid and contrast.

    Attributes:
        shape: voxels along x, y, z.
        spacing: mm.
        white, grey, fluid, lesion: noise-free intensities.
        noise: standard deviation of the noise in both channels.
        bias: strength of the bias field.
        blur: standard deviation of the in-plane blur, voxels of the scanner's grid.
        halo: how much brighter the normal cap of the ventricles is than white matter.
        shift: how far the head lies above the middle of the grid, mm.
        tilt: angle between the slices and the scanner's axes, degrees about x.
        axes: directions of the stored axes.
        transposed: those of every fourth case.
        other: whether other pathology occurs.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    white: float
    grey: float
    fluid: float
    lesion: float
    noise: float
    bias: float
    blur: float
    halo: float = 0.12
    shift: float = 0.0
    tilt: float = 0.0
    axes: str = "RAS"
    transposed: str = ""
    other: bool = True

    def grid(self, preset: str) -> tuple[tuple[int, int, int], tuple[float, float, float], float]:
        """Return the shape, the spacing (mm) and how far the head lies above the grid's middle (mm) of a preset."""
        if preset == "full":
            return self.shape, self.spacing, self.shift
        x, y = (48, 48) if preset == "tiny" else (self.shape[0] // 2, self.shape[1] // 2)
        extent = [n * size for n, size in zip(self.shape, self.spacing, strict=True)]
        return (x, y, SLICES[preset]), (extent[0] / x, extent[1] / y, self.spacing[2]), 0.0


SCANNERS = {
    "Utrecht": Scanner((240, 240, 48), (0.9583, 0.9583, 3.0), 0.42, 0.55, 0.12, 0.85, 0.025, 0.12, 0.6, tilt=20.0,
                       axes="LPS"),
    "Singapore": Scanner((256, 232, 48), (1.0, 1.0, 3.0), 0.38, 0.50, 0.10, 0.80, 0.035, 0.20, 0.7, axes="LAS",
                         transposed="ALS"),
    "GE3T": Scanner((132, 256, 83), (1.2, 0.9766, 3.0), 0.45, 0.60, 0.15, 0.82, 0.030, 0.15, 0.5, shift=35.0),
    "GE1T5": Scanner((128, 256, 103), (1.25, 0.9766, 3.0), 0.44, 0.58, 0.14, 0.78, 0.045, 0.12, 0.6, shift=50.0),
    "Philips_VU .PETMR_01.": Scanner((321, 240, 83), (0.75, 1.0, 3.0), 0.41, 0.54, 0.12, 0.83, 0.030, 0.15, 0.6,
                                     shift=35.0, axes="LAS"),
    "CAIN": Scanner((256, 256, 55), (0.859, 0.859, 3.0), 0.50, 0.60, 0.22, 0.74, 0.050, 0.30, 0.9, halo=0.16,
                    axes="LAS", other=False),
}
"""Centre -> scanner; CAIN has half the lesion contrast, a brighter halo, and more noise, blur and bias."""


@dataclass(frozen=True)
class Brain:
    """What is where, on a grid in RAS order.

    Attributes:
        spacing: mm.
        radius: [D, H, W] distance from the middle of the head, in radii of the brain.
        depth: [D, H, W] mm below the folded surface, negative outside.
        ventricle: [D, H, W] distance from the middle of the nearer ventricle, in its radii.
        wall: [D, H, W] mm from the nearer ventricle's wall, negative inside.
        neck: [D, H, W] bool, the neck below the head.
    """

    spacing: tuple[float, float, float]
    radius: np.ndarray
    depth: np.ndarray
    ventricle: np.ndarray
    wall: np.ndarray
    neck: np.ndarray

    @property
    def white(self) -> np.ndarray:
        """White matter, with the lesions in it: bool [D, H, W]."""
        return (self.depth > CORTEX) & (self.ventricle >= 1)


@dataclass(frozen=True)
class Scan:
    """One case in RAS order.

    Attributes:
        brain: its anatomy.
        images: FLAIR and T1 with bias field (``orig``) and after a bias correction (``pre``): float32 [D, H, W].
        labels: uint8 [D, H, W] 0 background, 1 white matter hyperintensity, 2 other pathology.
        affine: [4, 4], mm.
        density: the intended share of lesion voxels, percent.
    """

    brain: Brain
    images: dict[str, np.ndarray]
    labels: np.ndarray
    affine: np.ndarray
    density: float


def draw(centre: str, subject: int, seed: int, preset: str, density: tuple[float, float] | None = None) -> Scan:
    """Return a case, the same for the same arguments.

    Args:
        centre: one of SCANNERS.
        subject: number of the person.
        seed: of all randomness.
        preset: one of PRESETS.
        density: bounds of the lesions' share of the voxels (percent), drawn evenly on a logarithmic scale; (0, 0): no
            lesions; None: log-normal around 0.2, 0.03 to 1.
    """
    scanner = SCANNERS[centre]
    rng = np.random.default_rng([crc32(centre.encode()), subject, seed])
    if density is None:
        percent = float(np.clip(np.exp(rng.normal(np.log(0.2), 0.9)), 0.03, 1.0))
    else:
        percent = float(np.exp(rng.uniform(*np.log(density)))) if density[0] > 0 else 0.0
    shape, spacing, shift = scanner.grid(preset)
    brain = anatomy(shape, spacing, shift, rng)
    hard, soft = lesions(brain, round(percent / 100 * np.prod(shape)), rng)
    other = other_pathology(brain, rng) if scanner.other and rng.random() < OTHER else np.zeros(shape, bool)
    labels = hard.astype(np.uint8)
    labels[ndimage.binary_dilation(other, np.ones((3, 3, 1))) & ~hard] = 2
    return Scan(brain, scan(scanner, brain, soft, other, rng), labels, affine(shape, spacing, scanner.tilt), percent)


def affine(shape: tuple[int, ...], spacing: tuple[float, ...], tilt: float) -> np.ndarray:
    """Return the affine [4, 4] (mm) of a RAS grid around the origin, turned by ``tilt`` degrees about x."""
    cosine, sine = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) * spacing
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    return matrix


def noise(shape: tuple[int, ...], spacing: tuple[float, ...], pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random field, float32 [D, H, W]: N(0, 1) every ``pitch`` mm and linear between."""
    counts = [int((n - 1) * size / pitch) + 2 for n, size in zip(shape, spacing, strict=True)]
    field = rng.standard_normal(counts, dtype=np.float32)
    for axis, (n, size) in enumerate(zip(shape, spacing, strict=True)):
        place = np.arange(n) * (size / pitch)
        low = place.astype(int)
        part = (place - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        field = field.take(low, axis) * (1 - part) + field.take(low + 1, axis) * part
    return field


def anatomy(shape: tuple[int, ...], spacing: tuple[float, ...], shift: float, rng: np.random.Generator) -> Brain:
    """Return a brain: an ellipsoid with a folded surface and two ventricles; the neck where the grid goes so low."""
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    x, y, z = (np.float32((axis - (n - 1) / 2) * size) for axis, n, size in zip((x, y, z), shape, spacing, strict=True))
    z = z - np.float32(shift)
    a, b, c = rng.normal([66, 82, 66], [2, 3, 2])
    radius = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2).astype(np.float32)
    depth = (1 - radius) * 70 + 3 * noise(shape, spacing, 12, rng)
    ventricle, wall = np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32)
    for middle in VENTRICLES:
        offset = [axis - place for axis, place in zip((x, y, z), middle, strict=True)]
        ratio = np.sqrt(sum((d / size) ** 2 for d, size in zip(offset, VENTRICLE_AXES, strict=True)))
        ratio = np.maximum(ratio, 1e-6).astype(np.float32)
        length = np.sqrt(sum(d**2 for d in offset))
        ventricle = np.minimum(ventricle, ratio)
        wall = np.minimum(wall, length * (1 - 1 / ratio))
    neck = ((x / 52) ** 2 + ((y + 15) / 60) ** 2 < 1) & (z < -40) & (radius > SKULL[1])
    return Brain(tuple(spacing), radius, depth, ventricle, wall, neck)


def lesions(brain: Brain, voxels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return ``voxels`` lesion voxels in the white matter, bool, and how strong the lesion is, 0 to 1: [D, H, W].

    45 % of the lesions lie at the ventricles and are stretched front to back, the others lie deep in the white matter.
    """
    white, spacing, shape = brain.white, np.array(brain.spacing), brain.depth.shape
    near = np.flatnonzero(white & (brain.wall > 0) & (brain.wall < 5))
    deep = np.flatnonzero(white & (brain.depth > 14) & (brain.wall > 8))
    outline = WOBBLE * noise(shape, brain.spacing, 5, rng)
    hard, soft = np.zeros(shape, bool), np.zeros(shape, np.float32)
    left = voxels
    while left > 0:
        periventricular = rng.random() < PERIVENTRICULAR
        middle = np.array(np.unravel_index(rng.choice(near if periventricular else deep), shape))
        radius = min(0.5 + rng.gamma(3, 1.4), 7.0) if periventricular else 0.5 + rng.gamma(2, 1.0)
        stretch = rng.uniform(1, 2.2) if periventricular else 1.0
        radius = min(radius, (3 * left * spacing.prod() / (4 * np.pi * stretch)) ** (1 / 3))
        axes = radius * np.array([1, stretch, 1])
        reach = np.ceil(2.2 * axes / spacing).astype(int)
        low, high = np.maximum(middle - reach, 0), np.minimum(middle + reach + 1, shape)
        box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        offset = np.ogrid[tuple(slice(*ends) for ends in zip(low - middle, high - middle, strict=True))]
        ratio = np.sqrt(sum((d * s / a) ** 2 for d, s, a in zip(offset, spacing, axes, strict=True))) + outline[box]
        ratio[tuple(middle - low)] = min(ratio[tuple(middle - low)], 0.5)  # never less than its middle voxel
        fresh = white[box] & ~hard[box]
        size = int((fresh & (ratio < 1)).sum())
        if size > left:  # shrink the last one to what is left
            values = ratio[fresh]
            ratio += 1 - np.partition(values, left)[left]
            size = int((fresh & (ratio < 1)).sum())
        hard[box] |= fresh & (ratio < 1)
        soft[box] = np.maximum(soft[box], np.clip((1.3 - ratio) / 0.5, 0, 1) * white[box])
        left -= size
    return hard, soft


def other_pathology(brain: Brain, rng: np.random.Generator) -> np.ndarray:
    """Return a ball of 5 to 11 mm radius in the cortex: bool [D, H, W]."""
    cortex = np.flatnonzero((brain.depth > 0) & (brain.depth < CORTEX))
    middle = np.unravel_index(rng.choice(cortex), brain.depth.shape)
    grid = np.ogrid[tuple(slice(n) for n in brain.depth.shape)]
    distance = sum(((axis - m) * size) ** 2 for axis, m, size in zip(grid, middle, brain.spacing, strict=True))
    return (distance < rng.uniform(5, 11) ** 2) & (brain.depth > 0) & (brain.ventricle >= 1)


def scan(scanner: Scanner, brain: Brain, soft: np.ndarray, other: np.ndarray,
         rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the images pre/FLAIR, orig/FLAIR, pre/T1 and orig/T1, whole numbers as float32 [D, H, W]."""
    shape, spacing = soft.shape, brain.spacing
    strength = soft * (1 + 0.15 * noise(shape, spacing, 8, rng))
    contrasts = {
        "FLAIR": (scanner.fluid, scanner.grey, scanner.white, scanner.lesion, 0.35, scanner.halo),
        "T1": (0.20, 0.60, 0.85, 0.60, 0.95, -0.06),
    }
    blur = [scanner.blur * scanner.spacing[axis] / spacing[axis] for axis in (0, 1)] + [0]
    field = np.exp(0.5 * scanner.bias * noise(shape, spacing, 90, rng))
    images = {}
    for name, (fluid, grey, white, lesion, skull, halo) in contrasts.items():
        image = np.zeros(shape, np.float32)
        image[brain.neck] = 0.8 * skull
        image[(brain.radius > SKULL[0]) & (brain.radius < SKULL[1])] = skull
        image[brain.depth > 0] = fluid
        image[brain.depth > RIM] = grey
        image[brain.white] = white
        image[brain.white & (brain.ventricle < CAP)] += halo
        image[(brain.ventricle < 1) & (brain.depth > 0)] = fluid
        image += (lesion - white) * strength
        image[other] = lesion
        image = ndimage.gaussian_filter(image, blur) * field
        real, imaginary = scanner.noise * rng.standard_normal((2, *shape), dtype=np.float32)
        image = np.sqrt((image + real) ** 2 + imaginary**2) * (1000 * rng.uniform(0.7, 1.6))
        images[f"orig/{name}"] = np.rint(image).astype(np.float32)
        images[f"pre/{name}"] = np.rint(image / field ** (1 - LEFT_OF_BIAS)).astype(np.float32)
    return images
