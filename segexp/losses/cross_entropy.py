"""Cross entropy of several label maps (Rajchl et al. 2018, eqs. 1 and 2)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segexp.data.labelmap import IGNORE
from segexp.errors import ConfigError
from segexp.inference.slabs import SlabLogits
from segexp.losses.weighting import TargetWeights

Logits = Tensor | SlabLogits


class CrossEntropy(nn.Module):
    """Mean over voxels of the cross entropy per target, then the weighted mean over targets.

    Background is a class like any other. Voxels marked IGNORE (padding, or a target that the case does not have) are
    left out; a target without any other voxel drops out, and the weights are those of the targets present.

    Eq. 2 of the paper has prediction and reference exchanged; this is the usual -sum y log p, as in the released code.

    Args:
        weights: lambda of every target: ``uniform``, ``uncertainty`` or a mapping (see ``TargetWeights``).
        targets: target -> number of classes, for ``uncertainty``.
        consistency: weight of an extra term, minus the log probability that the coarse target's prediction gives to
            what the fine target predicts once its classes are merged: sum over voxels of -sum_c q_c log p_c with q
            the merged, detached fine probabilities. 0: none.
        fine: name of the fine target.
        coarse: name of the coarse target.
        merge: coarse class -> fine classes that belong to it, every fine class once.

    Raises:
        ConfigError: an unknown weighting, or ``consistency`` without its targets.
    """

    def __init__(self, weights: str | Mapping[str, float] = "uniform", targets: Mapping[str, int] | None = None,
                 consistency: float = 0.0, fine: str | None = None, coarse: str | None = None,
                 merge: Mapping[int, Sequence[int]] | None = None) -> None:
        super().__init__()
        self.weighting = TargetWeights(weights, targets)
        self.consistency, self.fine, self.coarse = consistency, fine, coarse
        if consistency and not (targets and fine in targets and coarse in targets and merge):
            raise ConfigError(
                f"loss.consistency={consistency} needs the targets {fine} and {coarse}; add both to method.targets, or "
                "set loss.consistency=0"
            )
        if consistency:
            self.register_buffer("merging", merge_matrix(merge, targets[fine], targets[coarse]),
                                 persistent=False)

    def forward(self, outputs: Mapping[str, Logits], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``{"loss": scalar, target: scalar, ...}``.

        Args:
            outputs: target -> logits [B, K, D, H, W].
            batch: with ``target``: target -> class indices [B, D, H, W] or IGNORE.
        """
        parts = {}
        for target, logits, labels in labelled(outputs, batch):
            valid = int((labels != IGNORE).sum())
            if valid:
                parts[target] = cross_entropy_sum(logits, labels) / valid
        if not parts:
            return nothing(outputs)
        loss = self.weighting(parts)
        if self.consistency:
            parts["consistency"] = self.disagreement(outputs[self.fine], outputs[self.coarse])
            loss = loss + self.consistency * parts["consistency"]
        return {"loss": loss, **parts}

    def disagreement(self, fine: Logits, coarse: Logits) -> Tensor:
        """Return the mean over voxels of the cross entropy of the coarse prediction against the merged fine one."""
        batch, _, *grid = fine.shape
        voxels = batch * grid[0] * grid[1] * grid[2]

        def of(start: int, stop: int, logits: Tensor) -> Tensor:
            with torch.no_grad():
                part = fine.slab(start, stop) if isinstance(fine, SlabLogits) else fine[:, :, start:stop]
                merged = torch.einsum("fc,bfdhw->bcdhw", self.merging.to(part.dtype), part.softmax(1))
            return -(merged * logits.log_softmax(1)).sum()

        if isinstance(coarse, SlabLogits):
            # The fine logits decide how deep a slab may be.
            depth = fine.ranges()[0][1] if isinstance(fine, SlabLogits) else None
            return coarse.total(lambda logits, start, stop: of(start, stop, logits), depth) / voxels
        return of(0, grid[0], coarse) / voxels


def cross_entropy_sum(logits: Logits, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the sum over voxels of the cross entropy, in float32; SlabLogits are never made whole.

    With ``weight`` [K], every voxel counts as much as its true class.
    """

    def of(part: Tensor, start: int, stop: int) -> Tensor:
        return F.cross_entropy(part.float(), labels[:, start:stop], weight, ignore_index=IGNORE, reduction="sum")

    return logits.total(of) if isinstance(logits, SlabLogits) else of(logits, 0, labels.shape[1])


def labelled(outputs: Mapping[str, Logits], batch: Mapping[str, Any]) -> Iterator[tuple[str, Logits, Tensor]]:
    """Yield target, logits and class indices (int64) of every target that the batch has labels of."""
    for target, logits in outputs.items():
        if target in batch["target"]:
            yield target, logits, batch["target"][target].long()  # whole cases may come as bytes


def nothing(outputs: Mapping[str, Logits]) -> dict[str, Tensor]:
    """Return the loss of a batch without a label: 0, with a graph, since every rank takes part in the backward pass."""
    return {"loss": 0.0 * sum(anchor(logits) for logits in outputs.values())}


def anchor(logits: Logits) -> Tensor:
    """Return a finite scalar that depends on everything the logits are made from."""
    parts = logits.parts if isinstance(logits, SlabLogits) else (logits,)
    return sum(part.float().mean() for part in parts)


def merge_matrix(merge: Mapping[int, Sequence[int]], fine: int, coarse: int) -> Tensor:
    """Return [fine, coarse] with a one where a fine class belongs to a coarse one.

    Raises:
        ConfigError: a fine class belongs to no coarse class or to several.
    """
    matrix = torch.zeros(fine, coarse)
    for merged, members in merge.items():
        matrix[list(members), int(merged)] = 1
    wrong = (matrix.sum(1) != 1).nonzero().flatten().tolist()
    if wrong:
        raise ConfigError(f"loss.merge: the fine classes {wrong[:8]} belong to no coarse class or to several")
    return matrix
