"""What is compared before an export counts as written: the same input through the run's network and through the file.

Glossary: B batch, C channels, K classes, D/H/W depth/height/width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segexp.errors import SegexpError
from segexp.inference.slabs import SlabLogits

SEED = 0
TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit (or to 1): other kernels add up in another order."""
AGREEMENT = 0.9999
"""Least part of voxels that get the same label: only where two classes are as likely may it differ."""


class ParityError(SegexpError):
    """What was written does not compute what the run's network computes; nothing of it is kept."""


class DenseLogits(nn.Module):
    """A network whose logits are all plain tensors: image -> target -> logits [B, K, *spatial]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image [B, C, *spatial] -> target -> logits [B, K, *spatial]."""
        return {target: logits.dense() if isinstance(logits, SlabLogits) else logits
                for target, logits in self.network(image).items()}


@dataclass(frozen=True)
class Parity:
    """How far two sets of logits are apart: the largest difference, and the part of voxels with the same label."""

    difference: float
    largest: float
    agreement: float

    @property
    def close(self) -> bool:
        """Say whether the difference is one of rounding only."""
        return self.difference <= TOLERANCE * max(1.0, self.largest) and self.agreement >= AGREEMENT

    def record(self) -> dict[str, float]:
        """Return what the export's record says."""
        return {"max_abs_difference": self.difference, "largest_logit": self.largest, "label_agreement": self.agreement}


def sample(shape: Sequence[int]) -> Tensor:
    """Return the same image [B, C, *spatial] of values 0 to 1 every time."""
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(SEED))


def logits_of(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return target -> logits of a network in evaluation mode."""
    with torch.no_grad():
        return DenseLogits(network)(image)


def compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Parity:
    """Compare logits [B, K, *spatial] of all targets.

    Raises:
        ParityError: other targets or shapes, or logits that are not finite.
    """
    shapes = [{target: list(logits.shape) for target, logits in one.items()} for one in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ParityError(f"what was written returns {shapes[0]}, the run's network {shapes[1]}")
    difference, largest, same, voxels = 0.0, 0.0, 0, 0
    for target, wanted in expected.items():
        if not torch.isfinite(found[target]).all():
            raise ParityError(f"{target}: what was written returns values that are not finite")
        difference = max(difference, float((found[target] - wanted).abs().max()))
        largest = max(largest, float(wanted.abs().max()))
        labels = [logits.argmax(1) if logits.shape[1] > 1 else logits > 0 for logits in (found[target], wanted)]
        same += int((labels[0] == labels[1]).sum())
        voxels += labels[0].numel()
    return Parity(difference, largest, same / max(voxels, 1))


def identical(found: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
    """Compare tensors by their bytes, so that NaN equals NaN and 0 differs from -0.

    Raises:
        ParityError: a name is missing, or a tensor differs in type, shape or any bit.
    """
    if set(found) != set(expected):
        odd = ", ".join(sorted(set(found) ^ set(expected))[:4])
        raise ParityError(f"{what}: other names than the run has: {odd}")
    for name, wanted in expected.items():
        one = found[name]
        if one.dtype != wanted.dtype or one.shape != wanted.shape or not torch.equal(as_bytes(one), as_bytes(wanted)):
            raise ParityError(f"{what}: {name} is not what the run has, bit for bit")


def as_bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor, one-dimensional."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
