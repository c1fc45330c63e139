"""The learning rate in the paper's epochs, also when a training goes on from a checkpoint."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from segexp.errors import ConfigError
from segexp.methods.kidney_ppm import multistep


def sgd(lr=1e-3):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)


def test_the_papers_steps():
    scheduler = multistep(sgd())
    assert sorted(scheduler.milestones) == [42000, 70000, 98000]
    assert scheduler.gamma == 0.1


def test_learning_rate_of_every_epoch():
    optimizer = sgd()
    scheduler = multistep(optimizer, epoch_length=5)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    epochs = [1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6]
    assert rates == pytest.approx([rate for rate in epochs for _ in range(5)])


def test_milestones_may_be_fractions_of_an_epoch():
    assert sorted(multistep(sgd(), [0.5, 0.75], 100, 0.5).milestones) == [50, 75]


@pytest.mark.parametrize(("settings", "message"), [
    ({"milestones": [3, 3]}, "scheduler.milestones=.3, 3.*the steps .42000, 42000."),
    ({"milestones": [0, 5]}, "scheduler.milestones"),
    ({"epoch_length": 0}, "scheduler.epoch_length=0: expected at least one step"),
    ({"epoch_length": 1, "milestones": [0.2, 0.3]}, "ascending steps from 1 on"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        multistep(sgd(), **settings)


class Line(pl.LightningModule):
    """One weight, whose learning rate is noted before every step."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.rates = []

    def training_step(self, batch, index):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return self.weight.sum()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 1e-3, momentum=0.9, weight_decay=1e-5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": multistep(optimizer, epoch_length=2),
                                                         "interval": "step"}}


def test_a_training_that_goes_on_keeps_its_place(tmp_path):
    def train(steps, checkpoint=None):
        module = Line()
        trainer = pl.Trainer(max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)
        trainer.fit(module, torch.utils.data.DataLoader(range(100)), ckpt_path=checkpoint,
                    weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return module.rates

    whole = train(16)
    assert whole == pytest.approx(6 * [1e-3] + 4 * [1e-4] + 4 * [1e-5] + 2 * [1e-6])
    first = train(9)
    assert first + train(16, tmp_path / "last.ckpt") == pytest.approx(whole)
