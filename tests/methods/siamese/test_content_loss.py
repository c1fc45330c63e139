"""The content loss against its formula, its gradient, and what must not count."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from segexp.data import IGNORE
from segexp.errors import ConfigError, DataError
from segexp.methods.siamese import DenseUNet, SiameseLoss
from segexp.methods.siamese.preprocessing import READINGS

MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
ORDERS = ("normalise_then_mask", "mask_then_normalise")


def sample(seed=0, batch=3, size=(12, 14), dtype=torch.float32):
    """Return logits, classes, and images whose left third is air."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 1, *size, generator=generator, dtype=dtype)
    classes = torch.randint(2, (batch, *size), generator=generator)
    image = torch.rand(batch, 1, *size, generator=generator, dtype=dtype)
    image[..., : size[1] // 3] = 0
    return logits, classes, image


def make(dtype=torch.float32, **settings):
    return SiameseLoss("random", **settings).to(dtype)


def evaluate(loss, logits, classes, image):
    """Return the parts of the loss and its gradient by the logits."""
    logits = logits.clone().requires_grad_()
    parts = loss({"wmh": logits}, {"image": image, "target": {"wmh": classes}})
    (gradient,) = torch.autograd.grad(parts["loss"], logits)
    return parts, gradient


def by_the_book(loss, logits, classes, image, reading, order, reduction, soft=(0.1, 0.9)):
    """Return eq. 1, written down again with torchvision's layers."""
    from torchvision.models.vgg import make_layers

    layers = make_layers([64, 64, "M", 128, 128, "M"]).to(image.dtype)
    layers.load_state_dict({key.removeprefix("features."): value for key, value in loss.front.state_dict().items()})
    mean, std = MEAN.to(image.dtype), STD.to(image.dtype)

    def preprocessed(x):
        x = x.expand(-1, 3, -1, -1)
        return {"caffe01": (x - 255 * mean) / (255 * std), "caffe255": (x - mean) / std, "torch": (x - mean) / std,
                "none": x}[reading]

    truth = torch.where(classes == 1, soft[1], soft[0]).to(image.dtype)[:, None]
    levels = []
    for mask in (truth, logits.sigmoid()):
        masked = preprocessed(image) * mask if order == "normalise_then_mask" else preprocessed(image * mask)
        levels.append((layers[:5](masked.clone()), layers(masked.clone())))
    differences = [(one - other).flatten(1) for one, other in zip(*levels, strict=True)]
    if reduction == "concat_mean":
        differences = [torch.cat(differences, 1)]
    return sum(difference.square().mean(1).mean() for difference in differences)


@pytest.mark.parametrize(("reading", "order", "reduction"), itertools.product(
    READINGS, ORDERS, ("sum_of_means", "concat_mean")))
def test_the_formula(reading, order, reduction):
    data = sample(dtype=torch.float64)
    loss = make(torch.float64, preproc=reading, mask_order=order, reduction=reduction)
    parts, gradient = evaluate(loss, *data)
    logits = data[0].clone().requires_grad_()
    expected = by_the_book(loss, logits, *data[1:], reading, order, reduction)
    torch.testing.assert_close(parts["loss"], expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
    assert 0 <= parts["blind"].item() <= 1
    assert {name for name, value in parts.items() if value.requires_grad} == {"loss"}


def test_reductions_weigh_the_maps_differently():
    parts, _ = evaluate(make(), *sample())
    joined, _ = evaluate(make(reduction="concat_mean"), *sample())
    torch.testing.assert_close(parts["loss"], parts["pool1"] + parts["pool2"])
    lengths = (64 * 6 * 7, 128 * 3 * 3)
    expected = (lengths[0] * parts["pool1"] + lengths[1] * parts["pool2"]) / sum(lengths)
    torch.testing.assert_close(joined["loss"], expected)


@pytest.mark.parametrize("order", ORDERS)
def test_the_truth_costs_nothing_and_soft_labels_mean_soft_truth(order):
    _, classes, image = sample(dtype=torch.float64)
    soft = (0.1 + 0.8 * (classes == 1).double())[:, None].logit()
    hard = torch.where(classes == 1, 60.0, -60.0).double()[:, None]
    settings = {"dtype": torch.float64, "mask_order": order}
    assert evaluate(make(**settings), soft, classes, image)[0]["loss"].item() < 1e-25
    # Masked first, caffe01 leaves a 255th of the image: a small difference of small numbers.
    assert evaluate(make(**settings), hard, classes, image)[0]["loss"].item() > 1e-9
    assert evaluate(make(labels="hard", **settings), hard, classes, image)[0]["loss"].item() < 1e-25


@pytest.mark.parametrize("normalise", [False, True])
def test_symmetric_in_truth_and_prediction(normalise):
    logits, classes, image = sample()
    one, other = logits.sigmoid(), classes[:, None].float()
    loss = make(normalise_features=normalise)
    torch.testing.assert_close(loss.distance(one, other, image)[0], loss.distance(other, one, image)[0])


def test_air_is_unseen_when_the_mask_comes_first():
    data = sample()
    air = (data[2] == 0)
    for order, blind in zip(ORDERS, (False, True), strict=True):
        for reading in READINGS:
            _, gradient = evaluate(make(mask_order=order, preproc=reading), *data)
            if reading == "none" and not blind:
                continue  # nothing is added, so the order makes no difference
            assert gradient[air].any().item() is not blind
            assert gradient[~air].count_nonzero() == (~air).sum()


def test_orders_are_the_same_without_preprocessing():
    results = [evaluate(make(mask_order=order, preproc="none"), *sample()) for order in ORDERS]
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(("chunk", "normalise", "order"), [(1, False, ORDERS[0]), (2, True, ORDERS[1])])
def test_gradient_by_finite_differences(chunk, normalise, order):
    logits, classes, image = sample(batch=3, size=(6, 5), dtype=torch.float64)
    loss = make(torch.float64, chunk=chunk, normalise_features=normalise, mask_order=order, preproc="torch")
    batch = {"image": image, "target": {"wmh": classes}}
    assert torch.autograd.gradcheck(lambda x: 1000 * loss({"wmh": x}, batch)["loss"], logits.requires_grad_())


@pytest.mark.parametrize("normalise", [False, True])
def test_chunks_change_nothing(normalise):
    data = sample(batch=5, dtype=torch.float64)
    results = []
    for chunk in (1, 2, 5, 8):
        results.append(evaluate(make(torch.float64, chunk=chunk, normalise_features=normalise), *data))
    trained = make(torch.float64, normalise_features=normalise)
    trained.front.requires_grad_(True)  # both branches by autograd
    results.append(evaluate(trained, *data))
    for parts, gradient in results[1:]:
        torch.testing.assert_close(parts, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])
    with torch.no_grad():
        without = make(torch.float64, chunk=2, normalise_features=normalise)(
            {"wmh": data[0]}, {"image": data[2], "target": {"wmh": data[1]}})
    torch.testing.assert_close(without["loss"], results[0][0]["loss"].detach())


@pytest.mark.parametrize("settings", [{}, {"ignore_classes": [2]}])
@pytest.mark.parametrize("order", ORDERS)
def test_ignored_pixels_do_not_count(order, settings):
    logits, classes, image = sample()
    classes[:, 3:6, 6:9] = 2 if settings else IGNORE
    outside = (classes != 0) & (classes != 1)
    loss = make(mask_order=order, preproc="torch", **settings)
    parts, gradient = evaluate(loss, logits, classes, image)
    assert not gradient[outside[:, None]].any()
    changed, other = evaluate(loss, torch.where(outside[:, None], logits + 5, logits), classes, image)
    torch.testing.assert_close(changed["loss"], parts["loss"], rtol=1e-6, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-9)


def test_other_pathology_is_background_unless_ignored():
    logits, classes, image = sample()
    classes[:, 3:6, 6:9] = 2
    background, _ = evaluate(make(), logits, classes.masked_fill(classes == 2, 0), image)
    assert evaluate(make(), logits, classes, image)[0]["loss"] == background["loss"]
    assert evaluate(make(ignore_classes=[2]), logits, classes, image)[0]["loss"] != background["loss"]


def test_how_much_of_the_head_the_loss_hardly_sees():
    ramp = torch.linspace(0, 1, 1001).repeat(4, 1)[None, None]
    # |x| of mask_then_normalise: below a tenth of the maximum, of the head above 0.02.
    assert make(mask_order=ORDERS[1], preproc="none").blind(ramp).item() == pytest.approx(80 / 980, abs=0.003)
    assert make().blind(ramp).item() == 0  # caffe01: nearly the same everywhere
    # torch: x - mean changes its sign inside the brain.
    effect = ((ramp - MEAN) / STD).abs().mean(1)
    expected = ((effect < 0.1 * effect.max()) & (ramp[:, 0] > 0.02)).sum() / (ramp > 0.02).sum()
    assert make(preproc="torch").blind(ramp).item() == pytest.approx(expected.item())
    assert make().blind(torch.zeros(1, 1, 4, 4)).item() == 0


def test_bfloat16_stays_within_a_percent():
    data = sample(size=(32, 32))
    exact, gradient = evaluate(make(), *data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, other = evaluate(make(), *data)
    assert rough["loss"].dtype == torch.float32
    assert rough["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.01)
    assert F.cosine_similarity(gradient.flatten(), other.flatten(), 0) > 0.99


def test_a_step_trains_the_generator_and_leaves_vgg_alone():
    torch.manual_seed(0)
    network, loss = DenseUNet("wmh", n_blocks=2, base_filters=4), make()
    loss.front.load()
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=0.1)
    _, classes, image = sample(size=(16, 16))
    loss(network(image), {"image": image, "target": {"wmh": classes}})["loss"].backward()
    optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in loss.parameters())
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())


@pytest.mark.parametrize(("settings", "message"), [
    ({"mask_order": "mask"}, "loss.mask_order=mask: expected one of normalise_then_mask, mask_then_normalise"),
    ({"reduction": "mean"}, "loss.reduction=mean: expected one of sum_of_means, concat_mean"),
    ({"preproc": "keras"}, "loss.preproc=keras: expected one of caffe01"),
    ({"labels": "firm"}, "loss.labels=firm"),
    ({"chunk": 0}, "loss.chunk=0: expected at least one slice"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        SiameseLoss("random", **settings)


@pytest.mark.parametrize(("image", "message"), [
    (1000 * torch.rand(3, 1, 12, 14), "divided by their maximum"), (torch.rand(3, 2, 12, 14), "compares slices"),
    (torch.rand(3, 1, 12, 14, 2), "compares slices"), (torch.rand(3, 1, 3, 14), "compares slices"),
])
def test_images_it_cannot_take(image, message):
    logits, classes, _ = sample()
    with pytest.raises(DataError, match=message):
        evaluate(make(), logits, classes, image)
