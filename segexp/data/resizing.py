"""Slices made larger, smaller, or turned: what training and inference do alike to the planes of a volume.

Everything works on the last two axes of a tensor; the axes before them are planes treated alike.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TRUNCATE = 4.0  # standard deviations after which the smoothing kernel ends


def resize(planes: Tensor, size: tuple[int, int], nearest: bool = False) -> Tensor:
    """Return planes [..., H, W] resized to [..., *size], float32, on the same device.

    The numbers are those of skimage.transform.resize with its defaults: bilinear between half-pixel centres, mirrored
    at the border, and before an axis shrinks a Gaussian of (in / out - 1) / 2 pixels along it. (torch's and MONAI's
    resizing differ from these at the border.) The aspect ratio is not kept. An axis that has its size already stays
    as it is, bit for bit.

    Args:
        planes: any real type.
        size: rows and columns wanted.
        nearest: take the nearest pixel instead (order 0, no smoothing).

    """
    planes = planes.float()
    for axis, wanted in zip((-2, -1), size, strict=True):
        length = planes.shape[axis]
        if length == wanted:
            continue
        index, weight = taps(length, wanted, nearest, planes.device)
        shape = (-1, 1) if axis == -2 else (-1,)
        # Two taps per pixel in the usual case; gathering them beats a product with the dense matrix, and no autocast
        # rounds it to half precision.
        total = planes.index_select(axis, index[0])
        if not nearest:
            total *= weight[0].view(shape)
        for one, factor in zip(index[1:], weight[1:], strict=True):
            total.addcmul_(planes.index_select(axis, one), factor.view(shape))
        planes = total
    return planes


def resize_classes(classes: Tensor, size: tuple[int, int], nearest: bool = False) -> Tensor:
    """Return class indices [..., H, W] resized to [..., *size], of the same type.

    Every class above 0 is a mask of its own, resized as an image: it holds where the result is at least 0.5, so that
    between two classes no third one appears. Where two hold, the lower one stays.
    """
    result = torch.zeros((*classes.shape[:-2], *size), dtype=classes.dtype, device=classes.device)
    for label in reversed(structures(classes)):
        result[resize(classes == label, size, nearest) >= 0.5] = label
    return result


def structures(classes: Tensor) -> list[int]:
    """Return the classes above the background that occur, in ascending order."""
    return classes[classes > 0].unique().tolist()


def rotate(planes: Tensor, degrees: float) -> Tensor:
    """Return planes [N, H, W] turned about their centre (n / 2 - 0.5), bilinear, with the border's values outside.

    These are the numbers of Keras' ImageDataGenerator: order 1, fill mode nearest.
    """
    if not degrees:
        return planes
    height, width = planes.shape[-2:]
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    # The grid counts either axis from -1 to 1, so that a plane that is not square needs its aspect ratio here. torch's
    # affine_grid would take longer than the sampling itself.
    aspect = max(height - 1, 1) / max(width - 1, 1)
    x, y = (torch.linspace(-1, 1, n, dtype=planes.dtype, device=planes.device) for n in (width, height))
    grid = torch.stack([cosine * x - sine * aspect * y[:, None], sine / aspect * x + cosine * y[:, None]], -1)
    return F.grid_sample(planes[None], grid[None], "bilinear", "border", align_corners=True)[0]


@lru_cache(maxsize=64)
def taps(length: int, wanted: int, nearest: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return which pixels make each pixel of a resized axis, int64 [T, wanted], and their weights, float32 [T, wanted].

    Args:
        length: pixels along the axis before.
        wanted: pixels along it afterwards.
        nearest: one pixel each, of weight 1.
        device: where the result is kept.

    """
    if nearest:
        index = np.minimum(np.floor((np.arange(wanted) + 0.5) * (length / wanted)), length - 1)[:, None].astype(int)
        weight = np.ones_like(index, np.float64)
    else:
        matrix = weights(length, wanted)
        most = int((matrix != 0).sum(1).max())
        index = np.argsort(matrix == 0, 1, kind="stable")[:, :most]
        weight = np.take_along_axis(matrix, index, 1)
    return (torch.from_numpy(np.ascontiguousarray(index.T)).to(device),
            torch.from_numpy(np.ascontiguousarray(weight.T, np.float32)).to(device))


def weights(length: int, wanted: int) -> np.ndarray:
    """Return the matrix [wanted, length] that resizes an axis: smoothing first where it shrinks, then interpolation."""
    factor = length / wanted
    centres = (np.arange(wanted) + 0.5) * factor - 0.5
    low = np.floor(centres).astype(int)
    matrix = np.zeros((wanted, length))
    rows = np.arange(wanted)
    np.add.at(matrix, (rows, _mirrored(low, length)), 1 - (centres - low))
    np.add.at(matrix, (rows, _mirrored(low + 1, length)), centres - low)
    sigma = (factor - 1) / 2
    reach = int(TRUNCATE * sigma + 0.5)
    if reach < 1:
        return matrix
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    smoothing = np.zeros((length, length))
    for offset, value in zip(offsets, kernel / kernel.sum(), strict=True):
        np.add.at(smoothing, (np.arange(length), _mirrored(np.arange(length) + offset, length)), value)
    return matrix @ smoothing


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Return positions mirrored at the centres of the first and last pixel into 0 .. length - 1."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)
