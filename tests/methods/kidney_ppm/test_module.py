"""The method as it is configured: every network trains, is resumed, labels and is scored in a real Trainer."""

import copy

import pytest
import torch

from segexp.config import check, compose, instantiate
from segexp.data import LabelMap
from segexp.methods.kidney_ppm import FCNPPM, KidneyModule
from segexp.runs.training import make_module

SMALL = {
    "fcn_ppm": ["stem=8", "c1=12", "c2=16", "ppm_branch=4", "head=[12,8,4]"],
    "pspnet2d": ["layers=[1,1,1,1]", "width=8", "branch=8", "head=8"],
    "unet3d": ["features=[4,4,8,8,8,4]"],
    "dynunet": ["features=[4,8,8]"],
}
KIDNEY = LabelMap.from_mapping("kidney", {0: "background", 1: "kidney", 2: "tumor"})


def configured(network, *overrides):
    return compose("train", ["method=kidney_ppm", f"network={network}", "trainer=cpu", "inference/crf=none",
                             "inference.depth=16", "inference.stride=8",
                             *(f"network.{key}" for key in SMALL[network]), *overrides])


def make_cases(count):
    """Return balls in balls: kidney 0.5, tumour 1.0, noise; one label map each."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(20.0) - 9.5
    distance = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2).sqrt()
    for index in range(count):
        radius = 5 + index % 3
        labels = (distance < radius).long() + (distance < radius - 3).long()
        image = 0.5 * labels + 0.1 * torch.randn(labels.shape, generator=generator)
        yield {"image": image[None, None], "target": {"kidney": labels[None]}, "case": [f"case{index}"],
               "spacing": [(1.0, 0.65, 0.65)]}


def crops(steps):
    pair = list(make_cases(2))
    return [{"image": torch.cat([case["image"] for case in pair])[..., :17],
             "target": {"kidney": torch.cat([case["target"]["kidney"] for case in pair])[..., :17]},
             "case": ["a", "b"]}] * steps


def loader(batches):
    return torch.utils.data.DataLoader(batches, batch_size=None)


def make_trainer(cfg, steps, folder):
    return instantiate(cfg.trainer, limit_val_batches=0, max_steps=steps, max_epochs=-1, logger=False,
                       default_root_dir=folder, enable_checkpointing=False, enable_progress_bar=False,
                       enable_model_summary=False)


@pytest.mark.parametrize("network", SMALL)
def test_trains_labels_and_scores(network, tmp_path):
    cfg = configured(network, "optimizer.lr=0.05", "scheduler.epoch_length=2")
    assert check(cfg) == []
    torch.manual_seed(0)
    module = make_module(cfg, {"kidney": KIDNEY})
    assert isinstance(module, KidneyModule)
    batch = crops(1)[0]
    before = module.loss(module.network(batch["image"]), batch)["loss"].item()
    trainer = make_trainer(cfg, 11, tmp_path)
    trainer.fit(module, loader(crops(11)))
    # Milestones at the steps 6 and 10 of a rate of 0.05.
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 / 100)
    assert module.loss(module.network.train()(batch["image"]), batch)["loss"].item() < before
    case = next(make_cases(1))
    labels = module.eval().predict_step(case, 0)["kidney"]
    assert labels.shape == (1, 20, 20, 20) and int(labels.max()) <= 2
    trainer.test(module, loader([case]), verbose=False)
    assert {(row["structure"], row["metric"]) for row in module.rows} >= {("kidney", "dice"), ("tumor", "dice")}


def test_optimiser_and_loss_of_the_paper():
    cfg = configured("fcn_ppm")
    module = make_module(cfg, {"kidney": KIDNEY})
    group = module.configure_optimizers()["optimizer"].param_groups[0]
    assert {key: group[key] for key in ("lr", "momentum", "weight_decay", "nesterov")} == {
        "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-5, "nesterov": False}
    zeros = {"kidney": torch.zeros(1, 3, 1, 1, 3)}
    labels = {"target": {"kidney": torch.tensor([0, 1, 2])[None, None, None]}}
    assert module.loss(zeros, labels)["loss"].item() == pytest.approx(1.0986, abs=1e-4)
    voxel = make_module(configured("fcn_ppm", "loss.normalisation=voxel"), {"kidney": KIDNEY})
    assert voxel.loss(zeros, labels)["loss"].item() == pytest.approx(1.1719, abs=1e-4)


def test_the_default_network_is_the_papers():
    cfg = compose("train", ["method=kidney_ppm"])
    network = instantiate(cfg.network)
    assert isinstance(network, FCNPPM)
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_217_715


@pytest.mark.parametrize("scale", ["smoke", "demo"])
@pytest.mark.parametrize("network", SMALL)
def test_every_network_is_made_at_every_scale(network, scale):
    cfg = compose("train", ["experiment=kidney_ppm/fcn_ppm", f"network={network}", f"scale={scale}"])
    with torch.no_grad():
        logits = instantiate(cfg.network).eval()(torch.zeros(1, 1, *cfg.sampling.size))["kidney"]
    assert logits.shape == (1, 3, *cfg.sampling.size)


def test_a_trained_network_is_the_same_after_a_checkpoint(tmp_path):
    cfg = configured("fcn_ppm")
    module = make_module(cfg, {"kidney": KIDNEY})
    trainer = make_trainer(cfg, 2, tmp_path)
    trainer.fit(module, loader(crops(2)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    other = make_module(copy.deepcopy(cfg), {"kidney": KIDNEY})
    other.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    image = next(make_cases(1))["image"]
    assert torch.equal(module.eval()(image)["kidney"], other.eval()(image)["kidney"])
