"""Heads from a folder of real whole-head label maps in FreeSurfer's numbering."""

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from segexp.errors import DataError
from segexp.phantoms.head import (
    CSF,
    FIRST_MEANS,
    FIRST_TO_MALP,
    GREY,
    MEANS,
    PROFILES,
    WHITE,
    Head,
    atlas_points,
    parcels,
)

# FreeSurfer value -> MALP-EM value; the cortex (3, 42) becomes parcels.
TO_MALP = {2: 17, 41: 16, 4: 24, 43: 23, 5: 22, 44: 21, 7: 13, 46: 12, 8: 11, 47: 10, 14: 1, 15: 2, 24: 18, 28: 32,
           60: 31, 30: 34, 62: 33, 25: 17, 57: 16, 72: 1, 85: 35, **FIRST_TO_MALP}
CORTEX = (3, 42)
# Further left/right structures without a MALP-EM counterpart: grey matter, counted to the parcel around them.
OTHER_GREY = (136, 137, 163, 164)
CSF_VALUES = (4, 43, 5, 44, 14, 15, 24, 72)
WHITE_VALUES = (2, 41, 7, 46, 85, 25, 57, 30, 62)
FIRST_VALUES = tuple(FIRST_TO_MALP)
GREY_VALUES = (*CORTEX, 8, 47, 28, 60, *OTHER_GREY, *FIRST_VALUES)
OUTSIDE = range(500, 600)  # tissue outside the brain: skull, scalp, eyes, ...
BRAIN = sorted({*CSF_VALUES, *WHITE_VALUES, *GREY_VALUES})


def find_maps(folder: str | Path) -> list[Path]:
    """Return the label maps of ``folder``, sorted: NIfTI files whose name says ``seg`` or ``label``, else all.

    Raises:
        DataError: there is none.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.glob("*.nii*")) if folder.is_dir() else []
    named = [path for path in files if "seg" in path.name.lower() or "label" in path.name.lower()]
    if not files:
        raise DataError(f"anatomy={folder}: no NIfTI label maps there; expected whole heads in FreeSurfer's numbering")
    return named or files


def read_map(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return values [D, H, W] int16 in RAS order and the affine (mm).

    Raises:
        DataError: the file cannot be read, or holds values that are not FreeSurfer's.
    """
    try:
        image = nib.as_closest_canonical(nib.load(path))
        values = np.asanyarray(image.dataobj)
    except Exception as error:
        raise DataError(f"{path}: cannot be read as NIfTI ({error})") from error
    if values.ndim != 3:
        raise DataError(f"{path}: {values.ndim} dimensions; expected one label map [D, H, W]")
    found = np.unique(values)
    unknown = [value for value in found.tolist() if value not in (0, *BRAIN) and value not in OUTSIDE]
    if unknown:
        raise DataError(f"{path}: values {unknown[:8]} are not FreeSurfer's; expected 0, {BRAIN[0]}..{BRAIN[-1]} of "
                        "the brain and 500..599 outside it")
    if not np.isin(values, GREY_VALUES).any():
        raise DataError(f"{path}: no grey matter in it; expected a whole head")
    return values.astype(np.int16), image.affine


def anatomical_head(path: Path, profile: str, rng: np.random.Generator, rotated: bool, n_parcels: int) -> Head:
    """Return a head with the anatomy of ``path`` in a random pose on the grid of ``profile``."""
    shape, spacing = PROFILES[profile]
    values, affine = read_map(path)
    centre = affine[:3, :3] @ np.argwhere(np.isin(values, BRAIN)).mean(0) + affine[:3, 3]
    points = atlas_points(profile, rng, rotated)
    # The atlas' brain is centred at (0, -18, 8); the map's at its own centre.
    world = points - np.reshape([0, -18, 8], (3, 1, 1, 1)) + centre[:, None, None, None]
    inverse = np.linalg.inv(affine)
    voxels = np.einsum("ij,jdhw->idhw", inverse[:3, :3], world) + inverse[:3, 3][:, None, None, None]
    head = ndimage.map_coordinates(values, voxels, order=0, mode="constant", cval=0)
    tissue = np.zeros(shape, np.uint8)
    for label, members in ((CSF, CSF_VALUES), (GREY, GREY_VALUES), (WHITE, WHITE_VALUES)):
        tissue[np.isin(head, members)] = label
    malp = np.where(np.isin(head, (*CORTEX, *OTHER_GREY)), parcels(points, n_parcels), 0)
    for value, into in TO_MALP.items():
        malp[head == value] = into
    first = np.where(np.isin(head, FIRST_VALUES), head, 0).astype(np.uint8)
    inside = tissue > 0
    surface = spacing * (ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside))
    return Head(tissue, malp.astype(np.uint8), first, intensity(head, tissue, first), surface,
                (head == 24) & (surface > -16), spacing, points)


def intensity(head: np.ndarray, tissue: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the noise-free intensity: tissue means, and one of a fixed set for each tissue outside the brain."""
    image = np.full(head.shape, MEANS["air"], np.float32)
    for value in np.unique(head[head >= OUTSIDE.start]):
        image[head == value] = 120 + 880 * (int(value) * 37 % 29) / 28
    for label, name in ((CSF, "csf"), (GREY, "grey"), (WHITE, "white")):
        image[tissue == label] = MEANS[name]
    for value, mean in FIRST_MEANS.items():
        image[first == value] = mean
    return image
