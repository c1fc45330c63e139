"""Reading and writing NIfTI files: checked, canonical in memory, the source's own grid on disk.

Reading decompresses the whole file first, so the gzip checksum of every byte is verified, and refuses what cannot be
used as it is; a file that would become far larger than its header declares is not decompressed to its end. The world
coordinates follow nibabel's rule: the sform when its code is above 0, else the qform; a file with neither has no known
left and right and is refused, or placed by its voxel sizes where that is asked for (`unplaced`). scl_slope of 0 or NaN
means "not scaled" (NIfTI-1 standard).
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from segexp.data.labelmap import as_integers
from segexp.errors import DataError
from segexp.files import written_whole

TRANSFORM_TOLERANCE = 0.1  # mm at a corner: sform and qform are rounded differently, never by this much
CHUNK = 1 << 18  # bytes of compressed data at a time; a hostile one becomes a thousand times as many
LONGEST_HEADER = 540
SLACK = 1 << 26  # bytes that may follow the voxels


@dataclass(frozen=True)
class Source:
    """The grid of a file: what is needed to put an array back on it."""

    path: Path
    shape: tuple[int, int, int]  # as stored, trailing singleton dimensions dropped
    affine: np.ndarray  # [4, 4] of the stored axes, mm
    orientation: np.ndarray  # [3, 2] nibabel orientation of the stored axes
    header: nib.Nifti1Header
    warning: str = ""


@dataclass(frozen=True)
class Volume:
    """One file in memory: ``array`` [D, H, W] with axes running to the right, anterior and superior (RAS)."""

    array: np.ndarray
    affine: np.ndarray  # [4, 4] of the canonical array, mm
    spacing: tuple[float, float, float]  # mm along the canonical axes
    source: Source


def read(path: str | Path, content: bytes | None = None, unplaced: str = "error") -> Volume:
    """Read an image: scaled by slope and intercept, canonical RAS.

    The array keeps the stored integer type when the file is not scaled, otherwise it is float32. ``content`` are the
    file's bytes where the caller has them already. ``unplaced="pixdim"`` reads files with neither sform nor qform too,
    placed as nibabel does (voxel sizes, first axis to the left), with a warning. Raises DataError naming the file and
    the reason: unreadable, empty, not NIfTI, cut off, checksum error, complex or RGB voxels, not three-dimensional,
    empty dimension, voxel sizes of 0, no usable affine, NaN or infinite voxels, or all voxels equal.
    """
    volume = _read(Path(path), content, unplaced)
    array = volume.array
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise DataError(f"{path}: {bad} of {array.size} voxels are NaN or infinite; expected finite intensities")
    if array.min() == array.max():
        raise DataError(f"{path}: every voxel has the value {array.flat[0]}; expected an image")
    return volume


def read_labels(path: str | Path, content: bytes | None = None, unplaced: str = "error") -> Volume:
    """Read a label map as integers, canonical RAS.

    Files of a float type are accepted when every value is whole. Raises DataError as `read` does, and for values that
    are not whole.
    """
    volume = _read(Path(path), content, unplaced)
    return Volume(as_integers(volume.array, path), volume.affine, volume.spacing, volume.source)


def restore(array: np.ndarray, source: Source) -> np.ndarray:
    """Return a canonical array [D, H, W] in the axis order and direction of the source file."""
    canonical = np.array([[0, 1], [1, 1], [2, 1]])
    restored = apply_orientation(array, ornt_transform(canonical, source.orientation))
    if restored.shape != source.shape:
        raise DataError(
            f"{source.path}: an array of shape {array.shape} does not fit this file's grid {source.shape}"
        )
    return restored


def write_labels(path: str | Path, array: np.ndarray, source: Source) -> None:
    """Write canonical integer labels [D, H, W] on the grid, affine and header of ``source``, whole or not at all.

    The voxel type is the smallest integer type that holds the values; slope 1 and intercept 0. ``path`` ends in
    .nii.gz or .nii (DataError otherwise).
    """
    path = Path(path)
    if not path.name.endswith((".nii.gz", ".nii")):
        raise DataError(f"{path}: label maps are written as .nii.gz or .nii")
    labels = restore(as_integers(array, path), source)
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    dtype = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
    header = source.header.copy()
    header.extensions.clear()  # may hold anything about the scan, such as its DICOM header
    header.set_data_dtype(dtype)
    header["cal_min"] = header["cal_max"] = 0
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(np.ascontiguousarray(labels, dtype), source.affine, header)
    image.header.set_slope_inter(1, 0)
    data = image.to_bytes()
    with written_whole(path) as temporary:
        # Level 1: labels shrink nearly as far as at level 9, several times faster.
        temporary.write_bytes(gzip.compress(data, compresslevel=1, mtime=0) if path.suffix == ".gz" else data)


def corner_distance(first: np.ndarray, second: np.ndarray, shape: tuple[int, int, int]) -> float:
    """Return how far two affines [4, 4] place the same corner voxel of a volume apart, at most, in mm."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.linalg.norm(((first - second) @ corners)[:3], axis=0).max())


