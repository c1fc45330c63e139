"""UK Biobank brain MRI: T1 images with the label maps of five tools, in the bulk or a flat layout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segexp.data.cases import Case, Listed
from segexp.data.checks import Lookup, Rules
from segexp.data.datamodule import SegmentationDataModule
from segexp.data.labelmap import LabelMap, lookup_table
from segexp.data.roots import check_template, read_table
from segexp.data.splits import id_order
from segexp.data.store import DerivedLabels, Labels
from segexp.errors import ConfigError, DataError

FIELDS = ("root", "derived_root", "truth_root", "case")


class UKBiobank(SegmentationDataModule):
    """T1 images of UK Biobank (field 20252) with label maps of FSL FAST, FSL FIRST, SPM and MALP-EM.

    A case is one visit: ``<person>_20252_<instance>_0`` in the bulk layout, ``<person>`` in the flat one. Persons, not
    cases, are split. The keys are explained in ``conf/data/ukbiobank.yaml``, where their defaults are.

    Args:
        root: folder of the cases.
        layout: which entry of ``layouts`` the folder follows.
        layouts: per layout the path templates case, image, label_maps, truth, unusable and archive.
        label_maps, targets, split, cache, train_size, exclude_failed_tools, workers, sampling: as in the base class.
        derived_root: folder of the label maps that UK Biobank does not distribute.
        truth_root: folder of the true label maps (phantoms only).
        instances: visits in use (2: first imaging visit, 3: repeat).
        require: ``all`` label maps, or the ``requested`` targets only.
        missing: ``drop`` a case without a required label map, or ``mask`` the target in it.
        lookups: label map -> {source, values: {own value: [source values]}}.
        derive_lookups: make a target by its lookup when its source is a target too, instead of reading its file.
        on_unknown: ``error`` or ``background``, for file values that a label map does not declare.
        agreement: {between: [first, second], minimum: mean Dice}, or None.
        affine_tolerance: mm between corner voxels of label map and image.

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
        derived_root: str | Path | None = None,
        truth_root: str | Path | None = None,
        instances: Sequence[int] = (2, 3),
        require: str = "all",
        missing: str = "drop",
        lookups: Mapping[str, Mapping[str, Any]] | None = None,
        derive_lookups: bool = True,
        on_unknown: str = "error",
        agreement: Mapping[str, Any] | None = None,
        affine_tolerance: float = 0.1,
        train_size: int | None = None,
        exclude_failed_tools: bool = False,
        workers: int = 0,
        sampling: Any = None,
    ) -> None:
        super().__init__(label_maps, targets, split, cache, train_size, exclude_failed_tools, workers, sampling)
        for key, value, choices in (("layout", layout, tuple(layouts)), ("require", require, ("all", "requested")),
                                    ("missing", missing, ("drop", "mask")),
                                    ("on_unknown", on_unknown, ("error", "background"))):
            if value not in choices:
                raise ConfigError(f"data.{key}={value}: expected one of {', '.join(choices)}")
        self.root, self.layout, self.instances = Path(root), dict(layouts[layout]), tuple(instances)
        for name, one in self.layout.items():
            for template in one.values() if isinstance(one, Mapping) else [one]:
                if isinstance(template, str):
                    check_template(f"data.layouts.{layout}.{name}", template,
                                   ("person", "instance") if name == "case" else FIELDS)
        self.layout_name = layout
        self.derived_root = Path(derived_root) if derived_root is not None else None
        self.truth_root = Path(truth_root) if truth_root is not None else None
        self.lookups = _lookups(lookups or {}, self.all_label_maps)
        derived = {target for target in self.targets if derive_lookups and target in self.lookups
                   and self.lookups[target].source in self.targets}
        required = set(self.all_label_maps) if require == "all" else set(self.targets) - derived
        pair = (*agreement["between"], float(agreement["minimum"])) if agreement else None
        if exclude_failed_tools and pair is None:
            raise ConfigError("data.exclude_failed_tools needs data.agreement to know which tools failed")
        self.rules = Rules(
            self.all_label_maps, self.targets, frozenset(required), frozenset(pair[:2] if exclude_failed_tools else ()),
            self.lookups, frozenset(derived), missing == "mask", on_unknown, affine_tolerance, pair,
            sampling.size if sampling is not None else None, self.intensity,
        )

    @property
    def phantom(self) -> bool:  # type: ignore[override]
        """True when the folder says that it was made by the phantom generator."""
        return (self.root / "phantom.json").exists()

    def list_cases(self) -> list[Listed]:
        """Return the visits that the folder holds, from names alone, sorted by person and visit.

        Raises DataError when a folder that is needed is absent or holds no visit.
        """
        self._check_folders()
        groups = self._groups()
        pattern = re.escape(self.layout["case"]).replace(r"\{person\}", r"(?P<person>\d+)")
        matcher = re.compile(pattern.replace(r"\{instance\}", r"(?P<instance>\d+)"))
        found: dict[str, Listed] = {}
        for entry in sorted(self.root.iterdir()):
            archive = self.layout.get("archive") is not None and entry.name.endswith(".zip")
            name = entry.name.removesuffix(".zip") if archive else entry.name
            match = matcher.fullmatch(name)
            if not match or not (archive or entry.is_dir()):
                continue
            if "instance" in match.groupdict() and int(match["instance"]) not in self.instances:
                continue
            if archive and name in found:
                continue  # the archive of an unpacked visit
            problem = f"{entry.name} is not unpacked" if archive else ""
            found[name] = self._listed(name, match["person"].lstrip("0"), problem, groups.get(name, ""))
        if not found:
            raise DataError(self._nothing_found())
        ordered = sorted(found.values(), key=lambda one: (id_order(one.person), one.id))
        return _without_double_ids(ordered)

    def with_truth(self, case: Case) -> Case:
        """Return the case with its true label maps where `truth_root` has them."""
        if self.truth_root is None:
            return case
        truth: dict[str, Labels] = {}
        wanted = {*self.targets, *(self.lookups[t].source for t in self.targets if t in self.lookups)}
        for target, template in self.layout["truth"].items():
            path = self._path(template, case.id)
            if target in wanted and path.exists():
                self.roots.check(path)
                truth[target] = self.cache.labels(path, self.all_label_maps[target])
                if truth[target].shape != case.image.shape:
                    raise DataError(f"{path}: {truth[target].shape} voxels, but the image has {case.image.shape}")
        for target, lookup in self.lookups.items():
            if target not in truth and lookup.source in truth:
                classes = self.all_label_maps[target].num_classes
                truth[target] = DerivedLabels(truth[lookup.source], lookup.table, classes)  # type: ignore[arg-type]
        return replace(case, truth={target: truth[target] for target in self.targets if target in truth})

    def _listed(self, case: str, person: str, problem: str, group: str) -> Listed:
        unusable = self.layout.get("unusable")
        if not problem and unusable and self._path(unusable, case).exists():
            problem = f"{self._path(unusable, case)} is there: the scan failed UK Biobank's quality control"
        label_maps = {
            target: self._path(template, case) for target, template in self.layout["label_maps"].items()
            if target in self.all_label_maps and ("{derived_root}" not in template or self.derived_root is not None)
        }
        return Listed(case, person, self._path(self.layout["image"], case), label_maps, problem, group)

    def _path(self, template: str, case: str) -> Path:
        return Path(template.format(root=self.root, derived_root=self.derived_root, truth_root=self.truth_root,
                                    case=case))

    def _check_folders(self) -> None:
        expected = self.layout["image"].format(root="<data.root>", case=self.layout["case"])
        if not self.root.is_dir():
            raise DataError(
                f"data.root={self.root}: there is no such folder; set data.root to the folder of the cases "
                f"(data.layout={self.layout_name} expects {expected}), or make phantoms with: "
                f"segexp phantom data=ukbiobank"
            )
        for key, folder in (("derived_root", self.derived_root), ("truth_root", self.truth_root)):
            if folder is not None and not folder.is_dir():
                raise DataError(f"data.{key}={folder}: there is no such folder; set data.{key} to it or to null")
        without = sorted(target for target in self.rules.required | self.rules.wanted
                         if target not in self.layout["label_maps"])
        if without:
            raise ConfigError(f"data.layouts.{self.layout_name}.label_maps has no path for {', '.join(without)}")
        outside = sorted(target for target in self.rules.required | self.rules.wanted
                         if "{derived_root}" in self.layout["label_maps"][target])
        if outside and self.derived_root is None:
            raise DataError(
                f"data.derived_root is not set, but {', '.join(outside)} should lie there: UK Biobank does not "
                f"distribute them. Set data.derived_root=FOLDER, or data.require=requested and other targets"
            )

    def _nothing_found(self) -> str:
        names = self.layout["case"].replace("{person}", "<digits>")
        names = names.replace("{instance}", "<" + "|".join(map(str, self.instances)) + ">")
        entries = [entry.name for entry in sorted(self.root.iterdir())]
        there = f"it holds {', '.join(entries[:4])}{' ...' if len(entries) > 4 else ''}" if entries else "it is empty"
        return (f"data.root={self.root}: no folder named {names} (data.layout={self.layout_name}); {there}. "
                f"Set data.root to the folder of the cases, or data.layout to the layout it follows")

    def _groups(self) -> dict[str, str]:
        """Return case -> group from the truth's manifest; empty without a truth."""
        if self.truth_root is None:
            return {}
        path = self.truth_root / "manifest.csv"
        try:
            _, rows = read_table(self.roots.check(path))
            return {row["case"]: group_name(row["rotated"], row["failed_tools"]) for row in rows}
        except (KeyError, AttributeError, DataError) as error:
            raise DataError(
                f"{path}: cannot be read ({type(error).__name__}: {error}); data.truth_root must hold a manifest.csv "
                f"with the columns case, rotated, failed_tools and broken"
            ) from error


