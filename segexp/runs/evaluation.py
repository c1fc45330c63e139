"""Scoring a finished run again: on another split, with other metrics, or on other data."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segexp.runs.directory import Run


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run.

    Attributes:
        run: a finished run.
        changes: overrides of the run's own configuration, such as ``data=cain``, ``data.root=/data/cain``.
        split: train, validation or test.
        output: where the scores go; None: a folder of the run, named by split and changes.
    """

    run: Run
    changes: tuple[str, ...] = ()
    split: str = "test"
    output: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the scores are."""
        if self.output is not None:
            return self.output
        digest = hashlib.sha256(" ".join(sorted(self.changes)).encode()).hexdigest()[:8]
        return self.run.path / "evaluations" / f"{self.split}-{digest}"

    @property
    def scores_file(self) -> Path:
        """The score rows."""
        return self.folder / "scores.csv"

    @property
    def done(self) -> bool:
        """Say whether the scores are there and come from the run's present weights."""
        record = self.record()
        return (bool(record) and self.scores_file.exists()
                and record.get("checkpoint_sha256") == checkpoint_of(self.run))

    def record(self) -> dict[str, Any]:
        """Return what is known about a finished evaluation; empty before."""
        try:
            return dict(json.loads((self.folder / "evaluation.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}


def checkpoint_of(run: Run) -> str | None:
    """Return the SHA-256 of the weights that a finished run was tested with."""
    return run.info.get("resources", {}).get("checkpoint_sha256")


def evaluate(evaluation: Evaluation, config_dirs: Sequence[str] = (), allow: Sequence[str] = ()) -> Evaluation:
    """Score the run as asked and write ``scores.csv`` and ``evaluation.json``.

    Raises:
        ConfigError: a key or an option that does not exist.
        DataError: the data cannot be used, or the split has no case.
        SegexpError: the run is not done, or its weights do not fit the configuration.
    """
    import pytorch_lightning as pl

    from segexp.errors import DataError
    from segexp.files import write_json
    from segexp.metrics.scores import write_scores
    from segexp.runs.records import now
    from segexp.runs.restore import changed_config, restore, restore_data
    from segexp.runs.training import quiet

    run, folder = evaluation.run, evaluation.folder
    config = changed_config(run, evaluation.changes, config_dirs)
    quiet()
    pl.seed_everything(config.seed, verbose=False)
    datamodule = restore_data(run, config, allow)
    datamodule.prepare_data()
    datamodule.setup()
    if not datamodule.cases(evaluation.split):
        raise DataError(f"{config.data.root}: the split {evaluation.split} has no case")
    module = restore(run, config, datamodule.label_maps, allow)
    rows = score(config, module, datamodule.case_loader(evaluation.split), folder, allow)
    write_scores(rows, evaluation.scores_file)
    write_json(folder / "evaluation.json", {
        "run": run.id, "changes": list(evaluation.changes), "split": evaluation.split,
        "checkpoint_sha256": checkpoint_of(run), "data_fingerprint": datamodule.fingerprint,
        "phantom": datamodule.phantom, "finished": now(),
    })
    return evaluation


def score(config: Any, module: Any, loader: Any, folder: Path, allow: Sequence[str]) -> list[dict[str, Any]]:
    """Run Lightning's test loop over ``loader`` and return the score rows."""
    from segexp.config import instantiate
    from segexp.runs.callbacks import Progress

    # One process, whatever the run was trained on.
    trainer = instantiate(config.trainer, allow=allow, devices=1, num_nodes=1, strategy="auto", logger=False,
                          callbacks=[Progress(None, config.name)],
                          enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                          use_distributed_sampler=False, default_root_dir=folder)
    trainer.test(module, dataloaders=loader, verbose=False)
    return module.rows
