"""Cases, what a check finds about them, and the manifest that says so."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from segexp.data.nifti import affine_hash
from segexp.data.roots import Roots, unfit
from segexp.data.store import Labels, StoredImage
from segexp.files import plain_cell, write_text

if TYPE_CHECKING:
    from segexp.data.placement import Placement


@dataclass(frozen=True)
class Listed:
    """A case as its folder promises it: where the files should be, before any of them is opened.

    ``problem`` says why it cannot be used, if that is known from the names alone. ``group`` tells kinds of cases apart.
    """

    id: str
    person: str
    image: Path
    label_maps: Mapping[str, Path]
    problem: str = ""
    group: str = ""


def confined(listed: Listed, roots: Roots) -> Listed:
    """Return a case as it is listed, with a problem if one of its files lies outside the roots or its name is unfit."""
    if listed.problem:
        return replace(listed, problem=clean(listed.problem))
    found = [unfit(listed.id), unfit(listed.person), listed.group and unfit(listed.group)]
    found += [roots.problem(path) for path in dict.fromkeys([listed.image, *listed.label_maps.values()])]
    return replace(listed, problem=clean("; ".join(one for one in found if one)))


def clean(text: str) -> str:
    r"""Return a text on one line, control characters as ``\xXX``."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()
                   for letter in text)


@dataclass(frozen=True)
class Case:
    """One image with its label maps, decoded.

    ``targets`` holds the chosen label maps that the case has, ``truth`` the true ones (phantoms only). ``group`` tells
    kinds of cases apart in the scores ("" where the data set has none); ``suspected`` says that two tools disagree so
    much that one of them probably failed; ``placement`` where the case lies in the scan that it was cut from.
    """

    id: str
    person: str
    path: Path
    image: StoredImage
    targets: Mapping[str, Labels]
    group: str = ""
    suspected: bool = False
    truth: Mapping[str, Labels] = field(default_factory=dict)
    placement: Placement | None = None


@dataclass(frozen=True)
class Report:
    """What the check found: ``case`` is None where ``errors`` is not empty.

    ``image`` and ``label_maps`` are what could be decoded, also of rejected cases.
    """

    listed: Listed
    errors: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    image: StoredImage | None = None
    label_maps: Mapping[str, Labels] = field(default_factory=dict)
    case: Case | None = None

    @property
    def status(self) -> str:
        """``ok``, ``warning`` or ``rejected``."""
        return "rejected" if self.errors else "warning" if self.warnings else "ok"

    @property
    def reason(self) -> str:
        """Everything found, errors first."""
        return "; ".join(self.errors + self.warnings)

    def row(self, targets: Sequence[str]) -> dict[str, str]:
        """Return the manifest's row of this case."""
        image = self.image
        row = {
            "case": self.listed.id, "person": self.listed.person, "status": self.status, "reason": self.reason,
            "shape": "x".join(map(str, image.shape)) if image else "",
            "zooms": "x".join(f"{size:g}" for size in image.spacing) if image else "",
            "orientation": image.orientation if image else "",
            "affine": affine_hash(image.affine) if image else "",
            "image": str(self.listed.image),
        }
        for target in targets:
            row[target] = str(self.listed.label_maps.get(target, ""))
            found = self.label_maps.get(target)
            row[f"voxels_{target}"] = " ".join(map(str, found.counts)) if found else ""
        return row


@dataclass(frozen=True)
class Manifest:
    """The result of a completeness check: one report per case, in the order of their ids."""

    reports: tuple[Report, ...]
    targets: tuple[str, ...]

    @property
    def usable(self) -> int:
        """Number of cases that can be used."""
        return sum(report.case is not None for report in self.reports)

    @property
    def counts(self) -> dict[str, int]:
        """Number of cases per status: ok, warning, rejected."""
        return {status: sum(report.status == status for report in self.reports)
                for status in ("ok", "warning", "rejected")}

    def rows(self) -> list[dict[str, str]]:
        """Return one row per case: id, person, status, reason, geometry, paths, and voxels per class and target."""
        return [report.row(self.targets) for report in self.reports]

    def write(self, path: str | Path) -> None:
        """Write the rows as CSV, whole or not at all."""
        rows = self.rows()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["case"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: plain_cell(value) for key, value in row.items()} for row in rows)
        write_text(path, text.getvalue())

    def problems(self) -> list[str]:
        """Return ``case: reason`` for every case that is not ok, rejected ones first."""
        found = [report for report in self.reports if report.status != "ok"]
        found.sort(key=lambda report: report.status != "rejected")
        return [f"{report.listed.id}: {report.status}: {report.reason}" for report in found]
