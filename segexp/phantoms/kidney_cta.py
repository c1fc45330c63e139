"""Write synthetic CT angiograms of kidneys with a tumour, in the native layout or those of the KiTS challenges.

Every case is a pure function of (seed, number): written again or in parallel, the bytes are the same.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from segexp.console import say
from segexp.errors import ConfigError
from segexp.files import write_json
from segexp.phantoms.abdomen import GRIDS, draw
from segexp.phantoms.files import Part, spoil, stored
from segexp.phantoms.kidney import CYST, KIDNEY, TUMOR
from segexp.phantoms.tree import claim, place, write_all

FORMAT = 1  # raised when the same settings would write other bytes
DEFECTS = ("missing_label_map", "truncated", "no_tumor", "unknown_label", "wrong_shape", "wrong_affine",
           "missing_image", "nan", "constant", "four_dimensions")
"""``no_tumor``: all of it labelled kidney; the others as in `segexp.phantoms.files`."""


@dataclass(frozen=True)
class Layout:
    """Where a layout's files lie: folder of the cases, image, label map, and the file that lists the cases."""

    folder: str
    image: str
    label_map: str
    listing: str = ""


LAYOUTS = {
    "native": Layout("cases", "image.nii.gz", "label.nii.gz"),
    "kits19": Layout("data", "imaging.nii.gz", "segmentation.nii.gz", "data/kits.json"),
    "kits21": Layout("kits21/data", "imaging.nii.gz", "aggregated_MAJ_seg.nii.gz", "kits21/data/kits.json"),
    "kits23": Layout("dataset", "imaging.nii.gz", "segmentation.nii.gz", "dataset/kits23.json"),
}
HISTOLOGY = {"clear_cell": "clear_cell_rcc", "papillary": "papillary_rcc", "chromophobe": "chromophobe_rcc",
             "angiomyolipoma": "angiomyolipoma"}
