"""Scores of label maps: overlap, surface distances, the scorer, and the file of score rows.

Works on its own: numpy, scipy and edt for the numbers, pandas for the rows; no torch, Lightning or Hydra.
"""

from segexp.metrics.overlap import dice, dice_from_histogram, joint_histogram
from segexp.metrics.scorer import METRICS, Scorer
from segexp.metrics.surface import SurfaceDistances, surface_distances

__all__ = [
    "METRICS",
    "Scorer",
    "SurfaceDistances",
    "dice",
    "dice_from_histogram",
    "joint_histogram",
    "surface_distances",
]
