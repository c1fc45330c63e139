"""Image, target and prediction side by side, in three planes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segexp.reports.colours import structure_colours

if TYPE_CHECKING:
    from segexp.data.labelmap import LabelMap

# Axis that is cut away, axes across and upwards, letters at the left, right, bottom and top. Canonical RAS
# arrays: indices grow to the right, the front and the top of the head.
PLANES = (("axial", 2, 0, 1, "LRPA"), ("coronal", 1, 0, 2, "LRIS"), ("sagittal", 0, 1, 2, "PAIS"))
LEGEND_MOST = 16
PANEL_PIXELS = 300  # at least, along the longest side; whole pixels per voxel
DPI = 100
PAPER, INK, FAINT = "#101214", "#f2f2f2", "#a8adb3"


def overlay_figure(
    image: np.ndarray, rows: Mapping[str, np.ndarray], label_map: "LabelMap", path: str | Path | Any,
    spacing: Sequence[float] = (1.0, 1.0, 1.0), title: str = "",
) -> None:
    """Draw an image and label maps on it as a PNG picture: one row each, axial, coronal and sagittal.

    The planes go through the point where the first label map shows most, so that pictures of one case taken
    at different steps show the same voxels. Voxels are drawn unsmoothed; a structure is filled lightly and
    outlined.

    Args:
        image: intensities [D, H, W], canonical RAS orientation.
        rows: title of a row -> class indices [D, H, W], such as ``{"target": ..., "prediction": ...}``.
        label_map: names and number of the classes.
        path: file to write (or an open binary file).
        spacing: voxel size in mm.
        title: line above the picture.

    Raises:
        ValueError: when the shapes differ.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    for name, labels in rows.items():
        if labels.shape != image.shape:
            raise ValueError(f"{name} has shape {labels.shape}, the image {image.shape}")
    extent = np.array(image.shape) * np.asarray(spacing, float)
    scale = _factor(image.shape) * max(image.shape) / extent.max()
    widths = [extent[across] * scale for _, _, across, _, _ in PLANES]
    height = max(extent[up] for _, _, _, up, _ in PLANES) * scale
    names = _legend(rows, label_map)
    size, places = _layout(widths, height, 1 + len(rows), names, bool(title))
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    position = _position(rows, image.shape)
    grey, colours = _grey(image), np.array(structure_colours(label_map.num_classes))
    for row, (name, labels) in enumerate([("image", None), *rows.items()]):
        for column, plane in enumerate(PLANES):
            axes = figure.add_axes(places[row][column])
            _draw(axes, grey, labels, colours, plane, position, spacing)
            if row == 0:
                axes.set_title(f"{plane[0]} {position[plane[1]]}", color=FAINT, fontsize=8, pad=3)
        x, y, _, panel = places[row][0]
        figure.text(x / 2, y + panel / 2, name, color=INK, fontsize=9, rotation=90, ha="center", va="center")
    if title:
        figure.text(0.5, 1 - 12 / size[1], title, color=INK, fontsize=10, ha="center", va="center")
    _draw_legend(figure, names, colours, label_map)
    figure.savefig(path, format="png", dpi=DPI, facecolor=PAPER, metadata={"Software": None})


