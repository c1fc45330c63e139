"""Automatic Segmentation of Kidney and Renal Tumor in CT Images Based on 3D FCN with Pyramid Pooling Module.

Yang et al., ICPR 2018.
"""

from segexp.methods.segmentation import SegmentationModule


class KidneyModule(SegmentationModule):
    """One network that tells kidney, tumour and background apart inside a region of interest of a CT angiography.

    Nothing differs from the shared module: what the paper proposes is its network (``FCNPPM``), the weights of the
    cross entropy (eq. 1, ``segexp.losses.WeightedCrossEntropy``), crops drawn around kidney and tumour, and the vote
    of windows with its clean-up (``segexp.inference.VotedWindows``).
    """
