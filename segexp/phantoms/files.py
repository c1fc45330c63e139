"""The NIfTI files of a synthetic case, and the defects that real trees have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from segexp.phantoms.tree import compressed

DEFECTS = ("missing_image", "truncated", "nan", "unknown_label", "wrong_shape", "wrong_affine", "constant", "fraction",
           "four_dimensions", "two_files", "missing_label_map")
"""What `spoil` can do to a case."""


@dataclass(frozen=True)
class Part:
    """One NIfTI file before it is written.

    Attributes:
        array: voxels as stored.
        affine: [4, 4] of the stored axes, mm.
        scaling: slope and intercept of the header; the array holds (value - intercept) / slope.
        codes: qform and sform codes.
    """

    array: np.ndarray
    affine: np.ndarray
    scaling: tuple[float, float] | None = None
    codes: tuple[int, int] = (1, 1)

    def encoded(self, packed: bool = True) -> bytes:
        """Return the file's bytes, gzipped without a time stamp when ``packed``."""
        image = nib.Nifti1Image(np.ascontiguousarray(self.array), self.affine)
        image.set_qform(self.affine if self.codes[0] else None, self.codes[0])
        image.set_sform(self.affine, self.codes[1])
        image.header.set_xyzt_units("mm")
        if self.scaling is not None:
            image.header.set_slope_inter(*self.scaling)
        content = image.to_bytes()
        return compressed(content) if packed else content


def stored(array: np.ndarray, affine: np.ndarray, axes: str) -> Part:
    """Return an array [D, H, W] in RAS order, with its affine (mm), stored along other axes, for example LPS."""
    orientation = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(axes)))
    return Part(apply_orientation(array, orientation), affine @ inv_ornt_aff(orientation, array.shape))


def spoil(parts: Mapping[str, Part], defect: str, images: Sequence[str], label_map: str) -> dict[str, bytes]:
    """Return the content of a case's files with a defect (one of DEFECTS; "": none).

    Args:
        parts: path -> file.
        defect: missing_image and missing_label_map: not there. truncated: half of the first image's bytes. nan: in the
            images. unknown_label: a voxel of value 7. wrong_shape: a label map without its last slice. wrong_affine: a
            label map 5 mm off. constant: images of zeros. fraction: labels of a half. four_dimensions: two volumes in
            one image file. two_files: the first image packed and unpacked.
        images: paths of the images that get the image defects.
        label_map: path of the label map that gets the others.
    """
    parts = dict(parts)
    labels = parts[label_map]
    middle = tuple(size // 2 for size in labels.array.shape)
    for path in images:
        array = parts[path].array
        if defect == "missing_image":
            del parts[path]
        elif defect == "nan":
            array = array.astype(np.float32)
            array[middle] = np.nan
            parts[path] = Part(array, parts[path].affine, None, parts[path].codes)
        elif defect == "constant":
            parts[path] = replace(parts[path], array=np.zeros_like(array), scaling=None)
        elif defect == "four_dimensions":
            parts[path] = replace(parts[path], array=np.stack([array, array], -1))
    if defect == "missing_label_map":
        del parts[label_map]
    elif defect == "unknown_label":
        array = labels.array.copy()
        array[middle] = 7
        parts[label_map] = replace(labels, array=array)
    elif defect == "wrong_shape":
        parts[label_map] = replace(labels, array=labels.array[..., :-1])
    elif defect == "wrong_affine":
        affine = labels.affine.copy()
        affine[:3, 3] += (0, 0, 5)
        parts[label_map] = replace(labels, affine=affine)
    elif defect == "fraction":
        parts[label_map] = replace(labels, array=labels.array.astype(np.float32) * 0.5)
    content = {path: part.encoded() for path, part in parts.items()}
    if defect == "truncated":
        content[images[0]] = content[images[0]][: len(content[images[0]]) // 2]
    elif defect == "two_files":
        content[images[0].removesuffix(".gz")] = parts[images[0]].encoded(packed=False)
    return content
