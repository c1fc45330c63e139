"""Mean field against the double loop of its definition, and what it is for: holes, edges, boxes."""

import importlib.util

import numpy as np
import pytest
import torch
from scipy import ndimage

from segexp.errors import ConfigError
from segexp.inference import DenseMeanField, LocalMeanField

SETTINGS = {"iterations": 3, "smoothness_sigma": 1.5, "smoothness_weight": 2.0, "appearance_sigma": 2.5,
            "intensity_sigma": 0.2, "appearance_weight": 3.0}
dense = pytest.mark.skipif(importlib.util.find_spec("pydensecrf") is None, reason="pydensecrf2 is not installed")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_definition(unary: np.ndarray, image: np.ndarray, radius: int) -> np.ndarray:
    """Beliefs [K, D, H, W] after the iterations, voxel by voxel and neighbour by neighbour."""
    classes, grid = len(unary), image.shape
    voxels = list(np.ndindex(*grid))
    smooth, similar = np.zeros((2, len(voxels), len(voxels)))
    for i, a in enumerate(voxels):
        for j, b in enumerate(voxels):
            step = np.subtract(a, b)
            if i == j or abs(step).max() > radius:
                continue
            squared = float((step**2).sum())
            smooth[i, j] = np.exp(-squared / (2 * SETTINGS["smoothness_sigma"] ** 2))
            similar[i, j] = np.exp(-squared / (2 * SETTINGS["appearance_sigma"] ** 2)
                                   - (image[a] - image[b]) ** 2 / (2 * SETTINGS["intensity_sigma"] ** 2))
    total = np.zeros_like(smooth)
    for kernel, weight in ((smooth, SETTINGS["smoothness_weight"]), (similar, SETTINGS["appearance_weight"])):
        sums = kernel.sum(1)
        total += weight * kernel / np.sqrt(np.outer(sums, sums))
    energy = unary.reshape(classes, -1)
    beliefs = np.exp(-energy) / np.exp(-energy).sum(0)
    for _ in range(SETTINGS["iterations"]):
        # Potts: a class pays for the belief of the neighbours in every other class.
        cost = energy + (beliefs.sum(0) - beliefs) @ total
        beliefs = np.exp(-cost) / np.exp(-cost).sum(0)
    return beliefs.reshape(unary.shape)


@pytest.mark.parametrize(("grid", "radius"), [((5, 4, 6), 1), ((5, 4, 6), 2), ((3, 5, 4), 8), ((1, 6, 5), 2)])
def test_equals_the_double_loop(grid, radius):
    unary, image = noise(3, *grid).softmax(0).log().neg(), noise(*grid, seed=1) * 0.3
    found = LocalMeanField(radius=radius, **SETTINGS).beliefs(unary.double(), image.double())
    expected = by_definition(unary.double().numpy(), image.double().numpy(), radius)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
    single = LocalMeanField(radius=radius, **SETTINGS).beliefs(unary, image)
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-3, atol=1e-5)


def ball(shape: tuple[int, ...] = (40, 40, 40), radius: float = 8, centre: float = 20) -> np.ndarray:
    return sum((axis - centre) ** 2 for axis in np.ogrid[tuple(slice(size) for size in shape)]) < radius**2


