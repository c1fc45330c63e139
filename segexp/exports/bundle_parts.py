"""What a MONAI bundle needs beside MONAI: the intensity of training, the run's own inference, and a loop over files.

Copied into every bundle; it knows MONAI, torch and numpy only.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, decollate_batch
from monai.inferers import Inferer
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type
from torch import Tensor, nn

from segexp.data.intensity import Intensity, LoadedImage

FLOATS = (16, 64)
"""Codes of NIfTI's floating-point types."""


class ScaleAsTrained(MapTransform):
    """Scale images [1, D, H, W] as the network's training images were.

    Args:
        keys: of the images.
        intensity: what scales a volume.
    """

    def __init__(self, keys: Sequence[Hashable] | Hashable, intensity: Intensity) -> None:
        super().__init__(keys)
        self.intensity = intensity

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with its images scaled, float32.

        Raises:
            ValueError: an image that cannot be scaled.
        """
        data = dict(data)
        for key in self.key_iterator(data):
            image = data[key]
            voxels = np.ascontiguousarray(image[0].cpu().numpy())
            if int(image.meta.get("datatype", FLOATS[0])) not in FLOATS and (voxels == np.rint(voxels)).all():
                voxels = voxels.astype(np.int32)  # statistics of whole numbers are summed in double precision
            loaded = LoadedImage.of(voxels)
            problem = self.intensity.problem(loaded)
            if problem:
                raise ValueError(f"{image.meta.get('filename_or_obj')}: {problem}")
            data[key] = convert_to_dst_type(self.intensity(voxels, loaded)[None], image, dtype=torch.float32)[0]
        return data


class LabelInferer(Inferer):
    """Label whole volumes as the run did: windows, votes, slices, random fields and components as configured.

    Args:
        inference: (network, image [1, C, D, H, W]) -> target -> class indices [1, D, H, W].
    """

    def __init__(self, inference: Callable[[nn.Module, Tensor], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.inference = inference

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return target -> class indices [1, 1, D, H, W] of an image [1, C, D, H, W]."""
        plain = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
        with torch.inference_mode():
            return {target: labels[None].cpu().clone() for target, labels in self.inference(network, plain).items()}


class LabelEvaluator:
    """Label every file of a data loader and hand the label maps to the postprocessing, which writes them.

    Args:
        device: where the network runs.
        network: in evaluation mode from here on.
        inferer: (image, network) -> target -> class indices.
        dataloader: batches of one ``image``.
        postprocessing: gets ``image`` and one entry per target, [1, D, H, W].
    """

    def __init__(self, device: torch.device, network: nn.Module, inferer: Inferer, dataloader: Any,
                 postprocessing: Callable[[dict], Any]) -> None:
        self.device, self.network, self.inferer = device, network.eval(), inferer
        self.dataloader, self.postprocessing = dataloader, postprocessing

    def run(self) -> int:
        """Label all files and return how many there were."""
        count = 0
        for batch in self.dataloader:
            labels = self.inferer(batch["image"].to(self.device), self.network)
            for item in decollate_batch(batch):
                about = item["image"].meta
                named = {target: MetaTensor(found[0], meta=dict(about)) for target, found in labels.items()}
                self.postprocessing({**item, **named})
                count += 1
        return count
