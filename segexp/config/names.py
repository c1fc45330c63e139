"""Which valid name a mistyped one probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches

MANY = 12


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name closest to ``word``, in full or by its last part (``nn_al``: ``neuronet/nn_all``), or None."""
    # Later entries win: a full name is preferred to the same text as another name's last part.
    names = list(names)
    known = {name.rpartition("/")[2]: name for name in names} | {name: name for name in names}
    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return known[found[0]] if found else None


def hint(word: str, names: Iterable[str], more: str = "") -> str:
    """Return the end of an error message: the nearest name and, where they are few, all names.

    Args:
        word: what was typed.
        names: what would have been valid.
        more: the command that lists the names, shown where they are too many.

    Returns:
        For example ``"; did you mean gpu? (choices: auto, cpu, gpu)"``; empty where there is nothing to say.
    """
    names = sorted(set(names))
    found = nearest(word, names)
    text = f"; did you mean {found}?" if found else ""
    if names and len(names) <= MANY:
        text += f" (choices: {', '.join(names)})"
    elif names and more:
        text += f" ({more} shows all {len(names)})"
    return text
