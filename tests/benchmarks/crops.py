"""Random 96^3 crops of an image and five label maps: the cache on disk against MONAI's cache in memory.

`python -m tests.benchmarks.crops [--subjects 20] [--crops 40] [--repeats 7]`. MONAI's side is CacheDataset with
RandSpatialCropd, its label maps kept as uint8. Both sides end with a normalised float32 image and int64 classes.
Needs about 3 GB of disk and, for MONAI's side, 1.5 GB of memory.
"""

import argparse
import gzip
import os
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.benchmarks.common import Row, alternate, peak_memory, report
from tests.data.heads import TARGETS, Folder, bulk_id, tissue_of

SHAPE, SIZE = (182, 218, 182), 96
FOLDER = "SEGEXP_BENCHMARK_FOLDER"  # child processes find the data and the sizes here
KEYS = ("image", *TARGETS)


def write(path: Path, array: np.ndarray) -> None:
    """Write an RAS file; noise is not worth a higher level of compression."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(nib.Nifti1Image(array, np.eye(4)).to_bytes(), compresslevel=1))


def make_subjects(base: Path, subjects: int) -> None:
    """Write subjects with blocks of 7 voxels as structures and noise as image."""
    folder = Folder(base)
    for number in range(1, subjects + 1):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 139, [-(-n // 7) for n in SHAPE]).astype(np.uint8)
        malp = coarse.repeat(7, 0).repeat(7, 1).repeat(7, 2)[tuple(slice(n) for n in SHAPE)]
        tissue = (malp % 4).astype(np.uint8)
        first = np.array([0, 10, 11, 12, 13, 16, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58], np.uint8)[malp % 16]
        made = {"image": (rng.normal(0, 50, SHAPE) + malp * 5).astype(np.int16), "fsl_fast": tissue, "fsl_first": first,
                "spm_tissue": tissue, "malp_em": malp, "malp_em_tissue": tissue_of(malp)}
        for what, array in made.items():
            write(folder.path(bulk_id(number), what), array)


def our_stream():
    """The training stream over all subjects but two, from a warm cache."""
    from segexp.data import Crops
    from segexp.data.sampling import SampleStream

    module = Folder(Path(os.environ[FOLDER])).module(sampling=Crops(SIZE))
    return SampleStream(module.cases("train"), TARGETS, module.sampling, seed=1)


def monai_dataset(stream):
    """MONAI's cache of the same cases; indexing it cuts a crop."""
    from monai.data import CacheDataset
    from monai.transforms import (
        CastToTyped,
        Compose,
        EnsureChannelFirstd,
        EnsureTyped,
        LoadImaged,
        MapLabelValued,
        NormalizeIntensityd,
        RandSpatialCropd,
    )

    folder, first = Folder(Path(os.environ[FOLDER])), sorted(DEFAULT_FIRST)
    data = [{key: str(folder.path(case.id, key)) for key in KEYS} for case in stream.cases]
    return CacheDataset(data, Compose([
        LoadImaged(KEYS), EnsureChannelFirstd(KEYS), NormalizeIntensityd("image"),
        MapLabelValued("fsl_first", first, list(range(16))), EnsureTyped(TARGETS, dtype=np.uint8),
        RandSpatialCropd(KEYS, SIZE, random_size=False), CastToTyped(TARGETS, np.int64),
    ]), num_workers=2, progress=False)


DEFAULT_FIRST = (0, 10, 11, 12, 13, 16, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58)


def assert_equal(stream, dataset) -> None:
    """Cut the same positions of the same cases from both caches."""
    rng = np.random.default_rng(0)
    for number, case in enumerate(stream.cases):
        start = tuple(int(rng.integers(n - SIZE + 1)) for n in SHAPE)
        part = (0, *(slice(a, a + SIZE) for a in start))
        cached = dataset._cache[number]
        np.testing.assert_allclose(case.image.crop(start, (SIZE,) * 3), cached["image"][part], atol=1e-4)
        for target in TARGETS:
            np.testing.assert_array_equal(case.targets[target].crop(start, (SIZE,) * 3), cached[target][part])


def draw(dataset, first: int, crops: int, cases: int) -> None:
    """Draw crops one after the other, as one worker does."""
    for index in range(first, first + crops):
        dataset[index % cases]


def prepare():
    """Import what both sides need, so that it counts as "before"."""
    import monai.data
    import monai.transforms  # noqa: F401

    return our_stream()


def ours_in_child(stream) -> None:
    """Draw four crops of every case."""
    draw(stream, 0, 4 * len(stream.cases), 10**9)


def monai_in_child(stream) -> None:
    """Fill MONAI's cache and draw four crops of every case."""
    draw(monai_dataset(stream), 0, 4 * len(stream.cases), len(stream.cases))


def main() -> None:
    """Make the data, check that both sides cut the same voxels, time them in turn, and measure their memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=20)
    parser.add_argument("--crops", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        os.environ[FOLDER] = base
        make_subjects(Path(base), options.subjects + 2)  # two more for validation and test
        Folder(Path(base)).module().prepare_data()
        memory = {"segexp": peak_memory(prepare, ours_in_child),
                  "MONAI CacheDataset": peak_memory(prepare, monai_in_child)}
        stream = our_stream()
        dataset = monai_dataset(stream)
        assert_equal(stream, dataset)
        seconds = alternate({
            "segexp": lambda: draw(stream, 0, options.crops, 10**9),
            "MONAI CacheDataset": lambda: draw(dataset, 0, options.crops, len(stream.cases)),
        }, options.repeats)
        work = f"{options.crops} crops of {SIZE}^3, image and {len(TARGETS)} targets, {options.subjects} subjects"
        report([Row(work, seconds, memory)])


if __name__ == "__main__":
    main()
