"""``segexp tune``: search for hyper-parameters."""

from collections.abc import Sequence
from typing import Any

SUMMARY = "search for hyper-parameters: Optuna asks, every trial is a run of its own"
HELP = """\
usage: segexp tune study=NAME [KEY=VALUE ...] 'KEY=interval(a,b)' ...
       segexp tune study=NAME            go on with a study
       segexp tune status study=NAME     its trials

Every trial is a run like any other, trained by a process of its own: the same values are the same run, and a trial that
was stopped goes on from its checkpoint. Several `segexp tune` lines, here or on machines that share the folder, may
work on one study; one that is killed leaves trials that the next one takes over. What is searched is written as Hydra's
sweeps are:

  'loss=choice(dice,tversky)'                     one of these (also loss=dice,tversky)
  'optimizer.lr=tag(log,interval(1e-5,1e-2))'     any number, by orders of magnitude
  'network.base_filters=range(8,33,8)'            8, 16, 24, 32
  'network.units=int(interval(1,4))'              a whole number

  segexp tune study=tissue experiment=neuronet/nn_tissue scale=demo trials=20 slots=2 \\
    'optimizer.lr=tag(log,interval(1e-5,1e-2))' 'loss=choice(dice_cross_entropy,cross_entropy)'
  segexp tune study=tissue trials=40

keys:
  trials=20            how many in all; more may be given later
  slots=1              trials at a time of this process
  metric=val/dice      of the validation cases; test cases are never looked at
  direction=maximize   or minimize
  value=last           what a trial counts with: its last validation, or its best
  pruner=median        stop what is below the median of the others at the same step; none: train all to the end
  startup=5            trials that are neither pruned nor chosen by what others reached
  warmup=0             optimiser steps before which nothing is pruned
  sampler=tpe          or random
  sampler_seed=1       the same seed and the same results give the same trials
  hydra/launcher=slurm, hydra.launcher.KEY=VALUE     where the trials run, as in segexp train -m

Every other KEY=VALUE is one of segexp train. A study on disk grants no rights: --allow-target has to be given again.
"""
WORDS = ("status",)
CHOICES = {"direction": ("maximize", "minimize"), "value": ("last", "best"), "pruner": ("median", "none"),
           "sampler": ("tpe", "random")}


def run(arguments: list[str]) -> None:
    """Search, go on searching, or say how far a study is."""
    from segexp.commands.evaluate import required
    from segexp.config import compose
    from segexp.config.flags import split_flags
    from segexp.console import say
    from segexp.search.curves import check_metric
    from segexp.search.report import summary
    from segexp.search.space import split_space
    from segexp.search.study import SETTLED, Trials, study_folder

    flags = split_flags(arguments)
    words = [word for word in flags.overrides if word not in WORDS]
    own, launcher, train = sorted_words(words, flags.config_dirs)
    options = compose("tune", own, flags.config_dirs)
    check_options(options)
    check_metric(str(options.metric))
    folder = study_folder(options.paths.outputs, required(options, "study"))
    settings = {key: options[key] for key in (*SETTLED, "trials")}
    if "status" in flags.overrides:
        definition = existing(folder)
        trials = Trials(folder, definition)
        for line in summary(folder, trials, split_space(definition["words"])[1], every=True):
            say(line)
        return
    if train or folder.definition() is None:
        check_train(train, options, flags)
    definition = folder.settle(train, settings, {word.partition("=")[0] for word in own})
    search(folder, definition, options, launcher, flags)


def sorted_words(words: Sequence[str], config_dirs: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the words for this verb, for the launcher, and for ``segexp train``.

    Raises:
        ConfigError: a word that is no KEY=VALUE.
    """
    from segexp.config import compose
    from segexp.errors import ConfigError

    mine = {str(key) for key in compose("tune", (), config_dirs)}
    own, launcher, train = [], [], []
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals and not word.startswith("~"):
            raise ConfigError(f"{word!r} is no KEY=VALUE; see segexp tune --help")
        if key in mine or key == "paths.outputs":
            own.append(word)
        elif key.startswith(("hydra/launcher", "hydra.launcher")):
            launcher.append(word)
        else:
            train.append(word)
    return own, launcher, train


def check_options(options: Any) -> None:
    """Raise ConfigError for a value of this verb's keys that makes no sense."""
    from segexp.config.names import hint
    from segexp.errors import ConfigError

    for key, known in CHOICES.items():
        if options[key] not in known:
            raise ConfigError(f"{key}={options[key]}: there is no such choice{hint(str(options[key]), known)}")
    for key, least in (("trials", 1), ("slots", 1), ("startup", 0), ("warmup", 0), ("sampler_seed", 0)):
        if not isinstance(options[key], int) or isinstance(options[key], bool) or options[key] < least:
            raise ConfigError(f"{key}={options[key]}: expected a whole number from {least} on")


def existing(folder: Any) -> dict[str, Any]:
    """Return what a study searches.

    Raises:
        ConfigError: there is no such study; the message names what there is.
    """
    from segexp.config.names import hint
    from segexp.errors import ConfigError

    definition = folder.definition()
    if definition is None:
        known = [file.parent.name for file in (folder.outputs / "studies").glob("*/study.json")]
        raise ConfigError(f"study={folder.name}: there is no such study{hint(folder.name, known)}")
    return definition


def check_train(words: Sequence[str], options: Any, flags: Any) -> None:
    """Compose and check the first and the extreme values before anything is written.

    Raises:
        ConfigError: nothing is searched, or a combination does not fit together.
    """
    from segexp.config import compose
    from segexp.console import say
    from segexp.errors import ConfigError
    from segexp.search.space import GRAMMAR, check_space, split_space

    fixed, space = split_space(words)
    compose("train", fixed, flags.config_dirs)
    if not space:
        raise ConfigError(f"nothing is searched: give several values of a key: {GRAMMAR}")
    count = check_space([*fixed, f"paths.outputs={options.paths.outputs}"], space, flags.config_dirs, flags.allow)
    say(f"{len(space)} keys are searched; {count} combinations of their first and extreme values fit")


def search(folder: Any, definition: dict[str, Any], options: Any, launcher: Sequence[str], flags: Any) -> None:
    """Work on the study and say what was found.

    Raises:
        SegexpError: no trial was trained to its end.
    """
    from segexp.config.composition import launcher_settings
    from segexp.config.objects import plain
    from segexp.console import say
    from segexp.errors import SegexpError
    from segexp.search.report import summary
    from segexp.search.search import Search
    from segexp.search.space import split_space

    settings: dict[str, Any] = {"kind": "local"}
    if launcher:
        found = plain(launcher_settings(launcher, flags.config_dirs))
        settings = {key: value for key, value in found.items() if not key.startswith("_")} | {"kind": kind_of(found)}
    fixed, space = split_space(definition["words"])
    fixed.append(f"paths.outputs={options.paths.outputs}")
    work = Search(folder, definition, fixed, space, options.slots, settings, flags.config_dirs, flags.allow)
    work.run()
    for line in summary(folder, work.trials, space):
        say(line)
    if work.trials.best() is None and not work.trials.running():
        raise SegexpError(f"study {folder.name}: no trial was trained to its end; segexp tune status "
                          f"study={folder.name} says why")


def kind_of(settings: dict[str, Any]) -> str:
    """Return ``local`` or ``slurm`` of a launcher's settings."""
    return "slurm" if "slurm" in str(settings.get("_target_", "")).lower() else "local"