def group_name(rotated: str, failed_tools: str) -> str:
    """Return ``clean``, ``rotated``, ``failed_<tool>`` or their sum such as ``rotated+failed_spm_tissue``."""
    parts = ["rotated"] if rotated.strip().lower() in ("1", "true", "yes") else []
    parts += [f"failed_{tool}" for tool in sorted(re.split(r"[^A-Za-z0-9_]+", failed_tools)) if tool]
    return "+".join(parts) or "clean"


def _lookups(given: Mapping[str, Mapping[str, Any]], label_maps: Mapping[str, LabelMap]) -> dict[str, Lookup]:
    lookups = {}
    for target, lookup in given.items():
        for name in (target, lookup["source"]):
            if name not in label_maps:
                raise ConfigError(f"data.lookups.{target}: no label map {name}; there are {', '.join(label_maps)}")
        table = lookup_table(label_maps[lookup["source"]], label_maps[target], lookup["values"])
        lookups[target] = Lookup(lookup["source"], table)
    return lookups


def _without_double_ids(ordered: Sequence[Listed]) -> list[Listed]:
    """Mark visits whose ids differ in leading zeros only: one person would count as two."""
    first: dict[str, Listed] = {}
    result = []
    for one in ordered:
        plain = one.id.lstrip("0")
        if plain in first and not one.problem:
            one = replace(one, problem=f"the same id as {first[plain].id}")
        first.setdefault(plain, one)
        result.append(one)
    return result
