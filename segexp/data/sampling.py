"""How training samples are drawn from cases.

The stream of samples has no state: sample i of a run is a pure function of (seed, i). Any number of workers, ranks or
restarts therefore gives the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from segexp.data.cases import Case
from segexp.data.labelmap import IGNORE
from segexp.data.store import Triple
from segexp.errors import ConfigError


class Crops:
    """Draw crops of a fixed size, evenly over all positions or centred on a structure.

    Args:
        size: voxels per axis, one number or three (Rajchl et al. 2018, section 2.2: 128).
        batch_size: crops per batch; a step is ``trainer.accumulate_grad_batches`` batches.
        foreground: probability that a crop is centred on a voxel of a structure: one (target, structure) pair of those
            present in the case, then one of the voxels remembered for it. 0 draws positions evenly.
        rotation_degrees: turn every crop about the left-right axis by an angle drawn evenly from +- this; 0 is off.

    Every position of a crop inside the volume is possible, the last one included. Where the volume is smaller than the
    crop, it is centred; outside, the image has its minimum and every target IGNORE.

    """

    def __init__(
        self,
        size: int | Sequence[int] = 128,
        batch_size: int = 1,
        foreground: float = 0.0,
        rotation_degrees: float = 0.0,
    ) -> None:
        sizes = tuple(size) if isinstance(size, Sequence) else (size,) * 3
        if len(sizes) != 3 or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise ConfigError(f"sampling.size={size}: expected one positive number of voxels, or three")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"sampling.batch_size={batch_size}: expected a positive number")
        if not 0 <= foreground <= 1:
            raise ConfigError(f"sampling.foreground={foreground}: expected a probability, 0 to 1")
        if not 0 <= rotation_degrees <= 180:
            raise ConfigError(f"sampling.rotation_degrees={rotation_degrees}: expected 0 to 180")
        self.size: Triple = sizes  # type: ignore[assignment]
        self.batch_size, self.foreground, self.rotation_degrees = batch_size, foreground, rotation_degrees

    def draw(self, case: Case, targets: Sequence[str], rng: np.random.Generator) -> dict[str, Any]:
        """Return one crop: ``image`` float32 [1, D, H, W], ``target`` name -> int64 [D, H, W], ``case``.

        A target that the case does not have is IGNORE everywhere.
        """
        start = self._start(case, rng)
        if self.rotation_degrees:
            angle = math.radians(rng.uniform(-self.rotation_degrees, self.rotation_degrees))
            return self._rotated(case, targets, start, angle)
        return _cut(case, targets, start, self.size)

    def _start(self, case: Case, rng: np.random.Generator) -> Triple:
        """Return the first voxel of the crop; negative along axes where the volume is smaller."""
        shape = case.image.shape
        voxel = None
        if self.foreground and rng.random() < self.foreground:
            present = [(labels, k) for labels in case.targets.values()
                       for k, count in enumerate(labels.counts) if k and count]
            if present:
                labels, label = present[rng.integers(len(present))]
                voxel = labels.voxel(rng, label)
        start = []
        for axis, (length, size) in enumerate(zip(shape, self.size, strict=True)):
            if length <= size:
                start.append(-((size - length) // 2))
            elif voxel is None:
                start.append(int(rng.integers(length - size + 1)))
            else:
                start.append(min(max(voxel[axis] - size // 2, 0), length - size))
        return tuple(start)  # type: ignore[return-value]

    def _rotated(self, case: Case, targets: Sequence[str], start: Triple, angle: float) -> dict[str, Any]:
        """Cut a crop large enough to turn, turn it about the first axis, and keep its centre."""
        from monai.transforms import Rotate

        _, height, width = self.size
        grow = math.ceil(math.hypot(height, width))
        # Even margins keep the centre of rotation at the centre of the crop.
        margins = (0, max(0, -(-(grow - height) // 2)), max(0, -(-(grow - width) // 2)))
        sample = _cut(case, targets, tuple(a - m for a, m in zip(start, margins, strict=True)),
                      tuple(n + 2 * m for n, m in zip(self.size, margins, strict=True)))
        keep = tuple(slice(m, m + n) for m, n in zip(margins, self.size, strict=True))
        turn = Rotate((angle, 0.0, 0.0), keep_size=True, padding_mode="border")
        sample["image"] = turn(sample["image"], mode="bilinear").as_tensor()[(slice(None), *keep)].contiguous()
        if targets:
            # float32 holds every class index and IGNORE exactly; nearest never mixes two of them.
            stacked = torch.stack([sample["target"][name] for name in targets]).float()
            turned = turn(stacked, mode="nearest").as_tensor()[(slice(None), *keep)].long()
            sample["target"] = {name: turned[i].contiguous() for i, name in enumerate(targets)}
        return sample


def _cut(case: Case, targets: Sequence[str], start: Triple, size: Triple) -> dict[str, Any]:
    return {
        "image": torch.from_numpy(case.image.crop(start, size))[None],
        "target": {
            name: torch.from_numpy(case.targets[name].crop(start, size))
            if name in case.targets else torch.full(size, IGNORE, dtype=torch.int64)
            for name in targets
        },
        "case": case.id,
    }


class SampleStream(Dataset):
    """Sample i of a run: a case by a permutation of its own per epoch, and a crop of it.

    Args:
        cases: the training cases, in a fixed order.
        targets: label maps in every sample.
        sampling: draws a sample from a case with a random generator. One that has `parts`, the number of parts of a
            case (its slices), is told which part to give, and an epoch visits every part of every case once.
        seed: seed of the run.

    """

    def __init__(self, cases: Sequence[Case], targets: Sequence[str], sampling: Any, seed: int) -> None:
        self.cases, self.targets, self.sampling, self.seed = cases, targets, sampling, seed
        self.divided = hasattr(sampling, "parts")
        self.ends = np.cumsum([sampling.parts(case) if self.divided else 1 for case in cases])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample ``index`` of the run."""
        length = int(self.ends[-1])
        epoch, position = divmod(index, length)
        number = int(permutation(self.seed, epoch, length)[position])
        chosen = int(np.searchsorted(self.ends, number, "right"))
        case, random = self.cases[chosen], np.random.default_rng((self.seed, 1, index))
        if self.divided:
            part = number - int(self.ends[chosen]) + self.sampling.parts(case)
            return self.sampling.draw(case, self.targets, random, part)
        return self.sampling.draw(case, self.targets, random)


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """Return the order in which an epoch visits its cases."""
    return np.random.default_rng((seed, 0, epoch)).permutation(length)


