"""What all workers of an output folder share: its description, and the tables made of everybody's sidecars."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segexp.errors import DataError
from segexp.files import write_json
from segexp.predictions import bids, quarantine, volumes
from segexp.predictions.images import Image
from segexp.predictions.index import state
from segexp.predictions.leases import Leases
from segexp.predictions.ledger import DONE, LEFT, QUARANTINED, Ledger
from segexp.predictions.worker import read_whole

TOP = "top-level"  # the lease of the files at the top


@dataclass
class Tables:
    """The shared files of an output folder: whoever writes them has their lease.

    Args:
        ledger: what is done.
        leases: who writes.
        targets: all targets of the run, also those that are not asked for now.
        hidden: folder of what is no result.

    """

    ledger: Ledger
    leases: Leases
    targets: Sequence[str]
    hidden: Path

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes at the top in this block; wait for whoever does."""
        lease = self.leases.claim(TOP)
        while lease is None:
            time.sleep(0.05)
            lease = self.leases.claim(TOP)
        try:
            for part in self.ledger.folder.glob(".*.part"):  # left by somebody who was killed here
                part.unlink(missing_ok=True)
            yield
        finally:
            lease.release()

    def describe(self, files: Mapping[str, str], changing: bool) -> None:
        """Write the descriptions; ``changing``: label maps will change, so that old tables are no longer true."""
        with self.writing():
            bids.write_descriptions(self.ledger.folder, files)
            if changing:
                volumes.outdated(self.ledger.folder)

    def missing(self, images: Sequence[Image], most: int | None = None) -> list[Image]:
        """Return the images that are neither done nor in quarantine; stops after ``most``."""
        left = []
        for image in images:
            if self.outcome(image) == LEFT:
                left.append(image)
                if len(left) == most:
                    break
        return left

    def outcome(self, image: Image) -> str:
        """Return what became of an image, also where the index does not know; then files are hashed."""
        known = self.ledger.known(image, anyone=True)
        if known != LEFT or image.problem:
            return known
        last = bids.label_file(self.ledger.folder, image.name, self.ledger.targets[-1])
        record = quarantine.record_file(self.ledger.folder, image)
        if state(bids.sidecar(last)) is None and state(record) is None:
            return LEFT
        try:
            content, seen = read_whole(image.path)
        except DataError:
            found = quarantine.find(self.ledger.folder, image)
            return QUARANTINED if found is not None and found["input"] is None else LEFT
        digest = hashlib.sha256(content).hexdigest()
        if self.ledger.verified(image, seen, digest):
            return DONE
        found = quarantine.find(self.ledger.folder, image)
        made_from = self.ledger.made_from(digest)
        return QUARANTINED if found is not None and {**found, **made_from} == found else LEFT

    def write(self, images: Sequence[Image], whole: bool) -> Path:
        """Write the tables of volumes and of the quarantine, unless they are there already; return the first."""
        folder, note = self.ledger.folder, self.hidden / "tables.json"
        ordered = sorted(images, key=lambda image: (image.subject, image.session, image.name))
        records = {image.name: record for image in ordered
                   if (record := self._record(image)) is not None}
        meaning = self._meaning(ordered, records, whole)
        file = folder / (volumes.WHOLE if whole else volumes.PART)
        with contextlib.suppress(OSError, ValueError, KeyError):
            kept = json.loads(note.read_text(encoding="utf-8"))
            if kept == self._note(meaning, file):
                return file
        quarantine.write_table(folder, records.values())
        volumes.write_table(folder, self._rows(ordered, records), whole)
        write_json(note, self._note(meaning, file))
        return file

    def _record(self, image: Image) -> dict[str, Any] | None:
        """Return the record of an image in quarantine."""
        if self.ledger.known(image, anyone=True) == DONE:
            return None
        return quarantine.find(self.ledger.folder, image)

    def _meaning(self, images: Sequence[Image], records: Mapping[str, Any], whole: bool) -> str:
        """Return a hash of everything that the tables are made of."""
        digest = hashlib.sha256(json.dumps([self.ledger.key, list(self.targets), whole]).encode())
        for image in images:
            entry = self.ledger.index.get(f"{self.ledger.key} {image.name}")
            of = records.get(image.name) or (
                [entry.input[-1], sorted((target, found[2]) for target, found in entry.targets.items())]
                if entry else None)
            digest.update(json.dumps([image.name, of], sort_keys=True).encode())
        return digest.hexdigest()

    def _note(self, meaning: str, file: Path) -> dict[str, Any]:
        return {"meaning": meaning, "volumes": state(file),
                "quarantine": state(self.ledger.folder / "quarantine.csv")}

    def _rows(self, images: Sequence[Image], records: Mapping[str, Any]) -> Iterator[tuple]:
        """Yield the rows of all images, read from their sidecars."""
        for image in images:
            entry = self.ledger.entry(image)
            if image.name in records or entry is None:
                continue
            made_from = self.ledger.made_from(entry.input[-1])
            for target in sorted(self.targets):
                written = bids.read_sidecar(bids.label_file(self.ledger.folder, image.name, target), made_from)
                if written is not None:
                    yield from volumes.rows(image, target, written["Volumes"])
