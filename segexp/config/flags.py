"""The flags that every verb with a configuration understands, split from its overrides."""

import os
from dataclasses import dataclass
from pathlib import Path

from segexp.config.engine import check_words
from segexp.errors import ConfigError

FLAGS = {"--config-dir": "config_dirs", "--allow-target": "allow", "--allow-root": "roots"}
ALLOWED_ROOTS = "SEGEXP_ALLOWED_ROOTS"
"""Environment variable with the folders of ``--allow-root``, which the jobs that a command starts inherit."""
HELP = """\
  --config-dir FOLDER     more configuration, laid out like conf/ (may be given several times)
  --allow-target PREFIX   modules of your own that a `_target_` may name, such as `mylab.`; they must be importable
  --allow-root FOLDER     a folder outside the data's root that links in the data may lead to
"""


@dataclass(frozen=True)
class Flags:
    """A command line without its flags.

    Attributes:
        overrides: what is left: Hydra overrides (``key=value``) and words of the verb.
        config_dirs: folders given by ``--config-dir``.
        allow: prefixes given by ``--allow-target``.
        roots: folders given by ``--allow-root``; also added to the environment, see `ALLOWED_ROOTS`.
    """

    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()


def split_flags(arguments: list[str]) -> Flags:
    """Split ``--config-dir FOLDER`` and ``--allow-target PREFIX`` (also with ``=``) from ``arguments``.

    Other words, also other flags, are left to the verb in their order.

    Raises:
        ConfigError: a flag has no value, or a word configures Hydra itself.
    """
    found: dict[str, list[str]] = {name: [] for name in FLAGS.values()}
    rest = []
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in FLAGS:
            rest.append(word)
            continue
        if not equals:
            value = next(words, "")
        if not value or value.startswith("-"):
            raise ConfigError(f"{flag} needs a value: {flag} {'PREFIX' if flag == '--allow-target' else 'FOLDER'}")
        found[FLAGS[flag]].append(value)
    check_words([word for word in rest if not word.startswith("-")])
    if found["roots"]:
        known = [folder for folder in os.environ.get(ALLOWED_ROOTS, "").split(os.pathsep) if folder]
        more = [str(Path(folder).expanduser().resolve()) for folder in found["roots"]]
        os.environ[ALLOWED_ROOTS] = os.pathsep.join(dict.fromkeys([*known, *more]))
    return Flags(tuple(rest), **{name: tuple(values) for name, values in found.items()})
