"""A kidney with its vessels, a tumour and a cyst, and things that look like a tumour in one slice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from segexp.phantoms.canvas import SUBTYPES, Canvas, smooth, texture

KIDNEY, TUMOR, CYST = 1, 2, 3
KIDNEY_ML = (85.76, 262.78)
TUMOR_ML = (2.11, 144.82)
LOST = 1.15  # the ellipsoid's volume over the kidney's: the hilum is cut out, the tumour takes its part
RATIO = np.array([1.1, 0.95, 1.6])
HILUM = np.array([0.75, 0.55, 0.42])  # semi-axes of the hilum in those of the kidney
SINUS = -60.0
TRIES = 50  # places tried for a tumour before it is made smaller
INSIDE, EATEN = 0.85, 0.7  # least share of a tumour in the grid; most of a kidney that it may take


@dataclass(frozen=True)
class Kidney:
    """Where a kidney lies.

    Attributes:
        centre: mm.
        axes: semi-axes of its ellipsoid, mm.
        turn: from its own axes to those of the grid.
        medial: direction of the midline along x, 1 or -1.
    """

    centre: np.ndarray
    axes: np.ndarray
    turn: Rotation
    medial: int

    def surface(self, direction: np.ndarray) -> float:
        """Return how far (mm) the surface lies from the centre in a direction, a unit vector."""
        return float(1 / np.linalg.norm(self.turn.inv().apply(direction) / self.axes))

    @property
    def hilum(self) -> np.ndarray:
        """The middle of the hilum, mm."""
        return self.centre + self.turn.apply([self.medial * self.axes[0], 0, 0])

    def ratio(self, canvas: Canvas, box: tuple[slice, ...], centre: np.ndarray, axes: np.ndarray) -> np.ndarray:
        """Return the distance from an ellipsoid's centre in its radii; its axes are parallel to the kidney's."""
        x, y, z = canvas.offsets(box, centre)
        rows = self.turn.inv().as_matrix().astype(np.float32)
        return np.sqrt(sum(((a * x + b * y + c * z) / np.float32(axis)) ** 2
                           for (a, b, c), axis in zip(rows, axes, strict=True)))


def log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """Return a number between two bounds, evenly on a logarithmic scale."""
    return float(np.exp(rng.uniform(*np.log(bounds))))


def direction(rng: np.random.Generator) -> np.ndarray:
    """Return a random unit vector."""
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def draw_kidney(canvas: Canvas, centre: Sequence[float], medial: int, rng: np.random.Generator) -> Kidney:
    """Draw a kidney with cortex, pyramids and a sinus of fat, and label it."""
    volume = 1000 * LOST * log_uniform(KIDNEY_ML, rng)
    axes = (volume / (4 / 3 * np.pi * RATIO.prod())) ** (1 / 3) * RATIO * rng.uniform(0.92, 1.08, 3)
    tilt = rng.uniform(5, 20)  # the upper pole is nearer to the midline, and to the back
    turn = Rotation.from_euler("yx", [medial * tilt, rng.uniform(0, tilt)], degrees=True)
    kidney = Kidney(np.array(centre, float), axes, turn, medial)
    box = canvas.box(kidney.centre, 1.15 * axes.max())
    shape = canvas.values[box].shape
    body = kidney.ratio(canvas, box, kidney.centre, axes) + 0.04 * smooth(shape, 7.5, canvas.spacing, rng) < 1
    hilum = kidney.ratio(canvas, box, kidney.hilum, axes * HILUM) < 1
    # Padding: the edge of the grid is not the kidney's surface.
    depth = ndimage.distance_transform_edt(np.pad(body, 1, mode="edge"), canvas.spacing)[1:-1, 1:-1, 1:-1]
    values = np.full(shape, rng.uniform(170, 260), np.float32)
    pyramids = (depth > rng.uniform(6, 8)) & (smooth(shape, 4, canvas.spacing, rng) > -0.3)
    values[pyramids] = rng.uniform(90, 140)
    values[hilum] = SINUS
    canvas.values[box][body] = values[body]
    canvas.labels[box][body & ~hilum] = KIDNEY
    return kidney


def draw_artery(canvas: Canvas, kidney: Kidney, aorta: tuple[float, float], rng: np.random.Generator) -> None:
    """Draw the renal artery, a curved tube from the aorta (x, y in mm) into the hilum; the kidney stays as it is."""
    end = kidney.centre + kidney.turn.apply([0.75 * kidney.medial * kidney.axes[0], 0, 0])
    start = np.array([*aorta, end[2] + rng.uniform(0, 15)])
    bend = (start + end) / 2 + rng.normal(0, 6, 3)
    at = np.linspace(0, 1, 40)[:, None]
    points = (1 - at) ** 2 * start + 2 * at * (1 - at) * bend + at**2 * end
    radius, value = 3.2, rng.uniform(280, 380)
    for point in points:
        box = canvas.box(point, radius)
        inside = sum(d**2 for d in canvas.offsets(box, point)) < radius**2
        canvas.values[box][inside & (canvas.labels[box] == 0)] = value


def draw_tumor(canvas: Canvas, kidney: Kidney, rng: np.random.Generator) -> str:
    """Draw and label a tumour on the side of the kidney that is away from the midline; return its subtype.

    Its place is drawn again until at least 85 % of it lie in the body and the grid, and at least 30 % of the kidney are
    left.
    """
    subtype = str(rng.choice(SUBTYPES))
    volume = 1000 * log_uniform(TUMOR_ML, rng)
    near = canvas.box(kidney.centre, kidney.axes.max() + 70)
    outline = 0.1 * smooth(canvas.values[near].shape, 7.5, canvas.spacing, rng)
    organ = canvas.labels[near] == KIDNEY
    tries = 0
    while True:
        radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
        towards = direction(rng)
        towards[0] = -kidney.medial * abs(towards[0])
        outside = rng.uniform(0.15, 0.85)  # share of its diameter beyond the surface
        centre = kidney.centre + towards * (kidney.surface(towards) + (2 * outside - 1) * radius)
        distance = np.sqrt(sum(d**2 for d in canvas.offsets(near, centre)))
        tumor = (distance < radius * (1 + outline)) & canvas.body[near]
        eaten = np.count_nonzero(tumor & organ)
        if 0 < eaten < EATEN * np.count_nonzero(organ) and tumor.sum() * canvas.voxel * 1000 >= INSIDE * volume:
            break
        tries += 1
        if tries % TRIES == 0:
            volume *= 0.9
    canvas.values[near][tumor] = texture(subtype, tumor.shape, canvas.spacing, rng)[tumor]
    canvas.labels[near][tumor] = TUMOR
    return subtype


def draw_cyst(canvas: Canvas, kidney: Kidney, rng: np.random.Generator) -> None:
    """Draw and label a cyst at the kidney's surface, clear of the tumour; none where there is no room."""
    for _ in range(TRIES):
        radius, towards = rng.uniform(5, 12), direction(rng)
        centre = kidney.centre + towards * kidney.surface(towards)
        box = canvas.box(centre, radius + 3)
        distance = np.sqrt(sum(d**2 for d in canvas.offsets(box, centre)))
        cyst = (distance < radius) & canvas.body[box]
        enough = cyst.sum() * canvas.voxel * 1000 > INSIDE * 4 / 3 * np.pi * radius**3
        if enough and (canvas.labels[box][cyst] == KIDNEY).any() and not (
                canvas.labels[box][distance < radius + 2] == TUMOR).any():
            canvas.values[box][cyst] = rng.uniform(0, 15)
            canvas.labels[box][cyst] = CYST
            return


