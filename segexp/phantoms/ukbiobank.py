"""Write synthetic heads in UK Biobank's layout, with the truth beside the tree.

Every subject is a pure function of (seed, index): written again, in parallel or after a kill, the bytes are the same.
"""

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from segexp.console import say
from segexp.errors import ConfigError
from segexp.files import write_json, write_text
from segexp.phantoms import tools
from segexp.phantoms.anatomy import anatomical_head, find_maps
from segexp.phantoms.head import PROFILES, ellipsoid_head
from segexp.phantoms.tree import claim, compressed, place, write_all

FORMAT = 1  # raised when the same settings would write other bytes
FIRST_EID = 9000001
DEFECTS = ("missing_first", "truncated", "wrong_shape", "unusable", "unknown_label")
BULK = {"t1": "T1/T1.nii.gz", "fsl_fast": "T1/T1_fast/T1_brain_seg.nii.gz",
        "fsl_first": "T1/T1_first/T1_first_all_fast_firstseg.nii.gz"}
FLAT = {"t1": "T1.nii.gz", "fsl_fast": "T1_brain_seg.nii.gz", "fsl_first": "T1_first_all_fast_firstseg.nii.gz"}
DERIVED = {"spm_tissue": "T1_brain_seg_spm.nii.gz", "malp_em": "T1_MALPEM.nii.gz",
           "malp_em_tissue": "T1_MALPEM_tissues.nii.gz"}


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is written.

    Attributes:
        subjects: how many usable subjects.
        broken: how many further subjects with a defect each, for the completeness check.
        seed: of all randomness.
        profile: grid: nano, tiny or full.
        rotated: indices of subjects with a rotated head, or the fraction of them.
        spm_failure: chance that SPM fails on a rotated head.
        first_failure: chance that FIRST loses a structure.
        n_parcels: cortical parcels per hemisphere, 1 to 49.
        layout: bulk or flat.
        anatomy: folder of real label maps, None: ellipsoids.
    """

    subjects: int
    broken: int
    seed: int
    profile: str
    rotated: tuple[int, ...] | float
    spm_failure: float
    first_failure: float
    n_parcels: int
    layout: str
    anatomy: str | None = None

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ConfigError(f"phantom.profile={self.profile}: expected one of {', '.join(PROFILES)}")
        if self.layout not in ("bulk", "flat"):
            raise ConfigError(f"data.layout={self.layout}: expected bulk or flat")
        if not 1 <= self.n_parcels <= 49:
            raise ConfigError(f"phantom.n_parcels={self.n_parcels}: expected 1 to 49")
        if self.subjects < 1 or self.broken < 0:
            raise ConfigError(f"phantom.subjects={self.subjects}, phantom.broken={self.broken}: expected at least one "
                              "subject")

    def is_rotated(self, index: int) -> bool:
        """Say whether the head of a subject is rotated; a fraction spreads them evenly."""
        if isinstance(self.rotated, float):
            return int((index + 1) * self.rotated) > int(index * self.rotated)
        return index in self.rotated

    def name(self, index: int) -> str:
        """Return the folder of a subject."""
        return f"{FIRST_EID + index}_20252_2_0" if self.layout == "bulk" else str(FIRST_EID + index)

    def defect(self, index: int) -> str:
        """Return what is wrong with a subject, empty for a usable one."""
        return DEFECTS[(index - self.subjects) % len(DEFECTS)] if index >= self.subjects else ""


def write(output: str | Path, *, subjects: int, broken: int = 0, seed: int = 42, profile: str = "tiny",
          rotated: Sequence[int] | float = 0.15, spm_failure: float = 0.6, first_failure: float = 0.02,
          n_parcels: int = 49, layout: str = "bulk", anatomy: str | None = None, processes: int = 2) -> Path:
    """Write the tree and return the folder to give as ``data.root``.

    Below ``output``: ``bulk/`` and ``derived/`` (or ``flat/``), and ``truth/``. Subjects that are already there are
    kept; a tree with other settings is refused.

    Raises:
        ConfigError: a setting out of its range, or other settings than those of the tree that is there.
        DataError: ``anatomy`` holds no usable label maps.
    """
    output = Path(output)
    chosen = float(rotated) if isinstance(rotated, int | float) else tuple(rotated)
    settings = Settings(subjects, broken, seed, profile, chosen, spm_failure, first_failure, n_parcels, layout,
                        str(Path(anatomy).resolve()) if anatomy else None)
    maps = find_maps(anatomy) if anatomy else []
    root = output / layout
    claim(root, "segexp head", FORMAT, asdict(settings))
    everyone = range(subjects + broken)
    missing = [index for index in everyone if not (output / "truth" / ".written" / settings.name(index)).exists()]
    if not missing:
        say(f"already there: {subjects} subjects and {broken} broken ones in {root}")
    else:
        jobs = [(output, settings, index, maps) for index in missing]
        write_all(write_subject, jobs, processes, "writing heads")
    write_manifest(output / "truth", settings)
    return root


def write_subject(job: tuple[Path, Settings, int, list[Path]]) -> None:
    """Write one subject: every file of its folders, then its mark in ``truth/.written``."""
    output, settings, index, maps = job
    head_rng, scan_rng, tool_rng, fail_rng = (
        np.random.default_rng((settings.seed, index, stream)) for stream in range(4))
    rotated = settings.is_rotated(index)
    if maps:
        head = anatomical_head(maps[index % len(maps)], settings.profile, head_rng, rotated, settings.n_parcels)
    else:
        head = ellipsoid_head(settings.profile, head_rng, rotated, settings.n_parcels)
    spm_chance, first_chance = fail_rng.random(2)
    failed_spm = rotated and spm_chance < settings.spm_failure
    failed_first = first_chance < settings.first_failure
    image = tools.scan(head, scan_rng)
    malp = tools.malp_em(head, tool_rng)
    volumes = {
        "t1": image, "fsl_fast": tools.fast(head, image, tool_rng), "spm_tissue": tools.spm(head, tool_rng, failed_spm),
        "fsl_first": tools.first(head, tool_rng, failed_first, ellipsoids=not maps),
        "malp_em": malp, "malp_em_tissue": tools.MALP_TO_TISSUE[malp],
    }
    truth = {"tissue": head.tissue, "malp_em": head.malp_em, "first": head.first}
    name, defect = settings.name(index), settings.defect(index)
    places = FLAT | DERIVED if settings.layout == "flat" else BULK
    main = {places[key]: volume for key, volume in volumes.items() if key in places}
    derived = {DERIVED[key]: volumes[key] for key in DERIVED}
    place(output / settings.layout / name, files(main, head.spacing), lambda folder: spoil(folder, defect, places))
    if settings.layout == "bulk":
        place(output / "derived" / name, files(derived, head.spacing))
    place(output / "truth" / name, files({f"{key}.nii.gz": volume for key, volume in truth.items()}, head.spacing))
    failed = [tool for tool, bad in (("spm_tissue", failed_spm), ("fsl_first", failed_first)) if bad]
    write_json(output / "truth" / ".written" / name,
               {"case": name, "rotated": int(rotated), "failed_tools": " ".join(failed), "broken": defect})


def files(volumes: Mapping[str, np.ndarray], spacing: float) -> dict[str, bytes]:
    """Return the content of a folder's files."""
    return {path: nifti_bytes(volume, spacing) for path, volume in volumes.items()}


