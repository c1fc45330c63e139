"""Label a volume with windows of whole slices that vote."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segexp.errors import ConfigError
from segexp.inference.slabs import SlabLogits

VOTES = ("majority", "mean")
# Voxels that are settled at once, per device: what a core's cache holds (CPU: True), a full GPU (False).
BLOCK_VOXELS = {True: 2**17, False: 2**25}


class VotedWindows:
    """Windows of whole axial slices, merged by vote, then cleaned up.

    Windows start every ``stride`` slices, and the last one ends with the volume; a shorter volume is padded at its far
    end with its own minimum (air), and the labels are cut back. Every voxel is settled as soon as no later window
    reaches it, so that only the slices that wait for another window are held as logits (Yang et al. 2018, section
    II-D; the overlap is not stated there).

    Glossary: K classes, D/H/W = right, anterior, superior; slices lie along W, the last axis.

    Args:
        depth: slices of a window.
        stride: slices from one window to the next.
        vote: ``majority`` (most windows; among classes with as many votes the one with the greatest sum of
            probabilities) or ``mean`` (greatest mean probability).
        crf: (labels [D, H, W], probabilities [K, D, H, W], image [D, H, W]) -> labels [D, H, W]. The probabilities are
            means over the windows, with either vote; they take K x D x H x W floats. None: no such step.
        components: labels [D, H, W] -> labels [D, H, W], the last step. None: no such step.
        batch_size: windows per forward pass.

    Raises:
        ConfigError: ``vote``, ``depth`` or ``stride`` is out of its range.
    """

    def __init__(self, depth: int = 64, stride: int = 32, vote: str = "majority",
                 crf: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
                 components: Callable[[Tensor], Tensor] | None = None, batch_size: int = 1) -> None:
        if vote not in VOTES:
            raise ConfigError(f"inference.vote={vote}: expected {' or '.join(VOTES)}")
        if depth < 1:
            raise ConfigError(f"inference.depth={depth}: expected at least 1 slice")
        if not 1 <= stride <= depth:
            raise ConfigError(f"inference.stride={stride}: expected 1 to {depth}, so that no slice is left out")
        self.depth, self.stride, self.vote = depth, stride, vote
        self.crf, self.components, self.batch_size = crf, components, batch_size

    def __call__(self, network: nn.Module, image: Tensor) -> dict[str, Tensor]:
        """Return target -> class indices [1, D, H, W] (uint8) of an image [1, C, D, H, W].

        ``network`` maps windows [B, C, D, H, depth] to target -> logits [B, K, D, H, depth].
        """
        slices = image.shape[-1]
        with torch.no_grad():
            ballots: dict[str, Ballot] = {}
            for start, until, outputs in self.windows(network, image):
                for target in list(outputs):
                    if target not in ballots:
                        ballots[target] = Ballot(outputs[target], slices, self.vote, keep_means=self.crf is not None)
                    # Popped: a window must not outlive its turn, or the next one's pass runs beside it.
                    ballots[target].add(start, outputs.pop(target), until)
            labels = {}
            for target in list(ballots):
                # Popped, so that one target's means are freed before the next one's labels are refined.
                ballot = ballots.pop(target)
                labels[target] = self.cleaned(ballot.labels, ballot.means, image[0, 0])[None]
        return labels

    def starts(self, slices: int) -> list[int]:
        """Return the first slice of every window of a volume of ``slices`` slices."""
        last = max(slices - self.depth, 0)
        return [*range(0, last, self.stride), last]

    def windows(self, network: nn.Module, image: Tensor) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
        """Yield, per window, its first slice, the slice that the next one starts at, and target -> logits [K, ...]."""
        missing = self.depth - image.shape[-1]
        if missing > 0:
            image = F.pad(image, (0, missing), value=float(image.min()))
        starts = self.starts(image.shape[-1])
        ends = [*starts[1:], image.shape[-1]]
        for first in range(0, len(starts), self.batch_size):
            chosen = range(first, min(first + self.batch_size, len(starts)))
            parts = [image[..., starts[index]:starts[index] + self.depth] for index in chosen]
            batch = torch.cat(parts) if len(parts) > 1 else parts[0]
            outputs = {target: logits.dense() if isinstance(logits, SlabLogits) else logits
                       for target, logits in network(batch).items()}
            del batch
            for place, index in enumerate(chosen):
                yield starts[index], ends[index], {target: logits[place] for target, logits in outputs.items()}
            del outputs

    def cleaned(self, labels: Tensor, means: Tensor | None, image: Tensor) -> Tensor:
        """Return labels [D, H, W] after the random field and the choice of a component."""
        if self.crf is not None:
            labels = self.crf(labels, means, image)
        if self.components is not None:
            labels = self.components(labels)
        return labels


class Ballot:
    """The labels of one target, settled slice by slice while windows come in along the last axis.

    Args:
        logits: those of any window, [K, D, H, depth]: what they tell of shape and device.
        slices: slices of the volume.
        vote: ``majority`` or ``mean``.
        keep_means: also keep the mean probabilities.

    Attributes:
        labels: [D, H, slices] uint8 (int16 above 256 classes).
        means: [K, D, H, slices], or None.
    """

    def __init__(self, logits: Tensor, slices: int, vote: str, keep_means: bool) -> None:
        classes, *plane, _ = logits.shape
        kind = torch.uint8 if classes <= 256 else torch.int16
        self.labels = torch.zeros((*plane, slices), dtype=kind, device=logits.device)
        self.means = logits.new_zeros((classes, *plane, slices), dtype=torch.float32) if keep_means else None
        self.vote = vote
        self.settled = 0
        self.waiting: list[tuple[int, Tensor]] = []  # first slice and logits of the windows that reach beyond

    def add(self, start: int, logits: Tensor, until: int) -> None:
        """Count a window [K, D, H, depth] that starts at ``start``, and settle every slice before ``until``."""
        self.waiting.append((start, logits))
        stop = min(until, self.labels.shape[-1])
        edges = {first + part.shape[-1] for first, part in self.waiting} | {first for first, _ in self.waiting}
        cuts = sorted({self.settled, stop} | {edge for edge in edges if self.settled < edge < stop})
        for low, high in pairwise(cuts):
            self.settle(low, high, [part[..., low - first:high - first] for first, part in self.waiting
                                    if first <= low and first + part.shape[-1] >= high])
        self.settled = stop
        # Copies, because a view would keep its whole window.
        self.waiting = [(max(first, stop), part[..., max(stop - first, 0):].clone()) for first, part in self.waiting
                        if first + part.shape[-1] > stop]

    def settle(self, low: int, high: int, votes: list[Tensor]) -> None:
        """Decide the slices from ``low`` to ``high``, on which all of ``votes`` [K, D, H, high - low] have a say."""
        _, rows, columns, count = votes[0].shape
        step = max(1, BLOCK_VOXELS[self.labels.device.type == "cpu"] // max(columns * count, 1))
        for row in range(0, rows, step):
            block = [vote[:, row:row + step].float() for vote in votes]
            into = self.labels[row:row + step, :, low:high]
            if self.vote == "mean" or self.means is not None:
                mean = sum(part.softmax(0) for part in block).div_(len(block))
                if self.means is not None:
                    self.means[:, row:row + step, :, low:high] = mean
            into.copy_(first_best(mean) if self.vote == "mean" else majority(block))


def first_best(scores: Tensor) -> Tensor:
    """Return the class of the greatest score, the first of equals: [K, ...] -> [...], uint8 (int16 above 256 classes).

    Class by class, which for the few classes here is several times faster than an argmax over the first axis.
    """
    best = scores[0]
    labels = torch.zeros(best.shape, dtype=torch.uint8 if len(scores) <= 256 else torch.int16, device=scores.device)
    for index in range(1, len(scores)):
        labels.masked_fill_(scores[index] > best, index)
        best = torch.maximum(best, scores[index])
    return labels


def majority(votes: list[Tensor]) -> Tensor:
    """Return the class that most windows give each voxel, [...]; of equals the one with most summed probability.

    Args:
        votes: the windows' logits, each [K, ...].
    """
    choices = [first_best(logits) for logits in votes]
    labels = choices[0]
    if len(votes) == 1:
        return labels
    disputed = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    for other in choices[1:]:
        disputed |= other != labels
    where = disputed.flatten().nonzero()[:, 0]
    if len(where):
        # Only here the probabilities matter; where all agree they never do.
        counts = torch.zeros((len(votes[0]), len(where)), dtype=torch.int16, device=labels.device)
        total = torch.zeros(counts.shape, device=labels.device)
        for logits, choice in zip(votes, choices, strict=True):
            given = choice.flatten()[where].long()
            counts.scatter_add_(0, given[None], torch.ones_like(counts[:1]))
            total += logits.flatten(1)[:, where].softmax(0)
        total.masked_fill_(counts < counts.amax(0), -1)
        labels.view(-1)[where] = first_best(total)
    return labels
