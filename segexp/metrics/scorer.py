"""From two sets of label maps to tidy score rows."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segexp.errors import ConfigError, DataError
from segexp.metrics.overlap import dice_from_histogram, joint_histogram
from segexp.metrics.surface import surface_distances

if TYPE_CHECKING:
    from segexp.data.labelmap import LabelMap

METRICS = {"dice": "1", "hd95": "mm", "assd": "mm", "assd_px": "px"}
"""Metric -> unit: Dice coefficient, 95th percentile Hausdorff distance, mean surface distance in mm and in voxels."""
MISSING = ("worst", "undefined")

Row = dict[str, Any]


def _nearest_name(wrong: object, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(wrong), names, n=1, cutoff=0.0)
    return f"; did you mean {close[0]!r}?" if close else ""


class Scorer:
    """Score predicted label maps against reference ones, structure by structure.

    Rules (design of the scores; Rajchl et al. 2018, released evaluation notebook for Dice): a structure
    absent in both maps is undefined; one absent in only one of them has the worst score: Dice 0, and for
    distances the diagonal of the image in the metric's unit. A target that the reference has and the
    prediction lacks counts as predicted empty. ``assd_px`` is ``assd`` on voxels of size 1 (Yang et al. 2018).

    Args:
        metrics: names out of `METRICS`.
        include_background: also score class 0.
        exclude: target -> structures left out of its rows, by name or by value in the file.
        missing: what the distance of a structure is that only one map has: ``worst``, or ``undefined`` (its
            row still says which map misses it, and its Dice is 0 either way).

    Raises:
        ConfigError: for a metric that does not exist (the message names the nearest one), an empty list, or
            another ``missing``.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("dice",),
        include_background: bool = False,
        exclude: Mapping[str, Sequence[str | int]] | None = None,
        missing: str = "worst",
    ) -> None:
        self.metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
        if not self.metrics:
            raise ConfigError(f"metrics.metrics is empty; expected some of {', '.join(METRICS)}")
        for name in self.metrics:
            if name not in METRICS:
                raise ConfigError(
                    f"metrics.metrics names {name!r}, expected some of {', '.join(METRICS)}"
                    + _nearest_name(name, list(METRICS))
                )
        if missing not in MISSING:
            raise ConfigError(f"metrics.missing={missing}: expected {' or '.join(MISSING)}")
        self.include_background, self.missing = include_background, missing
        self.exclude = {target: tuple(listed) for target, listed in (exclude or {}).items()}

    def __call__(
        self,
        prediction: Mapping[str, np.ndarray],
        reference: Mapping[str, np.ndarray],
        label_maps: Mapping[str, "LabelMap"],
        spacing: Sequence[float],
        case: str,
        group: str = "",
    ) -> list[Row]:
        """Return one row per target of ``reference``, metric and structure.

        Args:
            prediction: target -> class indices [D, H, W].
            reference: target -> class indices [D, H, W]. Negative values mark voxels nobody labelled; they
                are left out of Dice and count as background of both maps for distances.
            label_maps: target -> its `LabelMap` (names of the structures).
            spacing: voxel size in mm along D, H, W.
            case: id of the case, for the rows and messages.
            group: group of the case ("" when there are none).

        Raises:
            DataError: when the grids of a target differ or hold a class outside its label map.
            ConfigError: when ``exclude`` names a structure that its target does not have.
        """
        rows: list[Row] = []
        for target, truth in reference.items():
            truth = np.asarray(truth)
            guess = np.asarray(prediction.get(target, np.zeros(truth.shape, np.uint8)))
            if guess.shape != truth.shape:
                raise DataError(
                    f"case {case}, target {target}: the prediction has shape {guess.shape}, the "
                    f"reference {truth.shape}; put predictions back on the grid of the case before scoring"
                )
            try:
                rows += self._target_rows(guess, truth, label_maps[target], spacing, case, group)
            except ValueError as error:
                raise DataError(f"case {case}, target {target}: {error}") from error
        return rows

    def structures(self, label_map: "LabelMap") -> list[int]:
        """Return the class indices of ``label_map`` that get rows, ascending."""
        left_out = set() if self.include_background else {0}
        for listed in self.exclude.get(label_map.target, ()):
            if listed in label_map.names:
                left_out.add(label_map.names.index(listed))
            elif not isinstance(listed, bool) and listed in label_map.values:
                left_out.add(label_map.values.index(listed))
            else:
                raise ConfigError(
                    f"metrics.exclude.{label_map.target} names {listed!r}, which is neither a "
                    "structure nor a value of that target" + _nearest_name(listed, list(label_map.names))
                )
        return [index for index in range(label_map.num_classes) if index not in left_out]

    def _target_rows(
        self, guess: np.ndarray, truth: np.ndarray, label_map: "LabelMap", spacing: Sequence[float],
        case: str, group: str,
    ) -> list[Row]:
        seen_guess, seen_truth = guess, truth
        if truth.dtype.kind == "i" and truth.size and truth.min() < 0:
            labelled = truth >= 0
            seen_guess, seen_truth = guess[labelled], truth[labelled]
            guess, truth = np.where(labelled, guess, 0), np.where(labelled, truth, 0)
        chosen = self.structures(label_map)
        histogram = joint_histogram(seen_guess, seen_truth, label_map.num_classes)
        overlap = dice_from_histogram(histogram)
        in_guess, in_truth = histogram.sum(0) > 0, histogram.sum(1) > 0
        distances = self._distances(guess, truth, chosen, spacing)
        rows = []
        for metric in self.metrics:
            for index in chosen:
                value, defined, reason = math.nan, True, ""
                if not in_guess[index] and not in_truth[index]:
                    defined, reason = False, "absent in both"
                elif not in_guess[index] or not in_truth[index]:
                    defined = metric == "dice" or self.missing == "worst"
                    if defined:
                        value = 0.0 if metric == "dice" else diagonal(truth.shape, metric, spacing)
                    reason = "missing in the reference" if in_guess[index] else "missing in the prediction"
                elif metric == "dice":
                    value = float(overlap[index])
                else:
                    value = distances[metric][index]
                rows.append({
                    "case": case, "group": group,
                    "target": label_map.target, "structure": label_map.names[index],
                    "metric": metric, "value": value, "unit": METRICS[metric],
                    "defined": defined, "reason": reason,
                })
        return rows

    def _distances(
        self, guess: np.ndarray, truth: np.ndarray, chosen: Sequence[int], spacing: Sequence[float]
    ) -> dict[str, dict[int, float]]:
        """Return metric -> structure -> distance, for the distances among the metrics."""
        found, passes = {}, {}
        for metric in self.metrics:
            if metric == "dice":
                continue
            step = steps(metric, spacing)
            if step not in passes:
                passes[step] = surface_distances(guess, truth, chosen, step)
            name = metric.removesuffix("_px")
            found[metric] = {index: getattr(each, name) for index, each in passes[step].items()}
        return found


def steps(metric: str, spacing: Sequence[float]) -> tuple[float, ...]:
    """Return the voxel size [3] in the unit of a distance."""
    return (1.0,) * 3 if METRICS[metric] == "px" else tuple(spacing)


def diagonal(shape: Sequence[int], metric: str, spacing: Sequence[float]) -> float:
    """Return the length of the diagonal of an image, in the unit of a distance."""
    return math.hypot(*(size * step for size, step in zip(shape, steps(metric, spacing), strict=True)))
