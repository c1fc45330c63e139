"""Logits by slabs: the same as dense ones, and so are the gradients of a sum over slabs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segexp.inference import SlabLogits

sizes = st.integers(1, 5)


def make(batch, classes, channels, half, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, dtype=dtype, generator=generator)

    return SlabLogits(draw(batch, classes, *half), draw(batch, channels, *(2 * size for size in half)),
                      draw(classes, channels), draw(classes))


def dense(parts):
    coarse, features, weight, bias = parts
    fine = F.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=False)
    return fine + torch.einsum("kc,bcdhw->bkdhw", weight, features) + bias[:, None, None, None]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 4), st.tuples(sizes, sizes, sizes),
       st.one_of(st.none(), st.integers(1, 12)))
def test_slabs_equal_dense_logits(batch, classes, channels, half, depth):
    logits = make(batch, classes, channels, half)
    expected = dense(logits.parts)
    assert logits.shape == expected.shape
    torch.testing.assert_close(logits.dense(), expected)
    slabs = list(logits.slabs(depth))
    torch.testing.assert_close(torch.cat([slab for *_, slab in slabs], 2), expected)
    assert slabs[0][0] == 0 and slabs[-1][1] == expected.shape[2]
    labels = logits.argmax()
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), expected.argmax(1))


def test_more_classes_than_a_byte_holds():
    logits = make(1, 300, 2, (2, 2, 2))
    assert logits.argmax().dtype == torch.int16
    assert torch.equal(logits.argmax().long(), dense(logits.parts).argmax(1))


def test_ties_go_to_the_first_class():
    logits = SlabLogits(torch.zeros(1, 70, 2, 2, 2), torch.zeros(1, 3, 4, 4, 4), torch.zeros(70, 3), torch.zeros(70))
    assert not logits.argmax().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_labels_are_nearly_best(dtype):
    logits = make(1, 139, 16, (8, 10, 9), dtype)
    exact = dense([part.double() for part in logits.parts])
    chosen = exact.gather(1, logits.argmax().long()[:, None])[:, 0]
    tolerance = 1e-5 if dtype == torch.float32 else 0.3
    assert (exact.amax(1) - chosen).max() < tolerance


@pytest.mark.parametrize("depth", [None, 1, 2, 4, 6, 100])
def test_gradient_of_a_total_is_that_of_dense_logits(depth):
    logits = make(2, 5, 3, (5, 3, 4))
    labels = torch.randint(5, (2, 10, 6, 8))
    parts = [part.requires_grad_() for part in logits.parts]

    def loss(slab, start, stop):
        return F.cross_entropy(slab, labels[:, start:stop], reduction="sum")

    total = logits.total(loss, depth)
    expected = F.cross_entropy(dense(parts), labels, reduction="sum")
    torch.testing.assert_close(total, expected, check_dtype=False)
    ours = torch.autograd.grad(3 * total, parts)
    for one, other in zip(ours, torch.autograd.grad(3 * expected, parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    with torch.no_grad():
        torch.testing.assert_close(logits.total(loss, depth), total.detach(), check_dtype=False)
