"""From stored voxel values to what a network sees: the intensity of a data set.

Glossary: D/H/W depth/height/width (the canonical axes: right, anterior, superior).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segexp.errors import ConfigError


class Image(Protocol):
    """A whole volume as an intensity sees it: its statistics, and its voxels where they do not suffice."""

    mean: float
    std: float
    minimum: float
    maximum: float

    def array(self) -> np.ndarray:
        """Return the stored voxels [D, H, W]."""


class Intensity(Protocol):
    """How voxels of a volume become the network's input."""

    def __call__(self, voxels: np.ndarray, image: Image) -> np.ndarray:
        """Return ``voxels``, a part of ``image``, as float32 of the same shape."""

    def outside(self, image: Image) -> float:
        """Return the value of what lies outside the volume."""

    def problem(self, image: Image) -> str:
        """Say why the volume cannot be scaled; "" where it can."""


@dataclass(frozen=True)
class ZScore:
    """(x - mean) / standard deviation of the whole volume (Rajchl et al. 2018, section 2.3)."""

    def __call__(self, voxels: np.ndarray, image: Image) -> np.ndarray:
        """Return (voxels - mean) / std as float32."""
        result = np.subtract(voxels, np.float32(image.mean), dtype=np.float32)
        result /= np.float32(image.std)
        return result

    def outside(self, image: Image) -> float:
        """Return the image's minimum, scaled alike: the air around a head."""
        return float(self(np.array(image.minimum), image))

    def problem(self, image: Image) -> str:
        """Nothing: constant volumes are refused when they are read."""
        return ""


@dataclass(frozen=True)
class MaxScale:
    """x / maximum of the whole volume, 0 to 1 for images without negative values (Mac et al. 2020, section 2.3).

    Args:
        percentile: divide by this percentile instead, so that a few hot voxels cannot squeeze all others; values
            above it become 1. 100 is the maximum itself.

    """

    percentile: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise ConfigError(f"data.intensity.percentile={self.percentile}: expected more than 0, at most 100")

    def __call__(self, voxels: np.ndarray, image: Image) -> np.ndarray:
        """Return voxels / maximum as float32."""
        result = np.divide(voxels, np.float32(self._top(image)), dtype=np.float32)
        return np.minimum(result, 1, out=result) if self.percentile < 100 else result

    def outside(self, image: Image) -> float:
        """Return the image's minimum, scaled alike."""
        return float(self(np.array([image.minimum]), image)[0])

    def problem(self, image: Image) -> str:
        """Say so when there is nothing above zero to divide by."""
        top = self._top(image)
        return "" if top > 0 else f"its largest value is {top:g}, expected above 0: it is divided by it"

    def _top(self, image: Image) -> float:
        return image.maximum if self.percentile == 100 else float(np.percentile(image.array(), self.percentile))


@dataclass(frozen=True)
class Window:
    """Clip to ``low`` .. ``high``, scale to 0 .. 1 and subtract ``mean`` (Yang et al. 2018: -200 to 500 HU).

    Args:
        low: lower end, in the image's units (HU).
        high: upper end.
        mean: subtracted after scaling, 0 to 1: that of the training data.

    """

    low: float
    high: float
    mean: float = 0.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"data.intensity: low={self.low} and high={self.high}; expected low < high")

    def __call__(self, voxels: np.ndarray, image: Image | None = None) -> np.ndarray:
        """Return (clip(voxels) - low) / (high - low) - mean as float32."""
        result = np.clip(voxels, np.float32(self.low), np.float32(self.high), dtype=np.float32)
        result -= np.float32(self.low)
        result /= np.float32(self.high - self.low)
        result -= np.float32(self.mean)
        return result

    def outside(self, image: Image | None = None) -> float:
        """Return air, scaled alike: 0 would be a tissue."""
        return -float(np.float32(self.mean))

    def problem(self, image: Image) -> str:
        """Say so when no voxel lies inside the window."""
        if image.maximum > self.low and image.minimum < self.high:
            return ""
        return (f"its values, {image.minimum:g} to {image.maximum:g}, lie outside the window {self.low:g} to "
                f"{self.high:g}; are they in HU?")


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """A volume in memory with its statistics, for prediction."""

    voxels: np.ndarray
    mean: float
    std: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, voxels: np.ndarray) -> LoadedImage:
        """Measure ``voxels`` [D, H, W]."""
        return cls(voxels, **statistics(voxels))

    def array(self) -> np.ndarray:
        """Return the voxels [D, H, W]."""
        return self.voxels


def statistics(voxels: np.ndarray) -> dict[str, float]:
    """Return mean, std, minimum and maximum of a volume, summed in double precision."""
    mean = voxels.mean(dtype=np.float64)
    # Plane by plane: a copy of the whole volume in double precision would be the largest thing in memory.
    squares = sum(float(np.square(plane - mean).sum()) for plane in voxels)
    return {"mean": float(mean), "std": float(np.sqrt(squares / voxels.size)), "minimum": float(voxels.min()),
            "maximum": float(voxels.max())}
