"""The completeness check: decode what every case should have and compare the parts.

Nothing here stops at the first problem: everything wrong with a case is collected.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from segexp.data.cache import Cache
from segexp.data.cases import Case, Listed, Report
from segexp.data.intensity import Intensity, ZScore
from segexp.data.labelmap import LabelMap, describe_counts
from segexp.data.nifti import corner_distance
from segexp.data.store import DerivedLabels, Labels, StoredImage, StoredLabels
from segexp.errors import DataError

THREADS = 16  # each holds a case while it decodes it
SWELLING = 30  # bytes in memory, at most, per byte of a compressed image: twofold packing, 14 bytes a voxel of copies

Progress = Callable[..., Iterable[Any]]


@dataclass(frozen=True)
class Lookup:
    """A label map that is a lookup of another: ``table`` [K of source] holds the class of each class of ``source``."""

    source: str
    table: np.ndarray


@dataclass(frozen=True)
class Rules:
    """What a case must have and how it is judged.

    Args:
        label_maps: every label map of the data set.
        targets: the chosen ones, in order.
        required: label maps that must exist and be sound.
        wanted: further label maps that are read where they exist, for the comparisons.
        lookups: label maps that are lookups of others; where both files are read they must agree.
        derived: targets made by their lookup instead of being read.
        masked: keep a case without some required label maps as long as it has one target.
        on_unknown: ``error`` or ``background``, for values that a label map does not declare.
        affine_tolerance: how far, in mm, a label map's corner voxels may lie from the image's.
        agreement: (first, second, least mean Dice) of two tissue maps; below it one tool is suspected to have failed.
        smallest: sizes below these (the crop) are padded, which is a warning.
        intensity: how the images are scaled.
        may_be_empty: a label map without any structure is a finding, not a mistake.
        affine_by_entry: ``affine_tolerance`` is for the entries of the affines instead, as headers are compared.

    """

    label_maps: Mapping[str, LabelMap]
    targets: tuple[str, ...]
    required: frozenset[str]
    wanted: frozenset[str] = frozenset()
    lookups: Mapping[str, Lookup] = field(default_factory=dict)
    derived: frozenset[str] = frozenset()
    masked: bool = False
    on_unknown: str = "error"
    affine_tolerance: float = 0.1
    agreement: tuple[str, str, float] | None = None
    smallest: tuple[int, int, int] | None = None
    intensity: Intensity = field(default=ZScore())
    may_be_empty: bool = False
    affine_by_entry: bool = False


def examine_all(listed: Sequence[Listed], rules: Rules, cache: Cache, progress: Progress | None = None) -> list[Report]:
    """Examine every case, several at a time; return their reports in the given order."""
    pool = ThreadPoolExecutor(threads_for(listed))
    try:
        reports: Iterable[Report] = pool.map(lambda one: Examination(one, rules, cache).report(), listed)
        if progress is not None:
            reports = progress(reports, "checking and decoding cases", total=len(listed))
        return _without_copies(list(reports))
    finally:
        pool.shutdown(cancel_futures=True)
        cache.hashes.save()


def threads_for(listed: Sequence[Listed]) -> int:
    """Return how many cases may be decoded at once: one per core, as far as they fit into half the free memory."""
    sizes = [one.image.stat().st_size for one in listed if one.image.is_file()]
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system says
        free = 2**33
    fitting = free // 2 // max(SWELLING * max(sizes, default=0), 1)
    return max(1, min(os.cpu_count() or 1, THREADS, fitting))


def _without_copies(reports: Sequence[Report]) -> list[Report]:
    """Reject cases whose image is byte for byte that of an earlier case: they could sit on both sides of a split."""
    first: dict[str, str] = {}
    result = []
    for report in reports:
        if report.case is not None:
            other = first.setdefault(report.case.image.key, report.listed.id)
            if other != report.listed.id:
                report = replace(report, case=None, errors=(f"the image is a copy of that of {other}",))
        result.append(report)
    return result


class Examination:
    """Examine one case under ``rules``; `report` returns what was found."""

    def __init__(self, listed: Listed, rules: Rules, cache: Cache) -> None:
        self.listed, self.rules, self.cache = listed, rules, cache
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.image: StoredImage | None = None
        self.read: dict[str, StoredLabels] = {}
        self.suspected = False

    def report(self) -> Report:
        """Return the report; its case is None where the case cannot be used."""
        if self.listed.problem:
            return Report(self.listed, (self.listed.problem,))
        self._read_image()
        # Derived label maps last: whether they are read depends on their source.
        for target in sorted(self.rules.label_maps, key=lambda target: target in self.rules.derived):
            self._read_labels(target)
        targets = self._targets()
        if not self.errors and not targets:
            self.errors.append(f"none of the targets {', '.join(self.rules.targets)} is there")
        self._compare_lookups()
        self._compare_tools()
        case = None
        if not self.errors and self.image is not None:
            case = Case(self.listed.id, self.listed.person, self.listed.image, self.image, targets,
                        self.listed.group, self.suspected)
        return Report(self.listed, tuple(self.errors), tuple(self.warnings), self.image, {**self.read, **targets}, case)

    def _read_image(self) -> None:
        if not self.listed.image.exists():
            self.errors.append(f"image: there is no {self.listed.image}")
            return
        try:
            self.image = replace(self.cache.image(self.listed.image), intensity=self.rules.intensity)
        except DataError as error:
            self.errors.append(f"image: {error}")
            return
        problem = self.rules.intensity.problem(self.image)
        if problem:
            self.errors.append(f"image: {self.listed.image}: {problem}")
        if self.image.warning:
            self.warnings.append(f"image: {self.image.warning}")
        smallest = self.rules.smallest
        if smallest and any(n < m for n, m in zip(self.image.shape, smallest, strict=True)):
            self.warnings.append(f"the image {_size(self.image.shape)} is smaller than the crop {_size(smallest)}: "
                                 f"it will be padded")

    def _read_labels(self, target: str) -> None:
        rules = self.rules
        required = target in rules.required
        path = self.listed.label_maps.get(target)
        # A lookup whose source is missing from this case can still be read itself.
        source = rules.lookups[target].source if target in rules.derived else ""
        fallback = bool(source) and source not in self.read
        if path is None or not (required or fallback or target in rules.wanted):
            return
        if not path.exists():
            if required and not rules.masked:
                self.errors.append(f"{target}: there is no {path}")
            return
        # What is only read to be compared cannot make a case unusable.
        complain = self.errors.append if required or fallback else self.warnings.append
        try:
            found = self.cache.labels(path, rules.label_maps[target], rules.on_unknown)
        except DataError as error:
            complain(f"{target}: {error}")
            return
        problem = self._mismatch(found)
        if problem:
            complain(f"{target}: {problem}")
            return
        if found.warning:
            self.warnings.append(f"{target}: {found.warning}")
        if found.unknown:
            self.warnings.append(f"{target}: {describe_counts(dict(found.unknown))} became background")
        self.read[target] = found

    def _mismatch(self, found: StoredLabels) -> str:
        """Say how a label map does not belong to the image, or is empty; "" where it is fine."""
        if not (self.rules.may_be_empty or any(found.counts[1:])):
            return "every voxel is background"
        if self.image is None:
            return ""
        if found.shape != self.image.shape:
            return f"the label map has {_size(found.shape)} voxels, the image {_size(self.image.shape)}"
        own, image = np.array(found.affine), np.array(self.image.affine)
        tolerance = self.rules.affine_tolerance
        if self.rules.affine_by_entry:
            differing = float(np.abs(own - image).max())
            return "" if differing <= tolerance else (
                f"the affines of label map and image differ by up to {differing:.4g} in an entry (more than "
                f"data.affine_tolerance={tolerance:g})")
        distance = corner_distance(own, image, found.shape)
        if distance > tolerance:
            return (f"the label map lies up to {distance:.4g} mm away from the image (affines differ by more than "
                    f"data.affine_tolerance={tolerance:g} mm)")
        return ""

    def _targets(self) -> dict[str, Labels]:
        """Return the chosen label maps that the case has, read or derived, in the chosen order."""
        found: dict[str, Labels] = {}
        for target in self.rules.targets:
            lookup = self.rules.lookups.get(target) if target in self.rules.derived else None
            if lookup and lookup.source in self.read:
                classes = self.rules.label_maps[target].num_classes
                found[target] = DerivedLabels(self.read[lookup.source], lookup.table, classes)
            elif target in self.read:
                found[target] = self.read[target]
        return found

    def _compare_lookups(self) -> None:
        for target, lookup in self.rules.lookups.items():
            if target not in self.read or lookup.source not in self.read:
                continue
            own, source = self.read[target], self.read[lookup.source]
            if own.shape != source.shape:
                continue
            differing = self.cache.pair(
                f"lookup {bytes(lookup.table).hex()}", own, source,
                lambda own=own, source=source, table=lookup.table:
                    float(np.count_nonzero(own.array() != np.take(table, source.array()))),
            )
            if differing:
                complain = self.errors.append if target in self.rules.required else self.warnings.append
                complain(f"{target}: {int(differing)} voxels are not the lookup of {lookup.source}; "
                         f"the two files were not made together")

    def _compare_tools(self) -> None:
        if self.rules.agreement is None:
            return
        first, second, least = self.rules.agreement
        if first not in self.read or second not in self.read or self.read[first].shape != self.read[second].shape:
            return
        a, b = self.read[first], self.read[second]
        value = self.cache.pair("mean dice", a, b, lambda: mean_dice(a.array(), b.array()))
        if value < least:
            self.suspected = True
            self.warnings.append(f"{first} and {second} agree with a mean Dice of {value:.2f} only (less than "
                                 f"{least:g}): one of the tools has probably failed")


def mean_dice(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean Dice over the foreground classes that occur in one of two arrays of class indices (uint8)."""
    size = int(max(first.max(), second.max())) + 1
    joint = np.bincount((first.astype(np.int32) * size + second).reshape(-1), minlength=size * size)
    joint = joint.reshape(size, size)
    volumes = joint.sum(0) + joint.sum(1)
    present = volumes[1:] > 0
    return float((2 * np.diag(joint)[1:][present] / volumes[1:][present]).mean()) if present.any() else 1.0


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
