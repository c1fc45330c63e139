"""Dice of all structures of a brain: one joint histogram against MONAI's one-hot and compute_dice.

`python -m tests.benchmarks.overlap [--repeats 5]`. The MONAI side needs about 9 GB of memory for 139
classes.
"""

import argparse

import numpy as np
from scipy.spatial import KDTree

from segexp.metrics import dice
from tests.benchmarks.common import Row, alternate, peak_memory, report

SHAPE = (182, 218, 182)


def brain(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (prediction, reference) uint8 [182, 218, 182]: an ellipsoid cut into cells, and it moved a voxel."""
    generator = np.random.default_rng(0)
    half = [size // 2 for size in SHAPE]
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in half), indexing="ij"), -1)
    inside = (grid**2).sum(-1) < 0.6
    seeds = generator.uniform(-0.75, 0.75, size=(num_classes - 1, 3))
    coarse = np.zeros(half, np.uint8)
    coarse[inside] = KDTree(seeds).query(grid[inside])[1] + 1
    reference = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    return np.roll(reference, 1, axis=0), reference


def ours(pair: tuple[np.ndarray, np.ndarray], num_classes: int) -> np.ndarray:
    """Dice of classes 1..K-1 by `segexp.metrics.dice`."""
    return dice(*pair, num_classes)[1:]


def monai(pair: tuple[np.ndarray, np.ndarray], num_classes: int) -> np.ndarray:
    """Dice of classes 1..K-1 by MONAI, on one-hot volumes as its documentation says."""
    import torch
    from monai.metrics import compute_dice
    from monai.networks import one_hot

    hot = [one_hot(torch.from_numpy(labels)[None, None], num_classes) for labels in pair]
    return compute_dice(*hot, include_background=False)[0].numpy()


def prepare_139() -> tuple[np.ndarray, np.ndarray]:
    """Inputs for 139 classes, with MONAI imported, so that both sides start from the same memory."""
    import monai.metrics  # noqa: F401

    return brain(139)


def ours_139(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """`ours` for a child process."""
    return ours(pair, 139)


def monai_139(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """`monai` for a child process."""
    return monai(pair, 139)


def main() -> None:
    """Assert equality, then time, then measure memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rows = []
    for classes in (4, 139):
        pair = brain(classes)
        np.testing.assert_allclose(ours(pair, classes), monai(pair, classes), atol=1e-6)
        sides = {
            "segexp": lambda pair=pair, classes=classes: ours(pair, classes),
            "monai one_hot+compute_dice": lambda pair=pair, classes=classes: monai(pair, classes),
        }
        memory = {}
        if classes == 139:
            memory = {
                "segexp": peak_memory(prepare_139, ours_139),
                "monai one_hot+compute_dice": peak_memory(prepare_139, monai_139),
            }
        work = f"Dice, {classes} classes, {np.prod(SHAPE) / 1e6:.1f} M voxels"
        rows.append(Row(work, alternate(sides, repeats), memory))
    report(rows)


if __name__ == "__main__":
    main()
