"""Cross entropy whose weights are given by structure (Yang et al. 2018, eq. 1)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segexp.data.labelmap import IGNORE
from segexp.errors import ConfigError
from segexp.losses.cross_entropy import Logits, cross_entropy_sum, labelled, nothing

NORMALISATIONS = ("weight_sum", "voxel")


class WeightedCrossEntropy(nn.Module):
    """Cross entropy per target in which a voxel counts as much as its true structure, then the mean over targets.

    Eq. 1 of the paper has no minus sign, one class too many and no mean over voxels; this is -sum w_y log p_y over
    all voxels with a label, divided by a number of the user's choice. Voxels marked IGNORE are left out; a target
    whose voxels weigh nothing drops out.

    Args:
        structures: target -> names of its classes, in class order, background included.
        weights: structure -> weight, for every structure of every target.
        normalisation: divide by the sum of the voxels' weights (``weight_sum``, as torch's mean does) or by their
            number (``voxel``).

    Raises:
        ConfigError: a structure without weight, a weight without structure, a negative weight, none above 0, or an
            unknown normalisation.
    """

    def __init__(self, structures: Mapping[str, Sequence[str]], weights: Mapping[str, float],
                 normalisation: str = "weight_sum") -> None:
        super().__init__()
        if normalisation not in NORMALISATIONS:
            raise ConfigError(f"loss.normalisation={normalisation}: expected one of {', '.join(NORMALISATIONS)}")
        if not weights or min(weights.values()) < 0 or max(weights.values()) <= 0:
            raise ConfigError(f"loss.weights={dict(weights)}: expected weights from 0 on, one of them above 0")
        known = [name for names in structures.values() for name in names]
        foreign = [name for name in weights if name not in known]
        if foreign:
            raise ConfigError(f"loss.weights has a weight for {', '.join(foreign)}, but the structures are "
                              f"{', '.join(dict.fromkeys(known))}")
        missing = [name for name in dict.fromkeys(known) if name not in weights]
        if missing:
            raise ConfigError(f"loss.weights has no weight for {', '.join(missing)}; add loss.weights.{missing[0]}=...")
        self.normalisation = normalisation
        self.targets = list(structures)
        for index, names in enumerate(structures.values()):
            self.register_buffer(f"weights{index}", torch.tensor([float(weights[name]) for name in names]),
                                 persistent=False)

    def forward(self, outputs: Mapping[str, Logits], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``{"loss": scalar, target: scalar, ...}``.

        Args:
            outputs: target -> logits [B, K, D, H, W].
            batch: with ``target``: target -> class indices [B, D, H, W] or IGNORE.
        """
        parts = {}
        for target, logits, labels in labelled(outputs, batch):
            weights = getattr(self, f"weights{self.targets.index(target)}")
            inside = labels != IGNORE
            weight = (weights[labels.clamp(min=0)] * inside).sum()
            if weight > 0:
                whole = weight if self.normalisation == "weight_sum" else inside.sum()
                parts[target] = cross_entropy_sum(logits, labels, weights) / whole
        if not parts:
            return nothing(outputs)
        return {"loss": sum(parts.values()) / len(parts), **parts}
