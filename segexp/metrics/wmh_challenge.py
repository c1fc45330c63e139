"""The five metrics of the WMH segmentation challenge (MICCAI 2017), as its evaluation script defines them.

Source: hjkuijf/wmhchallenge, evaluation.py; Kuijf et al. 2019. Arrays are [x, y, z] = [D, H, W]: the axis of the axial
slices is the last one, as nibabel reads the challenge's files. SimpleITK's arrays are [z, y, x]: transpose them.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from segexp.errors import ConfigError, DataError
from segexp.metrics.lesions import H95_PENALTY, LESION_F1, WmhScores, mask_scores
from segexp.metrics.scorer import Row

if TYPE_CHECKING:
    from segexp.data.labelmap import LabelMap

WMH_METRICS = {"dice": "1", "hd95": "mm", "avd": "%", "lesion_recall": "1", "lesion_f1": "1", "lesion_precision": "1",
               "pcd": "%", "reference_ml": "ml", "predicted_ml": "ml"}
"""Metric -> unit. The first five are the challenge's; ``pcd`` is the positive class density (Mac et al. 2020)."""


def wmh_scores(
    truth: np.ndarray, result: np.ndarray, spacing: Sequence[float], lesion_f1: str = "official",
    h95_penalty: str | None = None, strict_official: bool = False,
) -> WmhScores:
    """Score the values of two files as the challenge's script does.

    Args:
        truth: label map [x, y, z] of any number type: 1 is WMH, 2 other pathology, which is background here and is
            erased from the result.
        result: same shape. Which values are lesion: see `challenge_masks`.
        spacing: voxel size in mm along x, y, z. The direction of the axes in the scanner changes no distance.
        lesion_f1: see `mask_scores`.
        h95_penalty: see `mask_scores`.
        strict_official: also repeat what the script does to integer files (see `challenge_masks`), and that it finds no
            lesion in a mask that fills the volume.

    Raises:
        ValueError: for volumes that differ in shape, are not three-dimensional, hold NaN or no numbers, a spacing that
            is not positive, or a policy that does not exist.
    """
    masks = challenge_masks(truth, result, strict_official)
    return mask_scores(*masks, spacing, lesion_f1, h95_penalty, strict_official)


