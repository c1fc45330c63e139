"""HD95 and mean surface distance of 15 structures: one pass against MONAI's two calls.

`python -m tests.benchmarks.surface [--repeats 5]`. MONAI gets one-hot volumes that are made before the
clock starts.
"""

import argparse
from typing import Any

import numpy as np

from segexp.metrics import surface_distances
from tests.benchmarks.common import Row, alternate, peak_memory, report

SHAPE = (182, 218, 182)
STRUCTURES = 15
SPACING = {"1 mm": (1.0, 1.0, 1.0), "0.8 x 1 x 1.2 mm": (0.8, 1.0, 1.2)}


def subcortical() -> tuple[np.ndarray, np.ndarray]:
    """Return (prediction, reference) uint8 [182, 218, 182]: 15 ellipsoids, and others a little off."""
    generator = np.random.default_rng(0)
    grid = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in SHAPE), indexing="ij", sparse=True)
    volumes = [np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)]
    for index in range(1, STRUCTURES + 1):
        centre = np.array(SHAPE) / 2 + generator.uniform(-40, 40, 3)
        radii = generator.uniform(6, 16, 3)
        for volume in volumes:
            at, size = centre + generator.normal(0, 0.7, 3), radii * generator.normal(1, 0.05, 3)
            axes = zip(grid, at, size, strict=True)
            volume[sum(((axis - middle) / radius) ** 2 for axis, middle, radius in axes) < 1] = index
    return volumes[0], volumes[1]


def one_hot(pair: tuple[np.ndarray, np.ndarray]) -> list[Any]:
    """Return both volumes as one-hot tensors [1, 16, D, H, W]."""
    import torch
    from monai.networks import one_hot as monai_one_hot

    classes = STRUCTURES + 1
    return [monai_one_hot(torch.from_numpy(labels)[None, None], classes, dtype=torch.uint8) for labels in pair]


def ours(pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, ...]) -> np.ndarray:
    """[15, 2]: hd95 and assd by `segexp.metrics.surface_distances`."""
    found = surface_distances(*pair, range(1, STRUCTURES + 1), spacing)
    return np.array([found[index] for index in range(1, STRUCTURES + 1)])


def monai(hot: list[Any], spacing: tuple[float, ...]) -> np.ndarray:
    """[15, 2]: hd95 and assd by MONAI's two calls."""
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    hd95 = compute_hausdorff_distance(*hot, percentile=95, spacing=spacing)[0]
    assd = compute_average_surface_distance(*hot, symmetric=True, spacing=spacing)[0]
    return np.stack([hd95.numpy(), assd.numpy()], 1)


def prepare() -> tuple[np.ndarray, np.ndarray]:
    """Inputs, with MONAI imported, so that both sides start from the same memory."""
    import monai.metrics  # noqa: F401

    return subcortical()


def ours_child(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """`ours` at 1 mm for a child process."""
    return ours(pair, SPACING["1 mm"])


def monai_child(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """`monai` at 1 mm for a child process; its one-hot volumes count, because it needs them."""
    return monai(one_hot(pair), SPACING["1 mm"])


def main() -> None:
    """Assert equality, then time, then measure memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    pair = subcortical()
    hot = one_hot(pair)
    rows = []
    for name, spacing in SPACING.items():
        np.testing.assert_allclose(ours(pair, spacing), monai(hot, spacing), rtol=1e-5)
        sides = {
            "segexp": lambda spacing=spacing: ours(pair, spacing),
            "monai, two calls": lambda spacing=spacing: monai(hot, spacing),
        }
        rows.append(Row(f"hd95 + assd, {STRUCTURES} structures, {name}", alternate(sides, repeats)))
    memory = {"segexp": peak_memory(prepare, ours_child), "monai, two calls": peak_memory(prepare, monai_child)}
    rows[0] = rows[0]._replace(memory=memory)
    report(rows)


if __name__ == "__main__":
    main()
