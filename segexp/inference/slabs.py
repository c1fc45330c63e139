"""Logits that are never held whole: one slab of depth at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Floats of one slab: large enough to keep every core busy, small enough to stay near the cache.
SLAB_FLOATS = 4_000_000
# Floats of a block of ``argmax``, per device: a part of the cache of a CPU core (True), a full GPU (False).
BLOCK_FLOATS = {True: 2**18, False: 2**24}


class SlabLogits:
    """Logits = upsample(coarse) + weight . features + bias, computed slab by slab.

    The upsampling doubles every axis trilinearly (``align_corners=False``).
    Glossary: B batch, K classes, C channels, D/H/W depth/height/width (all even).

    Args:
        coarse: [B, K, D/2, H/2, W/2], the part of the logits known at half the resolution.
        features: [B, C, D, H, W].
        weight: [K, C].
        bias: [K].
    """

    def __init__(self, coarse: Tensor, features: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.parts = (coarse, features, weight, bias)

    @property
    def shape(self) -> torch.Size:
        """Shape [B, K, D, H, W] of the logits."""
        coarse, features, *_ = self.parts
        return torch.Size((*coarse.shape[:2], *features.shape[2:]))

    @property
    def device(self) -> torch.device:
        """Where the logits are."""
        return self.parts[0].device

    def ranges(self, depth: int | None = None) -> list[tuple[int, int]]:
        """Return the depth ranges [start, stop) of all slabs, each of an even start."""
        batch, classes, whole, height, width = self.shape
        if depth is None:
            depth = max(2, SLAB_FLOATS // (batch * classes * height * width))
        depth += depth % 2
        return [(start, min(start + depth, whole)) for start in range(0, whole, depth)]

    def slab(self, start: int, stop: int) -> Tensor:
        """Return the logits [B, K, stop - start, H, W] of the depths ``start`` (even) to ``stop``."""
        return compute_slab(*cut(self.parts, start, stop), start, stop)

    def slabs(self, depth: int | None = None) -> Iterator[tuple[int, int, Tensor]]:
        """Yield ``(start, stop, logits)`` for all slabs."""
        for start, stop in self.ranges(depth):
            yield start, stop, self.slab(start, stop)

    def dense(self) -> Tensor:
        """Return all logits [B, K, D, H, W] at once."""
        return self.slab(0, self.shape[2])

    def cropped(self, box: tuple[slice, slice, slice]) -> tuple["SlabLogits", tuple[slice, slice, slice]]:
        """Return the logits of a box that starts and ends at even voxels, and where the box lies in them.

        They have two more voxels on every side where there are some: the upsampling looks at its neighbours.
        """
        coarse, features, weight, bias = self.parts
        wide = [slice(max(side.start - 2, 0), min(side.stop + 2, size))
                for side, size in zip(box, features.shape[2:], strict=True)]
        half = tuple(slice(side.start // 2, side.stop // 2) for side in wide)
        part = SlabLogits(coarse[(..., *half)], features[(..., *wide)], weight, bias)
        return part, tuple(slice(side.start - whole.start, side.stop - whole.start)
                           for side, whole in zip(box, wide, strict=True))  # type: ignore[return-value]

    @torch.no_grad()
    def argmax(self, box: tuple[slice, slice, slice] | None = None) -> Tensor:
        """Return the class of the largest logit, [B, D, H, W] uint8 (int16 above 256 classes), whole or of a box.

        One plane after the other, classes last, in blocks that stay in the cache: memory traffic, not arithmetic, is
        what the direct way waits for.
        """
        if box is not None:
            part, where = self.cropped(box)
            return part.argmax()[(slice(None), *where)]
        coarse, features, weight, bias = self.parts
        batch, classes, whole, height, width = self.shape
        labels = torch.empty((batch, whole, height, width), dtype=torch.uint8 if classes <= 256 else torch.int16,
                             device=self.device)
        mixing = weight.T.to(coarse.dtype)
        rows = max(1, BLOCK_FLOATS[self.device.type == "cpu"] // (width * classes))
        for case in range(batch):
            for depth in range(whole):
                plane = at_depth(coarse[case], depth).movedim(0, -1).contiguous()
                plane = double(plane.add_(bias.to(coarse.dtype)), 0)
                for row in range(0, height, rows):
                    block = double(plane[row:row + rows], 1).flatten(0, 1)
                    skip = features[case, :, depth, row:row + rows].flatten(1).to(coarse.dtype)
                    best = block.addmm_(skip.T, mixing).max(1).indices
                    labels[case, depth, row:row + rows] = best.view(-1, width)
        return labels

    def total(self, function: Callable[[Tensor, int, int], Tensor], depth: int | None = None) -> Tensor:
        """Return the sum over slabs of ``function(logits, start, stop)``, a scalar with its exact gradient.

        For losses that are sums over voxels. The gradient of every slab is taken while the slab is there, so that
        nothing is kept or computed again for the backward pass.
        """
        if not torch.is_grad_enabled() or not any(part.requires_grad for part in self.parts):
            return sum(function(logits, start, stop) for start, stop, logits in self.slabs(depth))
        return _Total.apply(function, self.ranges(depth), *self.parts)


def at_depth(coarse: Tensor, depth: int) -> Tensor:
    """Return the plane [K, H, W] of [K, D, H, W] at a depth of the doubled grid."""
    near = depth // 2
    other = min(max(near + (1 if depth % 2 else -1), 0), coarse.shape[1] - 1)
    return torch.lerp(coarse[:, near], coarse[:, other], 0.25)


def double(values: Tensor, axis: int) -> Tensor:
    """Return the linear upsampling by two of one axis (``align_corners=False``)."""
    size = values.shape[axis]
    doubled = values.new_empty((*values.shape[:axis], size, 2, *values.shape[axis + 1:]))
    even, odd = doubled.unbind(axis + 1)
    before, after = values.narrow(axis, 0, size - 1), values.narrow(axis, 1, size - 1)
    torch.lerp(after, before, 0.25, out=even.narrow(axis, 1, size - 1))
    torch.lerp(before, after, 0.25, out=odd.narrow(axis, 0, size - 1))
    even.select(axis, 0).copy_(values.select(axis, 0))
    odd.select(axis, -1).copy_(values.select(axis, -1))
    return doubled.flatten(axis, axis + 1)


def cut(parts: tuple[Tensor, ...], start: int, stop: int) -> tuple[Tensor, ...]:
    """Return what a slab is computed from; the coarse part has one more plane at each side where there is one."""
    coarse, features, weight, bias = parts
    return coarse[:, :, max(start // 2 - 1, 0):(stop + 1) // 2 + 1], features[:, :, start:stop], weight, bias


def compute_slab(coarse: Tensor, features: Tensor, weight: Tensor, bias: Tensor, start: int, stop: int) -> Tensor:
    """Return the logits of a slab from what ``cut`` gives."""
    fine = F.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=False)
    before = 2 if start else 0
    fine = fine[:, :, before:before + stop - start]
    return F.conv3d(features, weight[:, :, None, None, None].to(features.dtype), bias.to(features.dtype)) + fine


class _Total(torch.autograd.Function):
    """Sum over slabs whose gradients are accumulated on the way."""

    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor, int, int], Tensor], ranges: list[tuple[int, int]],
                *parts: Tensor) -> Tensor:
        """Add up the slabs' values and their gradients."""
        gradients = [torch.zeros_like(part) for part in parts]
        value = torch.zeros((), device=parts[0].device)
        for start, stop in ranges:
            with torch.enable_grad():
                local = [part.detach().requires_grad_() for part in cut(parts, start, stop)]
                part_value = function(compute_slab(*local, start, stop), start, stop)
            found = torch.autograd.grad(part_value, local)
            for into, gradient in zip(cut(tuple(gradients), start, stop), found, strict=True):
                into += gradient
            value = value + part_value.detach()
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what ``forward`` accumulated."""
        return (None, None, *(part * gradient for part in ctx.saved_tensors))
