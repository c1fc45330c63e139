"""Label images with a finished run: any number of workers, shards, starts; what is there and still valid is skipped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segexp.console import say, track
from segexp.errors import ConfigError, DataError, PartialError, Preempted
from segexp.files import sha256
from segexp.predictions import bids, quarantine
from segexp.predictions.images import Image, by_subject, find_images, name_images
from segexp.predictions.index import Index
from segexp.predictions.leases import Leases
from segexp.predictions.ledger import LEFT, QUARANTINED, Ledger
from segexp.predictions.merge import Tables
from segexp.predictions.pipeline import Pipeline
from segexp.predictions.shards import Shard, parse_shard
from segexp.predictions.worker import NetworkError, OutputError, Task, Worker
from segexp.runs.directory import Run
from segexp.runs.restore import changed_config, restore, restore_data

WHOLE = Shard()


@dataclass(frozen=True)
class Settings:
    """How the work is done; nothing here changes a byte of a label map.

    Args:
        shard: the part of the subjects that this worker takes.
        merge: label nothing, only write the tables of what is there.
        verify: ``quick`` believes files whose size, times and inode are as they were when their hashes were
            verified; ``full`` hashes every file again.
        retry: ``none`` or ``quarantined``: try images in quarantine again.
        readers: threads that read ahead; 0: reading, network and writing one after the other.
        writers: threads that compress and write.
        ahead: images in each queue between them.
        expiry: seconds without a sign of life after which a worker is taken for dead.

    """

    shard: Shard = WHOLE
    merge: bool = False
    verify: str = "quick"
    retry: str = "none"
    readers: int = 1
    writers: int = 1
    ahead: int = 2
    expiry: float = 120.0

    def __post_init__(self) -> None:
        for key, value, known in (("verify", self.verify, ("quick", "full")),
                                  ("retry", self.retry, ("none", "quarantined"))):
            if value not in known:
                raise ConfigError(f"{key}={value}: expected {' or '.join(known)}")
        for key, number, least in (("readers", self.readers, 0), ("writers", self.writers, 1),
                                   ("ahead", self.ahead, 1), ("expiry", self.expiry, 1)):
            if isinstance(number, bool) or not isinstance(number, int | float) or number < least:
                raise ConfigError(f"{key}={number}: expected a number from {least} on")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """Return the settings that the keys of the command give."""
        given = {key: options[key] for key in cls.__dataclass_fields__ if key in options}
        return cls(**{**given, "shard": parse_shard(given.get("shard"))})


def predict(run: Run, source: str, output: str, targets: Sequence[str] | str | None = None, pattern: str = "*.nii*",
            device: str = "auto", changes: Sequence[str] = (), allow: Sequence[str] = (),
            config_dirs: Sequence[str] = (), settings: Settings | None = None) -> None:
    """Write the label maps of every image that ``source`` names below ``output``.

    Args:
        run: a finished run.
        source: a NIfTI file or a folder.
        output: folder of the BIDS derivatives.
        targets: some of the run's targets; None: all.
        pattern: which files below a folder are images.
        device: auto, cpu, cuda or mps.
        changes: overrides of the run's configuration, such as ``inference=sliding_window``.
        allow: module prefixes of the user that a ``_target_`` may name.
        config_dirs: the user's configuration folders.
        settings: how the work is done.

    Raises:
        ConfigError: a target, device or option that does not exist.
        DataError: no image can be used.
        PartialError: some images could not be used; the others are done.
        OutputError: the output folder cannot be written.
        NetworkError: the network fails on everything.
        Preempted: SIGTERM or SIGUSR2.

    """
    settings = settings or Settings()
    root, folder = Path(source), Path(output)
    config = changed_config(run, changes, config_dirs)
    base = root if root.is_dir() else root.parent
    images = name_images(find_images(root, pattern, folder), base)
    datamodule = restore_data(run, config, allow)
    wanted = chosen(targets, list(datamodule.label_maps), run.id)
    wanted_device = device_of(device)
    maker = made_by(run, config, datamodule.reading, datamodule.label_maps)
    with _writable(folder):
        beside = bookkeeping(folder)
        ledger = Ledger(folder, base, wanted, maker, Index(beside), settings.verify == "full",
                        settings.retry == "quarantined")
        leases = Leases(beside, settings.expiry)
        tables = Tables(ledger, leases, list(datamodule.label_maps), beside)
        worker = Worker(ledger, leases, datamodule,
                        lambda: restore(run, config, datamodule.label_maps, allow).to(wanted_device))
        described = bids.descriptions(run.id, {name: datamodule.label_maps[name] for name in wanted}, base)
        with stoppable(), leases.alive(), contextlib.closing(ledger.index):
            finish(settings, images, tables, *labelled(settings, images, described, tables, worker))
    report(images, settings.shard, ledger, root)


def bookkeeping(folder: Path) -> Path:
    """Return the folder of what is no result (leases, index): ``.<output>.segexp`` beside the output folder.

    The output holds results only, the same bytes however they were made. Where nothing can be written beside it, it is
    ``.segexp`` inside.
    """
    folder = folder.resolve()
    beside = folder.with_name(f".{folder.name}.segexp")
    return beside if beside.is_dir() or os.access(folder.parent, os.W_OK) or not folder.parent.exists() else (
        folder / ".segexp")


def labelled(settings: Settings, images: Sequence[Image], described: Mapping[str, str], tables: Tables,
             worker: Worker) -> tuple[list[Image], int]:
    """Label what is left of this worker's shard; return the images of the shard and how many were labelled."""
    ledger = worker.ledger
    mine = [image for image in images if settings.shard.holds(image.subject)]
    outcomes = {image.name: ledger.known(image) for image in mine}
    left = [image for image in mine if outcomes[image.name] == LEFT]
    bad = sum(outcome == QUARANTINED for outcome in outcomes.values())
    part = f" in shard {settings.shard} of {len(images)}" if settings.shard.count > 1 else ""
    say(f"{len(mine)} image{'s' * (len(mine) != 1)}{part}, {len(mine) - len(left) - bad} already there"
        + (f", {bad} in quarantine and unchanged (retry=quarantined tries them again)" if bad else ""))
    tables.describe(described, changing=bool(left) and not settings.merge)
    if settings.merge:
        return mine, 0
    flow: Pipeline[Task] = Pipeline(worker.read, worker.work, worker.write, worker.failed,
                                    (OutputError, NetworkError), settings.readers, settings.writers, settings.ahead,
                                    worker.stop.set)
    while left:
        worker.stop.clear()
        with contextlib.closing(flow(worker.tasks(by_subject(left)))) as tasks:
            for _ in track(tasks, "predict", len(left)):
                pass
        left, worker.lost = [image for same in worker.lost.values() for image in same], {}
    return mine, worker.labelled


