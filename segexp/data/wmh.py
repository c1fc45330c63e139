"""The WMH Segmentation Challenge of 2017: FLAIR images with white matter hyperintensities, both releases."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segexp.console import say
from segexp.data.cases import Listed, Manifest
from segexp.data.checks import Progress
from segexp.data.lesions import LesionData
from segexp.data.splits import id_order
from segexp.errors import ConfigError, DataError

TRAINING = {
    "Utrecht": (0, 2, 4, 6, 8, 11, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 49),
    "Singapore": tuple(range(50, 70)),
    "GE3T": (*range(100, 111), *range(112, 117), 126, 132, 137, 144),
}
"""Centre -> the training cases of both releases: what is missing is said, nothing else depends on it."""
PHILIPS = "Philips_VU"
"""How the folder of one scanner begins; unpacking tools change the rest of its name, a space and two full stops."""
ENDINGS = (".nii.gz", ".nii")
TEST_SPLIT = {"train": 0, "validation": 0, "test": None}


class WMH(LesionData):
    """FLAIR images of several centres with lesions drawn by hand (Mac et al. 2020, section 3.1).

    A case is a folder that holds ``wmh.nii.gz`` and ``pre/FLAIR.nii.gz``, or uncompressed files, at any depth. The
    folder that it lies in is its centre, its group. Cases below a folder ``test`` are the challenge's test cases: they
    are never trained on. The keys are explained in ``conf/data/wmh.yaml``, where their defaults are.

    Args:
        root: folder of the data, of either release.
        use: ``training`` cases, dealt by ``split``, or ``test``: the challenge's test cases, all in the test split.
        flair: ``pre``, corrected for the bias field, or ``orig``.

    The other arguments are those of the base class.

    """

    def __init__(
        self,
        root: str | Path,
        label_maps: Mapping[str, Mapping[int, str]],
        targets: Sequence[str] | str,
        split: Mapping[str, int | float | None],
        cache: str | Path,
        use: str = "training",
        flair: str = "pre",
        on_unknown: str = "error",
        affine_tolerance: float = 1e-3,
        unplaced: str = "pixdim",
        eval_size: int | Sequence[int] | None = None,
        train_size: int | None = None,
        workers: int = 0,
        sampling: Any = None,
        intensity: Any = None,
        strata: str | None = None,
        split_seed: int | None = None,
    ) -> None:
        for key, value, choices in (("use", use, ("training", "test")), ("flair", flair, ("pre", "orig"))):
            if value not in choices:
                raise ConfigError(f"data.{key}={value}: expected {' or '.join(choices)}")
        if use == "test":
            split, strata, train_size = TEST_SPLIT, None, None
        super().__init__(root, label_maps, targets, split, cache, on_unknown, affine_tolerance, unplaced, eval_size,
                         train_size, workers, sampling, intensity, strata, split_seed)
        self.use, self.flair = use, flair

    def list_cases(self) -> list[Listed]:
        """Return the cases of the part in use, from names alone, in the order of their numbers.

        Raises DataError when the folder is absent or holds no such case.
        """
        if not self.root.is_dir():
            raise DataError(
                f"data.root={self.root}: there is no such folder; set data.root to the folder that holds Utrecht, "
                f"Singapore and GE3T, or training and test, or make phantoms with: segexp phantom data=wmh"
            )
        found = [(self._part(folder), self._listed(folder)) for folder in self._case_folders()]
        chosen = [case for part, case in found if part == self.use]
        if not chosen:
            there = f"its {len(found)} cases need data.use={found[0][0]}" if found else "no folder holds wmh.nii.gz"
            raise DataError(
                f"data.root={self.root}: no {self.use} case; {there}. A case is a folder with wmh.nii.gz and "
                f"{self.flair}/FLAIR.nii.gz, in a folder named as its centre; test cases lie below a folder named test"
            )
        return without_double_ids(chosen)

    def examine(self, full: bool = False, progress: Progress | None = None) -> Manifest:
        """Return one report per case; where progress is shown, also say which known training cases are not there."""
        manifest = super().examine(full, progress)
        if progress is not None and self.use == "training" and not self.phantom:
            for notice in completeness([report.listed.id for report in manifest.reports]):
                say(f"data: {notice}")
        return manifest

    def _case_folders(self) -> Iterator[Path]:
        """Yield the folders that hold a label map or an image, wherever they are; hidden ones are passed over."""
        seen = set()

        def refuse(error: OSError) -> None:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error

        for path, folders, files in os.walk(self.root, onerror=refuse, followlinks=True):
            real = os.path.realpath(path)
            if real in seen:  # a link back to where we were
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            images = [Path(path, name, f"FLAIR{ending}") for name in ("pre", "orig") if name in folders
                      for ending in ENDINGS]
            if any(f"wmh{ending}" in files for ending in ENDINGS) or any(image.exists() for image in images):
                folders.clear()
                yield Path(path)

    def _listed(self, folder: Path) -> Listed:
        image, first = one_file(folder / self.flair, "FLAIR")
        label_map, second = one_file(folder, "wmh")
        number, centre = (*self.root.resolve().parts, *folder.relative_to(self.root).parts)[-1:-3:-1]
        if centre.startswith(PHILIPS):
            centre = PHILIPS
        return Listed(number, number, image, dict.fromkeys(self.all_label_maps, label_map),
                      "; ".join(problem for problem in (first, second) if problem), centre)

    def _part(self, folder: Path) -> str:
        above = (self.root.resolve().name, *folder.relative_to(self.root).parts[:-1])
        return "test" if "test" in (name.lower() for name in above) else "training"


def one_file(folder: Path, name: str) -> tuple[Path, str]:
    """Return the NIfTI file ``name`` of a folder, compressed or not, and what is wrong when both are there."""
    there = [folder / f"{name}{ending}" for ending in ENDINGS if (folder / f"{name}{ending}").exists()]
    problem = f"both {there[0]} and {there[1].name} are there; keep one of them" if len(there) > 1 else ""
    return (there or [folder / f"{name}{ENDINGS[0]}"])[0], problem


def without_double_ids(found: Sequence[Listed]) -> list[Listed]:
    """Return cases in the order of their ids; those that share an id (leading zeros aside) are marked as unusable."""
    same: dict[tuple[int, int, str], list[Listed]] = defaultdict(list)
    for case in found:
        number, value, name = id_order(case.id)
        same[(number, value, name if number else "")].append(case)
    result = []
    for key in sorted(same):
        cases = sorted(same[key], key=lambda case: str(case.image))
        if len(cases) > 1:
            where = " and ".join(str(case.image) for case in cases)
            cases = [replace(case, problem=f"the id {case.id} occurs {len(cases)} times: {where}") for case in cases]
        result += cases
    return result


def completeness(ids: Sequence[str]) -> list[str]:
    """Say which of the challenge's training cases are not among ``ids``, and which ids are none of them."""
    known = {str(number): centre for centre, numbers in TRAINING.items() for number in numbers}
    there = {name.lstrip("0") or "0" for name in ids}
    notices = []
    for centre, numbers in TRAINING.items():
        missing = [str(number) for number in numbers if str(number) not in there]
        if missing:
            notices.append(f"{len(missing)} of the {len(numbers)} training cases of {centre} are not there: "
                           f"{', '.join(missing)}")
    others = sorted(there - set(known), key=id_order)
    if others:
        notices.append(f"not among the challenge's training cases: {', '.join(others)}")
    return notices
