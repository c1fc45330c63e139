"""CT angiography of kidneys with tumours: regions of interest cut from whole CTs, or given as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from segexp.data.cache import Cache
from segexp.data.cases import Case, Listed, Manifest, Report
from segexp.data.checks import Progress, Rules, threads_for
from segexp.data.datamodule import SegmentationDataModule
from segexp.data.intensity import Window
from segexp.data.kidney_layouts import TARGET, Layout, source_spacing
from segexp.data.kidney_splits import in_proportion, listed_split
from segexp.data.kidneys import Kidney
from segexp.data.labelmap import IGNORE, LabelMap, lookup_table
from segexp.data.localizer import WholeScan, label_regions, read_scan
from segexp.data.nifti import Source
from segexp.data.placement import Placement, kidneys_of, recall_of
from segexp.data.regions import PrecomputedRegions, Region, RegionProvider, Scan, chosen
from segexp.data.splits import first_persons, split_persons
from segexp.data.store import StoredImage, StoredLabels
from segexp.data.views import LabelsWindow, window
from segexp.errors import ConfigError, DataError

AUTO = "auto"
CYSTS = ("kidney", "tumor", "ignore")
VIEWS = ("regions", "whole")
VERSION = 1  # raise it when what is remembered about a CT changes its meaning


class KidneyCTA(SegmentationDataModule):
    """Kidneys and their tumours in CT angiography (Yang et al. 2018, sections II and III-A), also the data of KiTS.

    A case is the region around one kidney that bears a tumour; with ``view: whole`` it is a whole CT. Regions are
    windows onto the cached CT. Patients, not cases, are split. The keys are explained in
    ``conf/data/kidney_cta.yaml``, where their defaults are.

    Args:
        root: folder of the data.
        layout: which entry of ``layouts`` the folder follows.
        layouts: per layout the arguments of `Layout`.
        label_maps, targets, split, cache, train_size, workers, sampling, split_seed: as in the base class.
        lookups: label map -> {source: kidney, values: {own value: [source values]}}.
        roi: finds the regions of whole CTs, see `segexp.data.regions`.
        view: ``regions`` or ``whole``.
        cyst: what cysts are where the labels tell them apart: ``kidney``, ``tumor``, or ``ignore``.
        subtypes: only tumours of these histological subtypes; None: all.
        resample: voxel size to work at, mm along right, anterior, superior; None: as the files are.
        intensity: scales the images; a `Window` with ``mean: auto`` gets the mean of the training cases.
        on_unknown: ``error`` or ``background``, for file values that the label map does not declare.
        affine_tolerance: mm between corner voxels of label map and image.
        splits_file: file below the root that deals the cases, where it is there; None: never.
        val_fraction: part of the training patients that validates instead.

    """

    def __init__(
        self,
        root: str | Path,
        layout: str,
        layouts: Mapping[str, Mapping[str, Any]],
        label_maps: Mapping[str, Mapping[int, str]],
        targets: Sequence[str] | str,
        split: Mapping[str, int | float | None],
        cache: str | Path,
        lookups: Mapping[str, Mapping[str, Any]] | None = None,
        roi: RegionProvider | None = None,
        view: str = "regions",
        cyst: str = "kidney",
        subtypes: Sequence[str] | None = None,
        resample: Sequence[float] | None = None,
        intensity: Any = None,
        on_unknown: str = "error",
        affine_tolerance: float = 0.1,
        splits_file: str | None = "splits.json",
        val_fraction: float = 0.0,
        split_seed: int | None = 0,
        train_size: int | None = None,
        workers: int = 0,
        sampling: Any = None,
    ) -> None:
        self.mean_is_open = isinstance(intensity, Window) and intensity.mean == AUTO
        intensity = replace(intensity, mean=0.0) if self.mean_is_open else intensity
        super().__init__(label_maps, targets, split, cache, train_size, workers=workers, sampling=sampling,
                         intensity=intensity, split_seed=split_seed)
        for key, value, choices in (("layout", layout, tuple(layouts)), ("view", view, VIEWS), ("cyst", cyst, CYSTS),
                                    ("on_unknown", on_unknown, ("error", "background"))):
            if value not in choices:
                raise ConfigError(f"data.{key}={value}: expected one of {', '.join(choices)}")
        if resample is not None and (len(resample) != 3 or not all(size > 0 for size in resample)):
            raise ConfigError(f"data.resample={resample}: expected three voxel sizes in mm, or null")
        if not 0 <= val_fraction < 1:
            raise ConfigError(f"data.val_fraction={val_fraction}: expected 0 or more, less than 1")
        self.root, self.view, self.roi = Path(root), view, roi
        self.without_tumor: set[str] = set()
        self.layout = Layout(layout, self.root, **layouts[layout])
        self.subtypes, self.splits_file, self.val_fraction = subtypes, splits_file, val_fraction
        if resample is not None:
            self.cache = Cache(cache, resample)
        organ = self.all_label_maps.get(TARGET)
        if organ is None or not {"kidney", "tumor"} <= set(organ.names):
            raise ConfigError(f"data.label_maps.{TARGET}: expected a label map with the structures kidney and tumor")
        self.tumor, files = organ.names.index("tumor"), organ
        if self.layout.cyst is not None and self.layout.cyst not in organ.values:
            structures = dict(zip(organ.values, organ.names, strict=True)) | {self.layout.cyst: "cyst"}
            files = LabelMap.from_mapping(TARGET, structures)
        self.tables = tables(files, organ, cyst, lookups or {}, self.all_label_maps, {TARGET, *self.targets})
        self.rules = Rules({TARGET: files}, (TARGET,), frozenset({TARGET}), on_unknown=on_unknown,
                           affine_tolerance=affine_tolerance, intensity=self.intensity)

    @property
    def phantom(self) -> bool:  # type: ignore[override]
        """True when the data say that they are synthetic."""
        return self.layout.dataset(self.all_label_maps[TARGET])[1]

    def list_cases(self) -> list[Listed]:
        """Return the CTs or regions that the folder holds, from names and descriptions alone."""
        return self.layout.listed(self.subtypes)

    def examine(self, full: bool = False, progress: Progress | None = None) -> Manifest:
        """Return one report per region (per CT with ``view: whole``); those without a tumour are rejected."""
        self.layout.cases()
        kind, _ = self.layout.dataset(self.all_label_maps[TARGET])
        if kind == "ct" and self.view == "regions" and self.roi is None:
            raise ConfigError("data.roi is null, but these are whole CTs: choose data/roi=label, precomputed or lowres")
        manifest = super().examine(full, progress)
        with ThreadPoolExecutor(threads_for([report.listed for report in manifest.reports])) as pool:
            found: Iterable[list[Report]] = pool.map(lambda report: self._reports(report, kind), manifest.reports)
            if progress is not None and kind == "ct" and self.view == "regions":
                found = progress(found, "finding kidneys", total=len(manifest.reports))
            return Manifest(tuple(report for reports in found for report in reports), manifest.targets)

    def setup(self, stage: str | None = None) -> None:
        """Split the usable cases, and scale them by the mean of those to train on."""
        fresh = self._cases is None
        super().setup(stage)
        if fresh and self.mean_is_open:
            if not self.cases("train"):
                raise DataError("data.intensity.mean=auto, but there is no training case to take the mean of; set "
                                "data.intensity.mean to the mean that the network was trained with")
            self._scale(mean_of([case.image for case in self.cases("train")], self.intensity))

    def deal(self, usable: Sequence[Case]) -> dict[str, list[str]]:
        """Return split -> patients: as the splits file says, else 9:5 or as many as ``split`` asks for."""
        persons = sorted({case.person for case in usable})
        path = self.root / self.splits_file if self.splits_file else None
        if path is not None and path.exists():
            person_of_case = {listed.id: listed.person for listed in self.list_cases()}
            dealt = listed_split(self.roots.check(path), person_of_case, set(persons))
        else:
            # Patients without a tumour only teach where kidneys are: the others are split as for regions, so that
            # nobody trains one network and tests the other.
            ill = [person for person in persons if person not in self.without_tumor]
            dealt = split_persons(ill, in_proportion(self.split, len(ill)), seed=self.split_seed)
            dealt["train"] += [person for person in persons if person in self.without_tumor]
        count = round(self.val_fraction * len(dealt["train"]))
        if self.val_fraction and not dealt["validation"] and len(dealt["train"]) > 1:
            count = max(1, count)
            dealt["train"], dealt["validation"] = dealt["train"][:-count], dealt["train"][-count:]
        dealt["train"] = first_persons(dealt["train"], self.train_size, "patients")
        return dealt

    @property
    def reading(self) -> dict[str, str]:
        """What decides, besides the file, which image `label_file` gives the network."""
        roi = self.roi.digest(self.root) if isinstance(self.roi, PrecomputedRegions) else getattr(self.roi, "key", "")
        return super().reading | {"roi": roi, "resample": str(self.cache.spacing)}

    def read_file(self, path: str | Path, content: bytes | None = None) -> WholeScan:
        """Read a whole CT, or a region if ``roi`` is None; as in the base class."""
        if self.mean_is_open:
            raise ConfigError("data.intensity.mean=auto: set it to the mean that the network was trained with")
        return read_scan(path, self.intensity, self.cache.spacing, content)

    def label_read(self, reading: WholeScan, label: Callable[..., Mapping[str, Any]],
                   ) -> tuple[dict[str, Any], Source]:
        """Label a whole CT by its regions; as in the base class."""
        return label_regions(reading, label, self.intensity, self.roi, self.root)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep: the mean that the images are scaled with."""
        return {"intensity_mean": self.intensity.mean} if isinstance(self.intensity, Window) else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Scale with the mean that the network was trained with, on whatever data."""
        if self.mean_is_open and "intensity_mean" in state_dict:
            self.mean_is_open = False
            self._scale(float(state_dict["intensity_mean"]))

    def _scale(self, mean: float) -> None:
        """Subtract ``mean`` from all images from now on."""
        self.intensity = replace(self.intensity, mean=mean)
        self.rules = replace(self.rules, intensity=self.intensity)
        for split, cases in (self._cases or {}).items():
            self._cases[split] = [  # type: ignore[index]
                replace(case, image=replace(case.image, intensity=self.intensity)) for case in cases]

    def _reports(self, report: Report, kind: str) -> list[Report]:
        """Return the reports of the cases that a decoded CT holds."""
        if report.case is None:
            return [report]
        try:
            problem = self.layout.problem(report)
            if problem:
                return [rejected(report, f"image: {problem}")]
            organ = self._window(report, TARGET)
            if self.view == "whole":
                if not organ.counts[self.tumor]:
                    self.without_tumor.add(report.listed.person)
                return [self._report(report, None, None)]
            if not organ.counts[self.tumor]:
                return [rejected(report, "no tumour: there is no region to cut out")]
            return [self._report(report, None, None)] if kind == "roi" else self._regions(report, organ)
        except DataError as error:
            return [rejected(report, str(error))]

    def _regions(self, report: Report, organ: LabelsWindow) -> list[Report]:
        """Return one report per region of a CT."""
        assert self.roi is not None and report.case is not None
        image, provider, remember = report.case.image, self.roi, self.cache.remember
        known = remember(f"kidneys {VERSION} {organ.key} {image.key}", lambda: kidneys_of(organ, image, self.tumor),
                         "kidneys")
        zoom = np.divide(source_spacing(report.listed.image), image.spacing) if self.cache.spacing else (1, 1, 1)
        scan = Scan(report.listed.id, image.array(), image.spacing, known["middle"],
                    [Kidney(**one) for one in known["kidneys"]], self.root, tuple(zoom))
        if provider.key:
            boxes = [Region(**one) for one in remember(
                f"regions {VERSION} {provider.key} {image.key}", lambda: [asdict(one) for one in provider.boxes(scan)],
                "regions")]
        else:
            boxes = provider.boxes(scan)
        found = chosen([tidy(box) for box in boxes], scan, provider.frame, provider.every_kidney)
        if not found:
            return [rejected(report, "no region lies on the side of a tumour")]
        reports = []
        for number, region in enumerate(found):
            twice = sum(one.side == region.side for one in found) > 1
            name = f"{report.listed.id}_{region.side}" + (f"_{number + 1}" if twice else "")
            recall = remember(f"recall {VERSION} {organ.key} {region}",
                              lambda region=region: recall_of(organ, scan.middle, self.tumor, region), "recall")
            labels = {target: self._window(report, target) for target in self.targets}
            placement = Placement(region, labels, organ, self.tumor, scan.middle, recall)
            reports.append(self._report(report, placement, name if len(found) > 1 else None))
        return reports

    def _report(self, report: Report, placement: Placement | None, name: str | None) -> Report:
        """Return the report of one case: the whole CT, or the region of ``placement``."""
        case = report.case
        assert case is not None
        region = placement.region if placement else Region("", (0, 0, 0), case.image.shape)
        image = window(case.image, region.start, region.size) if placement else case.image
        targets = {target: self._window(report, target, region) for target in self.targets}
        listed = replace(report.listed, id=name or report.listed.id)
        warnings = list(report.warnings)
        if placement and placement.recall < 1:
            warnings.append(f"{1 - placement.recall:.1%} of the kidney and its tumour lie outside the region")
        smallest = self.sampling.size if self.sampling is not None else None
        if smallest and any(n < m for n, m in zip(region.size, smallest, strict=True)):
            sizes = [" x ".join(map(str, size)) for size in (region.size, smallest)]
            warnings.append(f"the region {sizes[0]} is smaller than the crop {sizes[1]}: it will be padded")
        case = replace(case, id=listed.id, image=image, targets=targets, placement=placement)
        return Report(listed, (), tuple(warnings), image, targets, case)  # type: ignore[arg-type]

    def _window(self, report: Report, target: str, region: Region | None = None) -> LabelsWindow:
        source = report.label_maps[TARGET]
        assert isinstance(source, StoredLabels)
        start, shape = (region.start, region.size) if region else ((0, 0, 0), source.shape)
        return LabelsWindow(source, self.tables[target], self.all_label_maps[target].num_classes, start, shape)


def tables(files: LabelMap, organ: LabelMap, cyst: str, lookups: Mapping[str, Mapping[str, Any]],
           label_maps: Mapping[str, LabelMap], targets: Iterable[str]) -> dict[str, np.ndarray]:
    """Return target -> its class, or IGNORE, for every class of the files, int16 [K of the files]."""
    classes = {name: index for index, name in enumerate(organ.names)}
    own = np.array([classes.get(name, classes.get(cyst, IGNORE)) for name in files.names], np.int16)
    result = {TARGET: own}
    for target in set(targets) - {TARGET}:
        if target not in lookups or lookups[target].get("source") != TARGET:
            raise ConfigError(f"data.lookups: nothing says how {target} is made from {TARGET}")
        table = lookup_table(organ, label_maps[target], lookups[target]["values"]).astype(np.int16)
        result[target] = np.where(own < 0, np.int16(IGNORE), table[np.maximum(own, 0)])
    return result


def rejected(report: Report, reason: str) -> Report:
    """Return the report with a reason why its case cannot be used."""
    return replace(report, case=None, errors=(*report.errors, reason))


def tidy(region: Region) -> Region:
    """Return a region that was read from JSON, its lists as tuples."""
    return replace(region, start=tuple(region.start), size=tuple(region.size))


def mean_of(images: Sequence[StoredImage], intensity: Callable[..., np.ndarray]) -> float:
    """Return the mean of all voxels of all images, as ``intensity`` makes them."""
    total, count = 0.0, 0
    for image in images:
        array = image.array()
        total += sum(float(intensity(plane, image).sum(dtype=np.float64)) for plane in array)
        count += array.size
    return total / count
