"""One worker: claims subjects, reads, labels and writes their images, and puts those that cannot be used away."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from segexp.errors import DataError, SegexpError
from segexp.predictions import bids, quarantine, volumes
from segexp.predictions.images import Image
from segexp.predictions.index import state
from segexp.predictions.leases import Lease, Leases
from segexp.predictions.ledger import LEFT, Ledger
from segexp.predictions.pipeline import NOTHING

IN_A_ROW = 20  # images on which the network may fail one after the other, before it is the network's fault
ALONE, DEADLY = 2, 5  # workers that died with a subject: so many and it is worked on alone; so many and no more


class OutputError(SegexpError):
    """The output folder cannot be written: full, read-only, gone."""


class NetworkError(SegexpError):
    """The network fails on everything, or its device is lost."""


@dataclass
class Claim:
    """The lease of a subject, let go when the last of its images is finished."""

    lease: Lease
    left: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def finished(self) -> None:
        """Count one image; never raises."""
        with self.lock:
            self.left -= 1
            if not self.left:
                self.lease.release()


@dataclass(eq=False)
class Task:
    """One image on its way; ``claim`` is None where another worker has finished it."""

    image: Image
    claim: Claim | None
    seen: list[int] | None = None
    digest: str | None = None


class Labelled(NamedTuple):
    """Class indices per target, canonical, and the grid of the file."""

    labels: Mapping[str, Any]
    source: Any


class Worker:
    """Labels the images of subjects nobody else works on.

    Args:
        ledger: what is done.
        leases: who works on what.
        datamodule: reads as in training; has ``label_maps``.
        network: returns the module, on its device; called when the first image needs it.

    """

    def __init__(self, ledger: Ledger, leases: Leases, datamodule: Any, network: Callable[[], Any]) -> None:
        self.ledger, self.leases, self.datamodule, self.network = ledger, leases, datamodule, network
        self.module: Any = None
        self.labelled = self.in_a_row = 0
        self.lost: dict[str, list[Image]] = {}
        self.stop, self.lock = threading.Event(), threading.Lock()

    def tasks(self, subjects: Mapping[str, Sequence[Image]]) -> Iterator[Task]:
        """Yield the images of ``subjects``, claimed; waits for those that others have until they are done or dead.

        Every worker begins somewhere else, so that they seldom meet. A subject that several workers died with, as those
        do that the system kills for their memory, is worked on when nothing else is: then it is clear what kills.
        """
        names = list(subjects)
        begin = int(self.leases.token[:8] or "0", 16) % len(names) if names else 0
        left, under_way = names[begin:] + names[:begin], list[Claim]()
        while left and not self.stop.is_set():
            held = []
            for subject in left:
                images = [image for image in subjects[subject] if self.ledger.known(image) == LEFT]
                lease = self._claim(subject) if images else None
                if images and lease is None:
                    held.append(subject)
                    continue
                yield from (Task(image, None) for image in subjects[subject] if image not in images)
                if lease is None:
                    continue
                claim = Claim(lease, len(images))
                self._clear(images)
                if lease.link.place >= ALONE:
                    self._wait_for(under_way)
                yield from (Task(image, claim) for image in images)
                under_way = [one for one in (*under_way, claim) if one.left]
                if lease.link.place >= ALONE:
                    self._wait_for([claim])
            left = held
            if left and not self.stop.wait(min(2.0, self.leases.expiry / 4)):
                self.ledger.index.refresh()

    def read(self, task: Task) -> Any:
        """Return what the data module reads of an image, or nothing where it is done or known to be bad."""
        image, ledger = task.image, self.ledger
        if task.claim is None:
            return NOTHING
        if image.problem:
            raise Unusable(image.problem)
        if self._begun(image):  # another worker may have finished it since it was last looked for
            ledger.index.refresh()
            if ledger.known(image) != LEFT:
                return self._over(task)
        content, task.seen = read_whole(image.path)
        task.digest = hashlib.sha256(content).hexdigest()
        if ledger.verified(image, task.seen, task.digest) or ledger.still_bad(image, task.seen, task.digest):
            return self._over(task)
        if task.claim.lease.link.place >= DEADLY:
            raise Deadly(f"{image.path}: {DEADLY} workers were killed while they had it, the last ones with nothing "
                         "else at work; perhaps it needs more memory than there is")
        return self.datamodule.read_file(image.path, content)

    def work(self, task: Task, reading: Any) -> Labelled:
        """Return the labels of an image."""
        import torch

        if self.module is None:
            try:
                self.module = self.network()
            except Exception as error:
                raise error if isinstance(error, SegexpError) else NetworkError(str(error)) from error
        module = self.module
        try:
            with torch.inference_mode():
                labels, source = self.datamodule.label_read(
                    reading, lambda part: module.predict_step({"image": part.to(module.device)}, 0))
        except Exception as error:
            self._judge(error)
            raise
        self.in_a_row = 0
        return Labelled(labels, source)

    def write(self, task: Task, result: Labelled) -> None:
        """Write the label maps of an image, each with its JSON, and remember them."""
        assert task.claim is not None and task.seen is not None and task.digest is not None
        if not task.claim.lease.mine():
            self._give_up(task)
            return
        try:
            outputs = {target: self._write(task, target, result) for target in self.ledger.targets}
            self.ledger.done(task.image, task.seen, task.digest, outputs)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise
            if task.claim.lease.mine():
                raise self.unwritable(error) from error
            self._give_up(task)  # and the other one has cleared what was half-written
            return
        with self.lock:
            self.labelled += 1
        self._over(task)

    def failed(self, task: Task, stage: str, error: Exception) -> None:
        """Put an image into quarantine."""
        try:
            self.ledger.put_away(task.image, task.seen, task.digest, quarantine.reason_of(stage, error))
        except OSError as problem:
            if task.claim is None or task.claim.lease.mine():
                raise self.unwritable(problem) from problem
            self._give_up(task)
            return
        self._over(task)

    def unwritable(self, error: OSError) -> OutputError:
        """Return the error that says what to do about an output folder that cannot be written."""
        return OutputError(f"output={self.ledger.folder}: cannot be written: {error.strerror or error}; what is done "
                           "stays done, and the same command goes on when there is room")

    def _write(self, task: Task, target: str, result: Labelled) -> str:
        from segexp.data.nifti import write_labels

        label_map, classes = self.datamodule.label_maps[target], result.labels[target]
        file = bids.label_file(self.ledger.folder, task.image.name, target)
        write_labels(file, label_map.decode(classes), result.source)
        return bids.describe_labels(file, self.ledger.made_from(str(task.digest)),
                                    bids.source_uri(task.image.path, self.ledger.root),
                                    volumes.count(classes, label_map, result.source.affine))

    def _claim(self, subject: str) -> Lease | None:
        try:
            return self.leases.claim(subject)
        except OSError as error:
            raise self.unwritable(error) from error

    def _over(self, task: Task) -> Any:
        if task.claim is not None:
            task.claim.finished()
        return NOTHING

    def _give_up(self, task: Task) -> None:
        """Leave an image to the worker that took this one for dead: it writes the same; look again at the end."""
        self.lost.setdefault(task.image.subject, []).append(task.image)
        self._over(task)

    def _wait_for(self, claims: Sequence[Claim]) -> None:
        while any(claim.left for claim in claims) and not self.stop.wait(0.02):
            pass

    def _begun(self, image: Image) -> bool:
        return state(bids.sidecar(bids.label_file(self.ledger.folder, image.name, self.ledger.targets[-1]))) is not None

    def _clear(self, images: Sequence[Image]) -> None:
        """Remove what killed workers left half-written: whoever has the lease is the only one who writes here."""
        folders = {bids.label_folder(self.ledger.folder, image.name) for image in images}
        for folder in folders | {quarantine.record_file(self.ledger.folder, images[0]).parent}:
            if folder.is_dir():
                for part in folder.glob(".*.part"):
                    part.unlink(missing_ok=True)

    def _judge(self, error: Exception) -> None:
        """End everything when the network fails for reasons that are no image's."""
        text = str(error)
        lost = "CUDA error" in text or "device-side assert" in text or type(error).__name__ == "AcceleratorError"
        if lost and not quarantine.is_memory(error):
            raise NetworkError(f"the device does not work any more: {text.splitlines()[0]}; start again to go on"
                               ) from error
        if quarantine.is_memory(error):
            import torch

            torch.cuda.empty_cache()
        self.in_a_row += not isinstance(error, DataError)
        if self.in_a_row >= IN_A_ROW:
            raise NetworkError(f"the network failed on {self.in_a_row} images in a row, the last time with "
                               f"{type(error).__name__}: {text.splitlines()[0] if text else ''}; this does not look "
                               "like the images' fault; correct it and start again with retry=quarantined") from error


class Unusable(DataError):
    """Known before it is read: it shares its name with others, or leads out of the input."""

    stage, kind = "name", "data"


class Deadly(DataError):
    """Workers die with this subject."""

    stage, kind = "network", "killed"


def read_whole(path: Path) -> tuple[bytes, list[int]]:
    """Return the bytes of a file and its state.

    Raises:
        DataError: it cannot be read, or changed meanwhile.

    """
    before = state(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if before is None or state(path) != before:
        raise DataError(f"{path}: changed while it was read; is something still writing it?")
    return content, before
