"""``segexp completion``: what the Tab key offers, for bash, zsh and fish."""

SUMMARY = "print the script that lets the Tab key complete verbs, groups, choices and keys"
HELP = """\
segexp completion SHELL: print a completion script

  bash    eval "$(segexp completion bash)"           in ~/.bashrc
  zsh     eval "$(segexp completion zsh)"            in ~/.zshrc, after compinit
  fish    segexp completion fish | source            in ~/.config/fish/config.fish

Verbs, groups (experiment=), their choices, comma lists for sweeps (loss=dice,<Tab>) and keys (data.root=) are
completed, also from --config-dir. Only file names and YAML are read.
"""

SCRIPTS = {
    # Readline replaces only what follows the last `=` or `:` of a word, candidates are whole words.
    "bash": """\
_segexp_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n' word cut
    COMPREPLY=($(segexp --complete "$line" 2>/dev/null))
    word="${line##*[[:space:]]}"
    cut=""
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then cut="${word%"${word##*[=]}"}"; fi
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    if [[ ${#COMPREPLY[@]} -gt 0 && ( ${COMPREPLY[0]} == *= || ${COMPREPLY[0]} == *. ) ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _segexp_completion segexp
""",
    "zsh": """\
_segexp_completion() {
    local -a found open
    found=("${(@f)$(segexp --complete "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    open=("${(@M)found:#*[=.]}")
    found=("${(@)found:#*[=.]}")
    found=("${(@)found:#}")
    (( ${#open} )) && compadd -S '' -- "${open[@]}"
    (( ${#found} )) && compadd -- "${found[@]}"
}
compdef _segexp_completion segexp
""",
    "fish": """\
complete -c segexp -f -a '(segexp --complete (commandline -cp) 2>/dev/null)'
""",
}


def run(arguments: list[str]) -> int:
    """Print the script of a shell."""
    from segexp.config.names import hint
    from segexp.errors import ConfigError

    if len(arguments) != 1:
        raise ConfigError(f"name one shell: segexp completion {'|'.join(SCRIPTS)}")
    if arguments[0] not in SCRIPTS:
        raise ConfigError(f"there is no completion for {arguments[0]!r}{hint(arguments[0], SCRIPTS)}")
    print(SCRIPTS[arguments[0]], end="")
    return 0


def candidates(line: str) -> list[str]:
    """Return the words that may stand where ``line`` ends, whole words, sorted.

    Args:
        line: the command line up to the cursor, beginning with the program's name.
    """
    words = line.split()
    current = "" if not words or line[-1:].isspace() else words.pop()
    words = words[1:]
    if not words:
        from segexp.cli import verbs

        return [verb for verb in verbs() if verb.startswith(current)]
    from segexp.config.paths import search_dirs
    from segexp.errors import SegexpError

    verb, rest = words[0], words[1:]
    try:
        folders = search_dirs(_config_dirs(rest))
    except SegexpError:
        folders = search_dirs()
    return sorted(word for word in _offers(verb, rest, current, folders) if word.startswith(current))


def _config_dirs(words: list[str]) -> list[str]:
    from itertools import pairwise

    given = [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    return given + [after for word, after in pairwise(words) if word == "--config-dir"]


def _offers(verb: str, rest: list[str], current: str, folders: list) -> list[str]:
    from segexp.config import folder

    if verb == "completion":
        return [] if rest else list(SCRIPTS)
    groups = folder.own_groups(folders)
    if verb == "list":
        return groups
    if current.startswith("-"):
        more = ["--multirun"] if verb == "train" else []
        return ["--config-dir", "--allow-target", "--allow-root", "--help", *more]
    primary = verb if verb in folder.primaries(folders) else "train" if verb == "check" else None
    plain_words = _words(verb, rest, folders)
    if primary is None:
        return plain_words
    from segexp.config.keys import keys_of, values_of

    name, equals, value = current.partition("=")
    if not equals:
        mine = groups if primary == "train" else folder.named_groups(folders, primary)
        return [*plain_words, *(f"{group}=" for group in mine), *keys_of(folders, primary, rest, current)]
    sign = name[: len(name) - len(name.lstrip("+~"))]
    group = name[len(sign):].partition("@")[0]
    known = folder.choices(folders, group) if group in groups else values_of(folders, primary, rest, group)
    done, comma, _ = value.rpartition(",")
    taken = set(done.split(","))
    return [f"{name}={done}{comma}{choice}" for choice in known if choice not in taken]


def _words(verb: str, rest: list[str], folders: list) -> list[str]:
    """Return the plain words that a verb takes next: its own (`WORDS`), then the names of tables."""
    from segexp.cli import command, verbs
    from segexp.config import folder

    own = list(getattr(command(verb), "WORDS", ())) if verb in verbs() else []
    if own and not any(word in own for word in rest):
        return own
    return folder.choices(folders, "table") if verb == "table" else []
