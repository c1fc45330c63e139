"""Tiny FLAIR brains in the layouts of the WMH challenge and of BIDS: real NIfTI files, made in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.data.heads import load_yaml

SHAPES = {"Utrecht": (20, 22, 6), "Singapore": (22, 20, 6), "GE3T": (14, 26, 8), "GE1T5": (14, 26, 9),
          "Philips_VU": (26, 20, 7)}
SPACINGS = {"Utrecht": (0.9583, 0.9583, 3), "Singapore": (1, 1, 3), "GE3T": (1.2, 0.9766, 3),
            "GE1T5": (1.2, 0.9766, 3), "Philips_VU": (1, 1, 3)}
WMH_DEFAULTS, CAIN_DEFAULTS = load_yaml("wmh"), load_yaml("cain")


def oblique(spacing, degrees=20.0):
    """Affine of a scan tilted about the left-right axis whose first two stored axes run to the left and back."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1, 0, 0], [0, -cosine, -sine], [0, -sine, cosine]]) * spacing
    affine[:3, 3] = 90, 70, -40
    return affine


def affine_of(centre: str) -> np.ndarray:
    """Affine of the canonical array of a centre, as it is stored; Utrecht's is oblique."""
    return oblique(SPACINGS[centre]) if centre == "Utrecht" else np.diag([*SPACINGS[centre], 1.0])


def brain(seed: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a FLAIR image with air around it and a float label map with a lesion (1) and something else (2)."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape[:2]], indexing="ij")
    head = (grid[0] ** 2 + grid[1] ** 2 < 0.8)[..., None]
    labels = np.zeros(shape, np.float32)
    corner = [int(rng.integers(n // 4, n // 2)) for n in shape[:2]]
    labels[corner[0]:corner[0] + 3, corner[1]:corner[1] + 4, 2:4] = 1
    labels[corner[0] - 2:corner[0], corner[1]:corner[1] + 2, 1:3] = 2
    image = head * (400 + 50 * rng.random(shape)) + 300 * (labels == 1)
    return image.astype(np.float32), labels


def store(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path


def as_stored(array: np.ndarray, affine: np.ndarray, transposed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Swap the first two stored axes of an array and of its affine."""
    return (array.swapaxes(0, 1), affine[:, [1, 0, 2, 3]]) if transposed else (array, affine)


class Challenge:
    """The challenge's data on disk; ``add`` writes a case, ``folder`` says where it lies."""

    def __init__(self, base: Path, release: str = "2017") -> None:
        self.base, self.root, self.release = base, base / release, release
        self.root.mkdir(parents=True, exist_ok=True)

    def folder(self, centre: str, number: int | str, part: str = "training") -> Path:
        if self.release == "2017":
            return self.root / centre / str(number)
        above = ["Amsterdam"] if centre.startswith(("GE", "Philips")) else []
        return self.root.joinpath(part, *above, centre, str(number))

    def add(self, centre: str, number: int | str, part: str = "training", transposed: bool = False,
            ending: str = ".nii.gz", empty: bool = False) -> Path:
        kind = "Philips_VU" if centre.startswith("Philips") else centre
        image, labels = brain(int(number), SHAPES[kind])
        folder = self.folder(centre, number, part)
        stored, affine = as_stored(image, affine_of(kind), transposed)
        for which, values in (("pre", stored), ("orig", stored * 0.5 + 3)):
            store(folder / which / f"FLAIR{ending}", values, affine)
        store(folder / f"wmh{ending}", as_stored(labels * (not empty), affine, transposed)[0], affine)
        return folder

    def module(self, **changes: Any):
        from segexp.data import WMH
        from segexp.data.intensity import MaxScale

        settings = {key: value for key, value in WMH_DEFAULTS.items() if key not in ("_target_", "intensity")}
        settings |= {"root": str(self.root), "cache": str(self.base / "cache"), "targets": ["wmh"], "workers": 0,
                     "intensity": MaxScale()}
        return WMH(**{**settings, **changes})
