"""Seconds per subject of prediction with and without reading and writing beside the network.

    python -m tests.benchmarks.prediction_pipeline [SUBJECTS [EDGE]]

Whole heads of EDGE (160) voxels per side are read from .nii.gz, checked, scaled, labelled and written with sidecars by
the code of ``segexp predict``. Both sides do so in turn, in one process, after the bytes of both were compared. First
row: a network of another device, which leaves the processor alone (a wait of a second); second row: a small network on
the same processor, where only disks and a second core can help.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import torch

from segexp.data import read_image_case
from segexp.data.labelmap import LabelMap
from segexp.predictions.images import by_subject, find_images, name_images
from segexp.predictions.index import Index
from segexp.predictions.leases import Leases
from segexp.predictions.ledger import Ledger
from segexp.predictions.pipeline import Pipeline
from segexp.predictions.worker import Worker
from tests.benchmarks.common import Row, alternate, report

MAKER = {"run": "benchmark", "weights": "0" * 64, "configuration": "1" * 64}
LABELS = LabelMap.from_mapping("tissue", {0: "background", 1: "csf", 2: "grey_matter", 3: "white_matter"})
WAIT = 1.0


class Heads:
    """Reads as data modules do; the network is the one given."""

    label_maps = {"tissue": LABELS}  # noqa: RUF012

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.network = network

    def read_file(self, path: Path, content: bytes) -> Any:
        """Return the scaled image."""
        return read_image_case(path, content=content)

    def label_read(self, reading: Any, label: Callable) -> tuple:
        """Return four classes."""
        return {"tissue": self.network(reading["image"])[0].numpy()}, reading["source"]


def elsewhere(image: torch.Tensor) -> torch.Tensor:
    """Take the time of a network on another device."""
    time.sleep(WAIT)
    return image[0].add(1).mul(1.5).clamp(0, 3).byte()


def here() -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a small network on this processor."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 4, 1))
    return lambda image: network(image).argmax(1).byte()


def make(folder: Path, count: int, edge: int) -> None:
    """Write heads: smooth inside, air around, noise everywhere."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, edge)] * 3, indexing="ij", sparse=True)
    head = 900 * (sum(axis**2 for axis in axes) < 0.7) * (1 + 0.3 * np.cos(9 * axes[0]))
    for number in range(count):
        voxels = (head + rng.normal(20, 8, head.shape).clip(0)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"sub-{number:03d}_T1w.nii.gz")


def label(root: Path, output: Path, network: Callable, readers: int) -> dict[str, bytes]:
    """Label all images into a fresh folder and return the files."""
    shutil.rmtree(output, ignore_errors=True)
    images = name_images(find_images(root, "*.nii.gz", output), root)
    ledger, leases = Ledger(output, root, ["tissue"], MAKER, Index(output / ".segexp")), Leases(output / ".segexp")
    worker = Worker(ledger, leases, Heads(network), lambda: SimpleNamespace(device="cpu"))
    flow = Pipeline(worker.read, worker.work, worker.write, worker.failed, readers=readers)
    with leases.alive(), closing(ledger.index):
        for _ in flow(worker.tasks(by_subject(images))):
            pass
    assert worker.labelled == len(images)
    return {file.name: file.read_bytes() for file in output.rglob("*_dseg.*")}


def main() -> None:
    """Assert equality, measure in turn, print seconds per subject."""
    count, edge = [*map(int, sys.argv[1:]), *(8, 160)[len(sys.argv) - 1:]]
    with tempfile.TemporaryDirectory() as folder:
        root, output = Path(folder) / "input", Path(folder) / "output"
        root.mkdir()
        make(root, count, edge)
        rows = []
        networks = {f"network elsewhere ({WAIT} s)": elsewhere, "small network on this processor": here()}
        for title, network in networks.items():
            sides = {"beside the network": 1, "one after the other": 0}
            first, second = (label(root, output, network, readers) for readers in sides.values())
            assert first == second and len(first) == 2 * count, "the two sides write different bytes"
            spent = alternate({name: (lambda readers=readers, network=network: label(root, output, network, readers))
                               for name, readers in sides.items()}, repeats=5, warmup=0)
            rows.append(Row(f"one subject of {edge}^3 voxels, {title}",
                            {name: [seconds / count for seconds in values] for name, values in spent.items()}))
        report(rows)


if __name__ == "__main__":
    main()