def challenge_masks(
    truth: np.ndarray, result: np.ndarray, strict_official: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lesions of the truth and of the result as bool masks.

    Truth: 0.5 <= value <= 1.5 is lesion, 1.5 <= value <= 2.5 erases the result. Result: a float is lesion when 0.5 <=
    value <= 1000, an integer from 1 on.

    ``strict_official`` truncates the bounds to the integer type of the file first, as SimpleITK's BinaryThreshold does.
    Then an integer truth has WMH wherever it is 0 or 1 and erases where it is 1 or 2, and a result of type uint8 is
    lesion from 1 to 232 only (1000 wraps around). The release's truth is float32, where nothing is truncated.

    Raises:
        ValueError: see `wmh_scores`; with ``strict_official`` also for an int8 result, at which the script stops.
    """
    truth, result = _numbers("truth", truth), _numbers("result", result)
    if truth.shape != result.shape:
        raise ValueError(f"the truth has shape {truth.shape}, the result {result.shape}; expected one grid")
    whole = result.dtype.kind in "iu"
    if not strict_official and truth.size:
        _warn_of_odd_values(truth.max(), result.max())
    if whole and not strict_official:
        predicted = result >= 1
    else:
        predicted = _between(result, 1 if whole else 0.5, 1000, strict_official)
    predicted &= ~_between(truth, 1.5, 2.5, strict_official)
    return _between(truth, 0.5, 1.5, strict_official), predicted


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    """Return an array of integers or floats; ValueError for other types and for NaN."""
    values = np.asarray(values)
    if values.dtype.kind == "b":
        values = values.view(np.uint8)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"the {name} holds {values.dtype}, expected integers or floats")
    if values.dtype.kind == "f" and values.size and np.isnan(values.min()):
        raise ValueError(f"the {name} holds NaN, expected a label map")
    return values


def _warn_of_odd_values(truth: float, result: float) -> None:
    """Warn when the greatest values are none that the challenge's files have."""
    if truth > 2.5:
        warnings.warn(f"the truth holds values up to {truth:g}: only 1 is lesion, 2 is left out, all others are "
                      "background", stacklevel=4)
    if result > 1:
        warnings.warn(f"the result holds values up to {result:g}: expected 0 and 1; whatever is not below 1 counts as "
                      "lesion (floats: up to 1000)", stacklevel=4)


def _between(values: np.ndarray, low: float, high: float, truncated: bool) -> np.ndarray:
    """Return where ``low <= value <= high``, with the bounds ``truncated`` to an integer type or not."""
    if values.dtype.kind in "iu":
        if truncated:
            low, high = (int(np.array(int(bound)).astype(values.dtype)) for bound in (low, high))
            if low > high:
                raise ValueError(f"strict_official: the official script stops at a result of type {values.dtype}, in "
                                 "which 1000 wraps around below 1; write the result as uint8 or float32")
        else:
            low, high = math.ceil(low), math.floor(high)
    return (values >= low) & (values <= high)


class WmhChallenge:
    """Score predicted label maps against reference ones with the metrics of the WMH challenge.

    For targets whose label map is {background, lesion} or {background, lesion, other pathology}; the rows carry the
    lesion's name. Class 2 of the reference, and voxels that nobody labelled (negative), are background there and are
    erased from the prediction. The prediction's lesions are its class 1. A metric that is undefined has a row that says
    why; one that is defined although a mask is empty names that mask too.

    Args:
        metrics: names out of `WMH_METRICS`.
        lesion_f1: see `mask_scores`.
        h95_penalty: see `mask_scores`.

    Raises:
        ConfigError: for a metric or a policy that does not exist, or no metric.
    """

    def __init__(
        self, metrics: Sequence[str] = tuple(WMH_METRICS), lesion_f1: str = "official", h95_penalty: str | None = None
    ) -> None:
        self.metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
        unknown = [name for name in self.metrics if name not in WMH_METRICS]
        if unknown or not self.metrics:
            raise ConfigError(f"metrics.metrics={list(self.metrics)}: {', '.join(map(repr, unknown)) or 'nothing'} "
                              f"is no metric of the challenge; expected some of {', '.join(WMH_METRICS)}")
        if lesion_f1 not in LESION_F1:
            raise ConfigError(f"metrics.lesion_f1={lesion_f1}: expected {' or '.join(LESION_F1)}")
        if h95_penalty not in H95_PENALTY:
            raise ConfigError(f"metrics.h95_penalty={h95_penalty}: expected null or image_diagonal")
        self.lesion_f1, self.h95_penalty = lesion_f1, h95_penalty

    def __call__(
        self,
        prediction: Mapping[str, np.ndarray],
        reference: Mapping[str, np.ndarray],
        label_maps: Mapping[str, "LabelMap"],
        spacing: Sequence[float],
        case: str,
        group: str = "",
    ) -> list[Row]:
        """Return one row per target of ``reference`` and metric. Arguments and errors as in `Scorer`.

        Raises:
            DataError: when the grids of a target differ or hold a class outside its label map, or for a bad spacing.
            ConfigError: for a target with another number of structures.
        """
        rows: list[Row] = []
        for target, truth in reference.items():
            truth = np.asarray(truth)
            guess = np.asarray(prediction.get(target, np.zeros(truth.shape, np.uint8)))
            try:
                lesions, predicted = _lesions(truth, guess, label_maps[target])
                scores = mask_scores(lesions, predicted, spacing, self.lesion_f1, self.h95_penalty)
            except ValueError as error:
                raise DataError(f"case {case}, target {target}: {error}") from error
            for metric in self.metrics:
                value = getattr(scores, metric)
                rows.append({
                    "case": case, "group": group, "target": target, "structure": label_maps[target].names[1],
                    "metric": metric, "value": value, "unit": WMH_METRICS[metric],
                    "defined": not math.isnan(value), "reason": _reason(scores, metric),
                })
        return rows


def _lesions(truth: np.ndarray, guess: np.ndarray, label_map: "LabelMap") -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of the lesions of two maps of class indices."""
    classes = label_map.num_classes
    if classes not in (2, 3):
        raise ConfigError(
            f"the metrics of the WMH challenge score background, lesion and perhaps one other pathology; target "
            f"{label_map.target} has {classes} classes; choose metrics=surface, or a target of lesions"
        )
    if truth.shape != guess.shape:
        raise ValueError(f"the prediction has shape {guess.shape}, the reference {truth.shape}; put predictions back "
                         "on the grid of the case before scoring")
    for name, labels, least in (("prediction", guess, 0), ("reference", truth, -math.inf)):
        if labels.dtype.kind not in "iub":
            raise ValueError(f"the {name} holds {labels.dtype}, expected integer class indices")
        if labels.size and not (least <= labels.min() and labels.max() < classes):
            raise ValueError(f"the {name} holds values from {labels.min()} to {labels.max()}, expected 0 to "
                             f"{classes - 1}")
    labelled = (truth == 0) | (truth == 1)
    return truth == 1, (guess == 1) & labelled


def _reason(scores: WmhScores, metric: str) -> str:
    """Return which mask is empty, or why a metric is undefined although none is."""
    if metric in ("pcd", "reference_ml", "predicted_ml"):
        return ""
    if not (scores.reference_ml and scores.predicted_ml):
        if not scores.predicted_ml and not scores.reference_ml:
            return "absent in both"
        return "missing in the prediction" if scores.reference_ml else "missing in the reference"
    if math.isnan(getattr(scores, metric)):
        return "no edge inside the volume" if metric == "hd95" else "nothing detected"
    return ""
