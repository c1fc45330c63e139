"""Whole cases as batches of one, for validation, test and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from segexp.data import nifti
from segexp.data.cases import Case
from segexp.data.intensity import Intensity, LoadedImage, ZScore
from segexp.errors import DataError


class WholeCases(Dataset):
    """Whole cases as batches of one."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the batch of case ``index``."""
        case = self.cases[index]
        batch = {
            "image": torch.from_numpy(case.image.whole())[None, None],
            "target": {name: torch.from_numpy(labels.whole())[None] for name, labels in case.targets.items()},
            "case": [case.id], "spacing": [case.image.spacing], "group": [case.group], "path": [str(case.path)],
        }
        if case.truth:
            batch["truth"] = {name: torch.from_numpy(labels.whole())[None] for name, labels in case.truth.items()}
        if case.placement is not None:
            batch["placement"] = [case.placement]
        return batch


def as_it_is(batch: dict[str, Any]) -> dict[str, Any]:
    """Keep a batch as it is; the loader's own conversion would turn tuples into lists."""
    return batch


def read_image_case(path: str | Path, intensity: Intensity | None = None, unplaced: str = "error",
                    content: bytes | None = None) -> dict[str, Any]:
    """Return an image file as a batch for prediction, without a cache; ``content``: its bytes, if they are read.

    ``image`` float32 [1, 1, D, H, W], scaled as in training; ``case``, ``spacing`` (mm), ``group`` and ``path`` as in
    whole cases, no targets; ``source``: what `nifti.write_labels` needs to write on the file's grid. Raises DataError
    as `nifti.read` does, or when the intensity cannot scale the volume.
    """
    volume = nifti.read(path, content, unplaced)
    intensity, loaded = intensity or ZScore(), LoadedImage.of(volume.array)
    problem = intensity.problem(loaded)
    if problem:
        raise DataError(f"{path}: {problem}")
    return {
        "image": torch.from_numpy(intensity(volume.array, loaded))[None, None], "target": {},
        "case": [Path(path).name.split(".")[0]], "spacing": [volume.spacing], "group": [""], "path": [str(path)],
        "source": volume.source,
    }