def draw_bowel(canvas: Canvas, middle: tuple[float, float], radius: float, rng: np.random.Generator) -> None:
    """Draw a curved tube along z with the texture of a tumour; half of them hold air in front."""
    box = canvas.box((*middle, 0), (radius + 12, radius + 12, np.inf))
    x, y, z = canvas.offsets(box, (*middle, 0))
    length, phase = rng.uniform(15, 40, 2), rng.uniform(0, 2 * np.pi, 2)
    x, y = (axis - np.float32(5) * np.sin(z / size + start) for axis, size, start in
            zip((x, y), length, phase, strict=True))
    distance = np.sqrt(x**2 + y**2)
    values = texture(str(rng.choice(SUBTYPES)), distance.shape, canvas.spacing, rng)
    if rng.random() < 0.5:
        values[(distance < 0.8 * radius) & (y > 0.1 * radius)] = -950
    canvas.values[box][distance < radius] = values[distance < radius]


def draw_balls(canvas: Canvas, count: int, rng: np.random.Generator) -> None:
    """Draw isolated balls of a tumour's texture, unlabelled, in fat away from kidney and tumour."""
    fat = (canvas.values < -20) & (canvas.values > -300)
    room = ndimage.distance_transform_edt(canvas.labels == 0, canvas.spacing)
    inner = ndimage.distance_transform_edt(np.pad(np.ones(fat.shape, bool), 1), canvas.spacing)[1:-1, 1:-1, 1:-1]
    for _ in range(count):
        radius = rng.uniform(4, 9)
        places = np.flatnonzero(fat & (room > radius + 4) & (inner > radius))
        if not places.size:
            continue
        index = np.unravel_index(rng.choice(places), fat.shape)
        centre = [(i - (n - 1) / 2) * size for i, n, size in zip(index, fat.shape, canvas.spacing, strict=True)]
        box = canvas.box(centre, radius)
        inside = sum(d**2 for d in canvas.offsets(box, centre)) < radius**2
        values = texture(str(rng.choice(SUBTYPES)), inside.shape, canvas.spacing, rng)
        canvas.values[box][inside] = values[inside]
        fat[box] &= ~inside
