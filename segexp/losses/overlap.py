"""Losses on the overlap of one structure: Dice, Tversky, generalised Dice (Mac et al. 2020, section 3.2.4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segexp.errors import ConfigError
from segexp.losses.binary import BinaryLoss

TRAP = (
    "loss.labels=soft does not go with {loss}: against 0.1 and 0.9 its minimum is a mask that is foreground "
    "everywhere as soon as less than about {limit} of the voxels are foreground, which lesions always are; set "
    "loss.labels=hard, or use loss=dice, loss=generalized_dice or loss=siamese, whose minima stay where they should"
)


class Overlap(BinaryLoss):
    """Base of the overlap losses.

    Args:
        labels: ``hard`` or ``soft`` reference (see ``BinaryLoss``).
        per_image: mean over the images of a batch instead of sums over the whole batch.
        epsilon: keeps empty references finite.
        ignore_classes: classes whose voxels do not count.
    """

    def __init__(self, labels: str = "hard", per_image: bool = False, epsilon: float = 1.0,
                 ignore_classes: Sequence[int] = ()) -> None:
        super().__init__(labels, ignore_classes)
        if not epsilon > 0:
            raise ConfigError(f"loss.epsilon={epsilon}: expected more than 0")
        self.per_image, self.epsilon = per_image, epsilon

    def parts(self, probability: Tensor, reference: Tensor, counts: Tensor,
              batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the loss of one target; voxels that do not count are zero in both."""
        return {"loss": self.compare(probability * counts, reference * counts, counts)}

    def compare(self, probability: Tensor, reference: Tensor, counts: Tensor) -> Tensor:
        """Return the loss of masked probabilities and reference [B, 1, ...]."""
        raise NotImplementedError


class Dice(Overlap):
    """1 - (2 sum pg + e) / (sum p^2 + sum g^2 + e) (Milletari et al. 2016): MONAI's ``DiceLoss``.

    Args:
        denominator: ``squared`` as above; ``linear``: sum p + sum g.
        labels, per_image, epsilon, ignore_classes: see ``Overlap``.

    Raises:
        ConfigError: an unknown word, or ``linear`` with soft labels, whose minimum is the wrong mask.
    """

    def __init__(self, denominator: str = "squared", labels: str = "hard", per_image: bool = False,
                 epsilon: float = 1.0, ignore_classes: Sequence[int] = ()) -> None:
        from monai.losses import DiceLoss

        super().__init__(labels, per_image, epsilon, ignore_classes)
        if denominator not in ("squared", "linear"):
            raise ConfigError(f"loss.denominator={denominator}: expected squared or linear")
        if denominator == "linear" and labels == "soft":
            raise ConfigError(TRAP.format(loss="Dice with a linear denominator", limit="1.4 %"))
        self.monai = DiceLoss(squared_pred=denominator == "squared", smooth_nr=epsilon, smooth_dr=epsilon,
                              batch=not per_image)

    def compare(self, probability: Tensor, reference: Tensor, counts: Tensor) -> Tensor:
        """Return the loss of masked probabilities and reference [B, 1, ...]."""
        return self.monai(probability, reference)


class Tversky(Overlap):
    """1 - (sum pg + e) / (sum pg + alpha sum p(1-g) + beta sum (1-p)g + e): MONAI's ``TverskyLoss``.

    Args:
        alpha: weight of false positives (Mac et al. 2020: 0.3).
        beta: weight of false negatives (0.7).
        labels, per_image, epsilon, ignore_classes: see ``Overlap``.

    Raises:
        ConfigError: soft labels, for which the minimum is the wrong mask.
    """

    def __init__(self, alpha: float = 0.3, beta: float = 0.7, labels: str = "hard", per_image: bool = False,
                 epsilon: float = 1.0, ignore_classes: Sequence[int] = ()) -> None:
        from monai.losses import TverskyLoss

        super().__init__(labels, per_image, epsilon, ignore_classes)
        if labels == "soft":
            raise ConfigError(TRAP.format(loss="Tversky", limit="3.8 %"))
        self.monai = TverskyLoss(alpha=alpha, beta=beta, smooth_nr=epsilon, smooth_dr=epsilon, batch=not per_image)

    def compare(self, probability: Tensor, reference: Tensor, counts: Tensor) -> Tensor:
        """Return the loss of masked probabilities and reference [B, 1, ...]."""
        return self.monai(probability, reference)


class GeneralizedDice(Overlap):
    """1 - 2 sum_c w_c sum p_c g_c / sum_c w_c sum (p_c + g_c) over structure and background (Sudre et al. 2017).

    w_c = 1 / max((sum g_c)^2, e). MONAI's ``GeneralizedDiceLoss`` gives an absent structure the weight of the
    background, about 1e-9 of this one; where both classes are present the two are the same function.
    """

    def compare(self, probability: Tensor, reference: Tensor, counts: Tensor) -> Tensor:
        """Return the loss of masked probabilities and reference [B, 1, ...]."""
        axes = tuple(range(2 if self.per_image else 0, probability.ndim))
        numerator, denominator = 0, 0
        ones = counts.to(probability.dtype)
        for p, g in ((probability, reference), (ones - probability, ones - reference)):
            size = g.sum(axes)
            weight = 1 / (size * size).clamp(min=self.epsilon)
            numerator = numerator + 2 * weight * (p * g).sum(axes)
            denominator = denominator + weight * (p.sum(axes) + size)
        # No voxel counts: the loss is zero and so are its gradients.
        ratio = numerator / denominator.clamp(min=torch.finfo(denominator.dtype).tiny)
        return torch.where(denominator > 0, 1 - ratio, 0 * ratio).mean()
