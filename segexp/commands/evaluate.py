"""``segexp evaluate``: score a finished run again, on its own or on other data."""

SUMMARY = "score a finished run, on its own data or on other data"
HELP = """\
usage: segexp evaluate run=RUN [split=test] [output=FOLDER] [KEY=VALUE ...]

Scores a finished run again. Every other key changes the run's own configuration: other data, metrics or inference.
Writes scores.csv and prints the means; the run itself stays as it is.

  segexp evaluate run=nn_all-seed1 metrics=surface
  segexp evaluate run=nn_all-seed1 data.root=/other/ukb split=validation
  segexp evaluate run=siamese-seed1 data=cain data.root=/data/cain
  segexp evaluate run=outputs/runs/neuronet/nn_all-seed1-3f2a9c1b inference=sliding_window

RUN is a directory, an id, or the beginning of an id (see `segexp runs`).
"""
OWN = ("run", "split", "output", "paths.outputs")


def run(arguments: list[str]) -> None:
    """Score the run and print the result."""
    from pathlib import Path

    from segexp.config import compose
    from segexp.config.flags import split_flags
    from segexp.console import say
    from segexp.errors import ConfigError
    from segexp.runs.directory import get_run
    from segexp.runs.evaluation import Evaluation, evaluate
    from segexp.runs.summary import describe_scores

    flags = split_flags(arguments)
    own = [word for word in flags.overrides if word.partition("=")[0] in OWN]
    changes = [word for word in flags.overrides if word not in own]
    options = compose("evaluate", own, flags.config_dirs)
    splits = ("train", "validation", "test")
    if options.split not in splits:
        raise ConfigError(f"split={options.split}: expected one of {', '.join(splits)}")
    trained = get_run(options.paths.outputs, required(options, "run"))
    evaluation = evaluate(
        Evaluation(trained, tuple(changes), options.split, Path(options.output) if options.output else None),
        flags.config_dirs, flags.allow,
    )
    say(describe_scores(evaluation.scores_file, evaluation.record()["phantom"]))


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
