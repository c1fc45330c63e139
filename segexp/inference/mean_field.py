"""Refine labels with a conditional random field whose edges know distance and intensity.

The energy of Krähenbühl and Koltun 2011 (which Yang et al. 2018, section II-D, apply in 3D to fill small holes):
unary terms -log p, and for every pair of voxels of different class a penalty

    w_s exp(-|x_i - x_j|^2 / 2 s_s^2) + w_a exp(-|x_i - x_j|^2 / 2 s_a^2 - (I_i - I_j)^2 / 2 s_I^2)

with both kernels normalised symmetrically, k_ij / sqrt(n_i n_j) with n_i the sum of k_ij over j, as in their released
code. The labels are the most probable classes after some mean-field iterations. The published parameters are unknown.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from segexp.errors import ConfigError
from segexp.inference.components import foreground_box

# Against 0 and 1: the least probability of a unary term, the least sum of a kernel.
LEAST_PROBABILITY = 1e-7
LEAST_SUM = 1e-20


@dataclass
class MeanField:
    """What both fields share: their parameters, and the box that they are confined to.

    Only the box around the predicted foreground, ``margin`` voxels wider on every side, is refined; the rest is
    background and stays it.

    Args:
        iterations: mean-field iterations.
        smoothness_sigma: standard deviation of the smoothness kernel in voxels.
        smoothness_weight: its weight.
        appearance_sigma: standard deviation of the appearance kernel over distance, in voxels.
        intensity_sigma: the same over intensity, in units of the image that the network sees.
        appearance_weight: its weight.
        margin: voxels around the predicted foreground.

    Raises:
        ConfigError: a standard deviation is not positive, or another number is negative.
    """

    iterations: int = 5
    smoothness_sigma: float = 3
    smoothness_weight: float = 3
    appearance_sigma: float = 5
    intensity_sigma: float = 0.1
    appearance_weight: float = 5
    margin: int = 16

    def __post_init__(self) -> None:
        for name in ("smoothness_sigma", "appearance_sigma", "intensity_sigma"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"inference.crf.{name}={getattr(self, name)}: expected a positive number")
        for name in ("iterations", "margin", "smoothness_weight", "appearance_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"inference.crf.{name}={getattr(self, name)}: expected 0 or more")

    def __call__(self, labels: Tensor, probabilities: Tensor, image: Tensor) -> Tensor:
        """Return refined class indices [D, H, W], of the type of ``labels``.

        Args:
            labels: class indices [D, H, W]; they only say where the foreground is.
            probabilities: [K, D, H, W], positive and with the sum 1 over classes.
            image: intensities [D, H, W].
        """
        box = foreground_box(labels, self.margin)
        if box is None:
            return labels
        unary = -probabilities[:, *box].clamp_min(LEAST_PROBABILITY).log()
        refined = torch.zeros_like(labels)
        refined[box] = self.beliefs(unary, image[box].float()).argmax(0).to(labels.dtype)
        return refined

    def beliefs(self, unary: Tensor, image: Tensor) -> Tensor:
        """Return the probabilities [K, D, H, W] after the last iteration, of -log p [K, D, H, W] and an image."""
        raise NotImplementedError


@dataclass
class LocalMeanField(MeanField):
    """Mean field whose kernels end a few voxels away, in torch alone, on the device of the probabilities.

    Neighbours are the voxels of a cube without its centre (j != i, as in the paper of the method); for those the
    updates are exact. Against the dense field a message travels ``radius`` voxels per iteration and no further.

    Args:
        radius: half the edge of the cube: 2 is 5 x 5 x 5 voxels. The other arguments are those of ``MeanField``.

    Raises:
        ConfigError: ``radius`` is less than 1, or a parameter of ``MeanField`` is out of its range.
    """

    radius: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radius < 1:
            raise ConfigError(f"inference.crf.radius={self.radius}: expected at least 1 voxel")

    def beliefs(self, unary: Tensor, image: Tensor) -> Tensor:
        """Return the probabilities [K, D, H, W] after the last iteration."""
        kernels = [(self.smoothness_weight, self.smooth), (self.appearance_weight, self.similar(image))]
        kernels = [(weight, kernel, (kernel(torch.ones_like(unary[:1])) + LEAST_SUM).rsqrt())
                   for weight, kernel in kernels if weight]
        beliefs = (-unary).softmax(0)
        for _ in range(self.iterations):
            scores = -unary
            for weight, kernel, scale in kernels:
                scores += kernel(beliefs * scale).mul_(scale).mul_(weight)
            beliefs = scores.softmax(0)
        return beliefs

    def smooth(self, values: Tensor) -> Tensor:
        """Return the sum over neighbours weighted by distance, of [K, D, H, W]: one axis after the other."""
        steps = torch.arange(-self.radius, self.radius + 1, device=values.device, dtype=values.dtype)
        weights = torch.exp(-(steps / self.smoothness_sigma) ** 2 / 2)
        total = values[:, None]
        for axis in range(3):
            shape, padding = [1] * 5, [0] * 3
            shape[axis + 2], padding[axis] = len(weights), self.radius
            total = F.conv3d(total, weights.view(shape), padding=padding)
        return total[:, 0] - values

    def similar(self, image: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the sum over neighbours weighted by distance and intensity, a function of [K, D, H, W]."""
        def kernel(values: Tensor) -> Tensor:
            total = torch.zeros_like(values)
            for distance, here, there in self.pairs(image.shape):
                # A pair of voxels is met once: what one sends to the other, the other sends back.
                weight = (image[here] - image[there]).square_().mul_(-0.5 / self.intensity_sigma**2)
                weight = weight.sub_(0.5 * distance / self.appearance_sigma**2).exp_()
                total[:, *here].addcmul_(values[:, *there], weight)
                total[:, *there].addcmul_(values[:, *here], weight)
            return total
        return kernel

    def pairs(self, shape: tuple[int, ...]) -> Iterator[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
        """Yield, for half of the neighbours, the squared distance and the two boxes that lie so far apart."""
        reach = range(-self.radius, self.radius + 1)
        for offset in ((a, b, c) for a in reach for b in reach for c in reach):
            if offset > (0, 0, 0) and all(abs(step) < size for step, size in zip(offset, shape, strict=True)):
                spans = list(zip(offset, shape, strict=True))
                here = tuple(slice(max(-step, 0), size - max(step, 0)) for step, size in spans)
                there = tuple(slice(max(step, 0), size - max(-step, 0)) for step, size in spans)
                yield sum(step * step for step in offset), here, there


@dataclass
class DenseMeanField(MeanField):
    """Mean field over all pairs of voxels, by the filtering of Krähenbühl and Koltun 2011, on the CPU.

    ``pydensecrf2``, which is compiled when it is installed, does the work. The arguments are those of ``MeanField``.

    Raises:
        ConfigError: ``pydensecrf2`` is not installed, or a parameter of ``MeanField`` is out of its range.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if find_spec("pydensecrf") is None:
            raise ConfigError("inference/crf=dense needs pydensecrf2, which is not installed: pip install "
                              "'segexp[crf]' (it needs a C++ compiler); inference/crf=local needs nothing more")

    def beliefs(self, unary: Tensor, image: Tensor) -> Tensor:
        """Return the probabilities [K, D, H, W] after the last iteration."""
        import numpy as np
        from pydensecrf.densecrf import DenseCRF
        from pydensecrf.utils import create_pairwise_bilateral, create_pairwise_gaussian

        classes, *grid = unary.shape
        field = DenseCRF(image.numel(), classes)
        field.setUnaryEnergy(np.ascontiguousarray(unary.flatten(1).cpu().numpy(), np.float32))
        smooth = create_pairwise_gaussian(sdims=(self.smoothness_sigma,) * 3, shape=grid)
        similar = create_pairwise_bilateral(sdims=(self.appearance_sigma,) * 3, schan=(self.intensity_sigma,),
                                            img=image.cpu().numpy()[..., None], chdim=3)
        for features, weight in ((smooth, self.smoothness_weight), (similar, self.appearance_weight)):
            field.addPairwiseEnergy(np.ascontiguousarray(features), compat=weight)
        beliefs = np.array(field.inference(self.iterations), np.float32).reshape(classes, *grid)
        return torch.from_numpy(beliefs).to(unary.device)
