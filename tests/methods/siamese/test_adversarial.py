"""The front end trained against the generator: who moves when and where to, and what a collapse says."""

import copy

import pytest
import torch

from segexp.config import check
from segexp.errors import ConfigError, SegexpError
from tests.methods.siamese.common import configured, fit, loader, make, make_trainer, slices, volumes

METHOD = "method=siamese_adversarial"


def weights(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def moved(module, before):
    return {key for key, value in module.state_dict().items() if not torch.equal(value, before[key])}


def front_layers(module, before):
    return {key.split(".")[3] for key in moved(module, before) if key.startswith("loss.front.")}


@pytest.mark.parametrize(("layers", "expected"), [("all", {"0", "2", "5", "7"}), ("block2", {"5", "7"})])
@pytest.mark.parametrize("order", ["d_first", "g_first"])
def test_both_sides_train(order, layers, expected, tmp_path):
    words = (METHOD, f"method.order={order}", f"method.train_layers={layers}")
    assert check(configured(*words)) == []
    module = make(*words)
    module.loss.front.load()
    before = weights(module)
    trainer = fit(module, 3, tmp_path, *words)
    assert trainer.global_step == 3  # a step of training is a step of the generator
    assert front_layers(module, before) == expected
    assert {"network.head.weight", "network.encoder.0.units.0.0.weight"} <= moved(module, before)
    assert not any(parameter.requires_grad for parameter in module.loss.parameters())


def test_a_frozen_front_keeps_its_bytes(tmp_path):
    module = make("method=siamese")
    module.loss.front.load()
    before = weights(module)
    fit(module, 3, tmp_path)
    assert front_layers(module, before) == set() and "network.head.weight" in moved(module, before)


def test_each_side_goes_its_own_way(tmp_path):
    """The discriminator's step raises the loss of the same prediction, the generator's lowers it."""
    module = make(METHOD, "method.d_lr=1e-4", "optimizer.lr=1e-4")
    trainer = fit(module, 1, tmp_path, METHOD)
    module.trainer = trainer
    batch = slices(4)
    outputs = {target: logits.detach() for target, logits in module.network(batch["image"]).items()}

    def loss_of(prediction):
        with torch.no_grad():
            return module.loss(prediction, batch)["loss"].item()

    before, generator = loss_of(outputs), weights(module.network)
    said = module.discriminate(outputs, batch)["loss_discriminator"].item()
    assert said == pytest.approx(-before, rel=1e-5)
    raised = loss_of(outputs)
    assert raised > before
    assert not moved(module.network, generator)
    front = weights(module.loss)
    module.generate(module.network(batch["image"]), batch)
    assert loss_of(module.network(batch["image"])) < raised
    assert not moved(module.loss, front)


def test_learning_rates_and_how_often(tmp_path):
    words = (METHOD, "method.d_every=2", "method.d_lr=1e-3", "optimizer.lr=2e-3")
    module, fronts = make(*words), []
    original = module.discriminate
    module.discriminate = lambda *args: fronts.append(module.global_step) or original(*args)
    trainer = fit(module, 5, tmp_path, *words)
    assert fronts == [0, 2, 4]
    assert [one.param_groups[0]["lr"] for one in trainer.optimizers] == [2e-3, 1e-3]
    defaults = [one.param_groups[0]["lr"] for one in make(METHOD).configure_optimizers()[0]]
    assert defaults == [1e-3, 1e-5]


def test_the_gradient_of_the_discriminator_can_be_clipped(tmp_path):
    steps = []
    for clip in ("null", "1e-9"):
        words = (METHOD, f"method.clip_norm={clip}", "optimizer._target_=torch.optim.SGD",
                 "~optimizer.eps", "method.d_lr=1.0")
        module = make(*words)
        module.loss.front.load()
        before = weights(module.loss)
        fit(module, 1, tmp_path, *words[:2])
        after = module.loss.state_dict()
        steps.append(sum((value - before[key]).square().sum() for key, value in after.items()) ** 0.5)
    assert steps[0] > 1e-6 and steps[1] <= 1.1e-9


def test_resumed_training_is_the_uninterrupted_one(tmp_path):
    whole = make(METHOD)
    fit(whole, 6, tmp_path, METHOD)
    fit(make(METHOD), 3, tmp_path, METHOD).save_checkpoint(tmp_path / "half.ckpt")
    rest = make(METHOD)
    trainer = make_trainer(configured(METHOD), 6, tmp_path)
    trainer.fit(rest, loader([slices(4)] * 3), ckpt_path=str(tmp_path / "half.ckpt"), weights_only=True)
    assert trainer.global_step == 6
    assert rest.first_size == whole.first_size
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(rest.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize(("bias", "text"), [(-100.0, "nothing is predicted in any of 2 volumes"),
                                            (100.0, "more than half of every one of 2 volumes is predicted")])
def test_a_collapse_is_said_and_kept(bias, text, tmp_path, capsys):
    module = make(METHOD)
    trainer = fit(module, 1, tmp_path, METHOD)
    healthy = copy.deepcopy(module.network.state_dict())
    with torch.no_grad():
        module.network.head.bias.fill_(bias)
    trainer.test(module, loader(volumes(2)), verbose=False)
    assert module.collapse == text
    assert module.cautions[-1] == f"the training collapsed: {text}"
    assert f"the training collapsed: {text}" in capsys.readouterr().out
    module.network.load_state_dict(healthy)
    with torch.no_grad():  # some voxels are positive, most are not
        module.network.head.bias -= torch.quantile(module.network.eval()(slices(4)["image"])["wmh"], 0.9)
    trainer.test(module, loader(volumes(2)), verbose=False)
    assert module.collapse == "" and len(module.cautions) == 1


def test_features_that_run_away_are_said(tmp_path):
    module = make(METHOD)
    trainer = fit(module, 1, tmp_path, METHOD, limit_val_batches=0)
    module.last_size = torch.tensor(30 * module.first_size)
    trainer.test(module, loader(volumes(1)), verbose=False)
    assert "the features are 30 times as large as in the first step" in module.collapse


def test_numbers_that_are_not_finite_end_the_run(tmp_path):
    words = (METHOD, "method.d_lr=1e30")
    with pytest.raises(SegexpError, match=r"the content loss is (nan|inf).*run away.*Lower method.d_lr=1e\+30"):
        fit(make(*words), 5, tmp_path, *words)


@pytest.mark.parametrize(("words", "message"), [
    (("loss=dice",), "trains the network inside loss=siamese"),
    (("method.order=both",), "method.order=both: expected one of d_first, g_first"),
    (("method.train_layers=none",), "method.train_layers=none: expected one of all, block2"),
    (("method.d_lr=0",), "method.d_lr=0"), (("method.d_every=0",), "method.d_every=0"),
    (("method.clip_norm=0",), "method.clip_norm=0"),
])
def test_wrong_settings_name_the_key(words, message):
    with pytest.raises(ConfigError, match=message):
        make(METHOD, *words)


def test_half_precision_is_refused(tmp_path):
    module = make(METHOD)
    module.trainer = fit(make(METHOD), 1, tmp_path, METHOD)
    module.trainer.strategy.precision_plugin.precision = "16-mixed"
    with pytest.raises(ConfigError, match="bf16-mixed on one device, not in 16-mixed"):
        module.setup("fit")
