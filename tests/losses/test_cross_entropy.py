"""The losses against torch's and MONAI's, with ignored voxels and missing targets."""

import pytest
import torch
from torch.nn import functional as F

from segexp.data import IGNORE
from segexp.errors import ConfigError
from segexp.inference import SlabLogits
from segexp.losses import CrossEntropy, DiceCrossEntropy

CLASSES = {"fine": 7, "coarse": 3}
MERGE = {0: [0], 1: [1, 2, 3], 2: [4, 5, 6]}
GRID = (8, 6, 4)


def slab_logits(classes, batch=2, seed=0):
    torch.manual_seed(seed + classes)
    return SlabLogits(*(part.requires_grad_() for part in (
        torch.randn(batch, classes, 4, 3, 2), torch.randn(batch, 5, *GRID), torch.randn(classes, 5),
        torch.randn(classes))))


@pytest.fixture(params=["slabs", "dense"])
def outputs(request):
    made = {target: slab_logits(classes) for target, classes in CLASSES.items()}
    return made if request.param == "slabs" else {target: logits.dense() for target, logits in made.items()}


def whole(logits):
    return logits.dense() if isinstance(logits, SlabLogits) else logits


def make_labels(batch=2):
    torch.manual_seed(1)
    return {target: torch.randint(classes, (batch, *GRID)) for target, classes in CLASSES.items()}


def test_mean_over_voxels_then_over_targets(outputs):
    labels = make_labels()
    found = CrossEntropy()(outputs, {"target": labels})
    expected = {target: F.cross_entropy(whole(outputs[target]), labels[target]) for target in CLASSES}
    for target in CLASSES:
        torch.testing.assert_close(found[target], expected[target])
    torch.testing.assert_close(found["loss"], (expected["fine"] + expected["coarse"]) / 2)


@pytest.mark.parametrize("loss", [CrossEntropy, DiceCrossEntropy])
def test_labels_may_be_bytes(outputs, loss):
    labels = make_labels()
    small = {target: label.to(torch.uint8) for target, label in labels.items()}
    torch.testing.assert_close(loss()(outputs, {"target": small}), loss()(outputs, {"target": labels}))


def test_a_perfect_prediction_costs_nothing_and_an_undecided_one_log_k():
    labels = torch.randint(4, (1, *GRID))
    perfect = 100.0 * F.one_hot(labels, 4).movedim(-1, 1)
    assert CrossEntropy()({"a": perfect}, {"target": {"a": labels}})["loss"].item() == 0
    found = CrossEntropy()({"a": torch.zeros(1, 4, *GRID)}, {"target": {"a": labels}})["loss"]
    torch.testing.assert_close(found, torch.tensor(4.0).log())


def test_ignored_voxels_do_not_count(outputs):
    labels = make_labels()
    labels["fine"][:, 3:] = IGNORE
    found = CrossEntropy()(outputs, {"target": labels})
    torch.testing.assert_close(found["fine"], F.cross_entropy(whole(outputs["fine"])[:, :, :3], labels["fine"][:, :3]))


@pytest.mark.parametrize("how", ["absent", "ignored"])
@pytest.mark.parametrize("weights", ["uniform", {"fine": 3, "coarse": 1}])
@pytest.mark.parametrize("loss", [CrossEntropy, DiceCrossEntropy])
def test_a_missing_target_leaves_its_weight_to_the_others(outputs, weights, how, loss):
    labels = make_labels()
    if how == "absent":
        del labels["fine"]
    else:
        labels["fine"].fill_(IGNORE)
    found = loss(weights)(outputs, {"target": labels})
    assert set(found) == {"loss", "coarse"}
    torch.testing.assert_close(found["loss"], found["coarse"])


@pytest.mark.parametrize("weights", ["uniform", "uncertainty"])
@pytest.mark.parametrize("loss", [CrossEntropy, DiceCrossEntropy])
def test_nothing_to_learn_from_is_zero_with_a_graph(loss, weights):
    made = {target: slab_logits(classes) for target, classes in CLASSES.items()}
    found = loss(weights, targets=CLASSES)(made, {"target": {}})
    assert set(found) == {"loss"} and found["loss"].item() == 0
    found["loss"].backward()
    for logits in made.values():
        assert all(part.grad is not None and not part.grad.any() for part in logits.parts)