class StepSampler(Sampler[list[int]]):
    """The sample numbers of every batch that a rank takes: ``batch_size`` numbers that no other batch or rank takes.

    A step is ``batches`` batches on each of ``world_size`` ranks. The first rank takes a step's first batches, so that
    a step holds the same samples however many ranks share its batches. Iterates from step ``start_step`` to the end;
    its length is that of the whole run, in batches.
    """

    def __init__(self, steps: int, batch_size: int, start_step: int = 0, rank: int = 0, world_size: int = 1,
                 batches: int = 1) -> None:
        self.steps, self.batch_size, self.start_step = steps, batch_size, start_step
        self.rank, self.world_size, self.batches = rank, world_size, batches

    def number(self, index: int) -> int:
        """Return the number, over all ranks, of this rank's batch ``index``."""
        step, one = divmod(index, self.batches)
        return (step * self.world_size + self.rank) * self.batches + one

    def __iter__(self) -> Iterator[list[int]]:
        for index in range(self.start_step * self.batches, len(self)):
            first = self.number(index) * self.batch_size
            yield list(range(first, first + self.batch_size))

    def __len__(self) -> int:
        return self.steps * self.batches


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a batch: ``image`` [B, C, D, H, W], ``target`` name -> [B, D, H, W], ``case`` list of ids."""

    def join(tensors: list[torch.Tensor]) -> torch.Tensor:
        return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)

    return {
        "image": join([sample["image"] for sample in samples]),
        "target": {name: join([sample["target"][name] for sample in samples]) for name in samples[0]["target"]},
        "case": [sample["case"] for sample in samples],
    }
