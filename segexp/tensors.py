"""Files of tensors and plain values: written whole, their hash kept beside them, loaded without running anything.

A file holds tensors, numbers, texts, None, and lists, tuples and dicts of them, in torch's zip format. Whatever else a
file holds, it is refused before a byte of it is executed: a checkpoint may come from a stranger.
"""

import json
import shutil
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segexp.errors import SegexpError
from segexp.files import sha256, write_json, written_whole

PLAIN = (type(None), bool, int, float, str)
REMEMBERED = 32
"""Hashes kept per folder. That of a new file is written before the file itself, so the old one's must stay, also after
many kills between the two."""


class TensorFileError(SegexpError):
    """A file of tensors that cannot be used: damaged, changed, or holding something else than tensors."""


def save(content: Mapping[str, Any], path: str | Path, keep: str | Path | None = None) -> str:
    """Write ``content`` to ``path``, whole or not at all, and return the file's SHA-256.

    Args:
        content: tensors and plain values.
        path: the file; its hash goes into ``hashes.json`` beside it.
        keep: where the file that was at ``path`` stays; at every moment one of the two is whole.

    Raises:
        TensorFileError: ``content`` holds something that could not be loaded safely, or the disk took no more.
    """
    import torch

    path = Path(path)
    problem = next(not_plain(content), None)
    if problem:
        raise TensorFileError(f"{path}: {problem}; files of weights hold tensors and plain values only: keep a "
                              "state_dict instead of the object")
    try:
        with written_whole(path) as temporary:
            torch.save(content, temporary)
            digest = sha256(temporary)
            remember(path, digest)
            if keep is not None and path.exists():
                keep_as(path, Path(keep))
    except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError where the disk is full
        free = shutil.disk_usage(path.parent).free / 1e6 if path.parent.is_dir() else 0
        raise TensorFileError(f"{path} could not be written ({str(error).splitlines()[0]}); {free:.0f} MB are free "
                              "there; what was there before is untouched") from error
    return digest


def keep_as(path: Path, kept: Path) -> None:
    """Make ``kept`` the file that ``path`` is now, while ``path`` stays where it is if the file system can."""
    beside = kept.with_name(f".{kept.name}.part")
    try:
        beside.unlink(missing_ok=True)
        beside.hardlink_to(path)
        beside.replace(kept)
    except OSError:
        path.replace(kept)


def load(path: str | Path, device: str = "cpu") -> dict[str, Any]:
    """Return what ``save`` wrote.

    Nothing is executed, and what is read is not larger than the file. Where the file's hash is known, it is compared.

    Raises:
        TensorFileError: the file is missing, damaged, not the one that was written, or holds anything but tensors and
            plain values.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise TensorFileError(f"{path}: there is no such file")
    refuse_other_archives(path)
    known = hashes(path)
    if known and sha256(path) not in known:
        raise TensorFileError(f"{path} is not the file that was written: its SHA-256 is none of those in "
                              f"{hash_file(path)}; it is damaged or was replaced")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # whatever a hostile or damaged file makes of torch's reader
        reason = " ".join(str(error).split())[:300]
        raise TensorFileError(f"{path} cannot be loaded as tensors and plain values ({type(error).__name__}: "
                              f"{reason})") from error
    try:
        problem = (next(not_plain(content), None) if isinstance(content, dict)
                   else f"it holds a {type(content).__name__}, not a dict")
    except RecursionError:
        problem = "it is nested too deeply, or holds itself"
    if problem:
        raise TensorFileError(f"{path} is refused: {problem}")
    return content


def refuse_other_archives(path: Path) -> None:
    """Raise TensorFileError unless ``path`` is a zip whose members are stored as they are, as torch writes it.

    A compressed member could be a thousand times larger than the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [item.filename for item in archive.infolist()
                      if item.compress_type != zipfile.ZIP_STORED or item.file_size != item.compress_size]
            total = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise TensorFileError(f"{path} is no file of weights as torch writes them ({error}): damaged, cut short, or of "
                              "another kind") from error
    if packed or total > path.stat().st_size:
        raise TensorFileError(f"{path} is refused: it declares more than it holds ({total} bytes in a file of "
                              f"{path.stat().st_size}{', packed: ' + packed[0] if packed else ''})")


def not_plain(value: Any, where: str = "") -> Iterator[str]:
    """Yield what in ``value`` is neither a tensor nor plain: ``optimizer_states[0].hook is a function``."""
    import torch

    if type(value) in (dict, OrderedDict, Counter):
        for key, child in value.items():
            if not isinstance(key, PLAIN):
                yield f"{where or 'content'} has a key of type {type(key).__name__}"
            yield from not_plain(child, f"{where}.{key}" if where else str(key))
    elif type(value) in (list, tuple):
        for index, child in enumerate(value):
            yield from not_plain(child, f"{where}[{index}]")
    elif type(value) in (torch.Tensor, torch.nn.Parameter):
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            yield f"{where} is not a dense tensor"
        elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
            yield f"{where} declares {value.numel()} numbers and holds fewer"
    elif type(value) not in PLAIN:
        yield f"{where or 'content'} is a {type(value).__module__}.{type(value).__qualname__}"


def not_finite(tensors: Mapping[str, Any]) -> str:
    """Return the names of some tensors that hold NaN or infinite numbers, and how many do; empty if none does."""
    import torch

    bad = [str(name) for name, one in tensors.items()
           if isinstance(one, torch.Tensor) and one.is_floating_point() and not bool(one.isfinite().all())]
    return f"{len(bad)} tensors, such as {bad[0]}" if bad else ""


def other_types(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Return the tensors whose type of numbers is not the expected one, for a message; empty if all are right."""
    wrong = [f"{name} is {tensors[name].dtype}, expected {one.dtype}" for name, one in expected.items()
             if hasattr(tensors.get(name), "dtype") and tensors[name].dtype != one.dtype]
    return "; ".join(wrong[:3])


def hash_file(path: Path) -> Path:
    """Return where the hashes of the files of a folder are kept."""
    return path.with_name("hashes.json")


def hashes(path: Path) -> list[str]:
    """Return the SHA-256 values of what was written beside and to ``path``, the newest last; empty when none is kept.

    They are the folder's, not the file's: a file becomes ``keep`` by a rename, which no hash can follow at once.
    """
    try:
        return [str(digest) for digest in json.loads(hash_file(path).read_text(encoding="utf-8"))["sha256"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def remember(path: Path, digest: str) -> None:
    """Keep the hash of a file that is about to be at ``path``."""
    known = [one for one in hashes(path) if one != digest]
    write_json(hash_file(path), {"sha256": [*known, digest][-REMEMBERED:]})
