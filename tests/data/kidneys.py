"""Small abdominal CTs on disk, in every layout of the kidney data: real NIfTI files, made in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

ROOT = Path(__file__).parents[2]
DEFAULTS = yaml.safe_load((ROOT / "conf" / "data" / "kidney_cta.yaml").read_text())
SHAPE = (60, 44, 40)  # right, anterior, superior
SPACING = (5.0, 5.0, 5.0)  # mm
KIDNEYS = {"left": (18, 20, 20), "right": (42, 20, 22)}  # centres; D runs to the right
IMAGE = {"native": "image.nii.gz"}
LABEL = {"native": "label.nii.gz", "kits21": "aggregated_MAJ_seg.nii.gz"}
FOLDERS = {"native": "cases", "kits19": "data", "kits21": "kits21/data", "kits23": "dataset"}


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.indices(shape).astype(float)
    return sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)) <= radius**2


def abdomen(tumors: dict[str, float] | None = None, shape: tuple[int, ...] = SHAPE, cyst: bool = False,
            seed: int = 0, shift: tuple[int, int, int] = (0, 0, 0)) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels (canonical axes) of a body with two kidneys; ``tumors``: side -> radius in voxels."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape).astype(float)
    body = ((grid[0] - 29.5 - shift[0]) / 27) ** 2 + ((grid[1] - 21 - shift[1]) / 19) ** 2 <= 1
    image, labels = np.where(body, 30.0, -1000.0), np.zeros(shape, np.uint8)
    for side, centre in KIDNEYS.items():
        centre = tuple(c + s for c, s in zip(centre, shift, strict=True))
        kidney = ball(shape, centre, 6)
        image[kidney], labels[kidney] = 200, 1
        radius = (tumors or {}).get(side, 0)
        if radius:
            tumor = ball(shape, (centre[0], centre[1] + 5, centre[2] + 3), radius)
            image[tumor], labels[tumor] = 100, 2
    if cyst:
        hole = ball(shape, tuple(c + s for c, s in zip(KIDNEYS["left"], shift, strict=True)), 2)
        image[hole], labels[hole] = 5, 3
    image += rng.normal(0, 5, shape)
    return np.rint(image).astype(np.int16), labels


def kits_affine(spacing: tuple[float, float, float]) -> np.ndarray:
    """Stored axes run to inferior, posterior and left; the origin is 0, a corner of the volume."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -spacing[2], -spacing[1], -spacing[0], 1
    return affine


def as_kits(array: np.ndarray) -> np.ndarray:
    """Canonical axes as KiTS stores them."""
    return np.ascontiguousarray(array.transpose(2, 1, 0)[::-1, ::-1, ::-1])


def write(path: Path, array: np.ndarray, affine: np.ndarray, **header: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_qform(None, 0)
    image.header.set_sform(affine, 2)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


class Folder:
    """A data set on disk; ``add`` writes a case."""

    def __init__(self, base: Path, layout: str = "native", kind: str = "ct") -> None:
        self.base, self.layout, self.root = base, layout, base / layout
        self.cases = self.root / FOLDERS[layout]
        self.cases.mkdir(parents=True)
        if layout == "native":
            (self.root / "dataset.json").write_text(json.dumps(
                {"name": "test", "source": "synthetic", "kind": kind,
                 "labels": {"background": 0, "kidney": 1, "tumor": 2}}))

    def path(self, case: str, what: str) -> Path:
        names = {"image": IMAGE.get(self.layout, "imaging.nii.gz"),
                 "label": LABEL.get(self.layout, "segmentation.nii.gz")}
        return self.cases / case / names.get(what, what)

    def add(self, case: str, image: np.ndarray, labels: np.ndarray,
            spacing: tuple[float, float, float] = SPACING, **meta: Any) -> None:
        kits = self.layout != "native"
        affine = kits_affine(spacing) if kits else np.diag([*spacing, 1.0])
        for what, array in (("image", image), ("label", labels)):
            write(self.path(case, what), as_kits(array) if kits else array, affine)
        if meta:
            self.path(case, "meta.json").write_text(json.dumps(meta))

    def fill(self, count: int, **options: Any) -> None:
        """Write ``count`` cases that differ, with a tumour on the left."""
        for number in range(count):
            name = f"case_{number:05d}" if self.layout != "native" else f"p{number:02d}"
            self.add(name, *abdomen({"left": 3}, seed=number, **options))

    def settings(self, **changes: Any) -> dict[str, Any]:
        from segexp.data.intensity import Window
        from segexp.data.regions import LabelRegions

        keys = ("layouts", "label_maps", "lookups", "cyst", "on_unknown", "affine_tolerance", "subtypes", "view",
                "resample", "splits_file", "split", "split_seed", "val_fraction", "train_size")
        return {
            **{key: DEFAULTS[key] for key in keys}, "root": str(self.root), "layout": self.layout,
            "targets": ["kidney"], "cache": str(self.base / "cache"), "intensity": Window(-200, 500, "auto"),
            "roi": LabelRegions(size=24, margin_mm=20), "val_fraction": 0, **changes,
        }

    def module(self, **changes: Any):
        from segexp.data import KidneyCTA

        return KidneyCTA(**self.settings(**changes))


def reports(folder: Folder, **changes: Any) -> dict[str, Any]:
    return {report.listed.id: report for report in folder.module(**changes).examine().reports}
