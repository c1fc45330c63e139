"""``segexp table``: the paper's tables from runs."""

from typing import Any

SUMMARY = "regenerate a paper's table: plan, run, show and check"
HELP = """\
usage: segexp table [plan|run|show|check] NAME ... [KEY=VALUE ...]

  plan     what every run of the table is: done, missing, running, interrupted, failed, stale; and what it takes
  run      train what is missing, each run in a process of its own; runs of several tables are trained once
  show     write Markdown, LaTeX, CSV and HTML below outputs/tables and print the table
  check    compare the written table with the scores (drift) and check the paper's claims
Without one of these words: run, show and check.

  segexp table neuronet_3 scale=demo
  segexp table 'neuronet_*' scale=demo
  segexp table plan neuronet_1 neuronet_2 data.root=/data/ukb trainer=gpu
  segexp table run neuronet_3 seeds=[1,2,3] data.root=/data/ukb trainer=gpu
  segexp table siamese_1 data.root=/data/wmh evaluate.cain.data.root=/data/cain trainer=gpu

NAME is a table of `segexp list table`, a pattern of such names, or `all`. The overrides go to every run. The table's
own keys:
  seeds=[1,2,3]   instead of the declared ones
  slots=2         trainings at the same time (default: one per GPU, without one as many as CPU cores)
  hydra/launcher=slurm hydra.launcher.KEY=...  trainings as jobs of a cluster, see segexp train --help
  evaluate.NAME.KEY=...  for the evaluation NAME of a table whose runs are also scored on other data
"""
WORDS = ("plan", "run", "show", "check")


def run(arguments: list[str]) -> int:
    """Do what was asked for with every named table."""
    from segexp.config.flags import split_flags
    from segexp.errors import ConfigError
    from segexp.tables.declaration import read_declaration, table_names

    flags = split_flags(arguments)
    words = [word for word in flags.overrides if "=" not in word]
    actions = [words.pop(0)] if words and words[0] in WORDS else ["run", "show", "check"]
    if not words:
        raise ConfigError("name a table, or `all`; `segexp list table` shows them")
    names = named(words, table_names(flags.config_dirs))
    own, overrides = {}, []
    for word in (word for word in flags.overrides if "=" in word):
        key, _, value = word.partition("=")
        if key in ("seeds", "slots"):
            own[key] = integers(key, value)
        elif word.startswith(("hydra/launcher=", "hydra.launcher.")):
            own.setdefault("launcher", []).append(word)
        else:
            overrides.append(word)
    declarations = [read_declaration(name, flags.config_dirs) for name in names]
    if "run" in actions:
        train_missing(declarations, overrides, own, flags)
    codes = []
    for declaration in declarations:
        from segexp.tables.plan import plan

        planned = plan(declaration, overrides, own.get("seeds"), flags.config_dirs)
        codes += [{"plan": print_plan, "show": show, "check": check}[action](declaration, planned)
                  for action in actions if action != "run"]
    return max(codes, default=0)


def named(words: list[str], known: list[str]) -> list[str]:
    """Return the tables that the words name, each once: a name, a pattern such as ``neuronet_*``, or ``all``.

    Raises:
        ConfigError: a pattern fits none.
    """
    from fnmatch import fnmatch

    from segexp.errors import ConfigError

    names: dict[str, None] = {}
    for word in words:
        pattern = "*" if word == "all" else word
        found = [name for name in known if fnmatch(name, pattern)] if "*" in pattern else [word]
        if not found:
            raise ConfigError(f"no table fits {word}; there are {', '.join(known)}")
        names.update(dict.fromkeys(found))
    return list(names)


def integers(key: str, value: str) -> list[int]:
    """Return the numbers of ``[1,2,3]`` or ``1``.

    Raises:
        ConfigError: it holds something else.
    """
    from segexp.errors import ConfigError

    try:
        return [int(part) for part in value.strip("[]").split(",")]
    except ValueError:
        raise ConfigError(f"{key}={value}: expected whole numbers such as {key}=[1,2,3]") from None


