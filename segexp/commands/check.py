"""``segexp check``: find what is wrong with configurations or with a data set before anything starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segexp.config.flags import HELP as FLAGS

SHOWN = 40  # cases with problems that are printed; the manifest has all
SUMMARY = "check every configuration, one composition, or the files of a data set"
HELP = f"""\
segexp check: every experiment at every scale, and every table; exit code 2 if anything is wrong
segexp check OVERRIDES: one composition of `segexp train`
segexp check data=NAME data.root=FOLDER [OVERRIDES]: the files of a data set; exit code 3 if no case can be used

  segexp check
  segexp check --config-dir my_conf
  segexp check experiment=neuronet/nn_all network.variant=paper
  segexp check data=ukbiobank data.root=/data/ukb data.derived_root=/data/ukb_derived
  segexp check data=ukbiobank data.root=/data/flat data.layout=flat output=manifest.csv

A configuration is right when it composes, its targets import and take the arguments given, its interpolations
resolve, and its rooms agree (targets and label maps, classes, crop size and network). The data check decodes every
file of every label map (into data.cache, so that a run need not do it again), names what is missing or broken, and
writes one row per case to `output` (default: <paths.outputs>/manifests/<folder's name>-<hash of its path>.csv). With
method=NAME or sampling=NAME it also warns of images that are smaller than that crop.

{FLAGS}"""


def run(arguments: list[str]) -> int:
    """Check what the arguments ask for."""
    from segexp.config.flags import split_flags

    flags = split_flags(arguments)
    keys = [word.lstrip("+").partition("=")[0] for word in flags.overrides]
    if not keys:
        return check_everything(flags.config_dirs, flags.allow)
    if "experiment" not in keys and any(key == "data" or key.startswith("data.") for key in keys):
        return check_data(flags.overrides, flags.config_dirs, flags.allow)
    problems, _ = examined(flags.overrides, flags.config_dirs, flags.allow)
    _show(" ".join(flags.overrides), problems)
    return 2 if problems else 0


def examined(overrides: Sequence[str], config_dirs: Sequence[str] = (),
             allow: Sequence[str] = ()) -> tuple[list[Any], set[str]]:
    """Return what is wrong with one composition of `train`, and its targets where nothing is.

    An override or file that does not compose is the only problem then.
    """
    from segexp.config import Problem, check, compose, origins
    from segexp.errors import ConfigError

    try:
        cfg = compose("train", overrides, config_dirs)
    except ConfigError as error:
        return [Problem("", str(error))], set()
    if not check(cfg, allow=allow, config_dirs=config_dirs):
        targets = cfg.method.targets
        return [], {targets} if isinstance(targets, str) else set(targets)
    # Which file set a key is worth a second look at the folders only where something is wrong.
    known = origins("train", overrides, config_dirs)
    return check(cfg, origins=known, allow=allow, config_dirs=config_dirs), set()


def check_everything(config_dirs: Sequence[str] = (), allow: Sequence[str] = ()) -> int:
    """Check every experiment at every scale and every table, print a line for each, and return the exit code."""
    from time import monotonic

    from segexp.config import folder
    from segexp.config.paths import search_dirs
    from segexp.console import duration, say

    started, wrong, total = monotonic(), 0, 0
    folders = search_dirs(config_dirs)
    scales = folder.choices(folders, "scale")
    usual = folder.default_choice(folders, "train", "scale")
    runs: dict[tuple[str, ...], tuple[list[Any], set[str]]] = {}
    for experiment in folder.choices(folders, "experiment"):
        found: dict[str, list[str]] = {}
        for scale in scales:
            problems, targets = examined((f"experiment={experiment}", f"scale={scale}"), config_dirs, allow)
            if scale == usual:
                runs[(f"experiment={experiment}",)] = problems, targets
            total, wrong = total + 1, wrong + bool(problems)
            for problem in problems:
                found.setdefault(str(problem), []).append(scale)
        _show(f"{experiment} ({', '.join(scales)})",
              [text if where == scales else f"{text} (scale {', '.join(where)})" for text, where in found.items()])
    for table in folder.choices(folders, "table"):
        problems = problems_of_table(table, config_dirs, allow, runs)
        total, wrong = total + 1, wrong + bool(problems)
        _show(f"{table} (table)", problems)
    say(f"{total} configurations, {wrong} wrong, {duration(monotonic() - started)}")
    return 2 if wrong else 0


def problems_of_table(name: str, config_dirs: Sequence[str], allow: Sequence[str],
                      runs: dict[tuple[str, ...], tuple[list[Any], set[str]]]) -> list[str]:
    """Check a table's declaration, the runs it needs, and that each cell's run has the cell's target.

    ``runs`` keeps overrides -> (problems, targets) from table to table: tables share runs.
    """
    from segexp.errors import ConfigError
    from segexp.tables.declaration import read_declaration

    try:
        declaration = read_declaration(name, config_dirs)
    except ConfigError as error:
        return [str(error)]
    found = []
    targets: dict[str, set[str]] = {}
    for run, spec in declaration.runs.items():
        words = tuple(spec["overrides"])
        if words not in runs:
            runs[words] = examined(words, config_dirs, allow)
        problems, targets[run] = runs[words]
        found += [f"run {run}: {problem}" for problem in problems]
    for (row, column), cell in declaration.cells().items():
        known = targets.get(cell["run"], set())  # no run: a row that is only published
        if known and cell["target"] and cell["target"] not in known:
            found.append(f"cell {row}, {column}: run {cell['run']} has no target {cell['target']}")
    return found


def _show(name: str, problems: Sequence[Any]) -> None:
    from segexp.console import say

    say(f"  {'wrong' if problems else 'ok':<7}{name}")
    for problem in problems:
        say(f"         {problem}")


def check_data(overrides: Sequence[str], config_dirs: Sequence[str] = (), allow: Sequence[str] = ()) -> int:
    """Check the files of a data set, print counts and reasons, write the manifest, and return the exit code."""
    from omegaconf import OmegaConf

    from segexp.config import compose, instantiate
    from segexp.console import say, track
    from segexp.errors import ConfigError, DataError

    own = dict(word.split("=", 1) for word in overrides if word.startswith("output="))
    cfg = compose("train", [word for word in overrides if not word.startswith("output=")], config_dirs)
    if OmegaConf.is_missing(cfg.data, "root"):
        raise ConfigError("data.root has no value; give the folder of the data set: data.root=/data/ukb")
    named = {word.lstrip("+").partition("=")[0].replace("/", ".").split(".")[0] for word in overrides}
    if "method" not in named:  # the usual method may know nothing of this data set's targets
        cfg.method.targets = list(cfg.data.label_maps)
    sampling = instantiate(cfg.sampling, allow=allow) if named & {"method", "sampling"} else None
    datamodule = instantiate(cfg.data, allow=allow, sampling=sampling)
    manifest = datamodule.check(track)
    path = Path(own.get("output") or default_manifest(cfg))
    manifest.write(path)
    problems = manifest.problems()
    for line in problems[:SHOWN]:
        say(f"  {line}")
    if len(problems) > SHOWN:
        say(f"  ... and {len(problems) - SHOWN} more, in the manifest")
    counts = ", ".join(f"{count} {status}" for status, count in manifest.counts.items())
    say(f"{len(manifest.reports)} cases: {counts}")
    say(f"manifest: {path}")
    if not manifest.usable:
        raise DataError(f"{cfg.data.root}: no case can be used; {path} says why")
    return 0


def default_manifest(cfg: Any) -> Path:
    """Return where the manifest of a data folder goes: the same folder gives the same file."""
    import os
    from hashlib import sha256

    root = Path(cfg.data.root).resolve()
    return Path(cfg.paths.outputs) / "manifests" / f"{root.name}-{sha256(os.fsencode(root)).hexdigest()[:8]}.csv"
