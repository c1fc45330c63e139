"""Overlap losses of one structure: their formulas, MONAI's functions, ignored voxels, the trap of soft labels."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segexp.data import IGNORE
from segexp.errors import ConfigError
from segexp.losses import Dice, GeneralizedDice, Tversky
from segexp.losses.binary import BinaryLoss

LOSSES = {
    "dice": (Dice, {}), "linear": (Dice, {"denominator": "linear"}), "tversky": (Tversky, {}),
    "generalized": (GeneralizedDice, {}),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def make(name, **settings_):
    loss, fixed = LOSSES[name]
    return loss(**fixed, **settings_)


def sample(seed=0, shape=(3, 6, 5), ignored=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape[0], 1, *shape[1:], generator=generator, dtype=torch.float64, requires_grad=True)
    classes = torch.randint(3, shape, generator=generator)
    classes[torch.rand(shape, generator=generator) < ignored] = IGNORE
    return {"wmh": logits}, {"target": {"wmh": classes}}


def formula(name, p, g, e=1.0):
    if name == "dice":
        return 1 - (2 * (p * g).sum() + e) / ((p**2).sum() + (g**2).sum() + e)
    if name == "linear":
        return 1 - (2 * (p * g).sum() + e) / (p.sum() + g.sum() + e)
    if name == "tversky":
        both = (p * g).sum()
        return 1 - (both + e) / (both + 0.3 * (p * (1 - g)).sum() + 0.7 * ((1 - p) * g).sum() + e)
    above, below = 0, 0
    for one, other in ((p, g), (1 - p, 1 - g)):
        weight = 1 / max(other.sum().item() ** 2, e)
        above, below = above + weight * (one * other).sum(), below + weight * (one + other).sum()
    return 1 - 2 * above / below


@every_loss
@given(seed=st.integers(0, 10**6), ignored=st.sampled_from([0.0, 0.4]))
@settings(max_examples=15, deadline=None)
def test_the_formula_over_the_batch(name, seed, ignored):
    outputs, batch = sample(seed, ignored=ignored)
    inside = batch["target"]["wmh"] != IGNORE
    p, g = outputs["wmh"][:, 0].sigmoid()[inside], (batch["target"]["wmh"] == 1).double()[inside]
    found = make(name)(outputs, batch)
    assert set(found) == {"loss"}
    torch.testing.assert_close(found["loss"], formula(name, p, g))


@every_loss
def test_per_image_is_the_mean_over_the_images(name):
    outputs, batch = sample(ignored=0.2)
    batch["target"]["wmh"][1][batch["target"]["wmh"][1] == 1] = 0  # no structure there
    alone = [make(name)({"wmh": outputs["wmh"][i : i + 1]}, {"target": {"wmh": batch["target"]["wmh"][i : i + 1]}})
             for i in range(3)]
    torch.testing.assert_close(make(name, per_image=True)(outputs, batch)["loss"],
                               torch.stack([one["loss"] for one in alone]).mean())


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_the_same_functions_as_monais(per_image, labels):
    from monai.losses import DiceLoss, GeneralizedDiceLoss, TverskyLoss

    outputs, batch = sample()
    g = BinaryLoss(labels).reference(batch["target"]["wmh"], torch.float64)[0]
    smooth = {"smooth_nr": 1.0, "smooth_dr": 1.0, "batch": not per_image, "soft_label": labels == "soft"}
    theirs = {
        Dice: DiceLoss(sigmoid=True, squared_pred=True, **smooth)(outputs["wmh"], g),
        GeneralizedDice: GeneralizedDiceLoss(smooth_nr=0, smooth_dr=0, batch=not per_image)(
            torch.cat([outputs["wmh"].sigmoid(), 1 - outputs["wmh"].sigmoid()], 1), torch.cat([g, 1 - g], 1)),
    }
    if labels == "hard":
        theirs[Tversky] = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, **smooth)(outputs["wmh"], g)
    for loss, expected in theirs.items():
        found = loss(labels=labels, per_image=per_image)(outputs, batch)["loss"]
        torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-6, atol=0)


@every_loss
def test_gradients_by_finite_differences(name):
    outputs, batch = sample(shape=(2, 3, 3), ignored=0.2)
    assert torch.autograd.gradcheck(lambda logits: make(name)({"wmh": logits}, batch)["loss"], outputs["wmh"])


@every_loss
@pytest.mark.parametrize("per_image", [False, True])
def test_ignored_voxels_do_not_count(name, per_image):
    outputs, batch = sample(ignored=0.4)
    outside = (batch["target"]["wmh"] == IGNORE)[:, None]
    loss = make(name, per_image=per_image)
    expected = loss(outputs, batch)["loss"]
    expected.backward()
    assert not outputs["wmh"].grad[outside].any() and outputs["wmh"].grad[~outside].all()
    changed = torch.where(outside, outputs["wmh"] + 3, outputs["wmh"])
    assert loss({"wmh": changed}, batch)["loss"].item() == expected.item()


@every_loss
def test_a_class_can_be_ignored_or_is_background(name):
    outputs, batch = sample()
    other = batch["target"]["wmh"] == 2
    as_background = make(name)(outputs, {"target": {"wmh": batch["target"]["wmh"].masked_fill(other, 0)}})
    as_unknown = make(name)(outputs, {"target": {"wmh": batch["target"]["wmh"].masked_fill(other, IGNORE)}})
    assert make(name)(outputs, batch)["loss"] == as_background["loss"]
    assert make(name, ignore_classes=[2])(outputs, batch)["loss"] == as_unknown["loss"] != as_background["loss"]


@every_loss
@pytest.mark.parametrize("classes", [0, IGNORE])
def test_slices_without_structure_or_labels_stay_finite(name, classes):
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    for per_image in (False, True):
        loss = make(name, per_image=per_image)({"wmh": logits}, {"target": {"wmh": torch.full((2, 4, 4), classes)}})
        assert 0 <= loss["loss"].item() <= 1
        (gradient,) = torch.autograd.grad(loss["loss"], logits)
        assert gradient.isfinite().all() and bool(gradient.any()) == (classes == 0)
    assert classes == 0 or loss["loss"].item() == 0


def test_a_perfect_prediction_costs_nothing_a_missed_lesion_nearly_all():
    classes = torch.zeros(1, 20, 20, dtype=torch.long)
    classes[0, 3:6, 3:6] = 1
    batch = {"target": {"wmh": classes}}
    for name in LOSSES:
        perfect, missed = (200 * classes[:, None] - 100.0), torch.full((1, 1, 20, 20), -100.0)
        assert make(name)({"wmh": perfect}, batch)["loss"].item() == pytest.approx(0, abs=1e-6)
        assert make(name)({"wmh": missed}, batch)["loss"].item() > 0.8


def test_several_targets_are_averaged_and_absent_ones_left_out():
    outputs, batch = sample()
    outputs["other"] = outputs["wmh"] + 1
    both = {"target": {"wmh": batch["target"]["wmh"], "other": batch["target"]["wmh"]}}
    alone = [Dice()({target: outputs[target]}, both)["loss"] for target in outputs]
    torch.testing.assert_close(Dice()(outputs, both)["loss"], sum(alone) / 2)
    assert Dice()(outputs, batch)["loss"] == alone[0]
    nothing = Dice()(outputs, {"target": {}})["loss"]
    assert nothing.item() == 0 and nothing.requires_grad


def best_constants(loss, labels, fraction):
    """Return the pair (p on the structure, p on the background) with the least loss, of a grid of 21 x 21."""
    count = 40_000
    classes = torch.zeros(1, count, dtype=torch.long)
    classes[0, : round(fraction * count)] = 1
    reference, counts = BinaryLoss(labels).reference(classes, torch.float64)
    inside = (classes == 1)[:, None]
    grid = [round(0.05 * step, 2) for step in range(21)]
    return min(itertools.product(grid, grid), key=lambda pair: loss.compare(
        torch.where(inside, *(torch.tensor(value, dtype=torch.float64) for value in pair)), reference, counts).item())


@pytest.mark.parametrize(("name", "labels", "fraction", "best"), [
    ("dice", "hard", 0.005, (1, 0)), ("linear", "hard", 0.005, (1, 0)), ("tversky", "hard", 0.005, (1, 0)),
    ("generalized", "hard", 0.005, (1, 0)),
    # Soft labels: where the minimum stays ...
    ("dice", "soft", 0.005, (0.9, 0.1)), ("generalized", "soft", 0.005, (1, 0)),
    # ... and the two for which everything becomes structure once the structure is small.
    ("linear", "soft", 0.005, (1, 1)), ("linear", "soft", 0.02, (1, 0)),
    ("tversky", "soft", 0.005, (1, 1)), ("tversky", "soft", 0.03, (1, 1)), ("tversky", "soft", 0.05, (1, 0)),
])
def test_where_the_minimum_lies(name, labels, fraction, best):
    assert best_constants(make(name), labels, fraction) == best


@pytest.mark.parametrize(("loss", "settings_", "message"), [
    (Tversky, {"labels": "soft"}, "foreground everywhere as soon as less than about 3.8 %"),
    (Dice, {"labels": "soft", "denominator": "linear"}, "foreground everywhere as soon as less than about 1.4 %"),
    (Dice, {"denominator": "square"}, "loss.denominator=square: expected squared or linear"),
    (Dice, {"labels": "softer"}, "loss.labels=softer: expected one of hard, soft"),
    (GeneralizedDice, {"epsilon": 0}, "loss.epsilon=0: expected more than 0"),
    (Tversky, {"ignore_classes": [1]}, "class 1 is what is learned"),
])
def test_wrong_settings_are_explained(loss, settings_, message):
    with pytest.raises(ConfigError, match=message):
        loss(**settings_)


def test_several_logits_per_voxel_are_refused():
    with pytest.raises(ConfigError, match=r"3 logits per voxel of kidney.*loss=dice_cross_entropy"):
        Dice()({"kidney": torch.zeros(1, 3, 4, 4)}, {"target": {"kidney": torch.zeros(1, 4, 4, dtype=torch.long)}})