def finish(settings: Settings, images: Sequence[Image], tables: Tables, mine: Sequence[Image], count: int) -> None:
    """Write the tables when everybody is done, or when they are asked for.

    Raises:
        PartialError: they were asked for, and images are missing.

    """
    tables.ledger.index.refresh()
    others = [image for image in images if not settings.shard.holds(image.subject)]
    missing = tables.missing([*others, *mine], None if settings.merge else 1)
    if missing and not settings.merge:
        say("other shards have images left; whoever finishes last writes volumes.csv (merge=true writes what is there)")
        return
    absent = {image.name for image in missing}
    with tables.writing():
        file = tables.write([image for image in images if image.name not in absent], whole=not missing)
        if count or settings.merge:
            tables.ledger.index.compact()
    if missing:
        raise PartialError(f"{len(missing)} of {len(images)} images are not done yet, {missing[0].path} for one: "
                           f"{file} holds the others; label them and merge again")
    say(f"volumes of all structures: {file}")


def chosen(targets: Sequence[str] | str | None, known: Sequence[str], run_id: str) -> list[str]:
    """Return the targets that are asked for.

    Raises:
        ConfigError: the run has no such target.

    """
    from segexp.config.names import hint

    wanted = [targets] if isinstance(targets, str) else list(targets or known)
    for target in wanted:
        if target not in known:
            raise ConfigError(f"targets={target}: run {run_id} has no such target{hint(target, list(known))}")
    return wanted


def made_by(run: Run, config: Any, reading: Mapping[str, str], label_maps: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes of what decides a prediction besides the image: weights, configuration, reading, labels."""
    import hashlib

    from segexp.config.objects import plain

    parts = {"network": plain(config.network), "inference": plain(config.inference), "reading": dict(reading),
             "labels": {name: [one.values, one.names] for name, one in label_maps.items()}}
    settings = json.dumps(parts, sort_keys=True)
    return {"run": run.id, "weights": sha256(run.checkpoint),
            "configuration": hashlib.sha256(settings.encode()).hexdigest()}


def device_of(name: str) -> Any:
    """Return the torch device for ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: there is no such device here.

    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if present[device])
    if not present.get(name):
        raise ConfigError(f"device={name} is not there; this machine has: "
                          + ", ".join(device for device, here in present.items() if here))
    return torch.device(name)


class Stopped(BaseException):
    """A signal asked to stop; no Exception, because it is no image's error."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGUSR2 into an error, so that leases are let go and nothing is left half-done.

    Raises:
        Preempted: one of them came.

    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: Any) -> None:
        for other in (signal.SIGTERM, signal.SIGUSR2):  # once is enough: cleaning up must not be broken off
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    before: dict[int, Callable | int | None] = {number: signal.signal(number, stop)
                                                for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        yield
    except Stopped as name:
        raise Preempted(f"asked to stop by {name}; what is done stays done, and the same command goes on") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turn failed writing at the top of the output into an error that says what to do."""
    try:
        yield
    except BrokenPipeError:  # nobody reads what is said any more
        raise
    except OSError as error:
        raise OutputError(f"output={folder}: cannot be written: {error.strerror or error}; free some space or choose "
                          "another folder; what is done stays done, and the same command goes on") from error


def report(images: Sequence[Image], shard: Shard, ledger: Ledger, source: Path) -> None:
    """Say where the label maps are and which images of the shard are in quarantine.

    Raises:
        DataError: the only image could not be used.
        PartialError: some could not.

    """
    mine = [image for image in images if shard.holds(image.subject)]
    records = [record for image in mine if (record := quarantine.find(ledger.folder, image)) is not None
               and (image.problem or ledger.known(image, anyone=True) != "done")]
    if not records:
        say(f"label maps of {len(mine)} image{'s' * (len(mine) != 1)} in {ledger.folder}")
        return
    text = (f"{len(records)} of {len(mine)} images could not be used; they are in {ledger.folder / 'quarantine'}:\n"
            f"{quarantine.summary(records)}")
    raise DataError(text) if source.is_file() else PartialError(text)
