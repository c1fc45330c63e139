"""``segexp train``: fit, test and record an experiment, or a sweep of them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

SUMMARY = "fit, test and record an experiment; the same line again resumes it or says it is done"
HELP = """\
usage: segexp train [-m] [FLAGS] KEY=VALUE ...
       segexp train --config FILE [--allow-target PREFIX]

Trains one experiment, tests it and records everything in a directory of its own. The same line again goes on where
it was interrupted, or prints the result when it is done. `segexp list experiment` shows what there is.

  segexp train experiment=neuronet/nn_all data.root=/data/ukb trainer=gpu
  segexp train experiment=neuronet/nn_all scale=demo
  segexp train experiment=neuronet/nn_all method/targets=nn_tissue network.variant=paper seed=2
  segexp train -m experiment=neuronet/nn_all,neuronet/nn_tissue seed=1,2,3
  segexp train -m experiment=neuronet/nn_all seed=1,2,3 hydra.launcher.slots=2
  segexp train -m experiment=neuronet/nn_all seed=1,2,3 hydra/launcher=slurm hydra.launcher.partition=gpu

With -m every combination is a job in a process of its own, on this machine (hydra/launcher=local: slots, gpus_per_job)
or on a cluster (hydra/launcher=slurm: partition, timeout_min, gpus_per_node, ...). One that fails does not touch the
others. The same line again starts only what is missing or failed; `segexp sweep` shows and resumes sweeps.

flags:
  -m, --multirun          every combination of the comma-separated values
  --config FILE           a resolved configuration, such as the config.yaml of a run or of a job of a sweep
  --cfg job|hydra|all     print the configuration instead of training (with --resolve: interpolations resolved)
  --info                  print how the configuration was composed
  --config-dir FOLDER     more configuration, laid out like conf/
  --allow-target PREFIX   modules of your own that a `_target_` may name, such as `mylab.`
  --hydra-help            every flag of Hydra
