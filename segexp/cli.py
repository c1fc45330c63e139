"""``segexp <verb> ...``: find the verb, run it, turn errors into messages and exit codes.

Nothing heavy is imported before the verb is known: ``segexp --help`` and shell completion answer at once.
"""

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from segexp.errors import SegexpError
from segexp.redaction import redacted, redacted_words

# The order in which a newcomer meets them; a verb that is not named here comes after these.
ORDER = ("list", "check", "doctor", "phantom", "train", "sweep", "tune", "evaluate", "predict", "table", "runs",
         "export", "completion")
USAGE = """\
segexp: five medical-segmentation papers as one laboratory

usage: segexp VERB [WORDS] [KEY=VALUE ...]

verbs:
{verbs}

  segexp VERB --help      what a verb does, with examples
  segexp --version        the installed version

Set SEGEXP_DEBUG=1 to see the full traceback of an error."""


LONGEST = 300  # characters of a path in a message
FULL = "free some space, or choose another folder with paths.outputs=FOLDER"
CLOSED = "choose another folder, or ask for the right to use this one"
SYSTEM = {"ENOSPC": FULL, "EDQUOT": FULL, "EROFS": CLOSED, "EACCES": CLOSED, "EPERM": CLOSED, "ENOTDIR": "",
          "EISDIR": "", "ENAMETOOLONG": "choose a shorter one", "ELOOP": "a link leads to itself",
          "EIO": "is the disk sound?",
          "EMFILE": "allow more open files (ulimit -n)", "ENFILE": "", "ESTALE": "the file server lost it; try again",
          "ETXTBSY": "", "EFBIG": FULL}
"""Answers of the system that say nothing about this program -> what to do."""


def verbs() -> list[str]:
    """Return the names of all verbs: the files of ``segexp/commands``."""
    files = (Path(__file__).parent / "commands").glob("[!_]*.py")
    return sorted((file.stem for file in files), key=lambda verb: (ORDER.index(verb) if verb in ORDER else 99, verb))


def command(verb: str) -> ModuleType:
    """Return the module of a verb."""
    return import_module(f"segexp.commands.{verb}")


def usage() -> str:
    """Return the text of ``segexp --help``."""
    lines = (f"  {verb:<12}{command(verb).SUMMARY}" for verb in verbs())
    return USAGE.format(verbs="\n".join(lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; ``arguments`` are the words after the program's name (default: ``sys.argv``).

    ``sys.argv`` stays as it is: Lightning's ranks start themselves again with it.

    Returns:
        The exit code: 0, or the error's (1 unexpected, 2 configuration, 3 data, 4 partly done, 130 interrupted).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader left (`segexp list | head`); the interpreter must not try to flush to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("segexp: interrupted", file=sys.stderr)
        return 130
    except SegexpError as error:
        if os.environ.get("SEGEXP_DEBUG"):
            raise
        print(redacted(f"segexp: error: {error}"), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if os.environ.get("SEGEXP_DEBUG"):
            raise
        if type(error).__module__.startswith("omegaconf"):  # a value of a configuration that was read when it was used
            from segexp.config import explain

            print(redacted(f"segexp: error: {explain(error)}"), file=sys.stderr)
            return 2
        said = of_the_system(error)
        if said:
            print(redacted(f"segexp: error: {said}"), file=sys.stderr)
        else:
            report(error)
        return SegexpError.exit_code


def dispatch(words: list[str]) -> int:
    """Run the verb that ``words`` name and return its exit code."""
    verb, rest = (words[0], words[1:]) if words else ("--help", [])
    if verb in ("--help", "-h", "help"):
        print(usage())
        return 0
    if verb in ("--version", "-V"):
        from segexp import __version__

        print(f"segexp {__version__}")
        return 0
    if verb == "--complete":
        from segexp.commands.completion import candidates

        print("\n".join(candidates(rest[0] if rest else "")))
        return 0
    if verb not in verbs():
        from segexp.config.names import hint
        from segexp.errors import ConfigError

        raise ConfigError(f"there is no verb {verb!r}{hint(verb, verbs())}")
    module = command(verb)
    if "--help" in rest or "-h" in rest:
        print(module.HELP.strip())
        return 0
    return module.run(rest) or 0


def of_the_system(error: Exception) -> str:
    """Return what the system refused, in one line; empty for errors that are not the system's answer to a path."""
    if isinstance(error, UnicodeEncodeError):
        return f"a name of a file or folder is not UTF-8 ({error.reason}: {error.object[:200]!r}); rename it"
    if not isinstance(error, OSError) or errno.errorcode.get(error.errno or 0) not in SYSTEM:
        return ""
    name = str(error.filename or "")
    name = name if len(name) <= LONGEST else f"{name[:LONGEST]}... ({len(name)} characters)"
    advice = SYSTEM[errno.errorcode[error.errno or 0]]
    return f"{name or 'a file'}: {error.strerror}{f'; {advice}' if advice else ''}"


def report(error: Exception) -> None:
    """Say what went wrong in a few lines and keep the traceback in a file: the work may have taken hours."""
    import tempfile
    import traceback

    print(redacted(f"segexp: unexpected error: {type(error).__name__}: {error}"), file=sys.stderr)
    try:
        with tempfile.NamedTemporaryFile("w", prefix="segexp-", suffix=".txt", delete=False, encoding="utf-8") as file:
            file.write(f"command: {' '.join(redacted_words(sys.argv))}\n\n"
                       f"{redacted(''.join(traceback.format_exception(error)))}")
        where = f"the traceback is in {file.name}; "
    except OSError:
        where = ""
    print(f"segexp: {where}SEGEXP_DEBUG=1 prints it instead", file=sys.stderr)
