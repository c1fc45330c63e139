"""Names and descriptions of BIDS derivatives."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segexp.errors import DataError
from segexp.files import write_json, write_text

if TYPE_CHECKING:
    from segexp.data.labelmap import LabelMap

BIDS_VERSION = "1.10.0"
# Words that say what kind of file it is, not whose.
GENERIC = {"t1", "t1w", "anat", "mri", "image", "images", "nii"}


def find_images(source: Path, pattern: str, exclude: Path) -> list[Path]:
    """Return the images that ``source`` names: itself, or the files below it that fit ``pattern``, sorted.

    Files below ``exclude`` (the output folder) and label maps (``*_dseg*``) are no images.

    Raises:
        DataError: nothing is there.

    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"input={source}: there is no such file or folder")
    found = [path for path in sorted(source.rglob(pattern))
             if path.is_file() and path.name.endswith((".nii", ".nii.gz")) and "_dseg" not in path.name
             and exclude.resolve() not in path.resolve().parents]
    if not found:
        raise DataError(f"input={source}: no NIfTI file below it fits pattern={pattern}")
    return found


def entities(image: Path, root: Path) -> str:
    """Return the BIDS entities of an image: ``sub-01_ses-2`` of a BIDS name, else a subject label from its path."""
    stem = image.name.removesuffix(".gz").removesuffix(".nii")
    found = dict(re.findall(r"(sub|ses|acq|run|echo)-([A-Za-z0-9]+)", stem))
    if "sub" in found:
        return "_".join(f"{key}-{value}" for key, value in found.items())
    named = [part for part in (*image.relative_to(root).parts[:-1], stem) if part.lower() not in GENERIC]
    if not named:  # .../1000001_20252_2_0/T1/T1.nii.gz: the nearest folder that says whose it is
        named = [folder.name for folder in image.resolve().parents if folder.name.lower() not in GENERIC][:1]
    label = re.sub(r"[^A-Za-z0-9]", "", "".join(named))
    return f"sub-{label or 'image'}"


def name_images(images: Sequence[Path], root: Path) -> dict[str, Path]:
    """Return entities -> image.

    Raises:
        DataError: two images would get the same name.

    """
    named: dict[str, Path] = {}
    for image in images:
        name = entities(image, root)
        if name in named:
            raise DataError(f"{named[name]} and {image} would both become {name}; choose one by pattern=, rename "
                            "one, or predict them into different output folders")
        named[name] = image
    return named


def label_file(output: Path, name: str, target: str) -> Path:
    """Return where the label map of one target of one image lies."""
    folders = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
    return output.joinpath(*folders, "anat", f"{name}_space-orig_desc-{target}_dseg.nii.gz")


def describe_dataset(output: Path, run_id: str, label_maps: Mapping[str, "LabelMap"], source: Path) -> None:
    """Write dataset_description.json and the lookup table of every target."""
    from segexp import __version__

    write_json(output / "dataset_description.json", {
        "Name": f"Label maps by segexp run {run_id}", "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "segexp", "Version": __version__, "Description": f"segexp predict run={run_id}"}],
        "SourceDatasets": [{"URL": source.resolve().as_uri()}],
    })
    for target, label_map in label_maps.items():
        lines = [f"{value}\t{name}" for value, name in zip(label_map.values, label_map.names, strict=True)]
        write_text(output / f"desc-{target}_dseg.tsv", "\n".join(["index\tname", *lines]) + "\n")


def sidecar(file: Path) -> Path:
    """Return the JSON beside a label map."""
    return file.with_name(file.name.removesuffix(".nii.gz") + ".json")


def describe_labels(file: Path, made_from: Mapping[str, Any], output_hash: str, source: Path) -> None:
    """Write the JSON beside a label map; it comes last, so that it vouches for a whole file."""
    hashes = {**made_from, "output": output_hash}
    write_json(sidecar(file), {"Sources": [str(source)], "Type": "Label", "segexp": hashes})
