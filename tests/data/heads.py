"""A tiny data set with the real layouts: real NIfTI files, made in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

ROOT = Path(__file__).parents[2]
SHAPE = (14, 16, 12)
AFFINE = np.array([[-1.0, 0, 0, 6], [0, 1, 0, -8], [0, 0, 1, -5], [0, 0, 0, 1]])  # stored LAS, as FSL does


def load_yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())


TARGETS = ("fsl_fast", "fsl_first", "spm_tissue", "malp_em", "malp_em_tissue")
LABEL_MAPS = {target: load_yaml(f"label_map/{target}") for target in TARGETS}
DEFAULTS = load_yaml("ukbiobank")


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path


def tissue_of(malp: np.ndarray) -> np.ndarray:
    table = np.zeros(139, np.uint8)
    for value, members in DEFAULTS["lookups"]["malp_em_tissue"]["values"].items():
        table[members] = value
    return table[malp]


def arrays(seed: int, shape: tuple[int, ...] = SHAPE) -> dict[str, np.ndarray]:
    """Image and label maps of one made-up head: stored axes, native values."""
    rng = np.random.default_rng(seed)
    slabs = np.broadcast_to((np.arange(shape[0]) * 4 // shape[0])[:, None, None], shape).astype(np.uint8)
    malp = rng.integers(0, 139, shape).astype(np.int16)
    first = np.array(sorted(LABEL_MAPS["fsl_first"]))[rng.integers(0, 16, shape)].astype(np.int16)
    return {
        "image": (rng.normal(300, 90, shape) + 100 * slabs).astype(np.int16),
        "fsl_fast": slabs, "spm_tissue": slabs.copy(), "fsl_first": first,
        "malp_em": malp, "malp_em_tissue": tissue_of(malp),
    }


class Folder:
    """A data set on disk; ``add`` writes a case, ``path`` says where a file of it lies."""

    def __init__(self, base: Path, layout: str = "bulk") -> None:
        self.root, self.derived, self.truth = base / layout, base / "derived", base / "truth"
        self.base, self.layout = base, layout
        for folder in (self.root, self.derived):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, case: str, what: str) -> Path:
        layout = DEFAULTS["layouts"][self.layout]
        template = layout["image"] if what == "image" else layout["label_maps"][what]
        return Path(template.format(root=self.root, derived_root=self.derived, case=case))

    def add(self, case: str, seed: int | None = None, shape: tuple[int, ...] = SHAPE) -> dict[str, np.ndarray]:
        made = arrays(abs(hash(case)) % 2**32 if seed is None else seed, shape)
        for what, array in made.items():
            write(self.path(case, what), array)
        return made

    def settings(self, **changes: Any) -> dict[str, Any]:
        keys = ("layouts", "instances", "require", "missing", "on_unknown", "affine_tolerance", "agreement",
                "exclude_failed_tools", "derive_lookups", "lookups", "train_size")
        return {
            **{key: DEFAULTS[key] for key in keys}, "label_maps": LABEL_MAPS, "targets": list(TARGETS),
            "root": str(self.root), "derived_root": str(self.derived) if self.layout == "bulk" else None,
            "layout": self.layout, "cache": str(self.base / "cache"),
            "split": {"train": None, "validation": 1, "test": 1}, **changes,
        }

    def module(self, **changes: Any):
        from segexp.data import UKBiobank

        return UKBiobank(**self.settings(**changes))


def bulk_id(number: int, instance: int = 2) -> str:
    return f"{9000000 + number}_20252_{instance}_0"
