"""Automatic Segmentation of Kidney and Renal Tumor in CT Images Based on 3D FCN with Pyramid Pooling Module.

Yang et al., ICPR 2018.
"""

from collections.abc import Mapping
from typing import Any

from segexp.methods.segmentation import Labels, SegmentationModule, group_of, to_arrays


class KidneyModule(SegmentationModule):
    """One network that tells kidney, tumour and background apart inside a region of interest of a CT angiography.

    It trains as the shared module does: what the paper proposes is its network (``FCNPPM``), the weights of the
    cross entropy (eq. 1, ``segexp.losses.WeightedCrossEntropy``), crops drawn around kidney and tumour, and the vote
    of windows with its clean-up (``segexp.inference.VotedWindows``). Regions that were cut from a CT are also scored
    where they lie in it: metrics named ``<metric>_ct``, and the region's ``roi_recall``.
    """

    def test_step(self, batch: Mapping[str, Any], index: int) -> Labels:
        """Label and score a region, also put back into its CT."""
        labels = super().test_step(batch, index)
        for placement in batch.get("placement", []):
            self.rows += placement.rows(to_arrays(labels), self.scorer, self.label_maps, batch["case"][0],
                                        group_of(batch))
        return labels