def case(holes: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Truth, labels with holes of a voxel, their probabilities, and an image that shows no holes."""
    truth = torch.from_numpy(ball().astype(np.uint8))
    inside = torch.from_numpy(ndimage.binary_erosion(ball(), iterations=2)).nonzero()
    labels = truth.clone()
    chosen = inside[torch.randperm(len(inside), generator=torch.Generator().manual_seed(0))[:holes]]
    labels[tuple(chosen.T)] = 0
    probabilities = torch.full((2, *truth.shape), 0.2)
    probabilities.scatter_(0, labels[None].long(), 0.8)
    return truth, labels, probabilities, 0.5 * truth.float() + 0.02 * noise(*truth.shape)


def test_small_holes_are_filled_and_edges_stay():
    truth, labels, probabilities, image = case()
    refined = LocalMeanField()(labels, probabilities, image)
    assert refined.dtype == labels.dtype
    assert (labels != truth).sum() == 60
    assert (refined != truth).sum() < 6


def test_an_edge_of_the_image_holds_back_what_distance_alone_would_smooth():
    # A thin plate that the image shows: with the appearance kernel it stays, with the other alone it goes.
    labels = torch.zeros(24, 24, 24, dtype=torch.uint8)
    labels[12, 4:20, 4:20] = 1
    probabilities = torch.full((2, 24, 24, 24), 0.35)
    probabilities.scatter_(0, labels[None].long(), 0.65)
    image = labels.float()
    kept = LocalMeanField(appearance_weight=8)(labels, probabilities, image)
    lost = LocalMeanField(appearance_weight=0, smoothness_weight=8)(labels, probabilities, image)
    assert torch.equal(kept, labels)
    assert not lost.any()


def test_no_weights_or_no_iterations_leave_the_unary_term():
    _, labels, probabilities, image = case()
    for settings in ({"iterations": 0}, {"smoothness_weight": 0, "appearance_weight": 0}):
        assert torch.equal(LocalMeanField(**settings)(labels, probabilities, image), labels)


def test_nothing_changes_far_from_the_foreground():
    # The probabilities of a far corner are foreground; the labels, which confine the field, are not.
    _, labels, probabilities, image = case()
    probabilities[1, :4, :4, :4], probabilities[0, :4, :4, :4] = 0.9, 0.1
    assert not LocalMeanField(margin=3)(labels, probabilities, image)[:4, :4, :4].any()
    assert LocalMeanField(margin=16)(labels, probabilities, image)[:4, :4, :4].any()


@pytest.mark.parametrize("margin", [0, 2, 100])
def test_a_box_gives_what_its_crop_gives(margin):
    _, labels, probabilities, image = case()
    refined = LocalMeanField(margin=margin)(labels, probabilities, image)
    box = (slice(max(13 - margin, 0), min(28 + margin, 40)),) * 3
    crop = LocalMeanField(margin=100)(labels[box], probabilities[:, *box], image[box])
    assert torch.equal(refined[box], crop)


def test_empty_and_full_maps():
    probabilities = noise(3, 4, 5, 6).softmax(0)
    empty = torch.zeros(4, 5, 6, dtype=torch.uint8)
    assert torch.equal(LocalMeanField()(empty, probabilities, noise(4, 5, 6)), empty)
    full = LocalMeanField()(torch.ones_like(empty), probabilities, noise(4, 5, 6))
    assert full.shape == (4, 5, 6) and full.max() <= 2


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("belief", [0.4, 0.8, 1.0])
def test_what_is_the_same_everywhere_stays(label, belief):
    """Also at the border, and whatever the image shows."""
    labels = torch.full((9, 12, 10), label, dtype=torch.uint8)
    probabilities = torch.full((3, *labels.shape), (1 - belief) / 2)
    probabilities[label] = belief
    for image in (torch.zeros(labels.shape), noise(*labels.shape)):
        assert torch.equal(LocalMeanField()(labels, probabilities, image), labels)


def test_a_single_voxel_has_no_neighbours():
    probabilities = torch.tensor([0.3, 0.5, 0.2]).view(3, 1, 1, 1)
    assert LocalMeanField()(torch.ones(1, 1, 1, dtype=torch.uint8), probabilities, torch.zeros(1, 1, 1)).item() == 1


def test_certain_probabilities_stay_finite():
    labels = torch.from_numpy(ball((20, 20, 20), 5, 10).astype(np.uint8))
    certain = torch.stack([1 - labels, labels]).float()
    refined = LocalMeanField()(labels, certain, torch.zeros(20, 20, 20))
    assert torch.equal(refined, labels)


@pytest.mark.parametrize("setting", [{"radius": 0}, {"iterations": -1}, {"margin": -1}, {"smoothness_sigma": 0},
                                     {"appearance_sigma": -2.0}, {"intensity_sigma": 0.0}, {"appearance_weight": -1}])
def test_wrong_settings_name_the_key(setting):
    (name, value), = setting.items()
    with pytest.raises(ConfigError, match=rf"inference\.crf\.{name}={value}: expected"):
        LocalMeanField(**setting)


@pytest.mark.skipif(importlib.util.find_spec("pydensecrf") is not None, reason="pydensecrf2 is installed")
def test_the_dense_field_names_its_extra():
    with pytest.raises(ConfigError, match=r"pip install 'segexp\[crf\]'.*inference/crf=local"):
        DenseMeanField()


@dense
def test_the_dense_field_fills_holes_too():
    truth, labels, probabilities, image = case()
    refined = DenseMeanField()(labels, probabilities, image)
    assert refined.dtype == labels.dtype and refined.shape == labels.shape
    assert (refined != truth).sum() < 6


@dense
def test_both_fields_agree_where_the_kernels_end_inside_the_cube():
    # Narrow kernels: what the cube of the local field leaves out is next to nothing.
    settings = {"iterations": 1, "smoothness_sigma": 0.8, "appearance_sigma": 0.8, "intensity_sigma": 0.3}
    unary, image = noise(3, 12, 13, 14).softmax(0).log().neg(), noise(12, 13, 14, seed=1) * 0.1
    local = LocalMeanField(radius=4, **settings).beliefs(unary, image)
    full = DenseMeanField(**settings).beliefs(unary, image)
    assert (local.argmax(0) == full.argmax(0)).float().mean() > 0.9