def affine_hash(affine: np.ndarray) -> str:
    """Return 8 hex digits that are equal for affines that agree to 1e-4 mm."""
    rounded = np.round(np.asarray(affine, np.float64), 4) + 0.0  # + 0.0 turns -0.0 into 0.0
    return hashlib.sha256(rounded.tobytes()).hexdigest()[:8]


def _read(path: Path, content: bytes | None, unplaced: str) -> Volume:
    """Read any supported file; every reason why not is a DataError."""
    data = _decompressed(path, _bytes(path) if content is None else content)
    image = _parse(path, data)
    header = image.header
    dtype = header.get_data_dtype()
    if dtype.kind not in "iufb":
        kind = "complex" if dtype.kind == "c" else "RGB" if dtype.names else str(dtype)
        raise DataError(f"{path}: {kind} voxels; expected one real number per voxel")
    shape = _spatial_shape(path, image.shape)
    needed = int(np.prod(shape)) * dtype.itemsize
    offset = int(image.dataobj.offset)
    if len(data) < offset + needed:
        raise DataError(
            f"{path}: cut off: {shape} voxels of {dtype} from byte {offset} need {offset + needed} bytes, "
            f"the file holds {len(data)}"
        )
    # nibabel repairs some values while parsing; the file's own decide here.
    raw = type(header)(data[: header.template_dtype.itemsize], check=False)
    affine, warning = _affine(path, raw, header, shape, unplaced)
    if np.isinf(raw["scl_slope"]) or np.isinf(raw["scl_inter"]):
        raise DataError(f"{path}: voxels are scaled by {raw['scl_slope']} x + {raw['scl_inter']}; expected numbers")
    try:
        array = np.asanyarray(image.dataobj).reshape(shape)
    except Exception as error:
        raise DataError(f"{path}: voxels cannot be read: {error}") from error
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which `read` refuses
            array = array.astype(np.float32)
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    orientation = io_orientation(affine)
    if not np.isfinite(orientation).all():
        raise DataError(f"{path}: the affine is singular, two axes run the same way: {affine[:3].tolist()}")
    canonical = np.ascontiguousarray(apply_orientation(array, orientation))
    moved = affine @ inv_ornt_aff(orientation, shape)
    spacing = tuple(float(v) for v in np.sqrt((moved[:3, :3] ** 2).sum(0)))
    return Volume(canonical, moved, spacing, Source(path, shape, affine, orientation, header, warning))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _decompressed(path: Path, content: bytes) -> bytes:
    """Return the uncompressed bytes; the checksum and length at the end of every gzip member are verified."""
    if not content:
        raise DataError(f"{path}: the file is empty")
    if not content.startswith(b"\x1f\x8b"):
        return content
    parts: list[bytes] = []
    position = total = 0
    most = None
    while position < len(content):
        if not any(content[position : position + CHUNK]) and not any(content[position:]):
            break  # zero padding after the last member is allowed
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            chunk = content[position : position + CHUNK]
            if not chunk:
                raise DataError(f"{path}: cut off: the compressed data ends at byte {position} without its end mark")
            before = stream.copy()
            try:
                parts.append(stream.decompress(chunk))
            except zlib.error as error:
                bad = position + _first_bad(before, chunk)
                raise DataError(f"{path}: damaged compressed data at byte {bad} of {len(content)}: {error}") from error
            position += len(chunk) - len(stream.unused_data)
            total += len(parts[-1])
            if most is None and total >= LONGEST_HEADER:
                most = _declared(b"".join(parts)) + SLACK
            if most is not None and total > most:
                raise DataError(f"{path}: holds more than the {most - SLACK} bytes that its header declares; it is "
                                "damaged, or made to fill the memory")
    return b"".join(parts)