def print_plan(declaration: Any, planned: Any) -> int:
    """Print what became of every run and what the missing ones will take."""
    from pathlib import Path

    from segexp.console import duration, say
    from segexp.tables.plan import seconds_needed

    say(f"{declaration.name}: {declaration.title}")
    for item in planned:
        known = None if item.usable else seconds_needed(item, Path(item.config.paths.outputs))
        cost = "" if item.usable else f"  about {duration(known)}" if known else "  time unknown"
        say(f"  {item.status:<12}{item.name}, seed {item.seed}  {item.run.id}{cost}")
        for name, evaluation in item.evaluations.items():
            say(f"  {'done' if item.usable and evaluation.done else 'missing':<12}  evaluated on {name}")
    return 0


def train_missing(declarations: list[Any], overrides: list[str], own: dict[str, Any], flags: Any) -> None:
    """Train the runs that are not done, each once, parents before children; then score those of them that are done.

    Raises:
        PartialError: some trainings or evaluations failed; those that do not need them were done all the same.
    """
    from segexp.console import say
    from segexp.errors import PartialError
    from segexp.tables.plan import plan

    planned = [item for declaration in declarations
               for item in plan(declaration, overrides, own.get("seeds"), flags.config_dirs)]
    refuse_missing_folders(planned)
    runs = {item.run.hash: item for item in planned}
    say(f"{len(runs)} runs, {sum(item.usable for item in runs.values())} of them done")
    failed = [] if all(item.usable for item in planned) else train_together(declarations, planned, own, flags)
    failed += evaluate_missing(declarations, overrides, own, flags)
    if failed:
        raise PartialError("these runs failed:\n" + "\n".join(failed))


def refuse_missing_folders(planned: Any) -> None:
    """Raise DataError before anything is trained when the data of an evaluation are not there."""
    from pathlib import Path

    from segexp.errors import DataError

    for item in planned:
        for name, evaluation in item.evaluations.items():
            changed = dict(change.partition("=")[::2] for change in evaluation.changes)
            root = changed.get("data.root")
            if root and not Path(root).is_dir() and not evaluation.done:
                data = changed.get("data", "NAME")
                raise DataError(f"{item.name} is also evaluated on {name}, but there is no folder {root}; give "
                                f"evaluate.{name}.data.root=FOLDER, or make phantoms with: segexp phantom data={data}")


def evaluate_missing(declarations: list[Any], overrides: list[str], own: dict[str, Any], flags: Any) -> list[str]:
    """Score the finished runs on the other data that the tables ask for; return a line for each that failed."""
    from segexp.console import say
    from segexp.errors import SegexpError
    from segexp.runs.evaluation import evaluate
    from segexp.tables.plan import plan

    waiting = {evaluation.folder: (item, name, evaluation) for declaration in declarations
               for item in plan(declaration, overrides, own.get("seeds"), flags.config_dirs)
               for name, evaluation in item.evaluations.items() if item.usable and not evaluation.done}
    failed = []
    for number, (item, name, evaluation) in enumerate(waiting.values(), 1):
        say(f"[{number}/{len(waiting)}] {item.name} seed {item.seed} is evaluated on {name}")
        try:
            evaluate(evaluation, flags.config_dirs, flags.allow)
        except SegexpError as error:
            failed.append(f"  {item.name} seed {item.seed} on {name}: {error}")
    return failed


def train_together(declarations: list[Any], planned: list[Any], own: dict[str, Any], flags: Any) -> list[str]:
    """Train the runs as jobs of a sweep; return the lines about those that are not done."""
    from segexp.sweeps.controller import told
    from segexp.sweeps.drive import chosen, drive, make_executor
    from segexp.sweeps.manifest import create_sweep

    jobs = jobs_of(planned)
    name = declarations[0].name if len(declarations) == 1 else "tables"
    settings = {"kind": "local", **chosen(own.get("launcher", []), flags.config_dirs)}
    if "slots" in own:
        settings["slots"] = own["slots"][0]
    words = ["segexp", "table", "run", *flags.overrides]
    sweep = create_sweep(planned[0].config.paths.outputs, name, jobs, command=words, launcher=settings)
    outcomes = drive(sweep, make_executor(sweep, settings, flags.allow))
    return [line for outcome in outcomes if outcome.status != "done" for line in told(outcome)]


