"""NeuroNet: Fast and Robust Reproduction of Multiple Brain Image Segmentation Pipelines (Rajchl et al., MIDL 2018)."""

from segexp.methods.segmentation import SegmentationModule


class NeuroNetModule(SegmentationModule):
    """One encoder that learns the label maps of several tools from the same T1-weighted head.

    Nothing differs from the shared module: what the paper proposes is its network (``NeuroNet``), the mean of the
    targets' cross entropies (eq. 1, ``segexp.losses.CrossEntropy``) and the label maps of UK Biobank.
    """
