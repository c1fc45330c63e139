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

    @property
    def facts(self) -> dict[str, str]:
        """Kind and hash of VGG19's weights."""
        texts = [f"{key} {value}" for key, value in self.pretrained.items()]
        return {"VGG19": ", ".join(texts)} if texts else {}

    @property
    def cautions(self) -> list[str]:
        """Say that a random front end is not the paper's."""
        random = self.pretrained.get("weights") == "random"
        return ["the front end has random weights instead of ImageNet's: this tries the machinery, not the paper's "
                "claim about transferred features"] if random else []

    def setup(self, stage: str) -> None:
        """Read VGG19's weights before the first step."""
        if stage == "fit" and isinstance(self.loss, SiameseLoss):
            self.loss.front.load()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights where VGG19's came from."""
        checkpoint["pretrained"] = self.pretrained