def jobs_of(planned: list[Any]) -> list[Any]:
    """Return the runs of tables as jobs, each once, the longest first, else as declared: no slot idles at the end."""
    from segexp.sweeps.job import make_job

    ids = {(item.name, item.seed): item.run.hash for item in planned}
    once = {item.run.hash: item for item in planned}
    return [make_job(item.config, item.overrides, f"{item.name} seed {item.seed}",
                     [ids[parent, item.seed] for parent in item.needs])
            for item in sorted(once.values(), key=work_of, reverse=True)]


def work_of(item: Any) -> float:
    """Return a number that grows with the work of a run: its steps times the classes that it decodes."""
    from segexp.config.objects import plain

    targets = plain(item.config.network).get("targets", {})
    classes = sum(targets.values()) if isinstance(targets, dict) else 0
    return item.config.steps * (100 + classes)


def page_of(declaration: Any, planned: Any, scores: Any) -> Any:
    """Measure a table."""
    from segexp.tables.claims import check_claims
    from segexp.tables.measure import measure
    from segexp.tables.page import Page

    return Page(declaration, measure(declaration, scores), check_claims(declaration, scores), planned)


def folder_of(declaration: Any, planned: Any) -> Any:
    """Return where a table is written."""
    from pathlib import Path

    config = planned[0].config
    return Path(config.paths.outputs) / "tables" / f"{declaration.name}-{config.scale.name}"


def show(declaration: Any, planned: Any) -> int:
    """Write the table in every format and print it."""
    from segexp.console import say
    from segexp.tables.figures import draw_figures
    from segexp.tables.measure import Scores
    from segexp.tables.page import markdown, write_page

    scores = Scores(planned)  # each file is read once, for the cells, the claims and the figures
    page, folder = page_of(declaration, planned, scores), folder_of(declaration, planned)
    write_page(page, folder)
    drawn = draw_figures(declaration, scores, folder, page.caution)
    say("\n".join([f"\n{markdown(page)}", f"written: {folder}/table.md, .tex, .csv, .html", *drawn]))
    return 0


def check(declaration: Any, planned: Any) -> int:
    """Compare the written table with the scores, and print what became of the claims.

    Returns 1 when the table has drifted, or when a claim fails on real data at paper scale.
    """
    from segexp.console import say
    from segexp.errors import ConfigError
    from segexp.tables.measure import Scores
    from segexp.tables.page import comma_separated

    page, folder = page_of(declaration, planned, Scores(planned)), folder_of(declaration, planned)
    file = folder / "table.csv"
    if not file.exists():
        raise ConfigError(f"{file} is not there yet: segexp table show {declaration.name} writes it")
    written, now = file.read_text(encoding="utf-8").splitlines(), comma_separated(page).splitlines()
    drifted = [f"  written  {old}\n  now      {new}" for old, new in zip(written, now, strict=False) if old != new]
    if drifted or len(written) != len(now):
        say(f"{declaration.name}: the scores no longer give the written table {file}:\n" + "\n".join(drifted))
        return 1
    for finding in page.findings:
        say(f"{finding.status:<10}{finding.name}: {finding.text}\n{'':<10}{finding.evidence}")
    failing = [finding.name for finding in page.findings if finding.status == "fails"]
    claims = f"; {len(failing)} of {len(page.findings)} claims fail" if page.findings else ""
    say(f"{declaration.name}: the written table agrees with the scores{claims}")
    return 1 if failing and not page.phantom and page.scale == "paper" else 0
