"""Keep one connected component of a label map."""

import numpy as np
import torch
from torch import Tensor

from segexp.errors import ConfigError

CONNECTIVITIES = {6: 1, 18: 2, 26: 3}
"""Neighbours of a voxel -> coordinates in which a neighbour may differ by one."""
KEEP = ("largest", "touching_kidney")


class LargestComponent:
    """Set everything outside one connected component of the foreground to background.

    The foreground is every class but 0 together, kidney or tumour (Yang et al. 2018, section II-D: 18-connectivity,
    the largest component), so that a tumour stays with the kidney that it touches. Of components of one size the first
    in raster order is kept; a map without foreground is returned as it is.

    Args:
        connectivity: neighbours of a voxel: 6 (faces), 18 (faces and edges) or 26 (corners too).
        keep: ``largest`` (the paper's rule: also a lone tumour that is larger than the kidney), or
            ``touching_kidney``: the largest of the components that hold a voxel of the kidney; where none does, the
            largest.
        kidney: class index of the kidney.

    Raises:
        ConfigError: ``connectivity`` or ``keep`` is not one of these.
    """

    def __init__(self, connectivity: int = 18, keep: str = "largest", kidney: int = 1) -> None:
        if connectivity not in CONNECTIVITIES:
            raise ConfigError(f"inference.components.connectivity={connectivity}: expected 6, 18 or 26")
        if keep not in KEEP:
            raise ConfigError(f"inference.components.keep={keep}: expected {' or '.join(KEEP)}")
        self.connectivity, self.keep, self.kidney = connectivity, keep, kidney

    def __call__(self, labels: Tensor) -> Tensor:
        """Return class indices [D, H, W] with one component left; the type and the device stay."""
        box = foreground_box(labels)
        if box is None:
            return labels
        cleaned = torch.zeros_like(labels)
        inside = labels[box]
        kept = torch.from_numpy(self.component(inside.cpu().numpy())).to(labels.device)
        cleaned[box] = inside * kept
        return cleaned

    def component(self, labels: np.ndarray) -> np.ndarray:
        """Return the mask of the component that is kept, of class indices [D, H, W] with some foreground."""
        from scipy import ndimage

        neighbours = ndimage.generate_binary_structure(3, CONNECTIVITIES[self.connectivity])
        components, count = ndimage.label(labels != 0, neighbours)
        if count == 1:
            return components != 0
        sizes = np.bincount(components.reshape(-1))
        sizes[0] = 0
        if self.keep == "touching_kidney":
            touching = np.unique(components[labels == self.kidney])
            if touching.size:
                others = np.setdiff1d(np.arange(len(sizes)), touching)
                sizes[others] = 0
        # Components are numbered in raster order of their first voxels, and argmax takes the first of equals.
        return components == sizes.argmax()


def foreground_box(labels: Tensor, margin: int = 0) -> tuple[slice, ...] | None:
    """Return the smallest box around everything but class 0 of [D, H, W], ``margin`` voxels wider on every side.

    The box ends at the volume's edge; None where there is no foreground.
    """
    box = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        hit = labels.amax(others).nonzero()
        if not len(hit):
            return None
        box.append(slice(max(int(hit[0]) - margin, 0), min(int(hit[-1]) + 1 + margin, labels.shape[axis])))
    return tuple(box)
