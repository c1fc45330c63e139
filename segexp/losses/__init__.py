"""Losses: ``loss(outputs, batch) -> {"loss": scalar, part: scalar, ...}``; they know neither Lightning nor files."""

from segexp.losses.cross_entropy import CrossEntropy
from segexp.losses.dice_cross_entropy import DiceCrossEntropy
from segexp.losses.overlap import Dice, GeneralizedDice, Tversky
from segexp.losses.weighted_cross_entropy import WeightedCrossEntropy

__all__ = ["CrossEntropy", "Dice", "DiceCrossEntropy", "GeneralizedDice", "Tversky", "WeightedCrossEntropy"]
