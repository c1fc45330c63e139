"""Synthetic CT angiograms of kidneys with a tumour: a region around one kidney, or a whole abdomen.

Coordinates are mm from the middle of the grid, RAS: x to the right, y to the front, z up.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from scipy import ndimage

from segexp.phantoms.canvas import Canvas, smooth
from segexp.phantoms.kidney import (
    CYST,
    KIDNEY,
    TUMOR,
    Kidney,
    draw_artery,
    draw_balls,
    draw_bowel,
    draw_cyst,
    draw_kidney,
    draw_tumor,
)

GRIDS = {
    ("roi", "full"): ((150, 150, 200), (0.65, 0.65, 0.5)),
    ("roi", "small"): ((64, 64, 64), (1.5, 1.5, 1.5)),
    ("roi", "tiny"): ((32, 32, 32), (3.0, 3.0, 3.0)),
    ("ct", "full"): ((424, 300, 68), (0.8, 0.8, 3.0)),
    ("ct", "small"): ((170, 120, 100), (2.0, 2.0, 2.0)),
    ("ct", "tiny"): ((85, 60, 50), (4.0, 4.0, 4.0)),
}
"""Kind and preset -> voxels and mm along x, y, z. The extents are about the same in all presets of a kind."""
FAT, MUSCLE, AIR = -100.0, 55.0, -1000.0  # HU
BALLS, CYSTS = 0.3, 0.1  # shares of cases with isolated balls and with a cyst


@dataclass(frozen=True)
class Abdomen:
    """One case in RAS order.

    Attributes:
        image: [D, H, W] HU, int16.
        labels: [D, H, W] uint8: 0 background, 1 kidney, 2 tumour, 3 cyst.
        spacing: mm.
        side: side of the kidney with the tumour: left or right.
        subtype: the tumour's.
        tumor_ml: its volume in the grid.
        kidney_ml: volume of the kidney with the tumour, cysts included, the tumour not.
    """

    image: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]
    side: str
    subtype: str
    tumor_ml: float
    kidney_ml: float


def draw(kind: str, preset: str, index: int, seed: int) -> Abdomen:
    """Return a case, the same for the same arguments.

    Args:
        kind: roi (one kidney) or ct (the whole abdomen with two).
        preset: full, small or tiny.
        index: number of the case.
        seed: of all randomness.
    """
    rng = np.random.default_rng([crc32(kind.encode()), index, seed])
    shape, spacing = GRIDS[kind, preset]
    canvas = Canvas.empty(shape, spacing, FAT)
    canvas.values += 8 * smooth(shape, 4.5, spacing, rng)
    kidney = surroundings(canvas, rng) if kind == "roi" else whole(canvas, rng)
    subtype = draw_tumor(canvas, kidney, rng)
    if rng.random() < CYSTS:
        draw_cyst(canvas, kidney, rng)
    if rng.random() < BALLS:
        draw_balls(canvas, int(rng.integers(1, 3)), rng)
    own = canvas.labels if kind == "roi" else canvas.labels[half(shape[0], kidney.medial)]
    volumes = np.bincount(own.ravel(), minlength=4) * canvas.voxel
    return Abdomen(scan(canvas, rng), canvas.labels, spacing, "right" if kidney.medial < 0 else "left", subtype,
                   round(float(volumes[TUMOR]), 2), round(float(volumes[KIDNEY] + volumes[CYST]), 2))


def half(width: int, medial: int) -> slice:
    """Return the part of x on a kidney's side of the midline."""
    return slice(width // 2, width) if medial < 0 else slice(0, width // 2)


def surroundings(canvas: Canvas, rng: np.random.Generator) -> Kidney:
    """Draw a region around one kidney: psoas, spine, aorta, back muscles, two tubes of bowel, the kidney."""
    medial = int(rng.choice([-1, 1]))
    draw_column(canvas, (64 * medial, -18), -medial, rng)
    x, y, _ = canvas.offsets(canvas.everything)
    back = y < -36 - rng.uniform(0, 6) + 0.1 * medial * x
    canvas.values[np.broadcast_to(back, canvas.values.shape)] = MUSCLE
    aorta = (44.0 * medial, 16.0)
    draw_vessel(canvas, aorta, 9, rng.uniform(300, 400))
    return draw_side(canvas, rng.normal(0, 2, 3), medial, aorta, rng)


def whole(canvas: Canvas, rng: np.random.Generator) -> Kidney:
    """Draw an abdomen between air: wall, spine, vessels, liver, spleen, bowel, two kidneys; return one of them."""
    x, y, _ = canvas.offsets(canvas.everything)
    width, thickness = rng.normal([145, 100], [5, 4])
    radius = np.broadcast_to(np.sqrt((x / width) ** 2 + (y / thickness) ** 2), canvas.values.shape)
    canvas.values[(radius > 0.84) & (radius < 0.92)] = MUSCLE
    canvas.values[(radius > 0.985) & (radius < 1)] = 20
    blob(canvas, (75, 15, 75), (60, 62, 62), 110 + rng.normal(0, 8), radius < 0.83)
    blob(canvas, (-95, -15, 70), (30, 45, 45), 130 + rng.normal(0, 8), radius < 0.83)
    for side in (-1, 1):
        draw_column(canvas, (0, -42), side, rng)
    aorta = (-9.0, -8.0)
    draw_vessel(canvas, aorta, 9, rng.uniform(300, 400))
    draw_vessel(canvas, (18.0, -8.0), 10, rng.uniform(120, 180))
    for place in rng.uniform([-70, 25], [70, 60], (4, 2)):
        draw_bowel(canvas, tuple(place), rng.uniform(8, 18), rng)
    kidneys = [draw_side(canvas, np.array([-62 * medial, -22, 0]) + rng.normal(0, [3, 3, 8]), medial, aorta, rng)
               for medial in (-1, 1)]
    canvas.body = radius < 1
    canvas.values[~canvas.body] = AIR
    canvas.labels[~canvas.body] = 0
    return kidneys[int(rng.integers(2))]


def draw_column(canvas: Canvas, spine: tuple[float, float], lateral: int, rng: np.random.Generator) -> None:
    """Draw the spine, elliptic with a thin shell of dense bone, and the psoas ``lateral`` (1 or -1 along x) of it."""
    x, y, _ = canvas.offsets(canvas.everything, (*spine, 0))
    shell = max(1.5, canvas.spacing[0])
    bone = np.sqrt((x / 22) ** 2 + (y / 24) ** 2)
    within = np.broadcast_to(bone < 1, canvas.values.shape)
    shape = canvas.values.shape
    canvas.values[within] = (200 + 60 * smooth(shape, 3, canvas.spacing, rng))[within]
    canvas.values[within & (bone > 1 - shell / 23)] = 650
    psoas = ((x - lateral * 26) / 13) ** 2 + ((y + 4) / 15) ** 2 < 1
    canvas.values[np.broadcast_to(psoas, shape) & ~within] = 60


def draw_vessel(canvas: Canvas, middle: tuple[float, float], radius: float, value: float) -> None:
    """Draw a vessel along z."""
    x, y, _ = canvas.offsets(canvas.everything, (*middle, 0))
    canvas.values[np.broadcast_to(x**2 + y**2 < radius**2, canvas.values.shape)] = value


def blob(canvas: Canvas, centre: tuple[float, ...], axes: tuple[float, ...], value: float, where: np.ndarray) -> None:
    """Draw an ellipsoid of one value where it is allowed."""
    offsets = canvas.offsets(canvas.everything, centre)
    inside = sum((d / axis) ** 2 for d, axis in zip(offsets, axes, strict=True)) < 1
    canvas.values[inside & where] = value


def draw_side(canvas: Canvas, centre: np.ndarray, medial: int, aorta: tuple[float, float],
              rng: np.random.Generator) -> Kidney:
    """Draw two tubes of bowel beside a kidney's place, in front and lateral of it, then the kidney and its artery."""
    for low, high in ((50, 110), (-10, 45)):  # degrees from the lateral direction to the front
        angle, radius = np.radians(rng.uniform(low, high)), rng.uniform(8, 18)
        far = np.array([-medial * 34 * np.cos(angle), 29 * np.sin(angle)]) * (1 + 0.5 * radius / 30)
        draw_bowel(canvas, (centre[0] + far[0], centre[1] + far[1]), radius, rng)
    kidney = draw_kidney(canvas, centre, medial, rng)
    draw_artery(canvas, kidney, aorta, rng)
    return kidney


def scan(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Return the image in HU, int16: blurred by 0.6 voxels, with correlated noise of 10 to 20 HU."""
    image = ndimage.gaussian_filter(canvas.values, 0.6)
    image += rng.uniform(10, 20) * smooth(image.shape, 0.6, (1, 1, 1), rng)
    return np.rint(np.clip(image, -1024, 3071)).astype(np.int16)


__all__ = ["GRIDS", "Abdomen", "draw"]
