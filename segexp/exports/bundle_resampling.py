"""Another voxel size than the file's, in a MONAI bundle: there before the network, back after it."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from segexp.data.resampling import sampled

GRID = "segexp_grid"
"""Entry of a case that remembers the size of the file's grid and the ratio of the voxel sizes."""


class ToSpacing(MapTransform):
    """Resample images [1, D, H, W] to the voxel size that the network was trained at, trilinearly.

    The affine stays that of the file: the labels go back to it before they are written.
    """

    def __init__(self, keys: Sequence[Hashable] | Hashable, spacing: Sequence[float]) -> None:
        super().__init__(keys)
        self.spacing = tuple(spacing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with its images resampled."""
        data = dict(data)
        for key in self.key_iterator(data):
            image = data[key]
            voxels = np.ascontiguousarray(image[0].cpu().numpy())
            own = np.sqrt((np.asarray(image.affine)[:3, :3] ** 2).sum(0))
            ratio = np.asarray(self.spacing, np.float64) / own
            near = np.allclose(self.spacing, own, rtol=1e-4, atol=0)
            shape = tuple(max(1, round(n / r)) for n, r in zip(voxels.shape, ratio, strict=True))
            whole = bool((voxels == np.rint(voxels)).all())
            fine = voxels if near else sampled(voxels.astype(np.int32) if whole else voxels, ratio, shape, order=1)
            changed = image.clone()
            changed.set_array(torch.from_numpy(np.ascontiguousarray(fine, np.float32))[None])
            data[key], data[GRID] = changed, (voxels.shape, tuple(1 / ratio), near)
        return data


class FromSpacing(MapTransform):
    """Put class indices [1, D, H, W] back on the grid that `ToSpacing` came from, the nearest voxel of each."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with its labels on the grid of the file."""
        data = dict(data)
        shape, ratio, near = data[GRID]
        for key in self.key_iterator(data):
            if not near:
                back = sampled(data[key][0].cpu().numpy(), ratio, shape, order=0)
                data[key] = MetaTensor(torch.from_numpy(back)[None], meta=dict(data[key].meta))
        return data
