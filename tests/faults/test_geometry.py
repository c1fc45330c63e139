"""Row 12: where a voxel lies is chosen by a stated rule, and what is written overlays its input in world mm.

The rule: the sform where its code is above 0, else the qform. What is written keeps both, so that every reader, also
one that prefers the qform, sees labels and image in the same place.
"""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from segexp.data import nifti
from tests.faults.images import packed, voxels, written

SHAPE = (9, 11, 7)
CORNERS = np.array(list(itertools.product((0, 1), repeat=3)))


def turned(degrees: tuple[float, float, float]) -> np.ndarray:
    """Return a rotation by angles around the three axes."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        one[first, first] = one[second, second] = np.cos(angle)
        one[first, second], one[second, first] = -np.sin(angle), np.sin(angle)
        result = result @ one
    return result


def affine(order: tuple[int, ...] = (0, 1, 2), signs: tuple[int, ...] = (1, 1, 1),
           sizes: tuple[float, ...] = (1, 1.5, 2), degrees: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for stored, (world, sign, size) in enumerate(zip(order, signs, sizes, strict=True)):
        matrix[world, stored] = sign * size
    matrix[:3, :3] = turned(degrees) @ matrix[:3, :3]
    matrix[:3, 3] = (-40.25, 17.5, 33.125)
    return matrix


ORDERS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
ANGLES = [(0, 0, 0), (7, -12, 20), (33, 5, -41)]


def stored(path: Path, sform: np.ndarray | None, qform: np.ndarray | None) -> Path:
    image = nib.Nifti1Image(voxels(shape=SHAPE), None)
    image.set_sform(sform, 0 if sform is None else 2)
    image.set_qform(qform, 0 if qform is None else 1)
    return written(path, packed(image.to_bytes()) if path.suffix == ".gz" else image.to_bytes())


def world(path: Path, reader: str) -> np.ndarray:
    """Return the world positions of the corner voxels of a file, RAS mm, as nibabel or ITK sees them."""
    if reader == "nibabel":
        image = nib.load(path)
        return nib.affines.apply_affine(image.affine, CORNERS * (np.array(image.shape) - 1))
    image = sitk.ReadImage(str(path))
    ends = np.array(image.GetSize()) - 1
    points = [image.TransformIndexToPhysicalPoint([int(value) for value in corner * ends]) for corner in CORNERS]
    return np.array(points) * (-1, -1, 1)  # ITK's world is LPS


def overlay(source: Path, target: Path) -> float:
    """Label a file, write the labels, and return how far apart the two lie for any reader, mm."""
    volume = nifti.read(source)
    labels = (volume.array > 1000).astype(np.uint8)
    nifti.write_labels(target, labels, volume.source)
    np.testing.assert_array_equal(np.asarray(nib.load(target).dataobj), np.asarray(nib.load(source).dataobj) > 1000)
    again = nifti.read_labels(target)
    assert np.abs(again.affine - volume.affine).max() < 1e-4
    np.testing.assert_array_equal(again.array, labels)
    return max(np.linalg.norm(world(source, reader) - world(target, reader), axis=1).max()
               for reader in ("nibabel", "ITK"))


@pytest.mark.parametrize("degrees", ANGLES)
def test_flipped_permuted_and_oblique_files_are_overlaid(tmp_path: Path, degrees: tuple[float, float, float]) -> None:
    errors = []
    for order, signs in ORDERS:
        matrix = affine(order, signs, degrees=degrees)
        source = stored(tmp_path / "head.nii", matrix, matrix)
        errors.append(overlay(source, tmp_path / "labels.nii"))
        volume = nifti.read(source)
        assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert len(errors) == 48 and max(errors) < 1e-3


def test_the_same_head_stored_in_any_order_is_the_same_head(tmp_path: Path) -> None:
    """LPS, RAS and the other 46: the array in memory and the place of every voxel are equal."""
    reference = nib.Nifti1Image(voxels(shape=SHAPE), affine())
    first = nifti.read("a.nii", reference.to_bytes())
    for order, signs in ORDERS:
        turn = np.array(list(zip(order, signs, strict=True)), float)
        image = reference.as_reoriented(turn)
        found = nifti.read("a.nii", image.to_bytes())
        np.testing.assert_array_equal(found.array, first.array)
        assert np.abs(found.affine - first.affine).max() < 1e-4 and found.spacing == pytest.approx(first.spacing)


@pytest.mark.parametrize(("sform", "qform"), [
    (affine(), affine(sizes=(2, 3, 4))), (affine(degrees=(10, 0, 0)), affine()), (affine(signs=(-1, 1, 1)), affine()),
    (affine(order=(2, 0, 1)), affine(signs=(1, -1, 1)))])
def test_where_sform_and_qform_disagree_the_sform_decides_and_both_are_kept(
        tmp_path: Path, sform: np.ndarray, qform: np.ndarray) -> None:
    source = stored(tmp_path / "head.nii.gz", sform, qform)
    volume = nifti.read(source)
    assert volume.source.warning.startswith("sform and qform disagree by up to")
    assert "the sform is used" in volume.source.warning
    np.testing.assert_allclose(volume.source.affine, sform, atol=1e-4)
    assert overlay(source, tmp_path / "labels.nii.gz") < 1e-3
    made = nib.load(tmp_path / "labels.nii.gz").header
    assert (int(made["sform_code"]), int(made["qform_code"])) == (2, 1)
    np.testing.assert_allclose(made.get_qform(), qform, atol=1e-4)


@pytest.mark.parametrize(("sform", "qform"), [(affine(degrees=(5, 5, 5)), None), (None, affine(degrees=(5, 5, 5)))])
def test_one_of_the_two_is_enough(tmp_path: Path, sform: np.ndarray | None, qform: np.ndarray | None) -> None:
    source = stored(tmp_path / "head.nii.gz", sform, qform)
    np.testing.assert_allclose(nifti.read(source).source.affine, affine(degrees=(5, 5, 5)), atol=1e-4)
    assert overlay(source, tmp_path / "labels.nii.gz") < 1e-3


def test_sheared_axes_are_kept(tmp_path: Path) -> None:
    """A non-orthonormal sform, which ITK refuses to read: what is written has it too."""
    matrix = affine()
    matrix[0, 1] = 0.4
    source = stored(tmp_path / "head.nii", matrix, None)
    volume = nifti.read(source)
    nifti.write_labels(tmp_path / "labels.nii", (volume.array > 1000).astype(np.uint8), volume.source)
    assert np.linalg.norm(world(source, "nibabel") - world(tmp_path / "labels.nii", "nibabel"), axis=1).max() < 1e-3


def test_without_either_a_file_is_refused_or_placed_with_a_warning(tmp_path: Path) -> None:
    source = stored(tmp_path / "head.nii", None, None)
    volume = nifti.read(source, unplaced="pixdim")
    assert "neither sform nor qform" in volume.source.warning
    nifti.write_labels(tmp_path / "labels.nii", (volume.array > 1000).astype(np.uint8), volume.source)
    for reader in ("nibabel", "ITK"):
        gap = np.linalg.norm(world(source, reader) - world(tmp_path / "labels.nii", reader), axis=1).max()
        assert gap < 1e-3, reader
