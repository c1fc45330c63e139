"""Write synthetic FLAIR brains of another study: other scanners, weaker contrast, in a layout like BIDS.

Every case is a pure function of (seed, number): written again or in parallel, the bytes are the same.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from segexp.console import say
from segexp.errors import ConfigError
from segexp.files import write_text
from segexp.phantoms.files import spoil, stored
from segexp.phantoms.flair import PRESETS, SCANNERS, draw
from segexp.phantoms.tree import claim, place, write_all

FORMAT = 1  # raised when the same settings would write other bytes
DEFECTS = ("two_label_maps", "missing_label_map", "truncated", "other_value", "wrong_shape")
"""``two_label_maps``: of two raters; ``other_value``: 255 instead of 1; the others as in `segexp.phantoms.files`."""
SITES = (("A", "Philips Achieva 3T"), ("B", "Siemens Trio 3T"), ("C", "GE Discovery 3T"))
LOW = (0.01, 0.03)  # percent, bounds of a low lesion load


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is written: see `write`."""

    cases: int
    broken: int
    low: tuple[int, ...]
    none: tuple[int, ...]
    seed: int
    preset: str

    def __post_init__(self) -> None:
        if self.cases < 1 or self.broken < 0:
            raise ConfigError(f"phantom.cases={self.cases}, phantom.broken={self.broken}: expected at least one case")
        if self.preset not in PRESETS:
            raise ConfigError(f"phantom.preset={self.preset}: expected one of {', '.join(PRESETS)}")
        outside = [index for index in (*self.low, *self.none) if not 0 <= index < self.cases]
        if outside:
            raise ConfigError(f"phantom.low and phantom.none name cases {outside}; expected 0 to {self.cases - 1}")

    def defect(self, index: int) -> str:
        """Return what is wrong with a case, empty for a usable one."""
        return DEFECTS[(index - self.cases) % len(DEFECTS)] if index >= self.cases else ""


def write(output: str | Path, *, cases: int = 20, broken: int = 0, low: Sequence[int] = (1, 2),
          none: Sequence[int] = (3,), seed: int = 42, preset: str = "small", processes: int = 2) -> Path:
    """Write the tree below ``output`` and return it, the folder to give as ``data.root``.

    ``phantom.json`` says that it is synthetic and which cases are broken. Cases that are already there are kept; a
    tree with other settings is refused.

    Args:
        output: folder of the tree.
        cases: usable cases.
        broken: further cases with one defect each, for the completeness check.
        low: indices of cases with 0.01 to 0.03 percent of lesion voxels; the others have 0.03 to 1 percent.
        none: indices of cases without lesions.
        seed: of all randomness.
        preset: full (256 x 256 x 55), small (half in-plane, 16 slices) or tiny (48 x 48 x 8).
        processes: cases that are made at once.

    Raises:
        ConfigError: a setting out of its range, or other settings than those of the tree that is there.
    """
    root, settings = Path(output), Settings(cases, broken, tuple(low), tuple(none), seed, preset)
    everyone = range(cases + broken)
    claim(root, "segexp FLAIR, another study", FORMAT, {**asdict(settings), "defects": {
        name(index): settings.defect(index) for index in everyone if settings.defect(index)}})
    write_text(root / "dataset_description.json",
               json.dumps({"Name": "Synthetic FLAIR brains", "BIDSVersion": "1.8.0"}, indent=2) + "\n")
    rows = ["participant_id\tsite\tscanner"] + ["\t".join((name(index), *SITES[index % 3])) for index in everyone]
    write_text(root / "participants.tsv", "\n".join(rows) + "\n")
    missing = [index for index in everyone if not (root / name(index)).exists()]
    if not missing:
        say(f"already there: {len(everyone)} cases in {root}, {broken} of them broken")
    write_all(write_case, [(root, settings, index) for index in missing], processes, "writing brains")
    return root


def name(index: int) -> str:
    """Return the folder of a case."""
    return f"sub-{index + 1:03d}"


def write_case(job: tuple[Path, Settings, int]) -> None:
    """Write one case: the label map below derivatives/manual, then the image, whose folder says that it is done."""
    root, settings, index = job
    case, defect = name(index), settings.defect(index)
    density = (0.0, 0.0) if index in settings.none else LOW if index in settings.low else None
    drawn = draw("CAIN", index, settings.seed, settings.preset, density)
    axes = SCANNERS["CAIN"].axes
    image, mask = f"{case}_FLAIR.nii.gz", f"{case}_label-WMH_mask.nii.gz"
    labels = stored(drawn.labels, drawn.affine, axes)
    if defect == "other_value":
        labels = replace(labels, array=labels.array * 255)
    parts = {image: stored(drawn.images["orig/FLAIR"], drawn.affine, axes), mask: labels}
    files = spoil(parts, defect, (image,), mask)
    masks = {f"anat/{mask}": files[mask]} if mask in files else {}
    if defect == "two_label_maps":
        masks[f"anat/{case}_desc-second_label-WMH_mask.nii.gz"] = files[mask]
    if masks:
        place(root / "derivatives" / "manual" / case, masks)
    place(root / case, {f"anat/{image}": files[image]})
