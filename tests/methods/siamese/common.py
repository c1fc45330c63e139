"""Tiny slices with a bright lesion each, and the method as it is configured."""

import torch

from segexp.config import compose, instantiate
from segexp.data import LabelMap
from segexp.runs.training import make_module

LESIONS = {"wmh": LabelMap.from_mapping("wmh", {0: "background", 1: "wmh", 2: "other_pathology"})}
TINY = ("trainer=cpu", "network.n_blocks=2", "network.base_filters=4", "network.norm.momentum=0.1",
        "sampling.size=16", "inference.size=16")


def configured(*overrides):
    method = [] if any(word.startswith("method=") for word in overrides) else ["method=siamese"]
    return compose("train", [*method, "metrics=wmh_challenge", *TINY, *overrides])


def make(*overrides):
    """Return the module of a composed configuration, with a front end of random weights where it has one."""
    cfg = configured(*overrides)
    if "weights" in cfg.loss and not any(word.startswith("loss.weights=") for word in overrides):
        cfg.loss.weights = "random"
    torch.manual_seed(0)
    return make_module(cfg, LESIONS)


def slices(count, size=16, seed=0):
    """Return a batch of ``count`` slices with a head and a lesion."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.linspace(-1, 1, size)
    head = (axis[:, None] ** 2 + axis**2 < 0.8).float()
    classes = torch.zeros(count, size, size, dtype=torch.long)
    for index in range(count):
        row, column = torch.randint(size // 4, size // 2, (2,), generator=generator).tolist()
        classes[index, row:row + 4, column:column + 3] = 1
    image = head * (0.4 + 0.05 * torch.rand(count, size, size, generator=generator)) + 0.5 * (classes == 1)
    return {"image": image[:, None], "target": {"wmh": classes}, "case": [f"slice{index}" for index in range(count)]}


def volumes(count, seed=1):
    """Return whole cases of four slices each."""
    for index in range(count):
        batch = slices(4, seed=seed + index)
        yield {"image": batch["image"].permute(1, 2, 3, 0)[None], "case": [f"case{index}"],
               "target": {"wmh": batch["target"]["wmh"].permute(1, 2, 0)[None]}, "spacing": [(1.0, 1.0, 3.0)]}


def loader(batches):
    return torch.utils.data.DataLoader(list(batches), batch_size=None)


def make_trainer(cfg, steps, folder, **settings):
    return instantiate(cfg.trainer, **{"limit_val_batches": 0, "logger": False, **settings}, max_steps=steps,
                       max_epochs=-1, default_root_dir=folder, enable_checkpointing=False, enable_progress_bar=False,
                       enable_model_summary=False)


def fit(module, steps, folder, *overrides, batches=None, **settings):
    """Train for so many steps and return the trainer."""
    trainer = make_trainer(configured(*overrides), steps, folder, **settings)
    trainer.fit(module, loader(batches or [slices(4)] * steps))
    return trainer