def test_given_weights_are_rescaled_to_one(outputs):
    labels = {"target": make_labels()}
    found = CrossEntropy({"fine": 6, "coarse": 2})(outputs, labels)
    torch.testing.assert_close(found["loss"], 0.75 * found["fine"] + 0.25 * found["coarse"])


def test_uncertainty_weights_learn_the_closed_form():
    # The minimum over s of exp(-s) L + s / 2 is at s = log(2 L).
    labels = make_labels()
    fixed = {target: slab_logits(classes).dense().detach() for target, classes in CLASSES.items()}
    loss = CrossEntropy("uncertainty", targets=CLASSES)
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(fixed, {"target": labels})["loss"]
        value.backward()
        return value

    optimizer.step(closure)
    for target, part in loss(fixed, {"target": labels}).items():
        if target != "loss":
            assert loss.weighting.log_variance[target].item() == pytest.approx((2 * part).log().item(), abs=1e-3)


def test_consistency_is_the_cross_entropy_with_the_merged_prediction(outputs):
    loss = CrossEntropy(targets=CLASSES, consistency=0.5, fine="fine", coarse="coarse", merge=MERGE)
    batch = {"target": make_labels()}
    found, without = loss(outputs, batch), CrossEntropy()(outputs, batch)
    probabilities = whole(outputs["fine"]).softmax(1)
    merged = torch.stack([probabilities[:, members].sum(1) for members in MERGE.values()], 1)
    expected = -(merged * whole(outputs["coarse"]).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(found["consistency"], expected)
    torch.testing.assert_close(found["loss"], without["loss"] + 0.5 * expected)


def test_consistency_pulls_the_coarse_target_only():
    made = {target: slab_logits(classes) for target, classes in CLASSES.items()}
    loss = CrossEntropy(targets=CLASSES, consistency=1.0, fine="fine", coarse="coarse", merge=MERGE)
    loss(made, {"target": make_labels()})["consistency"].backward()
    assert all(part.grad is None for part in made["fine"].parts)
    assert all(part.grad.any() for part in made["coarse"].parts)


def test_dice_cross_entropy_is_monais(outputs):
    from monai.losses import DiceCELoss

    labels = make_labels()
    found = DiceCrossEntropy()(outputs, {"target": labels})
    reference = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    for target in CLASSES:
        torch.testing.assert_close(found[target], reference(whole(outputs[target]), labels[target][:, None]))


def test_dice_leaves_out_ignored_voxels(outputs):
    labels = make_labels()
    labels["fine"][:, 5:] = IGNORE
    found = DiceCrossEntropy()(outputs, {"target": labels})
    changed = {target: whole(logits).clone() for target, logits in outputs.items()}
    changed["fine"][:, :, 5:] += torch.randn(2, 7, 3, 6, 4)
    torch.testing.assert_close(DiceCrossEntropy()(changed, {"target": labels})["fine"], found["fine"])


@pytest.mark.parametrize(("settings", "message"), [
    ({"weights": "equal"}, "loss.weights=equal: expected uniform"),
    ({"weights": {"fine": -1}}, "must not be negative"),
    ({"weights": "uncertainty"}, "needs loss.targets"),
    ({"consistency": 1.0, "targets": {"fine": 7}, "fine": "fine", "coarse": "coarse", "merge": MERGE},
     "needs the targets fine and coarse"),
    ({"consistency": 1.0, "targets": CLASSES, "fine": "fine", "coarse": "coarse", "merge": {0: [0], 1: [1, 2]}},
     r"fine classes \[3, 4, 5, 6\]"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        CrossEntropy(**settings)


@pytest.mark.parametrize(("weights", "message"), [({"fine": 1}, "no weight for coarse"),
                                                  ({"fine": 0, "coarse": 0}, "no weight at all")])
def test_weights_that_do_not_fit_the_batch(outputs, weights, message):
    with pytest.raises(ConfigError, match=message):
        CrossEntropy(weights)(outputs, {"target": make_labels()})
