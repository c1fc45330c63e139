"""Label a volume with overlapping windows, as the released NeuroNet does."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segexp.errors import ConfigError
from segexp.inference.slabs import SlabLogits
from segexp.inference.whole_volume import to_labels


class SlidingWindow:
    """Windows of a fixed size, their predictions averaged with equal weights, then the class of the largest mean.

    The last window of every axis is moved back to end at the volume's edge. MONAI's sliding window does the work; it
    holds the mean of all classes of all targets (K x D x H x W floats), which ``WholeVolume`` never does.

    Args:
        roi: edge of a window in voxels, one number or three.
        overlap: part of a window that the next one shares, in [0, 1).
        average: ``probability`` (softmax, as in the released code) or ``logit``.
        batch_size: windows per forward pass.

    Raises:
        ConfigError: ``average`` or ``overlap`` is out of its range.
    """

    def __init__(self, roi: int | Sequence[int] = 128, overlap: float = 0.5, average: str = "probability",
                 batch_size: int = 1) -> None:
        if average not in ("probability", "logit"):
            raise ConfigError(f"inference.average={average}: expected probability or logit")
        if not 0 <= overlap < 1:
            raise ConfigError(f"inference.overlap={overlap}: expected a number in [0, 1)")
        self.roi = (roi,) * 3 if isinstance(roi, int) else tuple(roi)
        self.overlap, self.average, self.batch_size = overlap, average, batch_size

    def __call__(self, network: nn.Module, image: Tensor) -> dict[str, Tensor]:
        """Return target -> class indices [1, D, H, W] (uint8) of an image [1, C, D, H, W]."""
        from monai.inferers import sliding_window_inference

        def scores(window: Tensor) -> dict[str, Tensor]:
            outputs = {target: logits.dense() if isinstance(logits, SlabLogits) else logits
                       for target, logits in network(window).items()}
            if self.average == "logit":
                return outputs
            return {target: logits.softmax(1) for target, logits in outputs.items()}

        with torch.no_grad():
            means = sliding_window_inference(image, self.roi, self.batch_size, scores, overlap=self.overlap,
                                             mode="constant", padding_mode="constant", cval=float(image.min()))
            return {target: to_labels(mean) for target, mean in means.items()}
