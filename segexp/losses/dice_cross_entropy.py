"""Cross entropy plus soft Dice of several label maps."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segexp.data.labelmap import IGNORE
from segexp.inference.slabs import SlabLogits
from segexp.losses.cross_entropy import cross_entropy_sum, labelled, nothing
from segexp.losses.weighting import TargetWeights


class DiceCrossEntropy(nn.Module):
    """Per target the mean cross entropy plus MONAI's soft Dice loss over the foreground, then the weighted mean.

    Dice is a ratio of sums, so it does not stream: the logits of one target at a time are made whole.
    Ignored voxels are left out of both parts.

    Args:
        weights: lambda of every target (see ``TargetWeights``).
        targets: target -> number of classes, for ``uncertainty``.
        dice_weight: weight of the Dice part.
    """

    def __init__(self, weights: str | Mapping[str, float] = "uniform", targets: Mapping[str, int] | None = None,
                 dice_weight: float = 1.0) -> None:
        super().__init__()
        from monai.losses import MaskedDiceLoss

        self.weighting = TargetWeights(weights, targets)
        self.dice_weight = dice_weight
        self.dice = MaskedDiceLoss(include_background=False, softmax=False)

    def forward(self, outputs: Mapping[str, Tensor | SlabLogits], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``{"loss": scalar, target: scalar, ...}``; arguments as for ``CrossEntropy``."""
        parts = {}
        for target, logits, labels in labelled(outputs, batch):
            inside = labels != IGNORE
            if not bool(inside.any()):
                continue
            whole = (logits.dense() if isinstance(logits, SlabLogits) else logits).float()
            one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), whole.shape[1]).movedim(-1, 1)
            dice = self.dice(whole.softmax(1), one_hot, inside[:, None])
            parts[target] = cross_entropy_sum(whole, labels) / inside.sum() + self.dice_weight * dice
        return {"loss": self.weighting(parts), **parts} if parts else nothing(outputs)