def _layout(
    widths: Sequence[float], height: float, rows: int, names: Sequence[int], title: bool
) -> tuple[tuple[float, float], list[list[tuple[float, float, float, float]]]]:
    """Return the figure's size in pixels and, per row and column, the panel as fractions of it."""
    left, gap, top = 26, 6, 22 + (22 if title else 0)
    bottom = 8 + (26 if not names or names == [-1] else 17 * -(-len(names) // 4) + 8)
    total = (left + sum(widths) + gap * len(widths), top + rows * (height + gap) + bottom)
    places = []
    for row in range(rows):
        y = total[1] - top - (row + 1) * height - row * gap
        starts = [left + sum(widths[:column]) + gap * column for column in range(len(widths))]
        places.append([
            (x / total[0], y / total[1], width / total[0], height / total[1])
            for x, width in zip(starts, widths, strict=True)
        ])
    return total, places


def _factor(shape: Sequence[int]) -> int:
    """Return how many pixels a voxel is wide."""
    return -(-PANEL_PIXELS // max(shape))


def _position(rows: Mapping[str, np.ndarray], shape: Sequence[int]) -> tuple[int, ...]:
    """Return per axis the slice with most labelled voxels of the first row; the middle where there are none."""
    first = next(iter(rows.values()), np.zeros(shape, bool)) > 0
    position = []
    for axis, size in enumerate(shape):
        counts = first.sum(axis=tuple(other for other in range(3) if other != axis))
        # The middle of the fullest slices: a block that looks alike everywhere is cut through its centre.
        best = np.flatnonzero(counts == counts.max())
        position.append(int(best[len(best) // 2]) if counts.any() else size // 2)
    return tuple(position)


def _grey(image: np.ndarray) -> np.ndarray:
    """Return the image stretched to 0..1 between the 1st and 99.5th percentile of what is not the darkest value."""
    image = np.nan_to_num(np.asarray(image, np.float32))
    some = image.reshape(-1)[:: 1 + image.size // 1_000_000]  # a million voxels tell the percentiles well enough
    lit = some[some > some.min()]
    low, high = np.percentile(lit, [1, 99.5]) if lit.size else (0.0, 1.0)
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1)


def _draw(
    axes: Any, grey: np.ndarray, labels: np.ndarray | None, colours: np.ndarray,
    plane: tuple[str, int, int, int, str], position: Sequence[int], spacing: Sequence[float],
) -> None:
    """Draw one plane of the image, with labels over it, and its letters."""
    _, cut, across, up, letters = plane
    base = np.take(grey, position[cut], axis=cut).T  # rows: upwards, columns: across
    picture = np.repeat(base[..., None], 3, axis=2)
    # Draw every voxel as a block of pixels, so that an outline can be thinner than a voxel.
    factor = _factor(grey.shape)
    picture = picture.repeat(factor, 0).repeat(factor, 1)
    if labels is not None:
        chosen = np.take(labels, position[cut], axis=cut).T.repeat(factor, 0).repeat(factor, 1)
        inside, paint = chosen > 0, colours[chosen]
        picture[inside] = 0.55 * picture[inside] + 0.45 * paint[inside]
        edge = inside & _outline(chosen)
        picture[edge] = paint[edge]
    width, height = base.shape[1] * spacing[across], base.shape[0] * spacing[up]
    axes.imshow(picture, origin="lower", interpolation="nearest", extent=(0, width, 0, height), aspect="equal")
    axes.set_axis_off()
    style = {"color": INK, "fontsize": 8, "transform": axes.transAxes, "alpha": 0.85}
    for letter, (x, y, ha, va) in zip(letters, (
        (0.01, 0.5, "left", "center"), (0.99, 0.5, "right", "center"),
        (0.5, 0.01, "center", "bottom"), (0.5, 0.99, "center", "top"),
    ), strict=True):
        axes.text(x, y, letter, ha=ha, va=va, **style)


def _outline(labels: np.ndarray) -> np.ndarray:
    """Return where a pixel's label differs from the next pixel in any of four directions."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        rows, marks = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
        differs = rows[1:] != rows[:-1]
        marks[1:] |= differs
        marks[:-1] |= differs
    return edge


def _legend(rows: Mapping[str, np.ndarray], label_map: "LabelMap") -> list[int]:
    """Return the classes of the legend; [-1] when there are too many to name, [] when nothing is labelled."""
    if label_map.num_classes - 1 <= LEGEND_MOST:
        return list(range(1, label_map.num_classes))
    present = np.unique(np.concatenate([np.unique(labels) for labels in rows.values()] or [np.zeros(0, int)]))
    return [-1] if (present > 0).any() else []


def _draw_legend(figure: Any, names: list[int], colours: np.ndarray, label_map: "LabelMap") -> None:
    """Write the legend below the rows."""
    from matplotlib.patches import Patch

    if names == [-1]:
        text = f"{label_map.target}: {label_map.num_classes - 1} structures, one colour each"
        figure.text(0.5, 12 / (figure.get_figheight() * DPI), text, color=FAINT, fontsize=8, ha="center", va="center")
    elif names:
        handles = [Patch(facecolor=colours[index], label=label_map.names[index].replace("_", " ")) for index in names]
        figure.legend(
            handles=handles, loc="lower center", ncols=min(4, len(handles)), frameon=False, labelcolor=INK,
            fontsize=8, handlelength=1, handleheight=1, borderaxespad=0.2, labelspacing=0.35, columnspacing=1.2,
        )
