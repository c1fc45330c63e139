"""Mean surface distance of a kidney and its tumour: one pass over two label maps against MONAI's metric.

`python -m tests.benchmarks.surface_distance [--repeats 5]`. Values have to agree to 1e-4. MONAI gets one-hot volumes
that are made before the clock starts. Ours also gives the 95th percentile, which is not compared here.
"""

import argparse

import numpy as np

from segexp.metrics import surface_distances
from tests.benchmarks.common import Row, alternate, report

SHAPES = ((64, 64, 64), (128, 128, 128), (200, 150, 150))
SPACINGS = {"voxels": (1.0, 1.0, 1.0), "1 x 0.65 x 0.65 mm": (1.0, 0.65, 0.65)}
TOLERANCE = 1e-4


def kidney(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return (prediction, reference): an ellipsoid with a ball at its side, and others a little off."""
    generator = np.random.default_rng(0)
    size = np.array(shape)
    axes = np.ogrid[tuple(slice(edge) for edge in shape)]
    volumes = []
    for _ in range(2):
        volume = np.zeros(shape, np.uint8)
        for value, centre, radii in ((1, (0.5, 0.5, 0.5), (0.3, 0.2, 0.25)), (2, (0.5, 0.65, 0.6), (0.15, 0.14, 0.14))):
            at = size * centre + generator.normal(0, 0.01 * size)
            reach = size * radii * generator.normal(1, 0.04, 3)
            parts = zip(axes, at, reach, strict=True)
            volume[sum(((axis - middle) / radius) ** 2 for axis, middle, radius in parts) < 1] = value
        volumes.append(volume)
    return volumes[0], volumes[1]


def ours(pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, ...]) -> np.ndarray:
    """[2]: the distances by `segexp.metrics.surface_distances`."""
    found = surface_distances(*pair, (1, 2), spacing)
    return np.array([found[1].assd, found[2].assd])


def main() -> None:
    """Assert equality, then time."""
    import torch
    from monai.metrics import SurfaceDistanceMetric
    from monai.networks import one_hot

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    metric = SurfaceDistanceMetric(symmetric=True)
    rows = []
    for shape in SHAPES:
        pair = kidney(shape)
        hot = [one_hot(torch.from_numpy(labels)[None, None], 3, dtype=torch.uint8) for labels in pair]
        for unit, spacing in SPACINGS.items():
            np.testing.assert_allclose(ours(pair, spacing), metric(*hot, spacing=spacing)[0].numpy(), atol=TOLERANCE)
            sides = {"segexp": lambda pair=pair, spacing=spacing: ours(pair, spacing),
                     "MONAI": lambda hot=hot, spacing=spacing: metric(*hot, spacing=spacing)}
            name = "x".join(map(str, shape))
            rows.append(Row(f"mean surface distance, two structures, {name}, {unit}", alternate(sides, repeats)))
    report(rows)


if __name__ == "__main__":
    main()
