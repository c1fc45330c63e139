"""CAIN: FLAIR images of several centres and vendors, for the evaluation of models trained on other data."""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from segexp.data.cases import Listed
from segexp.data.lesions import LesionData
from segexp.data.roots import check_inside, read_table
from segexp.data.splits import id_order
from segexp.errors import ConfigError, DataError

SUBJECT = "{sub}"


class CAIN(LesionData):
    """FLAIR images with lesions drawn by hand, found by patterns (Mac et al. 2020, section 3.1).

    The data are private and their layout is not published; the default patterns are those of BIDS. A case is a
    subject: what the beginning of the first pattern part with a wildcard matches (``sub-*`` gives sub-001,
    ``*_FLAIR.nii*`` gives what stands before _FLAIR). The keys are explained in ``conf/data/cain.yaml``, where their
    defaults are.

    Args:
        root: folder that the patterns start from.
        label_maps: target -> {0: background, 1: structure}.
        image_glob: pattern of the images.
        mask_glob: pattern of the label map of a subject, ``{sub}``.
        mask_value: value of the structure in the label maps' files.
        participants: table of the subjects with the column participant_id, below ``root``; None, or absent: no groups.
        group: the column that is a case's group.

    The other arguments are those of the base class.

    """

    label_key = "data.mask_value"

    def __init__(
        self,
        root: str | Path,
        label_maps: Mapping[str, Mapping[int, str]],
        targets: Sequence[str] | str,
        split: Mapping[str, int | float | None],
        cache: str | Path,
        image_glob: str = "sub-*/anat/*_FLAIR.nii*",
        mask_glob: str = "derivatives/*/{sub}/**/*mask.nii*",
        mask_value: int = 1,
        participants: str | None = "participants.tsv",
        group: str = "site",
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
        if not isinstance(mask_value, int) or not 1 <= mask_value:
            raise ConfigError(f"data.mask_value={mask_value}: expected a whole number above 0")
        label_maps = {target: _with_value(target, one, mask_value) for target, one in label_maps.items()}
        super().__init__(root, label_maps, targets, split, cache, on_unknown, affine_tolerance, unplaced, eval_size,
                         train_size, workers, sampling, intensity, strata, split_seed)
        self.image_glob, self.mask_glob = image_glob, mask_glob
        self.participants, self.group = participants, group
        self.part = _part_with_wildcard(image_glob)
        for key, path in (("image_glob", image_glob), ("mask_glob", mask_glob), ("participants", participants)):
            check_inside(f"data.{key}", [path])
        if SUBJECT not in mask_glob:
            raise ConfigError(f"data.mask_glob={mask_glob}: expected {SUBJECT} in it, the subject that the image is of")

    def list_cases(self) -> list[Listed]:
        """Return the subjects with an image, from names alone, sorted by id.

        Raises DataError when the folder is absent, no image matches, or the table of subjects cannot be read.
        """
        if not self.root.is_dir():
            raise DataError(f"data.root={self.root}: there is no such folder; set data.root to the folder that "
                            f"data.image_glob={self.image_glob} starts from")
        images = defaultdict(list)
        for path in self._matching(self.image_glob):
            images[self._subject(path)].append(path)
        if not images:
            raise DataError(f"data.root={self.root}: no image matches data.image_glob={self.image_glob}; set "
                            f"data.root to the folder that the pattern starts from, or the pattern to your layout")
        groups = self._groups()
        return [self._listed(subject, images[subject], groups) for subject in sorted(images, key=id_order)]

    def _listed(self, subject: str, images: Sequence[Path], groups: Mapping[str, str]) -> Listed:
        pattern = self.mask_glob.replace(SUBJECT, glob.escape(subject))
        masks = [path for path in self._matching(pattern) if path not in images]
        problems = [f"{len(found)} files match data.{key}: {', '.join(map(str, found))}; narrow the pattern, or keep "
                    f"one" for key, found in (("image_glob", images), ("mask_glob", masks)) if len(found) > 1]
        mask = masks[0] if masks else self.root / pattern
        return Listed(subject, subject, images[0], dict.fromkeys(self.all_label_maps, mask), "; ".join(problems),
                      groups.get(subject.removeprefix("sub-"), ""))

    def _matching(self, pattern: str) -> list[Path]:
        """Return the NIfTI files that match, hidden ones left out."""
        return sorted(path for path in self.root.glob(pattern) if path.name.endswith((".nii", ".nii.gz"))
                      and not any(part.startswith(".") for part in path.relative_to(self.root).parts))

    def _subject(self, path: Path) -> str:
        """Return the subject that a path of an image names."""
        parts = path.relative_to(self.root).parts
        position, pattern = self.part
        head, _, tail = pattern.partition("*")
        name = parts[position]
        for end in range(len(name) + 1):
            if fnmatchcase(name[:end], f"{head}*") and fnmatchcase(name[end:], tail):
                return name[:end]
        raise ConfigError(f"data.image_glob={self.image_glob}: cannot tell which part of {path} is the subject")

    def _groups(self) -> dict[str, str]:
        """Return subject, without sub-, -> group; empty without a table."""
        path = self.root / self.participants if self.participants else None
        if path is None or not path.exists():
            return {}
        columns, rows = read_table(self.roots.check(path), "\t")
        for column in ("participant_id", self.group):
            if column not in columns:
                raise DataError(f"{path}: no column {column}; there are {', '.join(columns[:20]) or 'none'}. Set "
                                f"data.group to the column of the centre, or data.participants=null")
        known = {row["participant_id"].strip().removeprefix("sub-"): (row[self.group] or "").strip() for row in rows
                 if row["participant_id"]}
        return {subject: "" if name == "n/a" else name for subject, name in known.items()}


def _with_value(target: str, label_map: Mapping[int, str], value: int) -> dict[int, str]:
    """Return a label map of one structure that has another file value."""
    if set(label_map) != {0, 1}:
        raise ConfigError(f"data.label_maps.{target}: expected 0: background and 1: a structure, got "
                          f"{dict(label_map)}; data.mask_value says which value the files have")
    return {0: label_map[0], value: label_map[1]}


def _part_with_wildcard(pattern: str) -> tuple[int, str]:
    """Return the first part of a pattern with a ``*`` in it, ``**`` aside, and its place: from the end after ``**``."""
    parts = Path(pattern).parts
    for position, part in enumerate(parts):
        if "*" in part and part != "**":
            return (position - len(parts) if "**" in parts[:position] else position), part
    raise ConfigError(f"data.image_glob={pattern}: expected a * that stands for the subject")
