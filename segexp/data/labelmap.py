"""Label maps: raw file values to contiguous class indices, with names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segexp.errors import ConfigError, DataError

IGNORE = -100
"""Class index of voxels that no loss may count: padding, and targets that a case does not have."""

TARGET = re.compile(r"\w[\w.-]{0,99}")
SHOWN = 8  # unknown values named in a message; a corrupt file can hold thousands


@dataclass(frozen=True)
class LabelMap:
    """The structures of one target: ``values[k]`` is the file value and ``names[k]`` the name of class ``k``.

    Classes are the positions of the file values in ascending order; class 0 is the background. ``key`` is the
    configuration's key that declares the values, for messages.
    """

    target: str
    values: tuple[int, ...]
    names: tuple[str, ...]
    key: str = field(default="", compare=False)

    @property
    def num_classes(self) -> int:
        """Number of classes K, background included."""
        return len(self.values)

    @classmethod
    def from_mapping(cls, target: str, structures: Mapping[int, str]) -> LabelMap:
        """Build a label map from ``{file value: structure name}``.

        Raises ConfigError unless the values are whole numbers from 0 (the background) on, at most 255 of them
        (class indices are kept as uint8 and 255 is left free), and the names are given and differ.
        """
        key = f"data.label_maps.{target}"
        if not structures:
            raise ConfigError(f"{key}: no structures; expected a mapping such as {{0: background, 1: csf}}")
        for value in structures:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"{key}: file value {value!r} is not a whole number from 0 on")
        values = tuple(sorted(structures))
        names = tuple(structures[value] for value in values)
        if values[0] != 0 or names[0] != "background":
            raise ConfigError(f"{key}: the first structure must be `0: background`, not `{values[0]}: {names[0]}`")
        if len(values) > 255:
            raise ConfigError(f"{key}: {len(values)} structures; at most 255 fit")
        if not all(isinstance(name, str) and name for name in names):
            raise ConfigError(f"{key}: every structure needs a name (a string), got {list(names)}")
        if not TARGET.fullmatch(target):
            raise ConfigError(f"{key}: {target!r} names files; expected letters, digits, full stops, - and _")
        odd = [name for name in names if not name.isprintable() or name.startswith(("=", "+", "-", "@"))]
        if odd:
            raise ConfigError(f"{key}: the name {odd[0]!r} has control characters, or begins like a formula")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"{key}: the names {', '.join(twice)} occur more than once")
        return cls(target, values, names)

    def unknown(self, raw: np.ndarray) -> dict[int, int]:
        """Return ``{file value: number of voxels}`` for the values of ``raw`` that the map does not declare."""
        present, counts = _count_values(raw)
        declared = np.isin(present, self.values)
        return {int(v): int(n) for v, n in zip(present[~declared], counts[~declared], strict=True)}

    def encode(self, raw: np.ndarray, source: str | Path, on_unknown: str = "error") -> np.ndarray:
        """Return the class indices (uint8, shape of ``raw``) of an array of file values.

        Float arrays are accepted when every value is whole. ``on_unknown="background"`` turns undeclared values
        into class 0 (count them with `unknown`); ``"error"`` raises DataError naming ``source``, the values and
        how many voxels hold each. Values that are not whole or not finite are always a DataError.
        """
        raw = as_integers(raw, source)
        unknown = self.unknown(raw)
        if unknown and on_unknown == "error":
            raise DataError(
                f"{source}: {describe_counts(unknown)} not in the label map of {self.target} "
                f"(it declares {_ranges(self.values)}); correct the file, declare the values in "
                f"{self.key or f'data.label_maps.{self.target}'}, or set data.on_unknown=background"
            )
        if raw.size == 0:
            return np.zeros(raw.shape, np.uint8)
        low, high = int(raw.min()), int(raw.max())
        if low >= 0 and high < 2**16:
            table = np.zeros(max(high, self.values[-1]) + 1, np.uint8)
            table[list(self.values)] = np.arange(self.num_classes, dtype=np.uint8)
            return np.take(table, raw)
        known = np.searchsorted(self.values, raw).clip(0, self.num_classes - 1)
        return np.where(np.asarray(self.values)[known] == raw, known, 0).astype(np.uint8)

    def decode(self, classes: np.ndarray) -> np.ndarray:
        """Return the file values of class indices, in the smallest unsigned type that holds every declared value.

        Raises DataError when an index is not a class of this map.
        """
        classes = np.asarray(classes)
        if classes.size and (int(classes.min()) < 0 or int(classes.max()) >= self.num_classes):
            raise DataError(
                f"{self.target}: class indices from {int(classes.min())} to {int(classes.max())}, "
                f"but the label map has the classes 0..{self.num_classes - 1}"
            )
        table = np.asarray(self.values, np.min_scalar_type(self.values[-1]))
        return np.take(table, classes)


def lookup_table(source: LabelMap, target: LabelMap, groups: Mapping[int, Sequence[int]]) -> np.ndarray:
    """Return the class of ``target`` for every class of ``source`` (uint8, shape [K of source]).

    ``groups`` lists, per file value of ``target``, the file values of ``source`` that become it. Raises ConfigError
    unless every value of ``source`` is named exactly once and only declared values are named.
    """
    key = f"data.lookups.{target.target}"
    table = np.full(source.num_classes, 255, np.uint8)
    for value, members in groups.items():
        if value not in target.values:
            raise ConfigError(f"{key}: {value} is not a file value of {target.target}")
        for member in members:
            if member not in source.values:
                raise ConfigError(f"{key}: {member} is not a file value of {source.target}")
            position = source.values.index(member)
            if table[position] != 255:
                raise ConfigError(f"{key}: the value {member} of {source.target} is named twice")
            table[position] = target.values.index(value)
    left = [value for value, entry in zip(source.values, table, strict=True) if entry == 255]
    if left:
        raise ConfigError(f"{key}: no entry for the values {_ranges(left)} of {source.target}")
    return table


def as_integers(raw: np.ndarray, source: str | Path) -> np.ndarray:
    """Return ``raw`` as an integer array; DataError when a value is not whole or not finite."""
    raw = np.asarray(raw)
    if raw.dtype.kind in "iu":
        return raw
    if raw.dtype.kind == "b":
        return raw.astype(np.uint8)
    if raw.size == 0:
        return raw.astype(np.int32)
    low, high = raw.min(), raw.max()  # NaN wherever the array holds one
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = raw.size - int(np.isfinite(raw).sum())
        raise DataError(f"{source}: {bad} voxels of this label map are NaN or infinite")
    whole = raw.astype(np.int32 if -(2**31) <= low and high < 2**31 else np.int64)
    odd = whole != raw
    if odd.any():
        examples = ", ".join(f"{float(v):g}" for v in np.unique(raw[odd])[:SHOWN])
        raise DataError(
            f"{source}: {int(odd.sum())} voxels of this label map are not whole numbers ({examples}); "
            f"expected integer labels, so perhaps it was resampled with interpolation or is a probability map"
        )
    return whole


def describe_counts(counts: Mapping[int, int]) -> str:
    """Return ``value 99 (12 voxels)`` or ``values 7 (1 voxel), 99 (12 voxels)`` for a message."""
    shown = [f"{v} ({n} voxel{'' if n == 1 else 's'})" for v, n in sorted(counts.items())[:SHOWN]]
    more = f" and {len(counts) - SHOWN} more values" if len(counts) > SHOWN else ""
    return ("value " if len(counts) == 1 else "values ") + ", ".join(shown) + more


def _count_values(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values of an integer array and how often each occurs."""
    flat = np.asarray(raw).reshape(-1)
    # Counting is several times faster than sorting, and label values are small in every sound file.
    if flat.size and int(flat.min()) >= 0 and int(flat.max()) < 2**16:
        counts = np.bincount(flat)
        present = np.flatnonzero(counts)
        return present, counts[present]
    return np.unique(flat, return_counts=True)


def _ranges(values: Sequence[int]) -> str:
    """Return ``0, 10..13, 16`` for a sorted sequence of values."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in parts)
