"""Kidney CT data sets as they lie on disk: the native layout and those of KiTS 2019, 2021 and 2023."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from segexp.data.cases import Listed, Report
from segexp.data.labelmap import LabelMap
from segexp.data.roots import Roots, check_inside, read_json
from segexp.errors import DataError

TARGET = "kidney"
KINDS = ("roi", "ct")


class Layout:
    """Where the files of a data set lie below its root.

    Args:
        name: of the layout, for messages.
        root: the data's root.
        folders: places of the cases below the root, the first that holds one is taken.
        case: pattern of the cases' folders.
        image, label: files in a case's folder.
        case_information: file in a case's folder with what is known about it; None: there is none.
        information: file beside the cases, or in the root, with a list of the same; None: there is none.
        description: file in the root that says what the data set is; None: there is none, and the images are CTs.
        cyst: file value of cysts; None: they are not told apart.
        slices_first: the first stored axis must run along the body.

    """

    def __init__(self, name: str, root: Path, folders: Sequence[str], case: str, image: str, label: str,
                 case_information: str | None = None, information: str | None = None, description: str | None = None,
                 cyst: int | None = None, slices_first: bool = False) -> None:
        check_inside(f"data.layouts.{name}",
                     [*folders, case, image, label, case_information, information, description])
        self.name, self.root, self.pattern, self.cyst = name, root, case, cyst
        self.roots = Roots(root)
        self.folders = [root / folder for folder in folders]
        self.image, self.label, self.slices_first = image, label, slices_first
        self.case_information, self.information, self.description = case_information, information, description
        self._known: dict[Path, dict[str, dict[str, Any]]] = {}

    def cases(self) -> list[Path]:
        """Return the folders of the cases, sorted. Raises DataError when there is none."""
        if not self.root.is_dir():
            raise DataError(f"data.root={self.root}: there is no such folder; set data.root to the folder of the data "
                            f"(data.layout={self.name} expects {self._expected()}), or make phantoms with: "
                            f"segexp phantom data=kidney_cta")
        for folder in self.folders:
            found = [path for path in sorted(folder.glob(self.pattern))
                     if path.is_dir() and not path.name.startswith(".")]
            if found:
                return found
        entries = [entry.name for entry in sorted(self.root.iterdir())]
        there = f"it holds {', '.join(entries[:4])}{' ...' if len(entries) > 4 else ''}" if entries else "it is empty"
        raise DataError(f"data.root={self.root}: no case (data.layout={self.name} expects {self._expected()}); "
                        f"{there}. Set data.root to the folder of the data, or data.layout to the layout it follows")

    def dataset(self, label_map: LabelMap) -> tuple[str, bool]:
        """Return ``roi`` or ``ct``, and whether the data are synthetic.

        Raises DataError when the data set's description cannot be read or declares other labels than ``label_map``.
        """
        if self.description is None:
            return "ct", (self.root / "phantom.json").exists()
        path = self.root / self.description
        content = read_json(self.roots.check(path))
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind not in KINDS:
            raise DataError(f"{path}: kind is {kind!r}; expected roi (images are cut to a kidney) or ct (whole CTs)")
        declared, expected = content.get("labels"), dict(zip(label_map.names, label_map.values, strict=True))
        if declared is not None and declared != expected:
            raise DataError(f"{path}: the labels are {declared}, but data.label_maps.{TARGET} gives {expected}")
        return kind, content.get("source") == "synthetic" or (self.root / "phantom.json").exists()

    def listed(self, subtypes: Sequence[str] | None = None) -> list[Listed]:
        """Return the cases, those of other subtypes than asked for with a problem."""
        folders = self.cases()
        known = self._information(folders[0].parent)
        wanted = None if subtypes is None else {plain_subtype(one) for one in subtypes}
        if wanted is not None and self.case_information is None and not known:
            raise DataError(f"data.subtypes is set, but there is no {self.information} in {folders[0].parent}")
        return [self._listed(folder, known.get(folder.name, {}), wanted) for folder in folders]

    def _listed(self, folder: Path, known: Mapping[str, Any], wanted: set[str] | None) -> Listed:
        problem = ""
        if self.case_information is not None and (folder / self.case_information).exists():
            try:
                known = read_json(self.roots.check(folder / self.case_information))
                if not isinstance(known, dict):
                    raise DataError(f"{folder / self.case_information}: expected a mapping")
            except DataError as error:
                known, problem = {}, str(error)
        subtype = plain_subtype(known.get("subtype") or known.get("tumor_histologic_subtype") or "")
        if not problem and wanted is not None and subtype not in wanted:
            problem = f"its subtype, {subtype or 'unknown'}, is not in data.subtypes"
        return Listed(folder.name, str(known.get("patient") or person_of(folder.name)), folder / self.image,
                      {TARGET: folder / self.label}, problem, subtype)

    def problem(self, report: Report) -> str:
        """Say why an image's header cannot be right; "" where nothing speaks against it.

        Files of KiTS 2019 from before April 2019 had wrong axes and voxel sizes.
        """
        if not self.slices_first or report.image is None:
            return ""
        path, again = report.listed.image, "headers from before April 2019 were wrong; download the file again"
        if report.image.orientation[0] not in "IS":
            return (f"{path}: the first stored axis runs to {report.image.orientation[0]}, expected along the body, to "
                    f"I or S; {again}")
        known = self._information(path.parent.parent).get(report.listed.id, {}).get("captured_pixel_width")
        width = source_spacing(path)[0]
        if isinstance(known, int | float) and abs(width - known) > 0.01 * known:
            return f"{path}: pixels of {width:g} mm, but {self.information} says {known:g} mm; {again}"
        return ""

    def _information(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Return case -> what the file beside the cases says; empty without one."""
        if self.information is None or folder in self._known:
            return self._known.get(folder, {})
        for path in (folder / self.information, self.root / self.information):
            if path.exists():
                content = read_json(self.roots.check(path))
                if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
                    raise DataError(f"{path}: expected a list with one mapping per case")
                self._known[folder] = {str(one.get("case_id")): one for one in content}
                break
        return self._known.setdefault(folder, {})

    def _expected(self) -> str:
        folder = self.folders[0].relative_to(self.root)
        return f"<data.root>/{folder}/{self.pattern}/{self.image} and {self.label}"


def person_of(case: str) -> str:
    """Return the patient of a case: its name without the side."""
    return re.sub(r"[_-](left|right)$", "", case, flags=re.IGNORECASE)


def plain_subtype(name: str) -> str:
    """Return a subtype's name in one spelling: ``clear_cell`` for ``Clear cell RCC`` and ``clear_cell_rcc``."""
    words = re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")
    return words.removesuffix("_rcc")


def source_spacing(path: Path) -> tuple[float, float, float]:
    """Return the voxel size of a file along the canonical axes, mm, from its header alone."""
    affine = nib.load(path).affine
    order = nib.io_orientation(affine)[:, 0].astype(int)
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(0))
    return tuple(float(sizes[list(order).index(axis)]) for axis in range(3))  # type: ignore[return-value]
