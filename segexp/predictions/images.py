"""The images of an input folder: found in one walk, named as BIDS names them, grouped by subject."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import NamedTuple

from segexp.data.roots import Roots
from segexp.errors import DataError

# Words that say what kind of file it is, not whose.
GENERIC = {"t1", "t1w", "anat", "mri", "image", "images", "nii"}
UKBIOBANK = re.compile(r"(?P<person>\d{7})_(?P<field>\d{5})_(?P<visit>\d+)_(?P<repeat>\d+)")
"""A bulk file or folder of UK Biobank: person, field, visit, repeat."""


class Image(NamedTuple):
    """An image to label: its BIDS entities (``sub-01_ses-2``), its file, and why it cannot be used, if known."""

    name: str
    path: Path
    problem: str = ""

    @property
    def subject(self) -> str:
        """``sub-01``."""
        return self.name.partition("_")[0]

    @property
    def session(self) -> str:
        """``ses-2`` of ``sub-01_ses-2``; empty where there is none."""
        return next((part for part in self.name.split("_") if part.startswith("ses-")), "")


def find_images(source: Path, pattern: str, exclude: Path) -> list[Path]:
    """Return the images that ``source`` names: itself, or the files below it that fit ``pattern``, sorted.

    Files below ``exclude`` (the output folder), hidden files and label maps (``*_dseg*``) are no images.

    Raises:
        DataError: nothing is there.

    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"input={source}: there is no such file or folder")
    found = sorted(_walk(source, pattern, exclude))
    if not found:
        raise DataError(f"input={source}: no NIfTI file below it fits pattern={pattern}")
    return found


def _walk(source: Path, pattern: str, exclude: Path) -> Iterator[Path]:
    """Yield the images below a folder, in no order."""
    output = os.path.realpath(exclude)
    # A folder's real path costs a call per level: only those that could be the output folder are asked.
    last = os.path.basename(output)  # noqa: PTH119
    for folder, folders, files in os.walk(source):
        folders[:] = [name for name in folders
                      if name != last or os.path.realpath(os.path.join(folder, name)) != output]  # noqa: PTH118
        for name in files:
            if not name.endswith((".nii", ".nii.gz")) or "_dseg" in name or name.startswith("."):
                continue
            path = Path(folder, name)
            fits = PurePath(path).match(pattern) if "/" in pattern else fnmatchcase(name, pattern)
            if fits and path.is_file():
                yield path


def entities(image: Path, root: Path) -> str:
    """Return the BIDS entities of an image, subject and session first.

    They are those of a BIDS name; of a UK Biobank bulk file the person and the visit (``sub-1000001_ses-2``); else a
    subject label made of its path below ``root``.
    """
    stem = image.name.removesuffix(".gz").removesuffix(".nii")
    found = dict(re.findall(r"(sub|ses|acq|run|echo)-([A-Za-z0-9]+)", stem))
    if "sub" in found:
        order = sorted(found, key=lambda key: ("sub", "ses").index(key) if key in ("sub", "ses") else 2)
        return "_".join(f"{key}-{found[key]}" for key in order)
    parts = (*image.relative_to(root).parts[:-1], stem)
    named = [part for part in parts if part.lower() not in GENERIC]
    if not named:  # .../1000001_20252_2_0/T1/T1.nii.gz: the nearest folder that says whose it is
        named = [folder.name for folder in image.resolve().parents if folder.name.lower() not in GENERIC][:1]
    bulk = next((match for match in map(UKBIOBANK.search, named) if match), None)
    if bulk is not None:
        rest = _letters("".join(part.replace(bulk[0], "") for part in named))
        return (f"sub-{bulk['person']}_ses-{bulk['visit']}" + (f"_acq-{rest}" if rest else "")
                + (f"_run-{bulk['repeat']}" if int(bulk["repeat"]) else ""))
    return f"sub-{_letters(''.join(named)) or 'image'}"


def _letters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text)


def name_images(paths: Iterable[Path], root: Path) -> list[Image]:
    """Return the images sorted by name; those that would share a name all carry that as their problem, once.

    A link that leads out of ``root``, and out of what ``--allow-root`` names, is a problem too.
    """
    roots, named = Roots(root), dict[str, list[Path]]()
    for path in paths:
        named.setdefault(entities(path, root), []).append(path)
    images = []
    for name in sorted(named):
        same = named[name]
        problem = roots.problem(same[0]) if len(same) == 1 else (
            f"{' and '.join(map(str, same[:4]))}{f' and {len(same) - 4} more' if len(same) > 4 else ''} would all "
            f"become {name}; choose one by pattern=, rename them, or predict them into different output folders")
        images.append(Image(name, same[0], problem))
    return images


def by_subject(images: Iterable[Image]) -> dict[str, list[Image]]:
    """Return subject -> its images, in the order given."""
    subjects: dict[str, list[Image]] = {}
    for image in images:
        subjects.setdefault(image.subject, []).append(image)
    return subjects
