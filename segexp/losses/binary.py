"""What losses of one logit per target share: the reference as numbers in [0, 1] and which voxels count."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segexp.data.labelmap import IGNORE
from segexp.errors import ConfigError, DataError
from segexp.losses.cross_entropy import nothing

LABELS = {"hard": (0.0, 1.0), "soft": (0.1, 0.9)}
"""Values of background and foreground; soft: Mac et al. 2020, section 3.2.2."""


class BinaryLoss(nn.Module):
    """Base of losses that compare one probability per voxel with class 1; all other classes are background.

    Glossary: B batch, ... the spatial axes.

    Args:
        labels: ``hard``: the reference is 0 or 1; ``soft``: 0.1 or 0.9.
        ignore_classes: classes besides IGNORE whose voxels do not count.

    Raises:
        ConfigError: an unknown kind of labels, or class 1 is ignored.
    """

    def __init__(self, labels: str = "hard", ignore_classes: Sequence[int] = ()) -> None:
        super().__init__()
        if labels not in LABELS:
            raise ConfigError(f"loss.labels={labels}: expected one of {', '.join(LABELS)}")
        if 1 in ignore_classes:
            raise ConfigError(f"loss.ignore_classes={list(ignore_classes)}: class 1 is what is learned")
        self.labels, self.ignored = labels, (IGNORE, *ignore_classes)

    def forward(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``{"loss": mean over the targets, part: scalar, ...}``.

        Args:
            outputs: target -> logits [B, 1, ...].
            batch: with ``target``: target -> classes [B, ...] or IGNORE; the Siamese loss also reads ``image``.

        Raises:
            ConfigError: the network gives no or several logits per voxel.
        """
        found = []
        for target, logits in outputs.items():
            if target in batch["target"]:
                probability = probabilities(target, logits)
                reference, counts = self.reference(batch["target"][target], probability.dtype)
                found.append(self.parts(probability, reference, counts, batch))
        if not found:
            return nothing(outputs)
        return {part: sum(parts[part] for parts in found) / len(found) for part in found[0]}

    def reference(self, classes: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Classes [B, ...] -> reference [B, 1, ...] and what counts, bool [B, 1, ...]; elsewhere it is background."""
        low, high = LABELS[self.labels]
        counts = torch.ones_like(classes, dtype=torch.bool)
        for value in self.ignored:
            counts &= classes != value
        return (low + (high - low) * (classes == 1).to(dtype))[:, None], counts[:, None]

    def parts(self, probability: Tensor, reference: Tensor, counts: Tensor,
              batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``{"loss": scalar, part: scalar, ...}`` of one target; all tensors [B, 1, ...]."""
        raise NotImplementedError


def probabilities(target: str, logits: Tensor) -> Tensor:
    """Return the sigmoid of logits [B, 1, ...], in float32 at least.

    Raises:
        ConfigError: there is not one logit per voxel.
    """
    if not isinstance(logits, Tensor) or logits.shape[1] != 1:
        raise ConfigError(f"the network gives {logits.shape[1]} logits per voxel of {target}, this loss takes one "
                          "(network=dense_unet); for several classes use loss=cross_entropy or loss=dice_cross_entropy")
    if logits.ndim < 3:
        raise DataError(f"logits of {target} are {list(logits.shape)}, expected [B, 1, ...]")
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