def _first_bad(stream: Any, chunk: bytes) -> int:
    """Return the byte of ``chunk`` at which ``stream``, which refuses it as a whole, refuses it."""
    offset = 0
    for size in (1 << 12, 1):
        for start in range(0, len(chunk), size):
            before = stream.copy()
            try:
                stream.decompress(chunk[start : start + size])
            except zlib.error:
                stream, chunk, offset = before, chunk[start : start + size], offset + start
                break
    return offset


def _declared(data: bytes) -> int:
    """Return the bytes of a file as its header declares them; 0 where it does not. Nothing is allocated."""
    kind = nib.Nifti2Header if 540 in {int.from_bytes(data[:4], order) for order in ("little", "big")} else (
        nib.Nifti1Header)
    try:
        header = kind(data[: kind.template_dtype.itemsize], check=False)
        shape = [max(int(n), 0) for n in header["dim"][1 : 1 + int(header["dim"][0])]]
        return int(header["vox_offset"]) + math.prod(shape) * int(header["bitpix"]) // 8
    except Exception:  # any damage: the reader says which
        return 0


def _parse(path: Path, data: bytes) -> nib.Nifti1Image:
    """Return the nibabel image of the file's bytes, its voxels not read yet."""
    sizes = {int.from_bytes(data[:4], order) for order in ("little", "big")}
    if not sizes & {348, 540}:
        raise DataError(f"{path}: not a NIfTI file (it starts with the bytes {data[:4].hex(' ')})")
    kind = nib.Nifti1Image if 348 in sizes else nib.Nifti2Image
    try:
        return kind.from_bytes(data)
    except Exception as error:  # nibabel raises many types on damaged headers; all mean the same to the user
        raise DataError(f"{path}: not a usable NIfTI file: {error}") from error


def _spatial_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the three spatial sizes; trailing dimensions of size 1 are dropped."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise DataError(f"{path}: {len(shape)} dimensions {tuple(shape)}; expected one three-dimensional volume")
    if min(shape) < 1:
        raise DataError(f"{path}: the shape {tuple(shape)} has a dimension without voxels")
    return tuple(int(n) for n in shape)  # type: ignore[return-value]


def _affine(
    path: Path, raw: nib.Nifti1Header, header: nib.Nifti1Header, shape: tuple[int, int, int], unplaced: str
) -> tuple[np.ndarray, str]:
    """Return the affine chosen by the stated rule, and a warning when sform and qform disagree."""
    sform, qform = int(raw["sform_code"]) > 0, int(raw["qform_code"]) > 0
    sizes = raw["pixdim"][1:4]
    sized = bool(np.isfinite(sizes).all() and (sizes != 0).all())
    if not sform and not qform and unplaced == "error":
        raise DataError(f"{path}: neither sform nor qform is set, so left and right are unknown")
    if not sized and (sform or not qform):
        raise DataError(f"{path}: voxel sizes of {sizes.tolist()} mm; expected numbers above 0")
    if not sform and not qform:
        return header.get_base_affine(), "neither sform nor qform is set: the first axis is taken to run to the left"
    qform_usable = qform and sized
    try:
        from_qform = header.get_qform() if qform_usable else None
    except Exception:  # a quaternion longer than 1
        from_qform = None
    affine = header.get_sform() if sform else from_qform
    if affine is None:
        raise DataError(f"{path}: the qform is not usable (voxel sizes {sizes.tolist()} mm)")
    affine = np.asarray(affine, np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path}: the affine is zero, singular or not finite: {affine[:3].tolist()}")
    if not sform or from_qform is None:
        return affine, ""
    distance = corner_distance(affine, from_qform, shape)
    if not distance > TRANSFORM_TOLERANCE:
        return affine, ""
    return affine, f"sform and qform disagree by up to {distance:.4g} mm, the sform is used"
