"""Fit, test and record one run; or go on with it; or say that it is done."""

import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from segexp.config.objects import instantiate, plain
from segexp.console import logged_to, say
from segexp.errors import Preempted, SegexpError
from segexp.files import write_text
from segexp.runs import ranks
from segexp.runs.directory import Run, locate_run
from segexp.runs.records import now, record_name, record_result, record_start, record_training, reset_peak
from segexp.runs.stopping import Listening, StopRequest


def train(config: Any, command: Sequence[str] = (), allow: Sequence[str] = ()) -> Run:
    """Train and test what ``config`` describes and return its run, which is then done.

    A run that is done is returned as it is; any other goes on from its last checkpoint, to the numbers of a run that
    was never disturbed. One of several ranks does its part and leaves the writing to the first.

    Args:
        config: a composed ``train`` configuration; ``paths.run`` and ``start_step`` are filled in.
        command: the words that started it, for the record.
        allow: module prefixes of the user that a ``_target_`` may name.

    Raises:
        ConfigError: the configuration does not fit together.
        DataError: the data cannot be used.
        BusyError: another process writes the run.
        Preempted: SIGTERM or SIGUSR2 came; the run is saved at the end of a step.
        SegexpError: the run's data have changed since it started.

    """
    check_or_raise(config, allow)
    run, request = locate_run(config), StopRequest()
    first = ranks.rank() == 0
    with request.listening(), run.hold() if first else nullcontext():
        if run.status_on_disk == "done" and not moved(run, config):
            return run
        if not first:
            execute(run, config, allow, request)
            return run
        with logged_to(run.path / "log.txt"):
            recorded(run, config, command, allow, request)
    return run


def recorded(run: Run, config: Any, command: Sequence[str], allow: Sequence[str], request: StopRequest) -> None:
    """Train, and write in run.json how it ended."""
    known = run.info
    if run.status_on_disk != "done":
        record_name(run, config, command)
    try:
        execute(run, config, allow, request)
    except DataChanged:
        run.update(**{key: known.get(key) for key in ("status", "error", "finished", "command")})
        raise  # the run itself is as good as before
    except BaseException as error:
        if request.signal is not None and not isinstance(error, Preempted | KeyboardInterrupt):
            # What broke while everything was asked to stop: loaders, loggers and other ranks are stopped too.
            say(f"{run.id}: {type(error).__name__} while stopping: {error}")
            error = request.exception()
        from segexp.runs.guards import explained

        error = explained(error)
        try:
            end(run, error)
        except OSError as full:  # a full disk, perhaps the very error: what is held no longer says interrupted
            say(f"{run.id}: how it ended could not be recorded ({full.strerror})")
        raise error from None


def end(run: Run, error: BaseException) -> None:
    """Write how a run ended that is not done."""
    if isinstance(error, Preempted | KeyboardInterrupt):
        status = "preempted" if isinstance(error, Preempted) else "interrupted"
        run.update(status=status, finished=now())
        from segexp.runs.checkpoints import resume_point

        say(f"{run.id}: {status}; the same command goes on from step {resume_point(run)[1]}")
        return
    run.update(status="failed", error=f"{type(error).__name__}: {error}", finished=now())
    write_text(run.path / "error.txt", "".join(traceback.format_exception(error)))


def check_or_raise(config: Any, allow: Sequence[str]) -> None:
    """Raise one ConfigError that lists everything in ``config`` that does not fit."""
    from segexp.config import check
    from segexp.errors import ConfigError
    from segexp.machine.precision import refuse_slow_precision

    problems = check(config, allow=allow, may_miss=())
    if problems:
        raise ConfigError("\n".join(str(problem) for problem in problems))
    refuse_slow_precision(config)


def moved(run: Run, config: Any) -> bool:
    """Say whether the data now lie somewhere else than when the run was trained."""
    then = run.config()["data"].get("root")
    return Path(str(then)).resolve() != Path(str(config.data.root)).resolve()


def execute(run: Run, config: Any, allow: Sequence[str], request: StopRequest) -> None:
    """Prepare the data, compare them with those of an earlier start, then fit, test and record."""
    import pytorch_lightning as pl
    import torch

    quiet()
    if config.threads:
        torch.set_num_threads(config.threads)
    pl.seed_everything(config.seed, verbose=False)
    datamodule = instantiate(config.data, allow=allow, sampling=instantiate(config.sampling, allow=allow))
    module = make_module(config, datamodule.label_maps, allow)  # wrong settings end here, before any work
    with ranks.together(config):
        if ranks.local_rank() == 0:
            datamodule.prepare_data()
        ranks.wait()
        datamodule.setup()
        compare_data(run, config, datamodule)
        if run.status_on_disk == "done":
            return
        fit_and_test(run, config, module, datamodule, allow, request)


class DataChanged(SegexpError):
    """The data of a run are not those that it was started with."""

    exit_code = 3


