"""Which patients train and which test: as a file deals them, or in the paper's proportion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segexp.data.roots import read_json
from segexp.data.splits import SPLITS
from segexp.errors import DataError


def in_proportion(split: Mapping[str, int | float | None], persons: int) -> Mapping[str, int | float | None]:
    """Return the split with its numbers made smaller in proportion where there are not as many persons."""
    numbers = [size for size in split.values() if isinstance(size, int)]
    if len(numbers) < len(split) or sum(numbers) <= persons:
        return split
    counts = {name: max(1, round(size * persons / sum(numbers))) if size else 0  # type: ignore[operator]
              for name, size in split.items()}
    held_out = sum(count for name, count in counts.items() if name != "train")
    return {**counts, "train": max(persons - held_out, 0)}


def listed_split(path: Path, person_of_case: Mapping[str, str], usable: set[str]) -> dict[str, list[str]]:
    """Return split -> usable patients as a file deals the cases: {split: [case, ...]}.

    Raises DataError when the file cannot be read, names a case that is not there, or deals a patient twice.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not set(content) <= set(SPLITS):
        raise DataError(f"{path}: expected lists of cases named {', '.join(SPLITS)}; set data.splits_file=null to deal "
                        f"the cases by data.split")
    dealt: dict[str, list[str]] = {name: [] for name in SPLITS}
    where: dict[str, str] = {}
    for name in SPLITS:
        for case in content.get(name, []):
            if case not in person_of_case:
                raise DataError(f"{path}: {name} names {case}, which is not there")
            person = person_of_case[case]
            if where.setdefault(person, name) != name:
                raise DataError(f"{path}: the patient {person} is in {where[person]} and in {name}")
            if person in usable and person not in dealt[name]:
                dealt[name].append(person)
    return dealt