def nifti_bytes(volume: np.ndarray, spacing: float) -> bytes:
    """Return a gzipped NIfTI without time stamp; stored left to right reversed, as scanners' converters often do."""
    half = [(size - 1) / 2 * spacing for size in volume.shape]
    affine = np.array([[-spacing, 0, 0, half[0]], [0, spacing, 0, -half[1]], [0, 0, spacing, -half[2]], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.ascontiguousarray(volume[::-1]), affine)
    image.header.set_xyzt_units("mm")
    return compressed(image.to_bytes())


def spoil(folder: Path, defect: str, places: Mapping[str, str]) -> None:
    """Give a subject's folder one of the defects that real trees have."""
    if defect == "missing_first":
        (folder / places["fsl_first"]).unlink()
    elif defect == "truncated":
        file = folder / places["t1"]
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif defect == "wrong_shape":
        file = folder / places["fsl_fast"]
        image = nib.load(file)
        file.write_bytes(nifti_bytes(np.asarray(image.dataobj)[:-2], float(image.header.get_zooms()[0])))
    elif defect == "unknown_label":
        file = folder / places["fsl_fast"]
        image = nib.load(file)
        values = np.array(image.dataobj)
        values[tuple(size // 2 for size in values.shape)] = 99
        file.write_bytes(nifti_bytes(values[::-1], float(image.header.get_zooms()[0])))
    elif defect == "unusable":
        unusable = (folder / places["t1"]).parent / "unusable"
        original = (folder / places["t1"]).read_bytes()
        for path in list(folder.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        unusable.mkdir(parents=True)
        (unusable / "T1_orig_defaced.nii.gz").write_bytes(original)


def write_manifest(truth: Path, settings: Settings) -> None:
    """Write truth/manifest.csv from the subjects' marks."""
    names = [settings.name(index) for index in range(settings.subjects + settings.broken)]
    rows: list[dict[str, Any]] = [json.loads((truth / ".written" / name).read_text()) for name in names]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["case", "rotated", "failed_tools", "broken"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(truth / "manifest.csv", buffer.getvalue())


__all__ = ["Settings", "write"]
