"""The flags that every verb with a configuration understands, split from its overrides."""

from dataclasses import dataclass

from segexp.config.engine import check_words
from segexp.errors import ConfigError

FLAGS = {"--config-dir": "config_dirs", "--allow-target": "allow"}
HELP = """\
  --config-dir FOLDER     more configuration, laid out like conf/ (may be given several times)
  --allow-target PREFIX   modules of your own that a `_target_` may name, such as `mylab.`; they must be importable
"""


@dataclass(frozen=True)
class Flags:
    """A command line without its flags.

    Attributes:
        overrides: what is left: Hydra overrides (``key=value``) and words of the verb.
        config_dirs: folders given by ``--config-dir``.
        allow: prefixes given by ``--allow-target``.
    """

    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


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
            raise ConfigError(f"{flag} needs a value: {flag} {'FOLDER' if flag == '--config-dir' else 'PREFIX'}")
        found[FLAGS[flag]].append(value)
    check_words([word for word in rest if not word.startswith("-")])
    return Flags(tuple(rest), **{name: tuple(values) for name, values in found.items()})
