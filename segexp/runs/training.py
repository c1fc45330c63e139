"""Fit, test and record one run; or go on with it; or say that it is done."""

import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segexp.config.objects import instantiate, plain
from segexp.console import duration, logged_to, say
from segexp.errors import SegexpError
from segexp.files import sha256, write_text
from segexp.runs.directory import SCHEMA, Run, locate_run


def train(config: Any, command: Sequence[str] = (), allow: Sequence[str] = ()) -> Run:
    """Train and test what ``config`` describes and return its run, which is then done.

    A run that is done is returned as it is; an interrupted or failed one goes on from its last checkpoint.

    Args:
        config: a composed ``train`` configuration; ``paths.run`` and ``start_step`` are filled in.
        command: the words that started it, for the record.
        allow: module prefixes of the user that a ``_target_`` may name.

    Raises:
        ConfigError: the configuration does not fit together.
        DataError: the data cannot be used.
        SegexpError: another process writes the run, or its data have changed since it started.

    """
    check_or_raise(config, allow)
    run = locate_run(config)
    with run.hold():
        if run.status_on_disk == "done" and not moved(run, config):
            return run
        with logged_to(run.path / "log.txt"):
            try:
                execute(run, config, command, allow)
            except KeyboardInterrupt:
                run.update(status="interrupted", finished=now())
                say(f"{run.id}: interrupted; the same command goes on from step {checkpoint_step(run)}")
                raise
            except DataChanged:
                raise  # the run itself is as good as before
            except Exception as error:
                run.update(status="failed", error=f"{type(error).__name__}: {error}", finished=now())
                write_text(run.path / "error.txt", "".join(traceback.format_exception(error)))
                raise
    return run


def check_or_raise(config: Any, allow: Sequence[str]) -> None:
    """Raise one ConfigError that lists everything in ``config`` that does not fit."""
    from segexp.config import check
    from segexp.errors import ConfigError

    problems = check(config, allow=allow, may_miss=())
    if problems:
        raise ConfigError("\n".join(str(problem) for problem in problems))


def moved(run: Run, config: Any) -> bool:
    """Say whether the data now lie somewhere else than when the run was trained."""
    then = run.config()["data"].get("root")
    return Path(str(then)).resolve() != Path(str(config.data.root)).resolve()


def execute(run: Run, config: Any, command: Sequence[str], allow: Sequence[str]) -> None:
    """Prepare the data, compare them with those of an earlier start, then fit, test and record."""
    import pytorch_lightning as pl
    import torch

    quiet()
    if config.threads:
        torch.set_num_threads(config.threads)
    pl.seed_everything(config.seed, verbose=False)
    datamodule = instantiate(config.data, allow=allow, sampling=instantiate(config.sampling, allow=allow))
    module = make_module(config, datamodule.label_maps, allow)  # wrong settings end here, before any work
    datamodule.prepare_data()
    datamodule.setup()
    known = run.info.get("data_fingerprint")
    if known and known != datamodule.fingerprint:
        raise DataChanged(
            f"run {run.id} was trained on other data than {config.data.root} holds now (fingerprint {known[:8]}, now "
            f"{datamodule.fingerprint[:8]}); keep both with tag=NAME, or forget it with: segexp runs remove {run.id}"
        )
    if run.status_on_disk == "done":
        return
    start = checkpoint_step(run)
    config.paths.run, config.start_step = str(run.path), start
    record_start(run, config, datamodule, command)
    say(f"{run.id}: {f'goes on from step {start}' if start else 'starts'}, {config.steps} steps, "
        f"{len(datamodule.cases('train'))} training, {len(datamodule.cases('validation'))} validation and "
        f"{len(datamodule.cases('test'))} test cases" + (" (phantoms)" if datamodule.phantom else ""))
    fit_and_test(run, config, module, datamodule, allow)


class DataChanged(SegexpError):
    """The data of a run are not those that it was started with."""

    exit_code = 3


def make_module(config: Any, label_maps: Mapping[str, Any], allow: Sequence[str] = ()) -> Any:
    """Make the LightningModule of a configuration, with fresh weights."""
    parts = {key: instantiate(config[key], allow=allow)
             for key in ("network", "loss", "optimizer", "scheduler", "inference")}
    return instantiate(config.method, allow=allow, scorer=instantiate(config.metrics, allow=allow),
                       label_maps=label_maps, **parts)


