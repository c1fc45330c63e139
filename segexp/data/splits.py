"""Training, validation and test cases: by person, in the order of their ids."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np

from segexp.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")


def id_order(person: str) -> tuple[int, int, str]:
    """Sort key of an id: numbers by value, before everything else."""
    return (0, int(person), person) if person.isdecimal() else (1, 0, person)


def split_persons(
    persons: Sequence[str], sizes: Mapping[str, int | float | None], train_size: int | None = None,
    strata: Mapping[str, str] | None = None, seed: int | None = None,
) -> dict[str, list[str]]:
    """Deal persons, sorted by id, to train, validation and test, in this order.

    Args:
        persons: ids of the persons with usable cases; repeated ids (several visits) count once.
        sizes: per split a number of persons, a fraction of all persons, or None for the rest (at most once).
        train_size: keep only the first so many persons of the training split (learning curves).
        strata: person -> stratum (a centre): every stratum gives each split the same number of persons.
        seed: shuffle the persons of every stratum first; the order depends on ids and seed alone.

    Returns:
        split -> persons. Persons beyond the sizes are in no split.

    Raises ConfigError for sizes that make no sense, DataError when there are too few persons, with sizes that fit.
    The released split of UK Biobank is 5000, 10 and the remaining 713 of 5,723 persons sorted by id (Rajchl et al.
    2018, 3.1); that of the WMH challenge 48, 6 and 6, even over three centres (Mac et al. 2020, 3.1).

    """
    _check_sizes(sizes)
    ordered = sorted(set(persons), key=id_order)
    names = sorted({strata[person] for person in ordered}) if strata else [""]
    parts = []
    for position, stratum in enumerate(names):
        members = [person for person in ordered if not strata or strata[person] == stratum]
        if seed is not None:
            random = np.random.default_rng((seed, zlib.crc32(stratum.encode())))
            members = [members[index] for index in random.permutation(len(members))]
        try:
            parts.append(_deal(members, {name: _share(sizes[name], position, len(names)) for name in SPLITS},
                               len(names)))
        except DataError as error:
            raise DataError(f"{stratum}: {error}" if stratum else str(error)) from None
    dealt = {name: sorted((person for part in parts for person in part[name]), key=id_order) for name in SPLITS}
    # Training persons take turns over the strata, in the order they were dealt: the first few are a fair sample.
    rounds = zip_longest(*(part["train"] for part in parts))
    dealt["train"] = [person for one in rounds for person in one if person is not None]
    dealt["train"] = first_persons(dealt["train"], train_size)
    return dealt


def first_persons(train: list[str], train_size: int | None, called: str = "persons") -> list[str]:
    """Return the first ``train_size`` training persons, all for None; DataError when there are fewer."""
    if train_size is not None and train_size > len(train):
        raise DataError(f"data.train_size={train_size}, but the training split has {len(train)} {called}; choose at "
                        "most that many or null for all")
    return train[:train_size]


def _share(size: int | float | None, position: int, strata: int) -> int | float | None:
    """Return a stratum's part of a split; what does not divide goes to the first strata."""
    if not isinstance(size, int):
        return size
    return size // strata + (position < size % strata)


def _deal(ordered: Sequence[str], sizes: Mapping[str, int | float | None], strata: int) -> dict[str, list[str]]:
    """Deal the persons of one of ``strata`` strata in the given order."""
    total = len(ordered)
    counts = {name: _count(sizes[name], total) for name in SPLITS}
    # Fractions that sum to 1 use everybody: the last one absorbs what rounding left over or took.
    fractions = [name for name in SPLITS if isinstance(sizes[name], float)]
    if len(fractions) == len(SPLITS) and abs(sum(sizes[name] for name in fractions) - 1) < 1e-6:  # type: ignore[misc]
        counts[fractions[-1]] = total - sum(counts[name] or 0 for name in fractions[:-1])
    rest = [name for name in SPLITS if counts[name] is None]
    left = total - sum(count or 0 for count in counts.values())
    if rest:
        counts[rest[0]] = left
    too_small = [name for name in SPLITS if counts[name] < 1 and sizes[name] != 0]  # type: ignore[operator]
    if left < 0 or too_small:
        raise DataError(_too_few(total, sizes, strata))
    dealt, position = {}, 0
    for name in SPLITS:
        dealt[name] = list(ordered[position : position + counts[name]])  # type: ignore[operator]
        position += counts[name]  # type: ignore[operator]
    return dealt


def _check_sizes(sizes: Mapping[str, int | float | None]) -> None:
    if set(sizes) != set(SPLITS):
        raise ConfigError(f"data.split: expected the keys {', '.join(SPLITS)}, got {', '.join(map(str, sizes))}")
    for name, size in sizes.items():
        whole = isinstance(size, int) and not isinstance(size, bool) and size >= 0
        fraction = isinstance(size, float) and 0 < size < 1
        if not (size is None or whole or fraction):
            raise ConfigError(
                f"data.split.{name}={size}: expected a number of persons, a fraction in (0, 1), or null (rest)"
            )
    if sum(size is None for size in sizes.values()) > 1:
        raise ConfigError("data.split: only one of train, validation and test can be null (the rest)")
    if all(size == 0 for size in sizes.values()):
        raise ConfigError("data.split: every split has 0 persons; expected at least one split with some")
    summed = sum(size for size in sizes.values() if isinstance(size, float))
    if summed > 1 + 1e-6:
        raise ConfigError(f"data.split: the fractions sum to {summed:g}; expected at most 1")


def _count(size: int | float | None, total: int) -> int | None:
    return round(size * total) if isinstance(size, float) else size


def _too_few(total: int, sizes: Mapping[str, int | float | None], strata: int) -> str:
    asked = ", ".join(f"{name}={'null' if sizes[name] is None else sizes[name]}" for name in SPLITS)
    text = f"{total} persons with usable cases are too few for the split {asked}"
    if total < 3:
        return f"{text}; at least 3 are needed, one for each of train, validation and test"
    held_out = max(1, round(total * 0.15))
    train = max(1, total - 2 * held_out)
    return (f"{text}; set for example data.split.train={train * strata} data.split.validation={held_out * strata} "
            "data.split.test=null")
