"""One component stays: connectivity, the rules of choice, hostile maps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segexp.errors import ConfigError
from segexp.inference import LargestComponent
from segexp.inference.components import foreground_box

KIDNEY, TUMOUR = 1, 2
maps = hnp.arrays(np.uint8, st.just((4, 5, 6)), elements=st.sampled_from([0, 0, 0, 1, 2]))


def volume(*blocks: tuple[tuple[slice, ...], int], shape: tuple[int, ...] = (12, 12, 12)) -> torch.Tensor:
    labels = torch.zeros(shape, dtype=torch.uint8)
    for block, value in blocks:
        labels[block] = value
    return labels


def cube(start: tuple[int, ...], size: int) -> tuple[slice, ...]:
    return tuple(slice(first, first + size) for first in start)


def pieces(labels: torch.Tensor, connectivity: int) -> int:
    """Return how many components a map has, found by removing one after the other."""
    labels, count = labels.clone(), 0
    while labels.any():
        labels[LargestComponent(connectivity)(labels) > 0] = 0
        count += 1
    return count


@pytest.mark.parametrize(("offset", "counts"), [
    ((3, 3, 3), {6: 2, 18: 2, 26: 1}),  # cubes that share a corner
    ((3, 3, 0), {6: 2, 18: 1, 26: 1}),  # an edge
    ((3, 0, 0), {6: 1, 18: 1, 26: 1}),  # a face
])
def test_connectivity(offset, counts):
    labels = volume((cube((2, 2, 2), 3), KIDNEY), (cube(tuple(2 + step for step in offset), 3), TUMOUR))
    assert {connectivity: pieces(labels, connectivity) for connectivity in counts} == counts


def test_kidney_and_tumour_are_one_foreground():
    # Two nodules on a kidney: apart from each other, each a component of its own class.
    labels = volume((cube((3, 3, 3), 5), KIDNEY), (cube((1, 4, 4), 2), TUMOUR), (cube((8, 5, 5), 2), TUMOUR))
    assert torch.equal(LargestComponent()(labels), labels)


def test_a_small_blob_vanishes():
    kidney = volume((cube((1, 1, 1), 5), KIDNEY))
    labels = kidney.clone()
    labels[cube((9, 9, 9), 2)] = TUMOUR
    for keep in ("largest", "touching_kidney"):
        assert torch.equal(LargestComponent(keep=keep)(labels), kidney)


def test_a_lone_tumour_larger_than_the_kidney():
    kidney, tumour = volume((cube((1, 1, 1), 3), KIDNEY)), volume((cube((6, 6, 6), 5), TUMOUR))
    labels = kidney + tumour
    assert torch.equal(LargestComponent()(labels), tumour)
    assert torch.equal(LargestComponent(keep="touching_kidney")(labels), kidney)


def test_tumours_without_any_kidney():
    labels = volume((cube((0, 0, 0), 2), TUMOUR), (cube((6, 6, 6), 4), TUMOUR))
    expected = volume((cube((6, 6, 6), 4), TUMOUR))
    for keep in ("largest", "touching_kidney"):
        assert torch.equal(LargestComponent(keep=keep)(labels), expected)


@pytest.mark.parametrize("value", [0, KIDNEY, TUMOUR])
@pytest.mark.parametrize("keep", ["largest", "touching_kidney"])
def test_one_value_everywhere(value, keep):
    labels = torch.full((3, 1, 5), value, dtype=torch.uint8)
    assert torch.equal(LargestComponent(keep=keep)(labels), labels)


def test_equal_sizes_go_to_the_first_in_raster_order():
    first, second = (slice(0, 2), slice(9, 11), slice(9, 11)), (slice(1, 3), slice(0, 2), slice(0, 2))
    labels = volume((first, TUMOUR), (second, KIDNEY))
    assert torch.equal(LargestComponent()(labels), volume((first, TUMOUR)))


@settings(deadline=None, max_examples=60)
@given(maps, st.sampled_from([6, 18, 26]), st.sampled_from(["largest", "touching_kidney"]))
def test_equals_the_definition(array, connectivity, keep):
    found = LargestComponent(connectivity, keep)(torch.from_numpy(array)).numpy()
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    components, count = ndimage.label(array > 0, structure)
    masks = [components == index for index in range(1, count + 1)]
    if keep == "touching_kidney" and (array == KIDNEY).any():
        masks = [mask for mask in masks if (array[mask] == KIDNEY).any()]
    # Largest first, and of equals the one whose first voxel comes first.
    masks.sort(key=lambda mask: (-mask.sum(), np.flatnonzero(mask)[0]))
    expected = np.where(masks[0], array, 0) if masks else array
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int64])
def test_input_stays_and_type_stays(kind):
    labels = volume((cube((1, 1, 1), 3), KIDNEY), (cube((7, 7, 7), 2), TUMOUR)).to(kind)
    before = labels.clone()
    assert LargestComponent()(labels).dtype == kind
    assert torch.equal(labels, before)


def test_box_around_the_foreground():
    labels = volume(((slice(2, 4), slice(5, 6), slice(0, 12)), TUMOUR))
    assert foreground_box(labels) == (slice(2, 4), slice(5, 6), slice(0, 12))
    assert foreground_box(labels, 3) == (slice(0, 7), slice(2, 9), slice(0, 12))
    assert foreground_box(torch.zeros_like(labels), 3) is None


@pytest.mark.parametrize(("settings", "message"), [
    ({"connectivity": 8}, r"inference\.components\.connectivity=8: expected 6, 18 or 26"),
    ({"keep": "biggest"}, r"inference\.components\.keep=biggest: expected largest or touching_kidney"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        LargestComponent(**settings)
