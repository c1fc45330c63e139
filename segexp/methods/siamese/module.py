"""Siamese Content Loss Networks for Highly Imbalanced Medical Image Segmentation (Mac et al., MIDL 2020)."""

from typing import Any

from segexp.methods.segmentation import SegmentationModule
from segexp.methods.siamese.content_loss import SiameseLoss


class SiameseModule(SegmentationModule):
    """A dense-block U-Net on axial slices, trained by the Siamese content loss alone, or by an overlap loss.

    Nothing differs from the shared module but where the ImageNet weights are read: when training begins. They are part
    of the checkpoint, so a finished run needs no file.
    """

    @property
    def pretrained(self) -> dict[str, Any]:
        """Kind and SHA-256 of VGG19's weights (see ``Vgg19Front.record``); empty for other losses."""
        return dict(self.loss.front.record) if isinstance(self.loss, SiameseLoss) else {}

    def setup(self, stage: str) -> None:
        """Read VGG19's weights before the first step."""
        if stage == "fit" and isinstance(self.loss, SiameseLoss):
            self.loss.front.load()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights where VGG19's came from."""
        checkpoint["pretrained"] = self.pretrained
