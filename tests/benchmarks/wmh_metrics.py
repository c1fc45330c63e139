"""The WMH challenge's five metrics: segexp against the definition in SimpleITK, step by step as the challenge does.

`python -m tests.benchmarks.wmh_metrics [--repeats 7]`. Both sides start from arrays in memory, the one as SimpleITK
images, the other as numpy arrays; values are float32 labels as in the challenge's files. Needs SimpleITK.
"""

import argparse
import math
from typing import Any

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.distance import dice as dice_distance

from segexp.metrics import wmh_scores
from tests.benchmarks.common import Row, alternate, report

FIVE = ("dice", "hd95", "avd", "lesion_recall", "lesion_f1")
CASES = {  # shape and spacing of two scanners, lesions
    "Utrecht, few lesions": ((240, 240, 48), (0.9583, 0.9583, 3.0), 40),
    "Utrecht, many lesions": ((240, 240, 48), (0.9583, 0.9583, 3.0), 160),
    "Amsterdam": ((132, 256, 83), (1.2, 0.9766, 3.0), 60),
}


def lesions(shape: tuple[int, ...], spacing: tuple[float, ...], count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return (truth, result) float32 [x, y, z]: ellipsoids around the ventricles, some missed, some only found."""
    generator = np.random.default_rng(seed)
    steps = np.array(spacing)
    middle, reach = np.array(shape) * steps / 2, np.array([50.0, 65.0, 45.0])
    volumes = np.zeros((2, *shape), np.float32)
    for _ in range(count):
        way = generator.normal(size=3)
        centre = middle + way / np.linalg.norm(way) * reach * generator.uniform(0.3, 0.95)
        radii = (1 + generator.gamma(3, 0.8)) * np.array([1, generator.uniform(1, 2.2), 1])
        fate, shift, growth = generator.uniform(), generator.normal(0, 0.8, 3), generator.normal(1, 0.1, 3)
        if fate > 0.12:
            ellipsoid(volumes[0], centre, radii, steps)
        if fate < 0.85:
            ellipsoid(volumes[1], centre + shift, radii * growth, steps)
    other = np.zeros(shape, np.float32)
    ellipsoid(other, middle + reach * 0.6, np.array([8.0, 8.0, 8.0]), steps)
    volumes[0][(other > 0) & (volumes[0] == 0)] = 2  # other pathology, of which the result finds a part
    volumes[1][other > 0] = 1
    return volumes[0], volumes[1]


def ellipsoid(volume: np.ndarray, centre: np.ndarray, radii: np.ndarray, steps: np.ndarray) -> None:
    """Set an ellipsoid (mm) of a volume to 1."""
    low = np.maximum(np.floor((centre - radii) / steps).astype(int), 0)
    high = np.minimum(np.ceil((centre + radii) / steps).astype(int) + 1, volume.shape)
    box = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
    grid = np.meshgrid(*(np.arange(part.start, part.stop) * step for part, step in zip(box, steps, strict=True)),
                       indexing="ij", sparse=True)
    inside = sum(((axis - at) / radius) ** 2 for axis, at, radius in zip(grid, centre, radii, strict=True)) < 1
    volume[box][inside] = 1


def itk_image(values: np.ndarray, spacing: tuple[float, ...], direction: tuple[float, ...] | None = None) -> Any:
    """Return an array [x, y, z] as SimpleITK image."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose()))
    image.SetSpacing([float(step) for step in spacing])
    if direction is not None:
        image.SetDirection(direction)
    return image


def itk_masks(truth: Any, result: Any) -> tuple[Any, Any]:
    """Return both masks: label 1 of the truth; what is positive in the result and no other pathology in the truth."""
    import SimpleITK as sitk

    kept = sitk.BinaryThreshold(truth, 1.5, 2.5, 0, 1)
    masked = sitk.Mask(result, kept)
    least = 1 if "integer" in masked.GetPixelIDTypeAsString() else 0.5
    return sitk.BinaryThreshold(truth, 0.5, 1.5, 1, 0), sitk.BinaryThreshold(masked, least, 1000, 1, 0)


def itk_hd95(truth: Any, result: Any) -> float:
    """Return the 95th percentile distance of the edges (in-plane erosion) in physical coordinates."""
    import SimpleITK as sitk

    points = []
    for mask in (truth, result):
        edge = sitk.GetArrayFromImage(sitk.Subtract(mask, sitk.BinaryErode(mask, (1, 1, 0))))
        indices = np.transpose(np.nonzero(edge))[:, ::-1]
        points.append(np.array([truth.TransformIndexToPhysicalPoint(index) for index in indices.tolist()]))
    if not (len(points[0]) and len(points[1])):
        return math.nan
    there, back = (KDTree(a, leafsize=100).query(b)[0] for a, b in (points, points[::-1]))
    return max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))


def itk_detected(mask: Any, other: Any) -> float:
    """Return the part of the lesions of a mask that the other one touches; 1 where there are none."""
    import SimpleITK as sitk

    connected = sitk.ConnectedComponentImageFilter()
    connected.SetFullyConnected(True)
    lesions = connected.Execute(mask)
    touched = sitk.Multiply(lesions, sitk.Cast(other, sitk.sitkUInt32))
    count, found = (len(np.unique(sitk.GetArrayFromImage(image))) - 1 for image in (lesions, touched))
    return found / count if count else 1.0


def itk_scores(truth: Any, result: Any) -> tuple[float, ...]:
    """Return the five metrics of two SimpleITK images; NaN where the challenge's script stops."""
    import SimpleITK as sitk

    truth, result = itk_masks(truth, result)
    arrays = [sitk.GetArrayFromImage(mask).ravel() for mask in (truth, result)]
    ours, theirs = (int(array.sum()) for array in arrays)
    dice = 1 - float(dice_distance(*(array.astype(bool) for array in arrays))) if ours or theirs else math.nan
    recall, precision = itk_detected(truth, result), itk_detected(result, truth)
    return (
        dice,
        itk_hd95(truth, result) if ours and theirs else math.nan,
        abs(ours - theirs) / ours * 100 if ours else math.nan,
        recall,
        2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    )


def main() -> None:
    """Assert equality, then time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    rows = []
    for name, (shape, spacing, count) in CASES.items():
        truth, result = lesions(shape, spacing, count)
        images = itk_image(truth, spacing), itk_image(result, spacing)
        ours = wmh_scores(truth, result, spacing)
        np.testing.assert_allclose([getattr(ours, metric) for metric in FIVE], itk_scores(*images), rtol=0, atol=1e-6)
        sides = {
            "segexp": lambda pair=(truth, result), spacing=spacing: wmh_scores(*pair, spacing),
            "SimpleITK, as the challenge": lambda images=images: itk_scores(*images),
        }
        work = f"five WMH metrics, {name}, {'x'.join(map(str, shape))}, positive class density {ours.pcd:.2f} %"
        rows.append(Row(work, alternate(sides, repeats)))
    report(rows)


if __name__ == "__main__":
    main()
