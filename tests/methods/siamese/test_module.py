"""The method as it is configured: every loss trains in a real Trainer, the front end is read when training begins."""

import pytest
import torch

from segexp.config import check
from segexp.errors import ConfigError
from segexp.methods.siamese import SiameseModule
from segexp.methods.siamese.vgg import draw, fingerprint
from tests.methods.siamese.common import configured, fit, loader, make, slices, volumes

LOSSES = ("siamese", "dice", "tversky", "generalized_dice")


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_one_override(loss, tmp_path):
    overrides = ("method=siamese", f"loss={loss}", "optimizer.lr=0.01")
    assert check(configured(*overrides)) == []
    module = make(*overrides)
    assert type(module) is SiameseModule
    batch = slices(4)
    module.setup("fit")
    before = module.loss(module.network(batch["image"]), batch)["loss"].item()
    trainer = fit(module, 30, tmp_path, *overrides)
    assert trainer.global_step == 30
    assert module.loss(module.network.train()(batch["image"]), batch)["loss"].item() < 0.9 * before
    trainer.test(module.eval(), loader(volumes(1)), verbose=False)
    assert {row["metric"] for row in module.rows} >= {"dice", "hd95", "avd", "lesion_recall", "lesion_f1"}


def test_keras_optimiser():
    optimizer = make("method=siamese").configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.Adam
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.9, 0.999), 1e-7)


def test_where_the_weights_came_from_is_recorded(tmp_path):
    module = make("method=siamese")
    assert module.facts == {} and module.cautions == []
    trainer = fit(module, 1, tmp_path)
    digest = fingerprint(draw(0))
    assert module.facts == {"VGG19": f"weights random, sha256 {digest}, seed 0"}
    assert len(module.cautions) == 1 and "not the paper's claim about transferred features" in module.cautions[0]
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["pretrained"] == {"weights": "random", "sha256": digest, "seed": 0}
    other = make("method=siamese", "loss.weights=torchvision")
    other.load_state_dict(kept["state_dict"])
    assert torch.equal(other.loss.front.features["7"].weight, draw(0)["features.7.weight"])
    assert make("method=siamese", "loss=dice").facts == {}


def test_training_does_not_begin_without_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *args, **kwargs: pytest.fail("asked the network"))
    module = make("method=siamese", "loss.weights=file", f"loss.weights_file={tmp_path}/vgg19-dcbb9e9d.pth")
    with pytest.raises(ConfigError, match=r"vgg19-dcbb9e9d.pth does not exist.*loss\.weights=random"):
        fit(module, 1, tmp_path)


def test_readings_of_network_and_loss_go_together():
    for reading in ("caffe01", "caffe255", "torch", "none"):
        module = make("method=siamese", f"network.preproc={reading}", "network.generator_input=vgg")
        assert torch.equal(module.network.prepare.scale, module.loss.prepare.scale)
        assert torch.equal(module.network.prepare.shift, module.loss.prepare.shift)


def test_the_running_statistics_follow_what_the_generator_sees(tmp_path):
    """A few hundred steps, then evaluation finds what training has learned."""
    words = ("loss=dice", "optimizer.lr=0.01")
    module = make("method=siamese", *words)
    batches = [slices(4, seed=seed) for seed in range(150)]
    fit(module, 150, tmp_path, *words, batches=batches)
    batch = slices(8, seed=1000)
    in_training, in_evaluation = (module.loss(network(batch["image"]), batch)["loss"].item()
                                  for network in (module.network.train(), module.network.eval()))
    assert in_training < 0.2
    assert in_evaluation < 0.3