"""


def run(arguments: list[str]) -> int:
    """Look at what was asked for before any work, then train through Hydra."""
    from segexp.config.flags import split_flags
    from segexp.config.paths import search_dirs

    flags = split_flags(arguments)
    words = list(flags.overrides)
    file = resolved_file(words)
    if file is not None:
        from segexp.sweeps.work import train_file

        return train_file(file, flags.allow)
    many = [word for word in words if word in ("-m", "--multirun")]
    rest = [word for word in words if word not in many]
    if not any(word.startswith("-") for word in rest):  # else Hydra only shows something
        check_words(rest, flags, many=bool(many))
    # Hydra's parser loses words that come after a flag in the middle.
    return start([*many[:1], *rest], search_dirs(flags.config_dirs), flags, arguments)


def resolved_file(words: Sequence[str]) -> str | None:
    """Return FILE of ``--config FILE``, None without that flag.

    Raises:
        ConfigError: it has no value, or comes with overrides.
    """
    from segexp.errors import ConfigError

    place = next((index for index, word in enumerate(words) if word.partition("=")[0] == "--config"), None)
    if place is None:
        return None
    _, equals, value = words[place].partition("=")
    rest = [*words[:place], *words[place + 1:]]
    if not equals:
        value = rest.pop(place) if len(rest) > place else ""
    if not value:
        raise ConfigError("--config needs a value: --config FILE, a resolved configuration")
    if rest:
        raise ConfigError(f"--config {value} is a resolved configuration: it takes no {' '.join(rest)}")
    return value


def check_words(words: list[str], flags: Any, many: bool) -> None:
    """Compose the experiment, or the first of a sweep, so that a typo is answered in our words rather than Hydra's.

    Raises:
        ConfigError: it does not compose, or several values were given without ``-m``.

    """
    from pathlib import Path

    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, OverrideParseException

    from segexp.config import compose
    from segexp.config.composition import launcher_settings
    from segexp.errors import ConfigError

    try:
        parsed = OverridesParser.create().parse_overrides(overrides=words)
    except OverrideParseException:
        compose("train", words, flags.config_dirs)  # explains what is wrong
        raise
    sweeps = [item.input_line for item in parsed if item.is_sweep_override()]
    if sweeps and not many:
        raise ConfigError(f"{' '.join(sweeps)} gives several values; add -m to train every combination")
    if many and any(word.startswith("hydra.launcher.") for word in words):
        launcher_settings([word for word in words if word.startswith(("hydra/launcher=", "hydra.launcher."))],
                          flags.config_dirs)
    try:
        first = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0][0] if many else words
    except HydraException as error:
        raise ConfigError(str(error)) from error
    outputs = Path(compose("train", first, flags.config_dirs).paths.outputs)
    outputs.mkdir(parents=True, exist_ok=True)  # Hydra would, and print a traceback where it cannot


def start(words: list[str], folders: list[Any], flags: Any, arguments: list[str]) -> int:
    """Hand over to Hydra, which reads ``sys.argv``."""
    import hydra

    from segexp.config.composition import VERSION_BASE, searchpath
    from segexp.config.resolvers import register_resolvers

    register_resolvers()
    original = sys.argv
    failures: list[BaseException] = []

    def job(config: Any) -> None:
        refuse_unsafe(config)
        train_one(config, ["segexp", "train", *arguments], flags.allow)

    def alone(config: Any) -> None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        sys.argv = original
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return job(config)  # in a launcher of somebody else's, which has to see the error
        try:
            train_one(config, ["segexp", "train", *arguments], flags.allow)
        except BaseException as error:  # Hydra would print our own errors as its own
            failures.append(error)

    def sweep(settings: Mapping[str, Any], combinations: Sequence[Sequence[str]]) -> None:
        sys.argv = original
        try:
            train_many(settings, combinations, flags, ["segexp", "train", *arguments])
        except BaseException as error:
            failures.append(error)

    alone.sweep = sweep  # type: ignore[attr-defined]
    register_launchers()
    main = hydra.main(config_path=str(folders[0]), config_name="train", version_base=VERSION_BASE)(alone)
    sys.argv = [original[0], *searchpath(folders), *words]
    try:
        main()
    finally:
        sys.argv = original
    if failures:
        raise failures[0]
    return 0


def register_launchers() -> None:
    """Make our launchers known to Hydra, which takes them from an importable ``hydra_plugins`` only."""
    from importlib import import_module

    from hydra.core.plugins import Plugins

    from segexp.config.paths import plugins_dir

    plugins = str(plugins_dir())
    if plugins not in sys.path:
        sys.path.append(plugins)
    module = import_module("hydra_plugins.segexp_launcher")
    for name in module.__all__:
        Plugins.instance().register(getattr(module, name))  # Hydra may have looked for plugins before


def refuse_unsafe(config: Any) -> None:
    """Say what another launcher of Hydra's does not do, and refuse what would start a sweep in every rank.

    Raises:
        ConfigError: a job trains on several devices.
    """
    from segexp.console import say
    from segexp.errors import ConfigError
    from segexp.sweeps.job import devices_of

    instead = "leave hydra/launcher out (a process per job on this machine), or use hydra/launcher=slurm"
    if devices_of(config.trainer) != 1 or int(config.trainer.get("num_nodes", 1)) > 1:
        raise ConfigError(f"this launcher of Hydra's cannot train one job on several devices; {instead}")
    say(f"caution: this launcher of Hydra's does not keep jobs apart: one that dies may take the others with it; "
        f"{instead}")


def train_one(config: Any, command: list[str], allow: tuple[str, ...]) -> None:
    """Train one configuration and print its result."""
    from segexp.console import say
    from segexp.runs.directory import locate_run
    from segexp.runs.ranks import launch, rank
    from segexp.runs.summary import describe
    from segexp.runs.training import check_or_raise, moved, train

    run = locate_run(config)
    already = run.status == "done" and not moved(run, config)
    if not already:
        check_or_raise(config, allow)  # before any rank starts
        code = launch(config, command[1:])
        if code:
            raise ended(code)
        if code == 0:
            return  # the first rank has said the result
        run = train(config, command, allow)
    if rank() == 0:
        say(f"{run.id} is done" + (" already" if already else ""))
        say(describe(run))


def ended(code: int) -> Exception:
    """Return the error of ranks that ended with ``code``; they have said why."""
    from segexp.errors import SegexpError

    error = SegexpError(f"the ranks ended with exit code {code}")
    error.exit_code = code
    return error


def train_many(settings: Mapping[str, Any], combinations: Sequence[Sequence[str]], flags: Any,
               command: list[str]) -> None:
    """Train every combination of a sweep, each as a job of its own.

    Raises:
        PartialError: some jobs are not done.
        SegexpError: the only job is not done, or the sweep cannot be written.
    """
    from segexp.console import say
    from segexp.runs.summary import describe
    from segexp.sweeps.combinations import compose_jobs, sweep_name
    from segexp.sweeps.controller import raise_failures
    from segexp.sweeps.drive import drive, make_executor
    from segexp.sweeps.manifest import create_sweep

    if settings["kind"] == "local":
        from segexp.sweeps.forking import warm_up

        warm_up()  # while the combinations are composed
    jobs = compose_jobs(combinations, flags.config_dirs, flags.allow, warm=settings["kind"] == "local")
    sweep = create_sweep(jobs[0].config["paths"]["outputs"], sweep_name(jobs), jobs, command=command,
                         launcher=settings)
    say(f"sweep {sweep.name}: {len(jobs)} jobs")
    outcomes = drive(sweep, make_executor(sweep, settings, flags.allow))
    raise_failures(outcomes, f"the same line, or segexp sweep retry {sweep.name}, starts them again")
    if len(jobs) == 1:
        say(describe(jobs[0].run))
    say(f"sweep {sweep.name}: all done; segexp sweep status {sweep.name} lists the runs")
