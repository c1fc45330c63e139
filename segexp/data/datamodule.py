"""The part of a data module that every data set of label maps shares: check, split, stream and whole cases."""

from __future__ import annotations

import hashlib
import signal
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from segexp.console import say, track
from segexp.data.cache import Cache
from segexp.data.cases import Case, Listed, Manifest, confined
from segexp.data.checks import Progress, Rules, examine_all
from segexp.data.intensity import Intensity, ZScore
from segexp.data.labelmap import LabelMap
from segexp.data.nifti import Source
from segexp.data.roots import Roots
from segexp.data.sampling import Crops, SampleStream, StepSampler, collate
from segexp.data.splits import SPLITS, split_persons
from segexp.data.whole_cases import WholeCases, as_it_is, read_image_case
from segexp.errors import ConfigError, DataError

SHOWN = 5  # rejected cases named when a run starts; the manifest names all


class SegmentationDataModule(pl.LightningDataModule):
    """Cases of a data set, checked, decoded once, and split by person.

    A data set implements `list_cases` and sets `rules`. Training batches come from a stateless stream of samples (set
    it up with `configure_stream`); validation, test and prediction get whole cases, one at a time.

    Batches, with B batch, D/H/W depth/height/width: ``image`` float32 [B, 1, D, H, W], scaled by the intensity;
    ``target`` name -> class indices [B, D, H, W], int64 and IGNORE where nothing is known in crops, uint8 in whole
    cases; ``case`` ids. Samplings of slices have no D. Whole cases also have ``spacing`` (mm), ``group``, ``path``, and
    ``truth`` name -> uint8 [1, D, H, W] where the data set has it, ``placement`` where cases are cut from larger scans.

    Args:
        label_maps: target -> {file value: structure}, all of the data set.
        targets: the chosen ones, or a single name.
        split: persons per split: numbers, fractions or None for the rest.
        train_size: use only the first so many training persons.
        exclude_failed_tools: drop training cases in which a tool is suspected to have failed. Validation and test
            keep theirs, so scores stay comparable.
        cache: folder of decoded volumes.
        workers: processes that read training crops; 0 reads in the main process.
        sampling: draws training samples; only needed for training.
        intensity: scales the images; None: by mean and standard deviation of the volume.
        strata: None: deal all persons at once; ``group``: the same number of persons from every group of cases.
        split_seed: None: deal persons in the order of their ids; a number: shuffle them first, the same everywhere.

    Attributes:
        label_maps: target -> LabelMap of the chosen targets, after construction.
        phantom: True when the data are synthetic.
        rules: what a case must have, set by the data set.

    """

    phantom = False
    rules: Rules

    def __init__(
        self,
        label_maps: Mapping[str, Mapping[int, str]],
        targets: Sequence[str] | str,
        split: Mapping[str, int | float | None],
        cache: str | Path,
        train_size: int | None = None,
        exclude_failed_tools: bool = False,
        workers: int = 0,
        sampling: Crops | None = None,
        intensity: Intensity | None = None,
        strata: str | None = None,
        split_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.all_label_maps = {name: LabelMap.from_mapping(name, label_maps[name]) for name in label_maps}
        self.targets = (targets,) if isinstance(targets, str) else tuple(targets)
        for target in self.targets:
            if target not in self.all_label_maps:
                raise ConfigError(f"data.targets: no label map {target}; there are {', '.join(self.all_label_maps)}")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise ConfigError(f"data.targets: expected at least one target, each once, got {list(self.targets)}")
        self.label_maps = {target: self.all_label_maps[target] for target in self.targets}
        self.split, self.train_size, self.exclude_failed_tools = dict(split), train_size, exclude_failed_tools
        self.cache, self.workers, self.sampling = Cache(cache), workers, sampling
        self.intensity = intensity or ZScore()
        if strata not in (None, "group"):
            raise ConfigError(f"data.strata={strata}: expected null or group")
        self.strata, self.split_seed = strata, split_seed
        self._cases: dict[str, list[Case]] | None = None
        self._stream: dict[str, int] | None = None
        self._manifest: Manifest | None = None

    @abstractmethod
    def list_cases(self) -> list[Listed]:
        """Return the cases that the folder promises, from names alone, in the order of their ids.

        Raises DataError when a folder that is needed is absent or holds no case.
        """

    def examine(self, full: bool = False, progress: Progress | None = None) -> Manifest:
        """Return one report per case, decoding what is not in the cache yet.

        ``full`` also reads label maps that the chosen targets do not need, for the comparisons. ``progress`` shows how
        far it is (as `segexp.console.track`). Raises DataError when there are no cases at all.
        """
        rules = replace(self.rules, wanted=self.rules.wanted | self.rules.derived) if full else self.rules
        roots = self.roots
        reports = examine_all([confined(one, roots) for one in self.list_cases()], rules, self.cache, progress)
        return Manifest(tuple(reports), tuple(self.all_label_maps))

    @property
    def roots(self) -> Roots:
        """The folders below which files of the data set may lie."""
        return Roots(*(getattr(self, name, None) for name in ("root", "derived_root", "truth_root")))

    @property
    def reading(self) -> dict[str, str]:
        """What decides, besides the file, which image `label_file` gives the network."""
        unplaced = {} if self.cache.unplaced == "error" else {"unplaced": self.cache.unplaced}
        return {"intensity": repr(self.intensity), **unplaced}

    def label_file(self, path: str | Path, label: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
                   ) -> tuple[dict[str, np.ndarray], Source]:
        """Label an image file that nobody has labelled, read and scaled as in training, without the cache.

        ``label``: image [1, 1, D, H, W] -> target -> class indices [1, D, H, W]. Returns target -> class indices
        [D, H, W] on the file's canonical grid, and that grid for `nifti.write_labels`. Raises DataError when the file
        cannot be used.
        """
        return self.label_read(self.read_file(path), label)

    def read_file(self, path: str | Path, content: bytes | None = None) -> Any:
        """Return what `label_read` needs of an image file: the half of `label_file` that may run in another thread.

        ``content`` are the file's bytes where the caller has them already. Raises DataError as `label_file` does.
        """
        return read_image_case(path, self.intensity, self.cache.unplaced, content)

    def label_read(self, reading: Any, label: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
                   ) -> tuple[dict[str, np.ndarray], Source]:
        """Label what `read_file` returned: the half of `label_file` that uses the network."""
        return {target: found[0].cpu().numpy() for target, found in label(reading["image"]).items()}, reading["source"]

    def with_truth(self, case: Case) -> Case:
        """Return the case with its true label maps, for data sets that have them."""
        return case

    def check(self, progress: Progress | None = None) -> Manifest:
        """Return the completeness check: a report for every case, also of what the chosen targets do not need."""
        manifest = self.examine(full=True, progress=progress)
        self.cache.hashes.save()
        return manifest

    def prepare_data(self) -> None:
        """Check and decode every case; say what cannot be used. Asked again, it is done already."""
        if self._manifest is not None:
            return
        self._manifest = self.check_usable(self.examine(progress=track))
        self.cache.hashes.save()
        rejected = [report for report in self._manifest.reports if report.status == "rejected"]
        if rejected:
            say(f"data: {self._manifest.usable} of {len(self._manifest.reports)} cases are usable; not used:")
            for report in rejected[:SHOWN]:
                say(f"  {report.listed.id}: {report.reason}")
            if len(rejected) > SHOWN:
                say(f"  and {len(rejected) - SHOWN} more")

    def setup(self, stage: str | None = None) -> None:
        """Split the usable cases; needs no repeating for another stage."""
        if self._cases is not None:
            return
        manifest = self._manifest or self.check_usable(self.examine())
        usable = [report.case for report in manifest.reports if report.case is not None]
        dealt = self.deal(usable)
        where = {person: name for name in SPLITS for person in dealt[name]}
        cases: dict[str, list[Case]] = {name: [] for name in SPLITS}
        for case in usable:
            if case.person in where:
                cases[where[case.person]].append(case)
        if self.exclude_failed_tools:
            cases["train"] = [case for case in cases["train"] if not case.suspected]
            if not cases["train"]:
                raise DataError("data.exclude_failed_tools leaves no training case; set it to false")
        for name in ("validation", "test"):
            cases[name] = [self.with_truth(case) for case in cases[name]]
        self.cache.hashes.save()
        self._cases = cases

    def deal(self, usable: Sequence[Case]) -> dict[str, list[str]]:
        """Return split -> persons of the usable cases."""
        strata = {case.person: case.group for case in usable} if self.strata else None
        return split_persons([case.person for case in usable], self.split, self.train_size, strata, self.split_seed)

    def check_usable(self, manifest: Manifest) -> Manifest:
        """Return the manifest; DataError with the reasons when it has no usable case."""
        if manifest.usable:
            return manifest
        shown = "\n".join(f"  {problem}" for problem in manifest.problems()[:SHOWN])
        raise DataError(f"none of the {len(manifest.reports)} cases can be used:\n{shown}")

    def cases(self, split: str) -> list[Case]:
        """Return the cases of ``train``, ``validation`` or ``test``, in the order of their ids."""
        if split not in SPLITS:
            raise ConfigError(f"split={split}: expected one of {', '.join(SPLITS)}")
        self.setup()
        assert self._cases is not None
        return self._cases[split]

    def split_table(self) -> list[tuple[str, str, str]]:
        """Return (case, person, split) of every case in use."""
        return [(case.id, case.person, name) for name in SPLITS for case in self.cases(name)]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the ids and contents of the cases in use and of their splits."""
        digest = hashlib.sha256()
        for name in SPLITS:
            for case in self.cases(name):
                parts = [case.id, name, case.image.key]
                parts += [f"{target}={labels.key}" for target, labels in sorted(case.targets.items())]
                digest.update("\n".join([*parts, ""]).encode())
        return digest.hexdigest()

    def configure_stream(self, seed: int, steps: int, start_step: int = 0, rank: int = 0, world_size: int = 1,
                         batches: int = 1) -> None:
        """Say which part of the stream of training batches to give: steps ``start_step`` .. ``steps`` - 1 of a rank.

        ``batches``: how many a rank takes in one step. See `StepSampler`.
        """
        self._stream = {"steps": steps, "start_step": start_step, "rank": rank, "world_size": world_size,
                        "batches": batches}
        self._seed = seed

    def train_dataloader(self) -> DataLoader:
        """Return the stream of training batches."""
        if self._stream is None or self.sampling is None:
            raise ConfigError("training needs a sampling and configure_stream(seed, steps) first")
        if not self.cases("train"):
            raise ConfigError("data.split.train=0: nothing to train on; these data are for evaluation")
        stream = SampleStream(self.cases("train"), self.targets, self.sampling, self._seed)
        steps = StepSampler(batch_size=self.sampling.batch_size, **self._stream)
        return DataLoader(
            stream, batch_sampler=steps, collate_fn=collate, num_workers=self.workers,
            pin_memory=torch.cuda.is_available(), worker_init_fn=leave_signals_to_the_parent,
        )

    def case_loader(self, split: str) -> DataLoader:
        """Return this process's part of the whole cases of a split, one per batch.

        No case goes to two processes, unless there are fewer cases than processes: none may have nothing to do.
        """
        cases, rank, world = self.cases(split), 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return DataLoader(
            WholeCases(cases[rank::world] or cases[:1]), batch_size=None, collate_fn=as_it_is,
            num_workers=min(self.workers, 1), pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_signals_to_the_parent,
        )

    def val_dataloader(self) -> DataLoader:
        """Return the whole validation cases."""
        return self.case_loader("validation")

    def test_dataloader(self) -> DataLoader:
        """Return the whole test cases."""
        return self.case_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Return the whole test cases."""
        return self.case_loader("test")


def leave_signals_to_the_parent(worker: int) -> None:
    """Let a loader's process outlive a scheduler's SIGTERM to all: the training needs its batch to save the step."""
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
