"""The decoders of NeuroNet as one 1x1x1 convolution per scale: the same function, far less work.

After the encoder everything is affine, and a 1x1x1 convolution commutes with an upsampling that treats every channel
alike. With L the last convolution, W_s the skip of scale s (deepest: S), and a_s, c_s the scale and shift of its
normalisation:

    logits = up(... up(L W_S f_S) + L diag(a_s) W_s f_s ...) + sum_s L c_s

The constant needs no upsampling. In training a_s and c_s depend on the mean and variance of W_s f_s over the batch;
these follow from the mean m and covariance C of the features: mean W m, variance diag(W C W^T). So no tensor with K
channels exists at full resolution before the loss asks for a slab of logits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segexp.inference.slabs import SlabLogits

Moments = tuple[Tensor, Tensor, int]


def fold(decoders: nn.ModuleDict, features: Sequence[Tensor], training: bool) -> dict[str, SlabLogits]:
    """Return target -> logits of all decoders; in training their running statistics are updated as usual.

    Args:
        decoders: target -> ``Decoder``.
        features: encoder features [B, C, ...] of all scales, finest first.
        training: normalise with the batch instead of the running statistics.
    """
    statistics = [moments(scale) if training else None for scale in features[:-1]]
    outputs = {}
    for target, decoder in decoders.items():
        last = matrix(decoder.last)
        weights, bias = [], 0
        for skip, norm, known in zip(decoder.skips, decoder.norms, statistics, strict=True):
            weight, shift = normalised(matrix(skip), norm, known)
            weights.append(last @ weight)
            bias = bias + last @ shift
        scores = mix(features[-1], last @ matrix(decoder.coarsest))
        for scale in reversed(range(1, len(weights))):
            scores = F.interpolate(scores, scale_factor=2, mode="trilinear", align_corners=False)
            scores += mix(features[scale], weights[scale])
        outputs[target] = SlabLogits(scores, features[0], weights[0], bias)
    return outputs


def matrix(convolution: nn.Conv3d) -> Tensor:
    """Return the weight of a 1x1x1 convolution as [outputs, inputs]."""
    return convolution.weight.flatten(1)


def mix(features: Tensor, weight: Tensor) -> Tensor:
    """Apply [K, C] to the channels of [B, C, D, H, W]; unlike a convolution, a product needs no copy of them."""
    return (weight.to(features.dtype) @ features.flatten(2)).unflatten(2, features.shape[2:])


def moments(features: Tensor) -> Moments:
    """Return mean [C], covariance [C, C] (divided by n) and n over batch and space, in float32 at least."""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.transpose(0, 1).flatten(1).to(torch.promote_types(features.dtype, torch.float32))
        mean = flat.mean(1)
        centred = flat - mean[:, None]
        return mean, centred @ centred.T / flat.shape[1], flat.shape[1]


def normalised(weight: Tensor, norm: nn.BatchNorm3d, statistics: Moments | None) -> tuple[Tensor, Tensor]:
    """Return weight [K, C] and shift [K] of ``norm(weight . features)``.

    With the moments of the features, the batch's statistics are used and ``norm``'s running ones updated (the
    variance without bias, as torch does); without, the running ones are used.
    """
    with torch.autocast(weight.device.type, enabled=False):
        if statistics is None:
            mean, variance = norm.running_mean, norm.running_var
        else:
            feature_mean, covariance, count = statistics
            mean = weight @ feature_mean
            variance = ((weight @ covariance) * weight).sum(1)
            with torch.no_grad():
                norm.num_batches_tracked += 1
                norm.running_mean.lerp_(mean, norm.momentum)
                norm.running_var.lerp_(variance * (count / max(count - 1, 1)), norm.momentum)
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        return scale[:, None] * weight, norm.bias - scale * mean