def fit_and_test(run: Run, config: Any, module: Any, datamodule: Any, allow: Sequence[str]) -> None:
    """Run Lightning's Trainer and write what came out."""
    callbacks = [*instantiate(config.callbacks, allow=allow).values()]
    loggers = [*instantiate(config.logger, allow=allow).values()]
    trainer = instantiate(
        config.trainer, allow=allow, max_steps=config.steps, max_epochs=-1, callbacks=callbacks, logger=loggers,
        default_root_dir=run.path, val_check_interval=min(config.validate_every, config.steps),
        check_val_every_n_epoch=None,
        # The data module deals cases and crops to ranks itself; our own callbacks keep checkpoints and show progress.
        use_distributed_sampler=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )
    datamodule.configure_stream(seed=config.seed, steps=config.steps * trainer.accumulate_grad_batches,
                                start_step=config.start_step * trainer.accumulate_grad_batches,
                                rank=trainer.global_rank, world_size=trainer.world_size)
    for logger in loggers:
        logger.log_hyperparams(plain(config))
    started = time.monotonic()
    reset_peak()
    trainer.fit(module, datamodule=datamodule, ckpt_path=str(run.checkpoint) if config.start_step else None,
                weights_only=True)
    if trainer.interrupted or trainer.global_step < config.steps:
        raise KeyboardInterrupt
    trained = time.monotonic() - started
    resources = {"train_seconds": round(run.info.get("resources", {}).get("train_seconds", 0) + trained, 1),
                 "peak_memory_gb": round(peak_memory(trainer), 3), "device": device_name(trainer),
                 "checkpoint_sha256": sha256(run.checkpoint)}
    run.update(resources=resources)
    trainer.test(module, datamodule=datamodule, verbose=False)
    run.update(facts=module.facts, cautions=module.cautions)
    finish(run, module.rows, trained)


def finish(run: Run, rows: Sequence[Mapping[str, Any]], trained: float) -> None:
    """Write the scores and the page, and mark the run as done."""
    from segexp.metrics.scores import write_scores
    from segexp.reports.page import write_run_page

    write_scores(rows, run.path / "scores.csv")
    (run.path / "error.txt").unlink(missing_ok=True)
    run.update(status="done", finished=now(), error=None)
    (run.path / "progress.json").unlink(missing_ok=True)
    write_run_page(run)
    say(f"{run.id}: done, trained in {duration(trained)}")


def record_start(run: Run, config: Any, datamodule: Any, command: Sequence[str]) -> None:
    """Write what the run is before its first step."""
    import pandas as pd
    import yaml

    from segexp.runs import provenance

    content = plain(config)
    write_text(run.path / "config.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    table = pd.DataFrame(datamodule.split_table(), columns=["case", "person", "split"])
    write_text(run.path / "split.csv", table.to_csv(index=False))
    difference = provenance.git_diff()
    if difference:
        write_text(run.path / "code.diff", difference)
    run.update(
        schema=SCHEMA, id=run.id, hash=run.hash, name=config.name, status="running", seed=config.seed,
        scale=config.scale.name, phantom=datamodule.phantom, data_fingerprint=datamodule.fingerprint,
        command=" ".join(command), git=provenance.git_state(), packages=provenance.packages(),
        hardware=provenance.hardware(), started=run.info.get("started", now()), finished=None, steps=config.steps,
        error=None,
    )


def checkpoint_step(run: Run) -> int:
    """Return the optimiser steps behind the last checkpoint; 0 without one that can be loaded."""
    import torch

    if not run.checkpoint.exists():
        return 0
    try:
        return int(torch.load(run.checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception as error:
        say(f"{run.checkpoint} cannot be loaded ({type(error).__name__}: {error}); the run starts from step 0")
        return 0


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def reset_peak() -> None:
    """Forget the GPU memory used before training."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory(trainer: Any) -> float:
    """Return the peak in GB: of the GPU where one trains, else of the process."""
    import torch

    from segexp.runs.provenance import peak_memory_gb

    return torch.cuda.max_memory_allocated() / 1e9 if trainer.strategy.root_device.type == "cuda" else peak_memory_gb()


def device_name(trainer: Any) -> str:
    """Return the name of the training device."""
    import torch

    from segexp.runs.provenance import processor

    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}: {processor()}"


def quiet() -> None:
    """Silence what Lightning says about choices that are made on purpose here."""
    import logging

    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # crops are read in well under a step; workers are a key of the data
        ".*num_workers.*",
        ".*is smaller than the logging interval.*",
        ".*not resumable.*", ".*resum.*mid-epoch.*",  # the stream of crops knows the step that it starts from
        ".*Detected call of `lr_scheduler.step.*",  # false alarm of OneCycleLR when resumed
        ".*GPU available but not used.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*Trying to infer the `batch_size`.*",
    ):
        warnings.filterwarnings("ignore", message=message)
