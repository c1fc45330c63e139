"""What of Hydra itself may be configured: its launcher, on the command line; nothing else, and not from files.

Hydra's own settings make folders, import classes (callbacks, log handlers) and set the environment.
"""

import re
from collections.abc import Sequence
from typing import Any

from segexp.config.yaml_files import leads_out
from segexp.errors import ConfigError

OURS = ("hydra/launcher", "hydra.launcher", "hydra.verbose")
"""Keys of Hydra that the command line may set."""
LAUNCHERS = re.compile(r"hydra_plugins\.segexp\w*(\.\w+)+|"
                       r"hydra\._internal\.core_plugins\.basic_launcher\.BasicLauncher")
COMPARED = ("run", "sweep", "launcher", "sweeper", "hydra_logging", "job_logging", "env", "callbacks", "output_subdir",
            "mode", "job.chdir", "job.env_set", "job.env_copy", "job.config")
"""What of Hydra's node has to be as the shipped files and the command line make it."""
LONGEST = 20_000  # characters of one word of a command line
DEEPEST = 50  # brackets in one another


def check_words(words: Sequence[str]) -> None:
    """Raise a ConfigError for words of a command line that configure Hydra, or that no person types."""
    for word in words:
        if len(word) > LONGEST:
            raise ConfigError(f"{word[:60]}...: {len(word)} characters; an override has at most {LONGEST}")
        if _depth(word) > DEEPEST:
            raise ConfigError(f"{word[:60]}...: more than {DEEPEST} brackets in one another")
        key = word.lstrip("+~").partition("=")[0].partition("@")[0].strip()
        package = word.partition("=")[0].partition("@")[2].replace("_global_.", "")
        ours = any(key == one or key.startswith((f"{one}.", f"{one}/")) for one in OURS)
        if (re.match(r"hydra([./]|$)", key) and not ours) or re.match(r"hydra([.:]|$)", package):
            raise ConfigError(f"{word}: Hydra's own settings are those of segexp, except {', '.join(OURS)}; "
                              "folders are set with paths.outputs=..., more configuration with --config-dir")


def check_node(config: Any, baseline: Any) -> None:
    """Compare Hydra's node of a composition with that of one without the user's choices.

    Args:
        config: what was composed, Hydra's node included.
        baseline: the same primary configuration with nothing but the words that `OURS` allows.

    Raises:
        ConfigError: a file of the user changes Hydra's settings, or the launcher is none of ours.
    """
    from omegaconf import OmegaConf

    for key in COMPARED:
        one, other = (OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
                      for node in (_select(config, key), _select(baseline, key)))
        if one != other:
            raise ConfigError(f"hydra.{key} is changed by a file; Hydra's own settings are those of segexp, and its "
                              "launcher is chosen on the command line: hydra/launcher=NAME")
    target = str(_select(config, "launcher._target_"))
    if not LAUNCHERS.fullmatch(target):
        raise ConfigError(f"hydra.launcher._target_ {target} is none of segexp's launchers; use "
                          "hydra/launcher=local (a process per job on this machine) or hydra/launcher=slurm")


def check_choices(config: Any) -> None:
    """Raise a ConfigError where the choice of a group leads out of the configuration folders."""
    for group, choice in config.hydra.runtime.choices.items():
        for one in choice if isinstance(choice, Sequence) and not isinstance(choice, str) else [choice]:
            if isinstance(one, str) and leads_out(one):
                raise ConfigError(f"{group}={one} leads out of the configuration folders; give yours with --config-dir")


def of_launcher(words: Sequence[str]) -> list[str]:
    """Return the words that configure what `OURS` allows."""
    return [word for word in words if word.lstrip("+~").startswith(OURS)]


def _select(config: Any, key: str) -> Any:
    from omegaconf import OmegaConf

    node = config._get_node("hydra")
    for part in key.split("."):
        node = node._get_node(part) if node is not None and OmegaConf.is_config(node) else None
    return node if OmegaConf.is_config(node) else None if node is None else node._value()


def _depth(word: str) -> int:
    depth = deepest = 0
    for letter in word:
        depth += (letter in "[{(") - (letter in "]})")
        deepest = max(deepest, depth)
    return deepest
