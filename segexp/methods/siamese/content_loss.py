"""The Siamese content loss: truth and prediction compared through the eyes of VGG19 (Mac et al. 2020, section 2.2).

Glossary: B batch, H/W height/width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from segexp.errors import ConfigError, DataError
from segexp.losses.binary import BinaryLoss
from segexp.methods.siamese.preprocessing import Preprocessing, choose
from segexp.methods.siamese.vgg import Vgg19Front

HEAD = 0.02  # part of a volume's maximum above which a pixel is taken for head
BLIND = 0.1  # part of the largest effect below which a pixel is taken for invisible


class SiameseLoss(BinaryLoss):
    """Mean squared difference of the features of two masked images, image x truth and image x prediction (eq. 1).

    VGG19 is frozen: gradients reach the prediction through it and stop there. One branch's activations of all slices
    are far larger than the result, so the slices go through one after the other (``chunk``) and the gradient by each
    prediction is formed at once; the sum over slices is the same. The truth needs no gradient at all.

    Pixels that do not count have the truth in both masks: whatever is predicted there changes nothing.

    Args:
        weights, weights_file, weights_sha256, weights_seed: where VGG19's weights come from (see ``Vgg19Front``).
        preproc: how VGG19's preprocessing is read: ``caffe01``, ``caffe255``, ``torch`` or ``none``.
        mask_order: ``normalise_then_mask``: the image is preprocessed when it is loaded, the mask multiplied later;
            ``mask_then_normalise``: the other way round, where the prediction does not matter in air.
        reduction: ``sum_of_means``: eq. 1 for each of the two maps, summed; ``concat_mean``: eq. 1 for both maps as
            one vector, in which the first has two thirds of the numbers.
        labels: ``soft``: 0.1 and 0.9 (section 3.2.2), ``hard``: 0 and 1.
        ignore_classes: classes whose pixels do not count.
        normalise_features: scale every slice's features of a map to a root mean square of one before they are
            compared; what a trained front can reach is then bounded.
        chunk: slices that go through VGG19 at a time.

    Raises:
        ConfigError: an unknown word.
    """

    def __init__(self, weights: str = "torchvision", weights_file: str | Path | None = None,
                 weights_sha256: str | None = None, weights_seed: int = 0, preproc: str = "caffe01",
                 mask_order: str = "normalise_then_mask", reduction: str = "sum_of_means", labels: str = "soft",
                 ignore_classes: Sequence[int] = (), normalise_features: bool = False, chunk: int = 1) -> None:
        super().__init__(labels, ignore_classes)
        choose("loss.mask_order", mask_order, ("normalise_then_mask", "mask_then_normalise"))
        choose("loss.reduction", reduction, ("sum_of_means", "concat_mean"))
        if chunk < 1:
            raise ConfigError(f"loss.chunk={chunk}: expected at least one slice")
        self.front = Vgg19Front(weights, weights_file, weights_sha256, weights_seed)
        self.prepare = Preprocessing(preproc, "loss.preproc")
        self.mask_order, self.reduction = mask_order, reduction
        self.normalise_features, self.chunk = normalise_features, chunk
        self.seen = False

    def parts(self, probability: Tensor, reference: Tensor, counts: Tensor,
              batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the loss and, without gradient, what is worth watching.

        ``pool1``, ``pool2``: mean squared difference per map; ``size_pool1``, ``size_pool2``: mean size of the
        prediction's features; ``blind``: part of the head that the loss hardly sees.
        """
        image = batch["image"]
        self.look_at(image)
        total, means, sizes = self.distance(torch.where(counts, probability, reference), reference, image)
        return {"loss": total, "pool1": means[0], "pool2": means[1], "size_pool1": sizes[0], "size_pool2": sizes[1],
                "blind": self.blind(image)}

    def look_at(self, image: Tensor) -> None:
        """Raise DataError for images that are no slices, or, at first sight, not scaled to 0..1."""
        if image.ndim != 4 or image.shape[1] != 1 or min(image.shape[2:]) < 4:
            raise DataError(f"loss=siamese compares slices [B, 1, H, W] of at least 4x4 pixels, not "
                            f"{list(image.shape)}; use sampling=slices")
        if not self.seen:
            low, high = (float(value) for value in image.aminmax())
            if high > 1.001 or low < -1:
                raise DataError(f"loss=siamese expects images divided by their maximum, but these go from {low:g} to "
                                f"{high:g}; set data.intensity._target_=segexp.data.intensity.MaxScale")
            self.seen = True

    def distance(self, prediction: Tensor, reference: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Masks and image [B, 1, H, W] -> loss, mean squared difference [2] and mean size of features [2] per map.

        With a frozen front the gradient is formed chunk by chunk; while the front is trained, autograd keeps both
        branches.
        """
        if any(parameter.requires_grad for parameter in self.front.parameters()):
            truth, found = self.features(image, reference), self.features(image, prediction)
            return self.combine(*self.compare(truth, found), image)
        if torch.is_grad_enabled() and prediction.requires_grad:
            return ChunkByChunk.apply(prediction, reference, image, self)
        sums = [self.compare(self.features(image[part], reference[part]), self.features(image[part], prediction[part]))
                for part in self.chunks(image)]
        return self.combine(*(sum(values) for values in zip(*sums, strict=True)), image)

    def chunks(self, image: Tensor) -> list[slice]:
        """Return the parts of the batch that go through VGG19 together."""
        return [slice(start, start + self.chunk) for start in range(0, image.shape[0], self.chunk)]

    def features(self, image: Tensor, mask: Tensor) -> list[Tensor]:
        """Image and mask [B, 1, H, W] -> features of the masked image (see ``Vgg19Front``)."""
        if self.mask_order == "normalise_then_mask":
            return self.front(self.prepare(image) * mask)
        return self.front(self.prepare(image * mask))

    def compare(self, truth: Sequence[Tensor], found: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features of both branches -> sum of squared differences [2] and sum of the sizes of ``found`` [2] per map.

        In float32 at least: small differences of large numbers.
        """
        squares, sizes = [], []
        for one, other in zip(truth, found, strict=True):
            dtype = torch.promote_types(one.dtype, torch.float32)
            one, other = one.to(dtype), other.to(dtype)
            sizes.append(other.detach().sum())  # features are never negative
            if self.normalise_features:
                one, other = unit(one), unit(other)
            squares.append(F.mse_loss(other, one, reduction="sum"))
        return torch.stack(squares), torch.stack(sizes)

    def lengths(self, image: Tensor) -> Tensor:
        """Return the length of the feature vector of each map, [2], for slices of this size."""
        height, width = image.shape[2:]
        return torch.tensor([64 * (height // 2) * (width // 2), 128 * (height // 4) * (width // 4)],
                            device=image.device, dtype=torch.promote_types(image.dtype, torch.float32))

    def combine(self, squares: Tensor, sizes: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, mean squared difference and mean size of features per map from their sums [2]."""
        lengths = self.lengths(image)
        means = squares / (lengths * image.shape[0])
        weights = torch.ones_like(lengths) if self.reduction == "sum_of_means" else lengths / lengths.sum()
        return (weights * means).sum(), means.detach(), sizes / (lengths * image.shape[0])

    @torch.no_grad()
    def blind(self, image: Tensor) -> Tensor:
        """Return the part of the head, 0 to 1, where a change of the mask changes the masked image very little.

        How much it does is the factor of the mask: the preprocessed image, or its scaled part alone.
        """

        def effect(values: Tensor) -> Tensor:
            whole = self.prepare(values)
            return (whole if self.mask_order == "normalise_then_mask" else whole - self.prepare.shift).abs().mean(1)

        largest = effect(image.new_tensor([0.0, 1.0]).view(2, 1, 1, 1)).max()
        head = image[:, 0] > HEAD
        return ((effect(image) < BLIND * largest) & head).sum() / head.sum().clamp(min=1)


def unit(features: Tensor) -> Tensor:
    """Scale features [B, C, H, W] to a root mean square of one per slice."""
    return features * (features.square().mean((1, 2, 3), keepdim=True) + 1e-12).rsqrt()


class ChunkByChunk(torch.autograd.Function):
    """``SiameseLoss.distance`` whose gradient by the prediction is formed in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, reference: Tensor, image: Tensor,
                loss: SiameseLoss) -> tuple[Tensor, Tensor, Tensor]:
        """Return what ``distance`` returns; keep the gradient by the prediction."""
        # Means would be tiny numbers in a half-precision backward pass: the size of the batch follows afterwards.
        count = image.shape[0] * loss.lengths(image)[1]
        gradient, sums = torch.empty_like(prediction), []
        for part in loss.chunks(image):
            truth = loss.features(image[part], reference[part])
            with torch.enable_grad():
                mask = prediction[part].detach().requires_grad_()
                squares, sizes = loss.compare(truth, loss.features(image[part], mask))
                total = loss.combine(squares, sizes, image)[0] * count
            with torch.autocast(image.device.type, enabled=False):
                gradient[part] = torch.autograd.grad(total, mask)[0]
            sums.append((squares.detach(), sizes))
        gradient /= count
        ctx.save_for_backward(gradient)
        total, means, sizes = loss.combine(*(sum(values) for values in zip(*sums, strict=True)), image)
        ctx.mark_non_differentiable(means, sizes)
        return total, means, sizes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, total: Tensor, means: Tensor, sizes: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient by the prediction."""
        return ctx.saved_tensors[0] * total, None, None, None
