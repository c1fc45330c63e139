"""``segexp evaluate``: score a finished run again, on its own or on other data."""

SUMMARY = "score a finished run, on its own data or on other data"
HELP = """\
usage: segexp evaluate run=RUN [split=test] [output=FOLDER] [KEY=VALUE ...]

Scores a finished run again. Every other key changes the run's own configuration: other data, metrics or inference.
Writes scores.csv and prints the means; the run itself stays as it is.

  segexp evaluate run=nn_all-seed1 metrics=surface
  segexp evaluate run=nn_all-seed1 data.root=/other/ukb split=validation
  segexp evaluate run=outputs/runs/neuronet/nn_all-seed1-3f2a9c1b inference=sliding_window

RUN is a directory, an id, or the beginning of an id (see `segexp runs`).
"""
OWN = ("run", "split", "output", "paths.outputs")


def run(arguments: list[str]) -> None:
    """Score the run and print the result."""
    from segexp.config import compose, instantiate
    from segexp.config.flags import split_flags
    from segexp.console import say
    from segexp.errors import ConfigError
    from segexp.runs.directory import get_run
    from segexp.runs.restore import changed_config, restore
    from segexp.runs.training import quiet

    flags = split_flags(arguments)
    own = [word for word in flags.overrides if word.partition("=")[0] in OWN]
    changes = [word for word in flags.overrides if word not in own]
    options = compose("evaluate", own, flags.config_dirs)
    splits = ("train", "validation", "test")
    if options.split not in splits:
        raise ConfigError(f"split={options.split}: expected one of {', '.join(splits)}")
    trained = get_run(options.paths.outputs, required(options, "run"))
    config = changed_config(trained, changes, flags.config_dirs)
    quiet()
    import pytorch_lightning as pl

    pl.seed_everything(config.seed, verbose=False)
    datamodule = instantiate(config.data, allow=flags.allow, sampling=instantiate(config.sampling, allow=flags.allow))
    datamodule.prepare_data()
    datamodule.setup()
    module = restore(trained, config, datamodule.label_maps, flags.allow)
    folder = output_folder(trained, options, changes)
    rows = score(config, module, datamodule.case_loader(options.split), folder, flags.allow)

    from segexp.metrics.scores import write_scores
    from segexp.runs.summary import describe_scores

    write_scores(rows, folder / "scores.csv")
    say(describe_scores(folder / "scores.csv", datamodule.phantom))


def required(options: object, key: str) -> str:
    """Return a value that the user has to give.

    Raises:
        ConfigError: it was not given.

    """
    from omegaconf import OmegaConf

    from segexp.errors import ConfigError

    if OmegaConf.is_missing(options, key):
        raise ConfigError(f"{key}= is missing; see --help for an example")
    return str(options[key])


def output_folder(trained: object, options: object, changes: list[str]) -> object:
    """Return where the scores go: the user's folder, or one below the run named by split and changes."""
    import hashlib
    from pathlib import Path

    if options.output:
        return Path(options.output)
    digest = hashlib.sha256(" ".join(sorted(changes)).encode()).hexdigest()[:8]
    return trained.path / "evaluations" / f"{options.split}-{digest}"


def score(config: object, module: object, loader: object, folder: object, allow: tuple[str, ...]) -> list[dict]:
    """Run Lightning's test loop over ``loader`` and return the score rows."""
    from segexp.config import instantiate
    from segexp.runs.callbacks import Progress

    trainer = instantiate(config.trainer, allow=allow, logger=False, callbacks=[Progress(None, config.name)],
                          enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                          use_distributed_sampler=False, default_root_dir=folder)
    trainer.test(module, dataloaders=loader, verbose=False)
    return module.rows
