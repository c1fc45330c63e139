"""The pyramid's cells: their size is fixed, their number follows from the image, and only real voxels count."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segexp.methods.kidney_ppm.ppm import DECONVOLUTIONS, POOLINGS, Branch, PyramidPooling, pool

KERNELS = (2, 4, 8, 16)


def direct(features, kernel, pooling):
    """Return every cell from the slice of the voxels in it."""
    cells = [-(-size // kernel) for size in features.shape[2:]]
    result = torch.empty(*features.shape[:2], *cells)
    for index in torch.cartesian_prod(*(torch.arange(count) for count in cells)).reshape(-1, 3).tolist():
        cell = features[(..., *(slice(at * kernel, (at + 1) * kernel) for at in index))].flatten(2)
        result[(..., *index)] = cell.mean(-1) if pooling == "average" else cell.amax(-1)
    return result


@given(st.tuples(*(st.integers(1, 19),) * 3), st.sampled_from(KERNELS), st.sampled_from(POOLINGS), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_cells_count_the_voxels_inside_only(size, kernel, pooling, seed):
    features = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(pool(features, kernel, pooling), direct(features, kernel, pooling))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("size", [(38, 38, 16), (16, 16, 8), (5, 9, 8), (1, 2, 3)])
def test_a_constant_gives_that_constant_in_every_cell(size, pooling, kernel):
    cells = pool(torch.full((1, 2, *size), 3.7), kernel, pooling)
    torch.testing.assert_close(cells, torch.full_like(cells, 3.7), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_features_as_large_as_a_cell_are_pooled_as_by_torch(kernel):
    features = torch.randn(1, 2, 19, 38, 16)
    expected = F.avg_pool3d(features, kernel, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(pool(features, kernel), expected)


def test_the_number_of_cells_follows_from_the_size():
    # Adaptive pooling would give 16 x 16 x 16 cells to both.
    assert pool(torch.zeros(1, 1, 32, 32, 16), 16).shape[2:] == (2, 2, 1)
    assert pool(torch.zeros(1, 1, 38, 38, 16), 16).shape[2:] == (3, 3, 1)


@pytest.mark.parametrize("deconvolution", DECONVOLUTIONS)
@pytest.mark.parametrize("size", [(38, 5, 16), (3, 3, 3)])
def test_a_branch_returns_to_the_grid_of_the_features(size, deconvolution):
    branch = Branch(6, 4, 8, "average", deconvolution, "batch", "relu").eval()
    assert branch(torch.randn(2, 6, *size)).shape == (2, 4, *size)


@pytest.mark.parametrize("deconvolution", DECONVOLUTIONS)
def test_a_voxel_reaches_its_own_cell_only_unless_interpolated(deconvolution):
    branch = Branch(1, 2, 4, "average", deconvolution, "batch", "relu").eval()
    torch.nn.init.ones_(branch.mix.convolution.weight)
    features = torch.zeros(1, 1, 12, 12, 12)
    features[0, 0, 5, 5, 5] = 1
    changed = (branch(features) != branch(torch.zeros_like(features))).any(1)[0]
    assert changed[4:8, 4:8, 4:8].all()
    changed[4:8, 4:8, 4:8] = False
    assert changed.any() == (deconvolution == "trilinear")


def test_the_features_pass_unchanged_beside_the_branches():
    module = PyramidPooling(6, 4, KERNELS, "average", "full", "batch", "relu").eval()
    features = torch.randn(1, 6, 7, 20, 16)
    result = module(features)
    assert module.channels == 6 + 4 * 4 == result.shape[1]
    assert torch.equal(result[:, :6], features)
    for index, branch in enumerate(module.branches):
        assert torch.equal(result[:, 6 + 4 * index: 10 + 4 * index], branch(features))


def test_a_single_cell_trains_with_the_running_statistics():
    branch = Branch(6, 4, 16, "average", "full", "batch", "relu")
    branch.mix.norm.running_mean += 0.5
    features = torch.randn(1, 6, 8, 8, 8)
    torch.testing.assert_close(branch.train()(features), branch.eval()(features))
    assert torch.equal(branch.mix.norm.running_mean, torch.full((4,), 0.5))
