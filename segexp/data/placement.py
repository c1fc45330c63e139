"""Where a region lies in its CT: putting predictions back, and scoring them there.

Glossary: D/H/W = the canonical axes right, anterior, superior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from segexp.data.kidneys import SIDES, Parts, middle_of_body
from segexp.data.regions import Region
from segexp.data.store import StoredImage, Triple, overlap
from segexp.data.views import LabelsWindow

Row = dict[str, Any]


class Placement:
    """A region in its CT, with the CT's label maps.

    What lies outside the region counts here: kidney and tumour that the window misses are misses of the prediction.
    The other kidney does not: of the labels, those parts are judged that lie on the region's side of the body or reach
    into the region.

    Not a dataclass, because a trainer that moves batches to a device would copy its fields.

    Args:
        region: the box; its ``side`` is the patient's.
        labels: target -> label map of the whole CT.
        organ: the one of them that tells kidney from tumour.
        tumor: class index of the tumour in it.
        middle: of the body along D, in voxels.
        recall: share of the judged voxels that lie inside the region.

    """

    def __init__(self, region: Region, labels: Mapping[str, LabelsWindow], organ: LabelsWindow, tumor: int,
                 middle: float, recall: float) -> None:
        self.region, self.labels, self.organ, self.tumor = region, dict(labels), organ, tumor
        self.middle, self.recall = middle, recall

    @property
    def full_shape(self) -> Triple:
        """Shape of the CT."""
        return self.organ.shape

    def paste(self, labels: np.ndarray) -> np.ndarray:
        """Return labels of the region [D, H, W] on the grid of the CT, 0 outside; what lies beyond the CT is lost."""
        return pasted(labels, self.region.start, np.zeros(self.full_shape, labels.dtype))

    def reference(self) -> dict[str, np.ndarray]:
        """Return target -> class indices of the whole CT; parts that are not judged are background."""
        parts = parts_of(self.organ, self.middle, self.tumor)
        result = {target: window.whole() for target, window in self.labels.items()}
        if parts is None:
            return result
        judged = parts.judged(self.region.side, self.region.start, self.region.size)
        left_out = (parts.labels > 0) & ~np.isin(parts.labels, judged)
        box = tuple(slice(first, first + n) for first, n in zip(parts.start, parts.labels.shape, strict=True))
        for labels in result.values():
            labels[box][left_out] = 0
        return result

    def rows(self, prediction: Mapping[str, np.ndarray], scorer: Callable[..., list[Row]],
             label_maps: Mapping[str, Any], case: str, group: str = "") -> list[Row]:
        """Return the scores of a prediction on the CT, metrics named ``<metric>_ct``, and the region's ``roi_recall``.

        ``prediction``: target -> class indices [D, H, W] of the region. ``scorer`` as in `segexp.metrics`.
        """
        full = {target: self.paste(np.asarray(labels)) for target, labels in prediction.items()}
        reference = self.reference()
        rows = scorer(full, reference, label_maps, self.organ.spacing, case, group)
        for row in rows:
            row["metric"] = f"{row['metric']}_ct"
        rows.append({"case": case, "group": group, "target": "", "structure": "", "metric": "roi_recall",
                     "value": self.recall, "unit": "1", "defined": True, "reason": ""})
        return rows


def pasted(labels: np.ndarray, start: Triple, into: np.ndarray) -> np.ndarray:
    """Put labels [D, H, W] into a larger array at ``start``, where they are not background, and return it."""
    inside, place = overlap(start, labels.shape, into.shape)
    if inside is not None:
        part = labels[place]
        np.copyto(into[inside], part, where=part != 0)
    return into


def parts_of(organ: LabelsWindow, middle: float, tumor: int) -> Parts | None:
    """Return the connected parts of kidney or tumour of a whole CT; None where there are none."""
    boxes = [box for box, label in zip(organ.source.boxes, organ.table, strict=True) if box is not None and label > 0]
    if not boxes:
        return None
    low = np.min([box[0] for box in boxes], 0)
    high = np.max([box[1] for box in boxes], 0) + 1
    classes = organ.part(tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)))
    return Parts(classes, tuple(int(value) for value in low), organ.spacing, middle, tumor)  # type: ignore[arg-type]


def kidneys_of(organ: LabelsWindow, image: StoredImage, tumor: int) -> dict[str, Any]:
    """Return the middle of the body and the kidneys of a CT, as plain JSON."""
    middle = middle_of_body(image.array(), image.spacing)
    parts = parts_of(organ, middle, tumor)
    found = [parts.kidney(side) for side in SIDES] if parts is not None else []
    return {"middle": middle, "kidneys": [asdict(one) for one in found if one is not None]}


def recall_of(organ: LabelsWindow, middle: float, tumor: int, region: Region) -> float:
    """Return the share of a region's kidney and tumour that lies inside it."""
    parts = parts_of(organ, middle, tumor)
    return parts.recall(region.side, region.start, region.size) if parts is not None else 0.0