def compare_data(run: Run, config: Any, datamodule: Any) -> None:
    """Raise DataChanged when the data are not those of the run's earlier start."""
    known = run.info.get("data_fingerprint")
    if known and known != datamodule.fingerprint:
        raise DataChanged(
            f"run {run.id} was trained on other data than {config.data.root} holds now (fingerprint {known[:8]}, now "
            f"{datamodule.fingerprint[:8]}); keep both with tag=NAME, or forget it with: segexp runs remove {run.id}"
        )


def make_module(config: Any, label_maps: Mapping[str, Any], allow: Sequence[str] = ()) -> Any:
    """Make the LightningModule of a configuration, with fresh weights."""
    parts = {key: instantiate(config[key], allow=allow)
             for key in ("network", "loss", "optimizer", "scheduler", "inference")}
    return instantiate(config.method, allow=allow, scorer=instantiate(config.metrics, allow=allow),
                       label_maps=label_maps, **parts)


def fit_and_test(run: Run, config: Any, module: Any, datamodule: Any, allow: Sequence[str],
                 request: StopRequest) -> None:
    """Run Lightning's Trainer from the last checkpoint on, and write what came out."""
    from segexp.runs.checkpoints import clear_leftovers, resume_point, validation_due

    first = ranks.rank() == 0
    if first:
        clear_leftovers(run)
    checkpoint, start = ranks.agree(resume_point(run) if first else None)
    config.paths.run, config.start_step = str(run.path), start
    if first:
        record_start(run, config, datamodule)
        say(f"{run.id}: {f'goes on from step {start}' if start else 'starts'}, {config.steps} steps, "
            f"{len(datamodule.cases('train'))} training, {len(datamodule.cases('validation'))} validation and "
            f"{len(datamodule.cases('test'))} test cases" + (" (phantoms)" if datamodule.phantom else ""))
    trainer = make_trainer(run, config, datamodule, allow, request)
    for logger in trainer.loggers:
        logger.log_hyperparams(plain(config))
    started = time.monotonic()
    reset_peak()
    request.waits = True
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        if trainer.interrupted or trainer.global_step < config.steps:
            raise KeyboardInterrupt
        seconds = time.monotonic() - started
        if start == config.steps and validation_due(trainer):
            trainer.validate(module, datamodule=datamodule, verbose=False)  # it was stopped in its last validation
        if first:
            record_training(run, trainer, seconds)
        trainer.test(module, datamodule=datamodule, verbose=False)
    except SystemExit as error:  # what Lightning makes of Ctrl-C; without a signal, somebody's own exit()
        raise (error if request.signal is None else request.exception()) from None
    if first:
        run.update(facts=module.facts, cautions=module.cautions)
        record_result(run, module.rows, seconds)


def make_trainer(run: Run, config: Any, datamodule: Any, allow: Sequence[str], request: StopRequest) -> Any:
    """Return Lightning's Trainer for this process, and let the data module deal it its part of every step."""
    from segexp.data.sampling import StepSampler
    from segexp.runs.checkpoints import Checkpoint, CheckpointFiles, StepSeeds
    from segexp.runs.statistics import RunningStatistics

    here, nodes = ranks.world()
    total, batches = here * nodes, config.trainer.get("accumulate_grad_batches", 1)
    mine = ranks.share(batches, total)
    dealt = {"rank": ranks.rank(), "world_size": total} if mine < batches else {}
    if total > 1 and not dealt:
        say(f"{run.id}: {total} ranks cannot share {batches} batch{'es' * (batches != 1)} per step, so every rank "
            f"computes all of it; to use them for training set trainer.accumulate_grad_batches={total} (another run)")
    part = {"steps": config.steps, "start_step": config.start_step, "batches": mine, **dealt}
    datamodule.configure_stream(seed=config.seed, **part)
    callbacks = [Listening(request), StepSeeds(config.seed, StepSampler(batch_size=1, **part).number)]
    if dealt:
        callbacks.append(RunningStatistics())
    # Pictures, progress and curves are the first rank's; what changes or ends a training is everybody's.
    chosen = [callback for callback in instantiate(config.callbacks, allow=allow).values()
              if ranks.rank() == 0 or getattr(callback, "every_rank", False)]
    # Checkpoints come last: what the others look at or do in a step is done when it is saved.
    callbacks += sorted(chosen, key=lambda callback: isinstance(callback, Checkpoint))
    for callback in callbacks:
        if isinstance(callback, Checkpoint):
            callback.request = request
    loggers = [*instantiate(config.logger, allow=allow).values()] if ranks.rank() == 0 else False
    return instantiate(
        config.trainer, allow=allow, max_steps=config.steps, max_epochs=-1, callbacks=callbacks, logger=loggers,
        plugins=[CheckpointFiles(), *ranks.environment()], default_root_dir=run.path, accumulate_grad_batches=mine,
        val_check_interval=min(config.validate_every, config.steps) * mine, check_val_every_n_epoch=None,
        # The data module deals cases and crops to ranks itself; our own callbacks keep checkpoints and show progress.
        use_distributed_sampler=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **ranks.trainer_settings(config),
    )


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
        ".*using a DistributedSampler.*", ".*find_unused_parameters=True was specified.*",  # as the ranks need it
    ):
        warnings.filterwarnings("ignore", message=message)
