"""Secrets that must not be written: passwords in addresses, values of secret environment variables, named secrets.

A run's directory is copied, shared and published. What is written as text goes through `redacted`; a configuration
that holds a secret is refused before anything starts (``segexp.config``), because what was replaced cannot be run.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"
SHORTEST = 8  # characters of an environment variable that is taken for a secret by its name
NAMED = re.compile(r"(?i)(^|[_.\-])(passw(or)?d|passphrase|secret|token|(api|access|private|secret)[_-]?key|"
                   r"credentials?|auth)($|[_.\-])")
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{1,20}://)[^/\s@'\"<>]+@")
SETTING = re.compile(r"([\w.\-/@+]+)(=|:\s?)(\S.*)", re.DOTALL)


def redacted(text: str) -> str:
    """Return ``text`` without passwords in addresses and without the values of secret environment variables."""
    for value in secrets():
        if value in text:
            text = text.replace(value, HIDDEN)
    return ADDRESS.sub(rf"\1{HIDDEN}@", text) if "@" in text else text


def redacted_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, for the record: also without the values of keys named like secrets."""
    result = []
    hide = False
    for word in words:
        found = SETTING.fullmatch(word)
        if hide:
            word = HIDDEN
        elif found and NAMED.search(found[1]):
            word = f"{found[1]}{found[2]}{HIDDEN}"
        hide = word.startswith("--") and "=" not in word and bool(NAMED.search(word.lstrip("-")))
        result.append(redacted(word))
    return result


def secret_in(node: Any, key: str = "") -> str | None:
    """Return why a plain configuration holds a secret, with its key but without the secret; None where it does not."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            where = f"{key}.{name}" if key else str(name)
            if NAMED.search(str(name)) and isinstance(child, str) and child and not child.startswith("${"):
                return f"{where} is named like a secret"
            found = secret_in(str(name), key) or secret_in(child, where)
            if found:
                return found
    elif isinstance(node, list | tuple):
        return next((found for index, child in enumerate(node) if (found := secret_in(child, f"{key}[{index}]"))), None)
    elif isinstance(node, str):
        if ADDRESS.search(node):
            return f"{key or 'a word'} holds an address with a password (scheme://user:password@host)"
        if any(value in node for value in secrets()):
            return f"{key or 'a word'} holds the value of a secret environment variable"
    return None


def secrets() -> list[str]:
    """Return the values of the environment variables that are named like secrets, longest first."""
    found = {value for name, value in os.environ.items()
             if NAMED.search(name) and len(value) >= SHORTEST and not value.startswith(("/", "."))}
    return sorted(found, key=len, reverse=True)
