"""``segexp list``: what there is to choose from."""

from segexp.config.flags import HELP as FLAGS

SUMMARY = "what there is to choose from: experiments, tables, data sets, losses, ..."
HELP = f"""\
segexp list [GROUP ...]: the groups of the configuration, or the choices of some groups

  segexp list                    every group with its choices
  segexp list experiment         every experiment: one row of a paper's table each
  segexp list table loss         published tables, and losses
  segexp list targets            the choices of method/targets

Names come from the files in conf/ and the description is each file's first comment line.

{FLAGS.splitlines()[0]}
"""


def run(arguments: list[str]) -> int:
    """Print the groups, or the choices of the named groups."""
    from segexp.config import folder
    from segexp.config.flags import split_flags
    from segexp.config.paths import search_dirs

    flags = split_flags(arguments)
    folders = search_dirs(flags.config_dirs)
    if not flags.overrides:
        print(overview(folders))
        return 0
    shown = [find(word, folder.own_groups(folders)) for word in flags.overrides]
    for index, group in enumerate(shown):
        if len(shown) > 1:
            print(f"{'' if not index else chr(10)}{group}")
        files = folder.files(folders, group)
        names = folder.choices(folders, group)
        width = max(map(len, names), default=0) + 2
        for name in names:
            print(f"  {name:<{width}}{folder.description(files[name])}".rstrip())
    return 0


def overview(folders: list) -> str:
    """Return every group with its choices, a group per line."""
    from textwrap import wrap

    from segexp.config import folder

    groups = folder.own_groups(folders)
    width = max(map(len, groups)) + 2
    lines = []
    for group in groups:
        names = wrap("  ".join(folder.choices(folders, group)), 100 - width, break_on_hyphens=False)
        lines += [f"  {group if not index else '':<{width}}{names[index]}" for index in range(len(names))]
    return "\n".join([*lines, "", "segexp list GROUP describes the choices of a group; GROUP=CHOICE chooses one."])


def find(word: str, groups: list[str]) -> str:
    """Return the group that ``word`` names: in full, by its last part, or in the plural.

    Raises:
        ConfigError: no group, or several, have that name.

    """
    from segexp.config.names import hint
    from segexp.errors import ConfigError

    for name in (word, word.removesuffix("s")):
        if name in groups:
            return name
        ends = [group for group in groups if group.endswith(f"/{name}")]
        if len(ends) == 1:
            return ends[0]
    names = [*groups, *(group.rpartition("/")[2] for group in groups)]
    near = hint(word, names).partition(" (choices")[0]
    raise ConfigError(f"there is no group {word!r}{near}; groups: {', '.join(groups)}")
