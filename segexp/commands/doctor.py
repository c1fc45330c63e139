"""``segexp doctor``: what this machine can do."""

SUMMARY = "say what this machine can do: devices, precision, disk, limits, versions with known defects"
HELP = """\
usage: segexp doctor [paths.outputs=FOLDER] [format=text|json] [measure=false]

Looks at what training depends on and says what to do about it, a line each:
  ok      as it should be
  warn    works, with a drawback
  fail    training will not work here, or not rightly: exit code 1

Locks and renames are really tried where runs are written, and a few convolutions are timed (measure=false: not), to
see which precision and memory layout pay. Nothing is left behind.

  segexp doctor
  segexp doctor paths.outputs=/scratch/me/outputs
  segexp doctor format=json
"""
DEFAULTS = {"paths.outputs": "outputs", "format": "text", "measure": "true"}


def run(arguments: list[str]) -> int:
    """Print every finding; 1 if any is ``fail``."""
    import json

    from segexp.config.names import hint
    from segexp.console import say
    from segexp.errors import ConfigError
    from segexp.machine.doctor import examine

    options = dict(DEFAULTS)
    for word in arguments:
        key, equals, value = word.partition("=")
        if key not in DEFAULTS or not equals:
            raise ConfigError(f"segexp doctor: {word!r} is no KEY=VALUE of it{hint(key, DEFAULTS)}")
        options[key] = value
    for key, known in (("format", ("text", "json")), ("measure", ("true", "false"))):
        if options[key] not in known:
            raise ConfigError(f"{key}={options[key]}: expected {' or '.join(known)}")
    found = []
    for finding in examine(options["paths.outputs"], options["measure"] == "true"):
        found.append(finding)
        if options["format"] == "text":
            for line in finding.lines():
                say(line)
    levels = [finding.level for finding in found]
    if options["format"] == "json":
        say(json.dumps([finding.record() for finding in found], indent=2, ensure_ascii=False))
    else:
        say(f"{levels.count('ok')} ok, {levels.count('warn')} to look at, {levels.count('fail')} wrong")
    return 1 if "fail" in levels else 0
