"""Dealing subjects to shards: by a hash of the subject alone, the same on every machine and for every set of files."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from segexp.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of all subjects; ``number`` counts from 1."""

    number: int = 1
    count: int = 1

    def holds(self, subject: str) -> bool:
        """Say whether a subject belongs to this part."""
        return shard_of(subject, self.count) == self.number

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def shard_of(subject: str, count: int) -> int:
    """Return the shard, 1 to ``count``, of a subject: it depends on nothing but its name and the count."""
    digest = hashlib.sha256(subject.encode()).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


def parse_shard(text: object) -> Shard:
    """Return the shard that ``3/16`` names; None and "" are the whole.

    Raises:
        ConfigError: it is not NUMBER/COUNT with 1 <= NUMBER <= COUNT.

    """
    if text in (None, ""):
        return Shard()
    match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", str(text))
    if match is None:
        raise ConfigError(f"shard={text}: expected NUMBER/COUNT, such as shard=3/16 for the third of 16 shards")
    number, count = int(match[1]), int(match[2])
    if count < 1:
        raise ConfigError(f"shard={text}: there is no part of 0 shards; expected 1 shard or more")
    if not 1 <= number <= count:
        shift = ("; shards are counted from 1: the first is "
                 f"1/{count}, the last {count}/{count} (for a Slurm array: --array=1-{count})")
        raise ConfigError(f"shard={text}: there is no such shard{shift}")
    return Shard(number, count)
