"""Write synthetic FLAIR brains in the layouts of the WMH Segmentation Challenge.

Every case is a pure function of (seed, centre, number): written again or in parallel, the bytes are the same.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from segexp.console import say
from segexp.errors import ConfigError
from segexp.phantoms.files import DEFECTS, Part, spoil, stored
from segexp.phantoms.flair import PRESETS, SCANNERS, draw
from segexp.phantoms.tree import claim, place, write_all

FORMAT = 1  # raised when the same settings would write other bytes
TRAINING = {
    "Utrecht": (0, 2, 4, 6, 8, 11, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 49),
    "Singapore": tuple(range(50, 70)),
    "GE3T": (*range(100, 111), *range(112, 117), 126, 132, 137, 144),
}
"""Centre -> the release's training cases."""
TEST = {"Utrecht": 1, "Singapore": 70, "GE3T": 145, "GE1T5": 160, "Philips_VU .PETMR_01.": 170}
"""Centre -> its first test case; the others follow, without those of the training."""
TEST_CASES = 10  # per centre at most
BROKEN = 901  # the first broken case
EVERY = 4  # one in so many cases of a centre is stored transposed


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is written: see `write`."""

    cases: int
    broken: int
    test_cases: int
    seed: int
    preset: str
    layout: str

    def __post_init__(self) -> None:
        for key, value, most in (("cases", self.cases, 20), ("test_cases", self.test_cases, TEST_CASES)):
            if not 0 <= value <= most:
                raise ConfigError(f"phantom.{key}={value}: expected 0 to {most} per centre")
        if self.cases < 1 or self.broken < 0:
            raise ConfigError(f"phantom.cases={self.cases}, phantom.broken={self.broken}: expected at least one case")
        if self.preset not in PRESETS:
            raise ConfigError(f"phantom.preset={self.preset}: expected one of {', '.join(PRESETS)}")
        if self.layout not in ("2017", "2022"):
            raise ConfigError(f"phantom.layout={self.layout}: expected 2017 or 2022")
        if self.test_cases and self.layout == "2017":
            raise ConfigError("phantom.test_cases: the layout of 2017 has no test cases; expected 0, or layout=2022")


@dataclass(frozen=True)
class Place:
    """One case to write: its centre, number, folder below the root, position in the centre, and defect."""

    centre: str
    number: int
    folder: str
    position: int
    defect: str = ""


def write(output: str | Path, *, cases: int = 20, broken: int = 0, test_cases: int = 0, seed: int = 42,
          preset: str = "small", layout: str | int = "2017", processes: int = 2) -> Path:
    """Write the tree below ``output`` and return it, the folder to give as ``data.root``.

    ``phantom.json`` says that it is synthetic and which cases are broken. Cases that are already there are kept; a
    tree with other settings is refused.

    Args:
        output: folder of the tree.
        cases: usable training cases per centre (Utrecht, Singapore, GE3T), at most 20.
        broken: further training cases with one defect each, for the completeness check.
        test_cases: cases per centre of the official test set, which has two more centres; layout 2022 only.
        seed: of all randomness.
        preset: full (the scanners' grids), small (half in-plane, 16 slices) or tiny (48 x 48 x 8).
        layout: 2017 (ROOT/CENTRE/ID) or 2022 (ROOT/training/... and ROOT/test/..., GE3T below Amsterdam).
        processes: cases that are made at once.

    Raises:
        ConfigError: a setting out of its range, or other settings than those of the tree that is there.
    """
    root, settings = Path(output), Settings(cases, broken, test_cases, seed, preset, str(layout))
    everyone = places(settings)
    claim(root, "segexp FLAIR", FORMAT, {**asdict(settings), "defects": {
        str(place.number): place.defect for place in everyone if place.defect}})
    missing = [place for place in everyone if not (root / place.folder).exists()]
    if not missing:
        say(f"already there: {len(everyone)} cases in {root}, {broken} of them broken")
    write_all(write_case, [(root, settings, place) for place in missing], processes, "writing brains")
    return root


def places(settings: Settings) -> list[Place]:
    """Return every case of the tree, usable ones first."""
    found = [Place(centre, number, folder(settings.layout, "training", centre, number), position)
             for centre, numbers in TRAINING.items() for position, number in enumerate(numbers[: settings.cases])]
    for centre, first in TEST.items():
        free = [number for number in range(first, first + 2 * TEST_CASES) if number not in TRAINING.get(centre, ())]
        found += [Place(centre, number, folder(settings.layout, "test", centre, number), position)
                  for position, number in enumerate(free[: settings.test_cases])]
    centres = tuple(TRAINING)
    for index in range(settings.broken):
        centre, number = centres[index % len(centres)], BROKEN + index
        found.append(Place(centre, number, folder(settings.layout, "training", centre, number), 0,
                           DEFECTS[index % len(DEFECTS)]))
    return found


def folder(layout: str, part: str, centre: str, number: int) -> str:
    """Return a case's folder below the root; ``part`` is training or test."""
    if layout == "2017":
        return f"{centre}/{number}"
    return f"{part}/{centre if centre in ('Utrecht', 'Singapore') else f'Amsterdam/{centre}'}/{number}"


def write_case(job: tuple[Path, Settings, Place]) -> None:
    """Write one case: pre/ and orig/ with FLAIR and T1, and wmh.nii.gz, all float32."""
    root, settings, where = job
    scanner = SCANNERS[where.centre]
    transposed = scanner.transposed and where.position % EVERY == EVERY - 1
    axes = scanner.transposed if transposed else scanner.axes
    case = draw(where.centre, where.number, settings.seed, settings.preset)
    parts: dict[str, Part] = {f"{name}.nii.gz": stored(image, case.affine, axes) for name, image in case.images.items()}
    labels = stored(case.labels, case.affine, axes)
    parts["wmh.nii.gz"] = replace(labels, array=labels.array.astype("float32"))
    flair = ("pre/FLAIR.nii.gz", "orig/FLAIR.nii.gz")
    place(root / where.folder, spoil(parts, where.defect, flair, "wmh.nii.gz"))
