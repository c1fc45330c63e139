"""Finding the kidneys of a CT that has no labels, and labelling the whole of it.

A network trained on whole CTs at 4 mm finds what is kidney or tumour; its parts become regions. It replaces the eight
atlases that the paper aligns to every CT (Yang et al. 2018, section II), whose shapes, as the paper says, may miss
kidneys with large tumours.

Glossary: D/H/W = the canonical axes right, anterior, superior.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segexp import tensors
from segexp.data import nifti
from segexp.data.intensity import Intensity, LoadedImage, Window
from segexp.data.kidneys import SIDES, Kidney, Parts, coarse, middle_of_body
from segexp.data.placement import pasted
from segexp.data.regions import Frame, Region, RegionProvider, Scan
from segexp.data.resampling import resampled, sampled
from segexp.data.views import AIR, cut
from segexp.errors import ConfigError, DataError
from segexp.files import sha256


def localise(voxels: np.ndarray, spacing: Sequence[float], network: nn.Module, intensity: Intensity, frame: Frame,
             grid: float = 4.0, least_ml: float = 20.0) -> list[Region]:
    """Return the regions of a CT: per side of the body, the largest part that a network takes for kidney or tumour.

    Args:
        voxels: [D, H, W] in HU.
        spacing: mm.
        network: image [1, 1, D, H, W] on the coarse grid -> target -> logits [1, K, D, H, W]; of the first target
            every class but 0 counts.
        intensity: as the network was trained with.
        frame: how windows are laid around a kidney.
        grid: mm, edge of the coarse grid's voxels.
        least_ml: smaller parts are no kidneys.

    """
    image, ratio = coarse(voxels, spacing, grid)
    scaled = torch.from_numpy(intensity(image, LoadedImage.of(image)))[None, None]
    device = next((one.device for one in network.parameters()), scaled.device)
    with torch.no_grad():
        logits: Tensor = next(iter(network(scaled.to(device)).values()))
    probability = 1 - logits.float().softmax(1)[0, 0].cpu().numpy()
    parts = Parts((probability > 0.5).astype(np.uint8), (0, 0, 0), (grid,) * 3, middle_of_body(image, (grid,) * 3))
    found = []
    for side in SIDES:
        kidney = parts.largest(side, least_ml)
        if kidney is not None:
            inside = probability[tuple(slice(a, b) for a, b in zip(kidney.low, kidney.high, strict=True))]
            box = frame.around(on_grid(kidney, ratio, voxels.shape), voxels.shape, spacing)
            found.append(Region(side, *box, score=float(inside[inside > 0.5].mean())))
    return found


def on_grid(kidney: Kidney, ratio: Sequence[float], shape: Sequence[int]) -> Kidney:
    """Return a kidney found on a coarse grid in voxels of the fine one, ``ratio`` of which one coarse voxel spans."""
    low = tuple(int(np.floor(value * step)) for value, step in zip(kidney.low, ratio, strict=True))
    high = tuple(min(int(np.ceil(value * step)), n) for value, step, n in zip(kidney.high, ratio, shape, strict=True))
    focus = tuple(float((value + 0.5) * step - 0.5) for value, step in zip(kidney.focus, ratio, strict=True))
    return replace(kidney, low=low, high=high, focus=focus)


class NetworkRegions:
    """Regions from a low-resolution network: a run trained with ``data.view=whole``.

    Args:
        run: the run's directory, or the beginning of its name where only one begins like this.
        least_ml: smaller parts are no kidneys.
        unit, size, margin_mm: see `Frame`.
        every_kidney: False: of a labelled CT, one case per patient, the kidney with the largest tumour. Unlabelled CTs
            get a region per side in any case.

    Raises DataError when the directory holds no trained network.

    """

    def __init__(self, run: str | Path, least_ml: float = 20.0, unit: str = "px", size: float = 150,
                 margin_mm: float = 20.0, every_kidney: bool = False) -> None:
        self.run, self.least_ml, self.every_kidney = the_one(Path(run)), least_ml, every_kidney
        self.frame = Frame(unit, size, margin_mm)
        self.lock = threading.Lock()  # examinations run in threads; the network is loaded and used by one at a time
        self.trained: Trained | None = None

    @property
    def key(self) -> str:
        """Everything but the CT that the regions depend on: the weights and the keys."""
        try:
            return f"lowres {sha256(self.run / 'checkpoints' / 'last.ckpt')} {self.least_ml} {self.frame}"
        except OSError as error:
            raise DataError(f"data.roi.run={self.run}: no trained localiser there ({error})") from error

    def boxes(self, scan: Scan) -> list[Region]:
        """Return one region per side of the body on which a kidney is found."""
        with self.lock:
            if self.trained is None:
                self.trained = load_localizer(self.run)
            return localise(scan.voxels, scan.spacing, self.trained.network, self.trained.intensity, self.frame,
                            self.trained.grid, self.least_ml)


def the_one(path: Path) -> Path:
    """Return the directory, or the only one whose name begins like it."""
    if path.is_dir():
        return path
    begun = sorted(one for one in path.parent.glob(f"{path.name}*") if (one / "checkpoints" / "last.ckpt").exists())
    found = [one for one in begun if one.name.startswith(f"{path.name}-")] or begun
    if len(found) != 1:
        there = f"{len(found)} begin like this: {', '.join(one.name for one in found)}" if found else "there is none"
        raise ConfigError(f"data.roi.run={path}: expected the directory of a trained localiser; {there}")
    return found[0]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained localiser: its network, and how images are scaled and how coarse the grid (mm) is for it."""

    network: nn.Module
    intensity: Intensity
    grid: float


