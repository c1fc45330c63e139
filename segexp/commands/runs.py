"""``segexp runs``: what was trained, and what became of it."""

SUMMARY = "list, show and remove runs"
HELP = """\
usage: segexp runs [list] [NAME=VALUE ...]
       segexp runs show RUN
       segexp runs remove RUN [yes=true]

  segexp runs                        every run: status, scale, mean Dice, age
  segexp runs status=done scale=demo only those
  segexp runs show nn_all-seed1      configuration, provenance, scores
  segexp runs remove nn_all-seed1    forget a run; asks unless yes=true

paths.outputs=FOLDER looks somewhere else than in ./outputs.
"""
WORDS = ("list", "show", "remove")


def run(arguments: list[str]) -> None:
    """List, show or remove runs."""
    from segexp.config.names import hint
    from segexp.errors import ConfigError

    words = [word for word in arguments if "=" not in word]
    options = dict(word.split("=", 1) for word in arguments if "=" in word)
    outputs = options.pop("paths.outputs", "outputs")
    verb, names = (words[0], words[1:]) if words else ("list", [])
    actions = {"list": list_all, "show": show, "remove": remove}
    if verb not in actions:
        raise ConfigError(f"segexp runs {verb}: there is no such action{hint(verb, list(actions))}")
    if verb != "list" and len(names) != 1:
        raise ConfigError(f"segexp runs {verb} needs one RUN; `segexp runs` lists them")
    actions[verb](outputs, names, options)


def list_all(outputs: str, names: list[str], options: dict[str, str]) -> None:
    """Print a line for every run that has the given values in run.json."""
    from segexp.config.names import hint
    from segexp.console import say
    from segexp.errors import ConfigError
    from segexp.runs.directory import list_runs

    keys = ["name", "status", "scale", "seed"]
    for key in options:
        if key not in keys:
            raise ConfigError(f"segexp runs {key}=...: runs are not selected by {key!r}{hint(key, keys)}")
    shown = [item for item in list_runs(outputs) if all(
        str(item.status if key == "status" else item.info.get(key)) == value for key, value in options.items())]
    if not shown:
        say(f"no run fits below {outputs}/runs; train one: segexp train experiment=neuronet/nn_all scale=demo")
        return
    width = max(len(item.id) for item in shown)
    say(f"{'run':<{width}}  {'status':<12}{'scale':<8}{'Dice':>6}  started")
    for item in shown:
        info = item.info
        say(f"{item.id:<{width}}  {state(item):<12}{info.get('scale', ''):<8}{mean(item):>6}  {info.get('started', '')}"
            + ("  phantoms" if info.get("phantom") else ""))


def state(item: object) -> str:
    """Return the status, with the percentage while it runs."""
    progress = item.progress() if item.status == "running" else {}
    return f"{item.status} {100 * progress['done'] // progress['total']}%" if progress else item.status


def mean(item: object) -> str:
    """Return the mean Dice over targets and cases of a finished run."""
    from segexp.metrics.scores import case_means

    if item.status != "done":
        return "-"
    return f"{case_means(item.scores(), 'dice').groupby('target')['value'].mean().mean():.3f}"


def show(outputs: str, names: list[str], options: dict[str, str]) -> None:
    """Print what a run is and what it reached."""
    from segexp.console import say
    from segexp.runs.directory import get_run
    from segexp.runs.summary import describe

    item = get_run(outputs, names[0])
    info = item.info
    git = info.get("git") or {}
    code = (git.get("commit") or "unknown")[:12] + (" + changes" if git.get("changed") else "")
    rows = {
        "run": item.id, "status": state(item), "command": info.get("command"), "scale": info.get("scale"),
        "seed": info.get("seed"), "steps": info.get("steps"), "started": info.get("started"),
        "finished": info.get("finished"), "code": code,
        "data": (info.get("data_fingerprint") or "")[:12] + (" (phantoms)" if info.get("phantom") else ""),
        "device": (info.get("resources") or {}).get("device"), "error": info.get("error"), "directory": item.path,
    }
    for key, value in rows.items():
        if value not in (None, ""):
            say(f"{key:<11}{value}")
    if item.status == "done":
        say(describe(item))


def remove(outputs: str, names: list[str], options: dict[str, str]) -> None:
    """Delete a run's directory after a question."""
    import shutil
    import sys

    from segexp.console import say
    from segexp.errors import ConfigError
    from segexp.runs.directory import get_run

    item = get_run(outputs, names[0])
    if options.get("yes") != "true":
        if not sys.stdin.isatty():
            raise ConfigError(f"segexp runs remove {item.id}: add yes=true to remove it without a question")
        if input(f"remove {item.path}? [y/N] ").strip().lower() != "y":
            say("nothing removed")
            return
    with item.hold():
        shutil.rmtree(item.path)
    say(f"removed {item.path}")
