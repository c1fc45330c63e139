"""What is done, what is in quarantine and what is left: by the sidecars' hashes, or by the index of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segexp.predictions import bids, quarantine
from segexp.predictions.images import Image
from segexp.predictions.index import Entry, Index, maker_key, state

DONE, QUARANTINED, LEFT = "done", "quarantined", ""


@dataclass
class Ledger:
    """The images of one order and what became of them.

    Args:
        folder: of the derivatives.
        root: of the input.
        targets: label maps that are asked for.
        maker: hashes of what makes them: run, weights, configuration.
        full: believe only what was verified since the start.
        retry: images in quarantine are left to do.
        index: what all workers remember.

    """

    folder: Path
    root: Path
    targets: Sequence[str]
    maker: Mapping[str, str]
    index: Index
    full: bool = False
    retry: bool = False
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = maker_key(self.maker)

    def entry(self, image: Image, fresh: bool = False) -> Entry | None:
        """Return what the index says of an image, if its file is still the same."""
        entry = self.index.get(f"{self.key} {image.name}", fresh)
        return entry if entry is not None and entry.input[:4] == state(image.path) else None

    def known(self, image: Image, anyone: bool = False) -> str:
        """Return what became of an image, from the states of its files alone.

        ``anyone``: also what was found before a start with ``full`` or ``retry``.
        """
        if image.problem:
            return self._named(image, anyone)
        entry = self.entry(image, self.full and not anyone)
        if entry is None:
            return LEFT
        if entry.quarantined is not None:
            if self.retry and not anyone and self.entry(image, fresh=True) is None:
                return LEFT
            return QUARANTINED if state(quarantine.record_file(self.folder, image)) == entry.quarantined else LEFT
        folder = f"{bids.label_folder(self.folder, image.name)}/{image.name}_space-orig_desc-"
        for target in self.targets:
            found = entry.targets.get(target)
            begin = f"{folder}{target}_dseg"
            if found is None or state(f"{begin}.nii.gz") != found[0] or state(f"{begin}.json") != found[1]:
                return LEFT
        return DONE

    def verified(self, image: Image, seen: list[int], digest: str) -> bool:
        """Say whether all label maps of an image are whole and made from it, by their hashes; remember it if so.

        ``seen``: the state of the image when its hash ``digest`` was taken.
        """
        made_from, outputs = self.made_from(digest), {}
        for target in self.targets:
            file = bids.label_file(self.folder, image.name, target)
            states = [state(file), state(bids.sidecar(file))]
            if None in states:
                return False
            output = bids.valid(file, made_from)
            if output is None:
                return False
            outputs[target] = [*states, output[:16]]
        self._remember(image, [*seen, digest], outputs)
        return True

    def done(self, image: Image, seen: list[int], digest: str, outputs: Mapping[str, str]) -> None:
        """Remember label maps that were just written: target -> hash."""
        found = {}
        for target, output in outputs.items():
            file = bids.label_file(self.folder, image.name, target)
            found[target] = [state(file), state(bids.sidecar(file)), output[:16]]
        quarantine.take_out(self.folder, image)
        self._remember(image, [*seen, digest], found)

    def put_away(self, image: Image, seen: list[int] | None, digest: str | None, reason: quarantine.Reason) -> None:
        """Put an image into quarantine, and remember it unless its hash is not known: then the next start looks again.

        Raises OSError when the record cannot be written.
        """
        source = bids.source_uri(image.path, self.root)
        file = quarantine.put(self.folder, image, source, reason, digest, self.maker)
        if seen is not None and digest is not None:
            self.index.add(f"{self.key} {image.name}", Entry([*seen, digest], {}, state(file)))

    def still_bad(self, image: Image, seen: list[int], digest: str) -> bool:
        """Say whether the record of an image is about exactly this content, these weights, this configuration."""
        file = quarantine.record_file(self.folder, image)
        before, record = state(file), quarantine.find(self.folder, image)
        made_from = self.made_from(digest)
        if self.retry or record is None or before is None or {**record, **made_from} != record:
            return False
        self.index.add(f"{self.key} {image.name}", Entry([*seen, digest], {}, before))
        return True

    def made_from(self, digest: str) -> dict[str, str]:
        """Return the hashes that a sidecar must have."""
        return {**self.maker, "input": digest}

    def _remember(self, image: Image, seen: list, outputs: dict[str, list]) -> None:
        """Add to the index, keeping what it says of other targets made from the same image."""
        entry = self.index.get(f"{self.key} {image.name}", self.full)
        if entry is not None and entry.input == seen:
            outputs = {**entry.targets, **outputs}
        self.index.add(f"{self.key} {image.name}", Entry(seen, outputs))

    def _named(self, image: Image, anyone: bool) -> str:
        """Return what became of an image that shares its name with others: its record says the same, or not."""
        record: dict[str, Any] | None = quarantine.find(self.folder, image)
        same = record is not None and record["reason"] == image.problem
        return QUARANTINED if same else LEFT
