"""Scores of label maps: overlap, surface distances, the scorer, and the file of score rows.

Works on its own: numpy, scipy and edt for the numbers, pandas for the rows; no torch, Lightning or Hydra.
"""

from segexp.metrics.lesions import WmhScores, mask_scores
from segexp.metrics.overlap import dice, dice_from_histogram, joint_histogram
from segexp.metrics.scorer import METRICS, Scorer
from segexp.metrics.surface import SurfaceDistances, surface_distances
from segexp.metrics.wmh_challenge import WMH_METRICS, WmhChallenge, wmh_scores

__all__ = [
    "METRICS",
    "WMH_METRICS",
    "Scorer",
    "SurfaceDistances",
    "WmhChallenge",
    "WmhScores",
    "dice",
    "dice_from_histogram",
    "joint_histogram",
    "mask_scores",
    "surface_distances",
    "wmh_scores",
]