"""Subtype -> KiTS' name."""
FACTS = ".written"  # folder of what the listing of all cases says about each


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is written: see `write`."""

    cases: int
    test: int
    broken: int
    seed: int
    kind: str
    preset: str
    layout: str
    rescaled: bool

    def __post_init__(self) -> None:
        for key, value, choices in (("kind", self.kind, ("roi", "ct")), ("layout", self.layout, tuple(LAYOUTS)),
                                    ("preset", self.preset, sorted({preset for _, preset in GRIDS}))):
            if value not in choices:
                raise ConfigError(f"phantom.{key}={value}: expected one of {', '.join(choices)}")
        if self.kind == "roi" and self.layout != "native":
            raise ConfigError(f"phantom.kind=roi with the layout {self.layout}, which has whole CTs only: set "
                              "phantom.kind=ct, or the layout to native")
        if not 0 <= self.test < self.cases or self.broken < 0:
            raise ConfigError(f"phantom.cases={self.cases}, phantom.test={self.test}, phantom.broken={self.broken}: "
                              "expected fewer test cases than cases, and none below zero")

    def defect(self, index: int) -> str:
        """Return what is wrong with a case, empty for a usable one."""
        return DEFECTS[(index - self.cases) % len(DEFECTS)] if index >= self.cases else ""


def write(output: str | Path, *, cases: int = 52, test: int = 12, broken: int = 0, seed: int = 42, kind: str = "roi",
          preset: str = "small", layout: str = "native", rescaled: bool = False, processes: int = 2) -> Path:
    """Write the tree below ``output`` and return it, the folder to give as ``data.root``.

    ``phantom.json`` says that it is synthetic and which cases are broken. Cases that are already there are kept; a
    tree with other settings is refused.

    Args:
        output: folder of the tree.
        cases: usable cases.
        test: how many of them, the last ones, splits.json gives to the test (native layout only).
        broken: further cases with one defect each, for the completeness check.
        seed: of all randomness.
        kind: roi (a region around the kidney) or ct (the whole abdomen).
        preset: full, small or tiny: the grids are those of `segexp.phantoms.abdomen.GRIDS`.
        layout: native, kits19, kits21 or kits23; the last two label cysts 3, the others as kidney.
        rescaled: store HU + 1024, with slope 1 and intercept -1024 in the header.
        processes: cases that are made at once.

    Raises:
        ConfigError: a setting out of its range, or other settings than those of the tree that is there.
    """
    root, settings = Path(output), Settings(cases, test, broken, seed, kind, preset, layout, rescaled)
    everyone = range(cases + broken)
    claim(root, "segexp kidney", FORMAT, {**asdict(settings), "defects": {
        name(index): settings.defect(index) for index in everyone if settings.defect(index)}})
    cases_folder = root / LAYOUTS[layout].folder
    missing = [index for index in everyone if not (cases_folder / name(index)).exists()]
    if not missing:
        say(f"already there: {len(everyone)} cases in {root}, {broken} of them broken")
    write_all(write_case, [(root, settings, index) for index in missing], processes, "writing kidneys")
    if layout == "native":
        write_json(root / "dataset.json", {"name": "synthetic kidneys", "source": "synthetic", "kind": kind,
                                           "labels": {"background": 0, "kidney": KIDNEY, "tumor": TUMOR}})
        write_json(root / "splits.json", {"train": [name(index) for index in range(cases - test)],
                                          "test": [name(index) for index in range(cases - test, cases)]})
    else:
        write_json(root / LAYOUTS[layout].listing,
                   [json.loads((root / FACTS / f"{name(index)}.json").read_text()) for index in everyone])
    return root


def name(index: int) -> str:
    """Return the folder of a case."""
    return f"case_{index:05d}"


def write_case(job: tuple[Path, Settings, int]) -> None:
    """Write one case: image, label map and what is known about it."""
    root, settings, index = job
    layout, defect = LAYOUTS[settings.layout], settings.defect(index)
    case = draw(settings.kind, settings.preset, index, settings.seed)
    labels = case.labels
    if settings.layout in ("native", "kits19"):
        labels = np.where(labels == CYST, KIDNEY, labels).astype(np.uint8)
    if defect == "no_tumor":
        labels = np.where(labels == TUMOR, KIDNEY, labels).astype(np.uint8)
    kits = settings.layout != "native"
    affine = centred(case.image.shape, case.spacing)
    image = on_disk(case.image, affine, kits)
    if settings.rescaled:
        image = replace(image, array=image.array + np.int16(1024), scaling=(1.0, -1024.0))
    content = spoil({layout.image: image, layout.label_map: on_disk(labels, affine, kits)}, defect, (layout.image,),
                    layout.label_map)
    if kits:  # the listing of all cases is made from these
        write_json(root / FACTS / f"{name(index)}.json", {
            "case_id": name(index), "tumor_histologic_subtype": HISTOLOGY[case.subtype],
            "captured_pixel_width": case.spacing[0], "captured_slice_thickness": case.spacing[2]})
    else:
        content["meta.json"] = (json.dumps({
            "side": case.side, "subtype": case.subtype, "tumor_ml": case.tumor_ml, "kidney_ml": case.kidney_ml,
            "roi_start_zyx": [0, 0, 0], "source_shape_zyx": case.image.shape[::-1], "source_affine": affine.tolist(),
        }, indent=2) + "\n").encode()
    place(root / layout.folder / name(index), content)


def centred(shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Return the affine [4, 4] (mm) of a RAS grid around the origin."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    return affine


def on_disk(array: np.ndarray, affine: np.ndarray, kits: bool) -> Part:
    """Return an array in RAS order as it is stored: along LPS, in KiTS along IPL with the origin in a corner."""
    if not kits:
        return stored(array, affine, "LPS")
    part = stored(array, affine, "IPL")
    corner = part.affine.copy()
    corner[:3, 3] = 0
    return Part(part.array, corner, codes=(0, 2))