def load_localizer(run: Path) -> Trained:
    """Return the trained localiser of a run's directory.

    Raises DataError when there is none, or the run was not trained on a grid of equal edges.
    """
    from segexp.config import instantiate
    from segexp.config.yaml_files import read_yaml

    try:
        config = read_yaml(run / "config.yaml")
        checkpoint = tensors.load(run / "checkpoints" / "last.ckpt")
        network, intensity = instantiate(config["network"]), instantiate(config["data"]["intensity"])
        weights = {name.removeprefix("network."): value for name, value in checkpoint["state_dict"].items()
                   if name.startswith("network.")}
        network.load_state_dict(weights)
        grid = config["data"]["resample"]
        bad = tensors.not_finite(network.state_dict()) or tensors.other_types(weights, network.state_dict())
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, ConfigError,
            tensors.TensorFileError) as error:
        raise DataError(f"{run}: no trained localiser there ({type(error).__name__}: {error}); data.roi.run must be "
                        f"the directory of a run trained with data.view=whole") from error
    if bad:
        raise DataError(f"{run}: the weights are NaN, infinite or of another type ({bad})")
    if not grid or len(set(grid)) > 1:
        raise DataError(f"{run}: trained with data.resample={grid}; expected three equal edges, such as [4, 4, 4]")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Trained(network.eval().to(device), trained_intensity(intensity, checkpoint), float(grid[0]))


def trained_intensity(intensity: Intensity, checkpoint: Mapping[str, Any]) -> Intensity:
    """Return the intensity with the mean that the checkpoint of a run with ``data.intensity.mean=auto`` holds."""
    kept = checkpoint.get("KidneyCTA", {})
    if isinstance(intensity, Window) and "intensity_mean" in kept:
        return replace(intensity, mean=float(kept["intensity_mean"]))
    return intensity


def case_of(path: Path) -> str:
    """Return the case that a file belongs to: its name, or its folder's where every case's file has the same name."""
    name = path.name.split(".")[0]
    return path.resolve().parent.name if name in ("image", "imaging") else name


@dataclass(frozen=True, eq=False)
class WholeScan:
    """A CT that nobody has labelled, read: the file's own grid, the grid that the network was trained at, in HU."""

    path: Path
    volume: nifti.Volume
    fine: nifti.Volume
    image: LoadedImage


def read_scan(path: str | Path, intensity: Intensity, resample: Sequence[float] | None = None,
              content: bytes | None = None) -> WholeScan:
    """Read a CT in HU, on voxels of ``resample`` mm; None: those of the file. ``content``: its bytes, if they are read.

    Raises DataError as `nifti.read` does, or when the intensity cannot scale it.
    """
    volume = nifti.read(path, content)
    fine = resampled(volume, resample)
    image = LoadedImage.of(fine.array)
    problem = intensity.problem(image)
    if problem:
        raise DataError(f"{path}: {problem}")
    return WholeScan(Path(path), volume, fine, image)


def label_scan(path: str | Path, label: Callable[[Tensor], Mapping[str, Tensor]], intensity: Intensity,
               roi: RegionProvider | None = None, resample: Sequence[float] | None = None,
               root: Path | None = None) -> tuple[dict[str, np.ndarray], nifti.Source]:
    """Read a CT and label it, see `read_scan` and `label_regions`."""
    return label_regions(read_scan(path, intensity, resample), label, intensity, roi, root)


def label_regions(read: WholeScan, label: Callable[[Tensor], Mapping[str, Tensor]], intensity: Intensity,
                  roi: RegionProvider | None = None, root: Path | None = None,
                  ) -> tuple[dict[str, np.ndarray], nifti.Source]:
    """Label a CT that nobody has labelled: cut out its regions, label each, put the labels back on the file's grid.

    Args:
        read: the CT.
        label: image [1, 1, D, H, W], scaled -> target -> class indices [1, D, H, W].
        intensity: as the network was trained with.
        roi: finds the regions; None: the file is one region already.
        root: folder that files of regions are relative to.

    Returns:
        target -> class indices [D, H, W] on the canonical grid of the file, and the file's own grid, for
        `nifti.write_labels`.

    Raises DataError when no kidney is found.

    """
    path, volume, fine = read.path, read.volume, read.fine
    boxes = [Region("", (0, 0, 0), fine.array.shape)]
    if roi is not None:
        scan = Scan(case_of(path), fine.array, fine.spacing, middle_of_body(fine.array, fine.spacing), root=root,
                    zoom=tuple(np.divide(volume.spacing, fine.spacing)))
        try:
            boxes = roi.boxes(scan)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    if not boxes:
        raise DataError(f"{path}: no kidney was found in this image")
    labels: dict[str, np.ndarray] = {}
    for box in boxes:
        part = intensity(cut(fine.array, box.start, box.size, AIR), read.image)
        for target, found in label(torch.from_numpy(np.ascontiguousarray(part))[None, None]).items():
            into = labels.setdefault(target, np.zeros(fine.array.shape, np.uint8))
            pasted(found[0].cpu().numpy().astype(np.uint8), box.start, into)
    if fine is not volume:
        ratio = np.divide(volume.spacing, fine.spacing)
        labels = {target: sampled(found, ratio, volume.array.shape, order=0) for target, found in labels.items()}
    return labels, volume.source
