"""``segexp train``: fit, test and record an experiment, or a sweep of them."""

import sys
from typing import Any

SUMMARY = "fit, test and record an experiment; the same line again resumes it or says it is done"
HELP = """\
usage: segexp train [-m] [FLAGS] KEY=VALUE ...

Trains one experiment, tests it and records everything in a directory of its own. The same line again goes on where
it was interrupted, or prints the result when it is done. `segexp list experiment` shows what there is.

  segexp train experiment=neuronet/nn_all data.root=/data/ukb trainer=gpu
  segexp train experiment=neuronet/nn_all scale=demo
  segexp train experiment=neuronet/nn_all method/targets=nn_tissue network.variant=paper seed=2
  segexp train -m experiment=neuronet/nn_all,neuronet/nn_tissue seed=1,2,3

flags:
  -m, --multirun          every combination of the comma-separated values, one after the other
  --cfg job|hydra|all     print the configuration instead of training (with --resolve: interpolations resolved)
  --info                  print how the configuration was composed
  --config-dir FOLDER     more configuration, laid out like conf/
  --allow-target PREFIX   modules of your own that a `_target_` may name, such as `mylab.`
  --hydra-help            every flag of Hydra
"""


def run(arguments: list[str]) -> int:
    """Check every combination before the first starts, then train through Hydra."""
    from segexp.config.flags import split_flags
    from segexp.config.paths import search_dirs

    flags = split_flags(arguments)
    words = list(flags.overrides)
    many = [word for word in words if word in ("-m", "--multirun")]
    rest = [word for word in words if word not in many]
    if not any(word.startswith("-") for word in rest):  # else Hydra only shows something
        check_combinations(rest, flags, many=bool(many))
    # Hydra's parser loses words that come after a flag in the middle.
    return start([*many[:1], *rest], search_dirs(flags.config_dirs), flags.allow)


def check_combinations(words: list[str], flags: Any, many: bool) -> None:
    """Compose every combination of a sweep, so that a typo is answered before any work.

    Raises:
        ConfigError: a combination does not compose, or several values were given without ``-m``.

    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    from segexp.config import compose
    from segexp.errors import ConfigError

    try:
        parsed = OverridesParser.create().parse_overrides(overrides=words)
    except OverrideParseException:
        compose("train", words, flags.config_dirs)  # explains what is wrong
        raise
    sweeps = [item.input_line for item in parsed if item.is_sweep_override()]
    if sweeps and not many:
        raise ConfigError(f"{' '.join(sweeps)} gives several values; add -m to train them one after the other")
    batches = BasicSweeper.split_arguments(parsed, max_batch_size=None) if many else [[words]]
    for batch in batches:
        for overrides in batch:
            compose("train", list(overrides), flags.config_dirs)


def start(words: list[str], folders: list[Any], allow: tuple[str, ...]) -> int:
    """Hand over to Hydra: it reads ``sys.argv``, which the ranks of a distributed training need unchanged."""
    import hydra

    from segexp.config.composition import VERSION_BASE, searchpath
    from segexp.config.resolvers import register_resolvers

    register_resolvers()
    original = sys.argv
    failures: list[tuple[str, Exception]] = []

    @hydra.main(config_path=str(folders[0]), config_name="train", version_base=VERSION_BASE)
    def job(config: Any) -> None:
        sys.argv = original
        try:
            train_one(config, original, allow)
        except Exception as error:  # Hydra would end the sweep, and print our own errors as its own
            failures.append((f"{config.name}, seed {config.seed}", error))

    sys.argv = [original[0], *searchpath(folders), *words]
    try:
        job()
    finally:
        sys.argv = original
    if len(failures) == 1:
        raise failures[0][1]
    if failures:
        from segexp.errors import PartialError

        raise PartialError("these runs failed:\n" + "\n".join(f"  {name}: {error}" for name, error in failures))
    return 0


def train_one(config: Any, command: list[str], allow: tuple[str, ...]) -> None:
    """Train one configuration and print its result."""
    from segexp.console import say
    from segexp.runs.directory import locate_run
    from segexp.runs.summary import describe
    from segexp.runs.training import moved, train

    run = locate_run(config)
    already = run.status == "done"
    if not already or moved(run, config):
        run = train(config, command, allow)
    say(f"{run.id} is done" + (" already" if already else ""))
    say(describe(run))
