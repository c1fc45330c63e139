"""What a subject costs besides its network, for 1,000, 10,000 and 100,000 subjects: it must not grow with their number.

    python -m tests.benchmarks.prediction_bookkeeping [SUBJECTS ...]

Everything is done by the code of ``segexp predict``: finding, naming, sharding, claiming, reading bytes, hashing,
sidecars, index, tables. Left out is what a subject costs whoever labels it: NIfTI, the network, and flushing files to
the disk; files are a few bytes. The second table compares 16 shards with leases and no shards without leases, in turn,
on the same images.
"""

import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from segexp.data import nifti
from segexp.data.labelmap import LabelMap
from segexp.files import written_whole
from segexp.predictions.images import Image, by_subject, find_images, name_images
from segexp.predictions.index import Index
from segexp.predictions.leases import Leases
from segexp.predictions.ledger import DONE, Ledger
from segexp.predictions.merge import Tables
from segexp.predictions.pipeline import Pipeline
from segexp.predictions.shards import Shard
from segexp.predictions.worker import Worker

COUNTS = (1_000, 10_000, 100_000)
MAKER = {"run": "benchmark", "weights": "0" * 64, "configuration": "1" * 64}
LABELS = LabelMap.from_mapping("tissue", {0: "background", 1: "csf", 2: "grey_matter", 3: "white_matter"})


class Tiny:
    """A data module whose network takes no time."""

    label_maps = {"tissue": LABELS}  # noqa: RUF012

    def read_file(self, path: Path, content: bytes) -> Any:
        """Return the voxels."""
        return np.frombuffer(content, np.uint8)

    def label_read(self, reading: Any, label: Callable) -> tuple:
        """Return four classes by intensity."""
        return {"tissue": reading % 4}, SimpleNamespace(affine=np.diag([2.0, 2, 2, 1]))


def write(path: Path, labels: np.ndarray, source: Any) -> None:
    """Write whole, in the place of `nifti.write_labels`."""
    with written_whole(path) as temporary:
        temporary.write_bytes(labels.tobytes())


class NoLeases:
    """What leases cost is measured against this."""

    token, expiry = "0", 1.0

    def alive(self) -> Any:
        """Nobody asks."""
        return nullcontext()

    def claim(self, name: str) -> Any:
        """Everything is ours."""
        return SimpleNamespace(mine=lambda: True, release=lambda: None)


def make(folder: Path, count: int) -> None:
    """Write ``count`` images in the layout of a bulk download."""
    content = bytes(range(64))
    for number in range(count):
        file = folder / f"{1000000 + number}_20252_2_0" / "T1" / "T1.nii"
        file.parent.mkdir(parents=True)
        file.write_bytes(content + number.to_bytes(4, "big"))  # every image has a hash of its own


def work(images: list[Image], output: Path, root: Path, shards: int, leases: Any) -> Ledger:
    """Label all images: as many workers one after the other as there are shards."""
    for number in range(1, shards + 1):
        shard = Shard(number, shards)
        mine = [image for image in images if shard.holds(image.subject)] if shards > 1 else images
        ledger = Ledger(output, root, ["tissue"], MAKER, Index(output / ".segexp"))
        held = leases(output / ".segexp") if leases is Leases else leases()
        worker = Worker(ledger, held, Tiny(), lambda: SimpleNamespace(device="cpu"))
        flow = Pipeline(worker.read, worker.work, worker.write, worker.failed, readers=0)
        with held.alive(), closing(ledger.index):
            for _ in flow(worker.tasks(by_subject(mine))):
                pass
    return ledger


def phases(count: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Return phase -> microseconds per subject, of the clock and of the processor."""
    root, output, found = folder / "input", folder / "output", {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        gc.collect()
        started = time.perf_counter(), time.process_time()
        result = call()
        ended = time.perf_counter(), time.process_time()
        found[name] = tuple(1e6 * (b - a) / count for a, b in zip(started, ended, strict=True))
        return result

    make(root, count)
    paths = timed("find", lambda: find_images(root, "T1.nii", output))
    images = timed("name", lambda: name_images(paths, root))
    assert len(images) == count
    timed("shard", lambda: [Shard(3, 16).holds(image.subject) for image in images])
    timed("label, all steps", lambda: work(images, output, root, 1, Leases))
    index = timed("second start: load index", lambda: Index(output / ".segexp"))
    ledger = Ledger(output, root, ["tissue"], MAKER, index)
    outcomes = timed("second start: look", lambda: [ledger.known(image) for image in images])
    assert set(outcomes) == {DONE}
    leases = Leases(output / ".segexp")
    with leases.alive():
        timed("claim and let go", lambda: [leases.claim(image.subject).release() for image in images])
        tables = Tables(ledger, leases, ["tissue"], output / ".segexp")
        assert not timed("is everything done", lambda: tables.missing(images))
        file = timed("merge", lambda: tables.write(images, whole=True))
        timed("merge again", lambda: tables.write(images, whole=True))
    assert len(file.read_text().splitlines()) == 3 * count + 1
    return found


def overhead(count: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return side -> microseconds of the processor per subject of each round."""
    root = folder / "input"
    make(root, count)
    sides = {"16 shards, leases": (16, Leases), "one shard, leases": (1, Leases), "no shards, no leases": (1, NoLeases)}
    found: dict[str, list[float]] = {name: [] for name in sides}
    images = name_images(find_images(root, "T1.nii", folder / "output"), root)
    for turn in range(rounds + 1):
        for name, (shards, leases) in sides.items():
            output = folder / "output"
            gc.collect()
            started = time.process_time()
            work(images, output, root, shards, leases)
            if turn:
                found[name].append(1e6 * (time.process_time() - started) / count)
            shutil.rmtree(output)
    return found


def main() -> None:
    """Measure and print."""
    counts = [int(word) for word in sys.argv[1:]] or list(COUNTS)
    os.fsync = lambda descriptor: None
    nifti.write_labels = write
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        phases(50, Path(folder))  # imports
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            results[count] = phases(count, Path(folder))
    for side, what in enumerate(("clock", "processor")):
        print(f"{what}: microseconds per subject; cores {os.cpu_count()}, load {os.getloadavg()[0]:.2f}")
        print(f"{'':<28}" + "".join(f"{count:>12,}" for count in counts) + "   last / first")
        rows = {name: [results[count][name][side] for count in counts] for name in results[counts[0]]}
        rows["sum"] = [sum(row[at] for row in rows.values()) for at in range(len(counts))]
        for name, row in rows.items():
            print(f"{name:<28}" + "".join(f"{value:12.1f}" for value in row) + f"{row[-1] / row[0]:12.2f}")
    with tempfile.TemporaryDirectory() as folder:
        sides = overhead(1000, 5, Path(folder))
    print("\nsame 1,000 images, in turn, microseconds of the processor per subject")
    base = statistics.median(sides["no shards, no leases"])
    for name, values in sides.items():
        print(f"{name:<28} median {statistics.median(values):9.1f}  least {min(values):9.1f}  n {len(values)}"
              f"  added {statistics.median(values) - base:8.1f}")


if __name__ == "__main__":
    main()
