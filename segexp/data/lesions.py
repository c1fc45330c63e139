"""What data sets of brains with lesions share: how cases are judged, and the grid that scores are computed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segexp.data.cache import Cache
from segexp.data.cases import Case
from segexp.data.checks import Rules
from segexp.data.datamodule import SegmentationDataModule
from segexp.data.resizing import resize, resize_classes
from segexp.data.store import Labels, StoredImage
from segexp.errors import ConfigError


class LesionData(SegmentationDataModule):
    """Images with one label map of lesions each; a label map without any lesion is a finding, not a mistake.

    Args:
        root: folder of the data.
        label_maps, targets, split, cache, train_size, workers, sampling, intensity, strata, split_seed: as in the base
            class.
        on_unknown: ``error`` or ``background``, for file values that the label map does not declare.
        affine_tolerance: how far an entry of a label map's affine may lie from the image's.
        unplaced: ``pixdim`` or ``error``, for files with neither sform nor qform.
        eval_size: None: validation and test cases stay on their own grid. Pixels, one number or [rows, columns]: their
            axial slices are resized as in training, and scores are computed there.

    """

    label_key = ""
    """Configuration's key that declares the values of the label maps, where it is not data.label_maps."""

    def __init__(
        self,
        root: str | Path,
        label_maps: Mapping[str, Mapping[int, str]],
        targets: Sequence[str] | str,
        split: Mapping[str, int | float | None],
        cache: str | Path,
        on_unknown: str,
        affine_tolerance: float,
        unplaced: str,
        eval_size: int | Sequence[int] | None,
        train_size: int | None,
        workers: int,
        sampling: Any,
        intensity: Any,
        strata: str | None,
        split_seed: int | None,
    ) -> None:
        super().__init__(label_maps, targets, split, cache, train_size, workers=workers, sampling=sampling,
                         intensity=intensity, strata=strata, split_seed=split_seed)
        for key, value, choices in (("on_unknown", on_unknown, ("error", "background")),
                                    ("unplaced", unplaced, ("pixdim", "error"))):
            if value not in choices:
                raise ConfigError(f"data.{key}={value}: expected {' or '.join(choices)}")
        pixels = (eval_size,) * 2 if isinstance(eval_size, int) else tuple(eval_size or ())
        if eval_size is not None and not (len(pixels) == 2 and all(isinstance(n, int) and n > 0 for n in pixels)):
            raise ConfigError(f"data.eval_size={eval_size}: expected null, one positive number of pixels, or two")
        self.root, self.pixels = Path(root), pixels
        self.cache = Cache(cache, unplaced=unplaced)
        self.all_label_maps = {name: replace(one, key=self.label_key) for name, one in self.all_label_maps.items()}
        self.rules = Rules(
            self.all_label_maps, self.targets, frozenset(self.targets), on_unknown=on_unknown,
            affine_tolerance=affine_tolerance, affine_by_entry=True, intensity=self.intensity, may_be_empty=True,
            smallest=sampling.size if sampling is not None else None,
        )

    @property
    def phantom(self) -> bool:  # type: ignore[override]
        """True when the folder says that it was made by the phantom generator."""
        return (self.root / "phantom.json").exists()

    def with_truth(self, case: Case) -> Case:
        """Return a case of validation or test on the grid that it is scored on."""
        if not self.pixels:
            return case
        targets = {name: ResizedLabels(labels, self.pixels) for name, labels in case.targets.items()}
        return replace(case, image=resized_image(case.image, self.pixels), targets=targets)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ResizedImage(StoredImage):
    """An image whose axial slices are resized; ``full_shape`` is its shape before."""

    full_shape: tuple[int, int, int] = field(kw_only=True)

    def array(self) -> np.ndarray:
        """Return the voxels [D, H, W], float32."""
        planes = torch.from_numpy(np.array(self._mapped(self.full_shape), np.float32)).permute(2, 0, 1)
        return resize(planes, self.shape[:2]).permute(1, 2, 0).contiguous().numpy()


def resized_image(image: StoredImage, pixels: tuple[int, int]) -> ResizedImage:
    """Return ``image`` with axial slices of ``pixels``; the outer corners of the volume stay where they are."""
    ratio = np.array([image.shape[0] / pixels[0], image.shape[1] / pixels[1], 1.0])
    step = np.diag([*ratio, 1.0])
    step[:3, 3] = (ratio - 1) / 2
    values = {name: getattr(image, name) for name in StoredImage.__dataclass_fields__}
    values |= {"key": f"{image.key}{list(pixels)}", "shape": (*pixels, image.shape[2]),
               "spacing": tuple(float(size) for size in ratio * image.spacing),
               "affine": tuple(tuple(float(value) for value in row) for row in np.array(image.affine) @ step)}
    return ResizedImage(**values, full_shape=image.shape)


@dataclass(frozen=True, eq=False)
class ResizedLabels:
    """A label map whose axial slices are resized, every class by itself."""

    source: Labels
    pixels: tuple[int, int]

    @property
    def key(self) -> str:
        """Name of the content."""
        return f"{self.source.key}{list(self.pixels)}"

    def whole(self) -> np.ndarray:
        """Return the classes [D, H, W], uint8."""
        planes = torch.from_numpy(self.source.whole()).permute(2, 0, 1)
        return resize_classes(planes, self.pixels).permute(1, 2, 0).contiguous().numpy()
