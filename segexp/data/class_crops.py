"""Crops whose centres are drawn from structures by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from segexp.data.cases import Case
from segexp.data.labelmap import IGNORE
from segexp.data.store import Triple
from segexp.errors import ConfigError

ANY = "any"


class ClassCrops:
    """Draw crops centred on a voxel of a structure that is chosen first, flipped at random.

    The paper crops and flips at random, focused on kidney and tumour (Yang et al. 2018, section III-B); it does not
    say how often each is met. The centre is drawn evenly from all voxels of the chosen structure, then moved so that
    the crop lies inside the volume. A structure that a case does not have leaves its share to the others.

    Args:
        label_maps: target -> {file value: structure}, those of the data.
        size: voxels per axis: right, anterior, superior.
        batch_size: crops per batch; a step is ``trainer.accumulate_grad_batches`` batches.
        ratios: structure -> share of the crops that are centred on it; ``any``: on any voxel of the volume. They
            need not sum to 1. Structures of targets that are not trained on are passed over.
        flip: probability of a flip along an axis, one number or three.

    Where the volume is smaller than the crop, it is in the crop's middle; outside, the image has the intensity's
    outside value (air) and every target IGNORE.

    Raises:
        ConfigError: sizes, shares or probabilities out of their range, or a structure that no label map has.

    """

    def __init__(
        self,
        label_maps: Mapping[str, Mapping[int, str]],
        size: Sequence[int] = (128, 128, 64),
        batch_size: int = 4,
        ratios: Mapping[str, float] | None = None,
        flip: float | Sequence[float] = 0.5,
    ) -> None:
        ratios = {"tumor": 0.5, "kidney": 0.3, ANY: 0.2} if ratios is None else dict(ratios)
        flips = tuple(flip) if isinstance(flip, Sequence) else (flip,) * 3
        if len(size) != 3 or not all(isinstance(n, int) and n > 0 for n in size):
            raise ConfigError(f"sampling.size={size}: expected three positive numbers of voxels")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"sampling.batch_size={batch_size}: expected a positive number")
        if not ratios or min(ratios.values()) < 0 or not sum(ratios.values()) > 0:
            raise ConfigError(f"sampling.ratios={ratios}: expected shares of 0 or more, at least one above 0")
        if len(flips) != 3 or not all(0 <= one <= 1 for one in flips):
            raise ConfigError(f"sampling.flip={flip}: expected a probability, 0 to 1, or three")
        self.size: Triple = tuple(size)  # type: ignore[assignment]
        self.batch_size, self.ratios, self.flips = batch_size, ratios, flips
        # As in a label map, classes are the positions of the file values in ascending order.
        classes = {target: [structures[value] for value in sorted(structures)]
                   for target, structures in label_maps.items()}
        known = {name for names in classes.values() for name in names}
        for name in ratios:
            if name != ANY and name not in known:
                raise ConfigError(f"sampling.ratios names {name!r}; the label maps have {', '.join(sorted(known))} "
                                  f"and there is {ANY}")
        self.classes = {(target, name): names.index(name) for target, names in classes.items()
                        for name in ratios if name in names}

    def draw(self, case: Case, targets: Sequence[str], rng: np.random.Generator) -> dict[str, Any]:
        """Return one crop: ``image`` float32 [1, D, H, W], ``target`` name -> int64 [D, H, W], ``case``.

        A target that the case does not have is IGNORE everywhere.
        """
        centre = self.centre(case, targets, rng)
        start = tuple(
            min(max(voxel - size // 2, 0), length - size) if length > size else -((size - length) // 2)
            for voxel, size, length in zip(centre, self.size, case.image.shape, strict=True))
        axes = [axis for axis, (chance, drawn) in enumerate(zip(self.flips, rng.random(3), strict=True))
                if drawn < chance]

        def flipped(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(np.flip(array, axes)) if axes else array)

        return {
            "image": flipped(case.image.crop(start, self.size))[None],  # type: ignore[arg-type]
            "target": {
                name: flipped(case.targets[name].crop(start, self.size))  # type: ignore[arg-type]
                if name in case.targets else torch.full(self.size, IGNORE, dtype=torch.int64)
                for name in targets
            },
            "case": case.id,
        }

    def centre(self, case: Case, targets: Sequence[str], rng: np.random.Generator) -> Triple:
        """Return the voxel that a crop is centred on, before it is moved inside the volume."""
        choices: list[tuple[float, str, int]] = [(self.ratios.get(ANY, 0.0), "", 0)]
        for (target, name), label in self.classes.items():
            if target in targets and target in case.targets and case.targets[target].counts[label]:
                choices.append((self.ratios[name], target, label))
        shares = np.array([share for share, _, _ in choices])
        if not shares.sum():
            shares[0] = 1.0
        _, target, label = choices[int(rng.choice(len(choices), p=shares / shares.sum()))]
        if target:
            return case.targets[target].voxel(rng, label)
        return tuple(int(rng.integers(length)) for length in case.image.shape)  # type: ignore[return-value]
